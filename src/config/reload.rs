//! Asking for the settings to be read again: from a core to the control thread, and back.

use super::live::Change;
use super::{Loaded, Problem, Source, Sources, load_partly};
use crate::proto::json;
use bytes::{BufMut, BytesMut};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The variable that names the TOML file where no flag does.
pub const FILE_VARIABLE: &str = "FOREBAY_CONFIG";
/// Requests for a reload that may wait.
pub const RELOADS_WAITING_MAX: usize = 16;

/// A request for a reload, with the way back to the core that asks.
pub struct Request {
    /// Where the outcome goes.
    pub reply: uring::mailbox::Sender<Outcome>,
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was valid, and is in force.
    Done {
        /// Settings that have changed.
        changed: Vec<Change>,
        /// Settings that differ and need a restart.
        restart: Vec<Change>,
        /// Files that were read again.
        files: Vec<&'static str>,
    },
    /// Something was wrong, and nothing has changed.
    Refused(Vec<String>),
}

impl Outcome {
    /// As JSON, for `POST /admin/reload`.
    #[must_use]
    pub fn to_json(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(512);
        match self {
            Self::Done { changed, restart, files } => {
                out.put_slice(b"{\"reloaded\":true,\"changed\":");
                put_changes(&mut out, changed);
                out.put_slice(b",\"needs_restart\":");
                put_changes(&mut out, restart);
                out.put_slice(b",\"files\":");
                put_texts(&mut out, files);
            }
            Self::Refused(problems) => {
                out.put_slice(b"{\"reloaded\":false,\"problems\":");
                put_texts(&mut out, problems);
            }
        }
        out.put_slice(b"}\n");
        out
    }
}

fn put_changes(out: &mut BytesMut, changes: &[Change]) {
    out.put_u8(b'[');
    for (at, change) in changes.iter().enumerate() {
        out.put_slice(if at == 0 { b"{\"setting\":" } else { b",{\"setting\":" });
        json::string(out, change.setting);
        out.put_slice(b",\"from\":");
        json::string(out, &change.from);
        out.put_slice(b",\"to\":");
        json::string(out, &change.to);
        out.put_u8(b'}');
    }
    out.put_u8(b']');
}

fn put_texts(out: &mut BytesMut, texts: &[impl AsRef<str>]) {
    out.put_u8(b'[');
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        json::string(out, text.as_ref());
    }
    out.put_u8(b']');
}

/// Where the settings come from: enough to read them again.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// Whether `FOREBAY_CONFIG` names it, and no flag.
    pub file_by_variable: bool,
    /// `FOREBAY_*` variables of the start; a process can't be given others.
    pub variables: Vec<(String, String)>,
    /// Those of them whose value is no UTF-8.
    pub unreadable: Vec<String>,
    /// The command line's settings.
    pub flags: Vec<(String, String)>,
    /// Settings that the program itself has set, as `forebay crawl` does: such a server has no reload.
    pub fixed: bool,
    /// Where the sockets listen that the service manager passed; it takes the place of `server.listen`.
    pub listen: Option<SocketAddr>,
}

impl Recipe {
    /// Reads all of it. Blocks: at the start, or on the control thread.
    ///
    /// # Errors
    /// Every mistake found.
    pub fn read(&self) -> Result<Loaded, Vec<Problem>> {
        let (loaded, problems) = self.read_partly();
        if problems.is_empty() { Ok(loaded) } else { Err(problems) }
    }

    /// As [`Recipe::read`], with whatever can be read beside every mistake.
    #[must_use]
    pub fn read_partly(&self) -> (Loaded, Vec<Problem>) {
        let mut sources = Sources {
            file: None,
            variables: self.variables.clone(),
            unreadable: self.unreadable.clone(),
            flags: self.flags.clone(),
        };
        let mut unread = None;
        if let Some(path) = &self.file {
            match std::fs::read_to_string(path) {
                Ok(text) => sources.file = Some((path.clone(), text)),
                Err(error) => {
                    let source = match self.file_by_variable {
                        true => Source::Variable(FILE_VARIABLE.to_owned()),
                        false => Source::Flag("config".to_owned()),
                    };
                    let (setting, message) = (path.display().to_string(), error.to_string());
                    unread = Some(Problem { source, setting, message });
                }
            }
        }
        let (mut loaded, mut problems) = load_partly(&sources);
        problems.splice(..0, unread);
        if let Some(listen) = self.listen {
            loaded.config.listen = listen;
        }
        (loaded, problems)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn an_outcome_is_json() {
        let change = |setting, from: &str, to: &str| Change {
            setting,
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let done = Outcome::Done {
            changed: vec![change("stream.urls_max", "1000", "7")],
            restart: vec![change("server.cores", "0", "2")],
            files: vec!["auth.keys_file"],
        };
        let told: serde_json::Value = serde_json::from_slice(&done.to_json()).unwrap();
        assert_eq!(told["reloaded"], true);
        assert_eq!(told["changed"][0]["to"], "7");
        assert_eq!(told["needs_restart"][0]["setting"], "server.cores");
        assert_eq!(told["files"][0], "auth.keys_file");
        let refused = Outcome::Refused(vec!["f.toml:3: a \"b\"".to_owned()]);
        let told: serde_json::Value = serde_json::from_slice(&refused.to_json()).unwrap();
        assert_eq!(told["problems"][0], "f.toml:3: a \"b\"");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_with_its_name() {
        let recipe = Recipe { file: Some(PathBuf::from("/none/f.toml")), ..Recipe::default() };
        let told = recipe.read().unwrap_err()[0].to_string();
        assert!(told.starts_with("--config: /none/f.toml"), "{told}");
        let told = Recipe { file_by_variable: true, ..recipe }.read().unwrap_err()[0].to_string();
        assert!(told.starts_with("FOREBAY_CONFIG: /none/f.toml"), "{told}");
    }
}
