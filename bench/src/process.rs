//! Servers, peers and the synthetic origin as processes, each pinned to a core.

use crate::Failure;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// This server.
    Forebay,
    /// The same job on axum.
    Axum,
    /// The epoll echo.
    Epoll,
    /// The multishot ring echo.
    Ring,
}

impl Side {
    /// Its name in tables and flags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forebay => "forebay",
            Self::Axum => "axum",
            Self::Epoll => "echo-epoll",
            Self::Ring => "echo-ring",
        }
    }
}

/// A child that listens somewhere; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
}

/// How long a server may take until it listens: a first start compiles the extractor, and without
/// optimization that takes a while.
const START: Duration = Duration::from_secs(120);

impl Process {
    /// Starts a command on a CPU and waits until it has said `listening on …ADDRESS`, and `ready` where
    /// it says that, too.
    ///
    /// # Errors
    /// When it can't be started, ends at once or says nothing; with what it said.
    pub(crate) fn start(
        cpu: usize,
        program: &Path,
        args: &[&str],
        ready: &str,
    ) -> Result<Self, Failure> {
        let log = scratch(&format!("{}-{cpu}.log", file_name(program)));
        let out = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = pinned(cpu, program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("taskset {}: {error}", program.display()))?;
        let mut process = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let begun = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(addr) = address(&said).filter(|_| said.contains(ready)) {
                process.addr = addr;
                return Ok(process);
            }
            let ended = process.child.try_wait()?.is_some();
            if ended || begun.elapsed() > START {
                let name = program.display();
                return Err(format!("{name} {} did not come up:\n{said}", args.join(" ")).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs on one CPU only.
pub(crate) fn pinned(cpu: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cpu.to_string()).arg(program);
    command
}

/// A binary of the workspace, beside this one.
///
/// # Errors
/// When it has not been built.
pub(crate) fn binary(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or("this binary lies nowhere")?;
    // A test's binary lies one folder deeper.
    let places = [folder.join(name), folder.join("..").join(name)];
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "there is no {name} in {}: cargo build --release --workspace builds everything that is \
             measured",
            folder.display()
        )
        .into()
    })
}

/// A file for this process's own use.
pub(crate) fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forebay-bench-{}-{name}", std::process::id()))
}

/// Deletes what [`scratch`] gave out.
pub(crate) fn clean_scratch() {
    let prefix = format!("forebay-bench-{}-", std::process::id());
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The CPUs that this process may use.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn cpus() -> Result<Vec<usize>, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cpus = Vec::new();
    for range in list.ok_or("/proc/self/status: no Cpus_allowed_list")?.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cpus)
}

/// The address behind `listening on`, with or without a scheme.
fn address(said: &str) -> Option<SocketAddr> {
    let rest = said.split("listening on ").nth(1)?;
    let rest = rest.strip_prefix("http://").unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && !".:[]".contains(c))?;
    rest[..end].parse().ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_address_is_found_in_any_log_line() {
        let expected = Some("127.0.0.1:8080".parse().unwrap());
        assert_eq!(address("listening on 127.0.0.1:8080\n"), expected);
        let log = "INFO forebay: listening on http://127.0.0.1:8080 cores=1\nready";
        assert_eq!(address(log), expected);
        let colored = "listening on http://127.0.0.1:8080 \u{1b}[3mcores";
        assert_eq!(address(colored), expected);
        assert_eq!(address("listening on 127.0.0.1:80"), None, "the line may not be whole yet");
    }

    #[test]
    fn this_machine_has_a_cpu() {
        assert!(!cpus().unwrap().is_empty());
    }
}
