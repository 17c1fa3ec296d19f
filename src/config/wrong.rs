//! A mistake that only shows where a setting is used, or where several are looked at together, and the
//! place in the file, the environment or the command line that it belongs to.

use super::{Loaded, Problem, Source};
use std::fmt;

/// What is wrong with the value of a setting, or with several together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The settings that it is about, the one that is most likely to be changed first.
    pub settings: Vec<&'static str>,
    /// What was found and what is allowed; it repeats no secret.
    pub message: String,
}

impl Wrong {
    /// About one setting. A message that begins with its name loses it: the place has it already.
    #[must_use]
    pub fn new(setting: &'static str, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        let rest = message.strip_prefix(setting);
        let bare = rest.and_then(|rest| rest.strip_prefix(": ").or(rest.strip_prefix(' ')));
        let message = bare.map_or(message.clone(), str::to_owned);
        Self { settings: vec![setting], message }
    }

    /// About several settings together.
    #[must_use]
    pub fn together(settings: &[&'static str], message: impl fmt::Display) -> Self {
        Self { settings: settings.to_vec(), message: message.to_string() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.settings.first().unwrap_or(&"settings"), self.message)
    }
}

impl Loaded {
    /// The mistake with its place: where the first of its settings was set that is not at its default.
    /// Where the others were set is said behind it.
    #[must_use]
    pub fn problem(&self, wrong: &Wrong) -> Problem {
        let set = |name: &&&'static str| self.origin(name).is_some();
        let first = wrong.settings.iter().find(set).or(wrong.settings.first());
        let name = first.copied().unwrap_or_default();
        let source = self.origin(name).cloned().unwrap_or(Source::Default);
        let mut message = wrong.message.clone();
        for other in wrong.settings.iter().filter(|other| **other != name) {
            if let Some(place) = self.origin(other) {
                message.push_str(&format!(" ({other} is set by {place})"));
            }
        }
        Problem { source, setting: name.to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::{Sources, load_traced};
    use super::*;

    #[test]
    fn a_mistake_is_told_with_the_place_of_its_setting() {
        let file = Some(("f.toml".into(), "\n[search]\nurl = \"x\"".to_owned()));
        let mut sources = Sources { file, ..Sources::default() };
        sources.flags.push(("egress.allow".into(), "10.0.0.0/8".into()));
        let loaded = load_traced(&sources).unwrap();
        let told = |wrong: Wrong| loaded.problem(&wrong).to_string();
        assert_eq!(told(Wrong::new("search.url", "no URL")), "f.toml:3: search.url: no URL");
        assert_eq!(
            told(Wrong::new("search.url", "search.url: no URL")),
            "f.toml:3: search.url: no URL"
        );
        assert_eq!(told(Wrong::new("tls.cert", "none")), "default: tls.cert: none");
        assert_eq!(
            told(Wrong::together(&["tls.key", "search.url", "egress.allow"], "these clash")),
            "f.toml:3: search.url: these clash (egress.allow is set by --egress-allow)"
        );
    }
}
