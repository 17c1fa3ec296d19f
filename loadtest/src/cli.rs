//! The command line.

mod run;

use crate::cli::run::{ReportArgs, RunArgs};
use crate::origin::{Origin, OriginConfig};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Open-loop load generator, synthetic origin and reports.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the synthetic web: pages, latencies, codings and faults that follow from the URL.
    ///
    /// Prints one line, `listening on ADDRESS:PORT`, when it is ready, and serves until it is
    /// killed. `GET /` lists everything that it can answer.
    Origin(OriginArgs),
    /// Load a server by a scenario file, or by flags for the common cases.
    ///
    /// In an open loop (--rate) requests start when the schedule says, whatever became of the ones
    /// before, and latency counts from the moment they were meant to start. A closed loop
    /// (--closed) is there for comparison. The exit status is 0 when no request failed, 1 when
    /// some did, 2 when the run could not be made.
    Run(Box<RunArgs>),
    /// Make an HTML report of one run, or a comparison of several, out of their --json files.
    Report(ReportArgs),
}

#[derive(Debug, Args)]
struct OriginArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR:PORT")]
    addr: SocketAddr,
    /// What every page, draw and fault follows from: the same seed is the same web.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of files to serve under /files/.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// What /robots.txt says: allow, deny, private, crawl-delay:N, 404, 500, slow, huge or reset.
    #[arg(long, default_value = "allow", value_name = "MODE")]
    robots: String,
    /// Threads that serve.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    ExitCode::from(run_from(std::env::args_os()))
}

/// Does what the binary does with these arguments, its own name first, and returns its exit status:
/// 0, 1 when a measured request failed or a rule was broken, 2 when it could not run. Arguments that
/// are none end the process, as they end the binary.
pub fn run_from(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let result = match Cli::parse_from(args).command {
        Command::Origin(args) => origin(args),
        Command::Run(args) => args.run(),
        Command::Report(args) => args.run(),
    };
    result.unwrap_or_else(|message| {
        eprintln!("loadtest: {message}");
        2
    })
}

fn origin(args: OriginArgs) -> Result<u8, String> {
    let OriginArgs { addr, seed, dir, robots, threads } = args;
    if let Some(dir) = dir.as_deref().filter(|dir| !dir.is_dir()) {
        return Err(format!("--dir {}: expected a folder", dir.display()));
    }
    raise_descriptor_limit(0)?;
    let origin = Origin::start(OriginConfig { addr, seed, dir, robots, threads })
        .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", origin.addr())
        .and_then(|()| out.flush())
        .map_err(|error| format!("stdout: {error}"))?;
    loop {
        std::thread::park();
    }
}

/// Lets this process open as many descriptors as its hard limit allows.
///
/// # Errors
/// When that is fewer than `needed`.
pub(crate) fn raise_descriptor_limit(needed: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where raising fails, the limit below decides.
    let _ = setrlimit(Resource::Nofile, raised);
    match getrlimit(Resource::Nofile).current {
        Some(current) if current < needed => Err(format!(
            "{needed} descriptors are needed, {current} are allowed: raise the hard limit (ulimit -Hn)"
        )),
        _ => Ok(()),
    }
}

/// Writes a file, or standard output for `-`.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if path == Path::new("-") {
        return io::stdout().lock().write_all(bytes).map_err(|error| format!("stdout: {error}"));
    }
    std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}
