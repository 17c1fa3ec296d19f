//! The command line.

use crate::origin::{Origin, OriginConfig};
use clap::{Args, Parser, Subcommand};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
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
    let result = match Cli::parse().command {
        Command::Origin(args) => origin(args),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("loadtest: {message}");
            ExitCode::from(2)
        }
    }
}

fn origin(args: OriginArgs) -> Result<ExitCode, String> {
    let OriginArgs { addr, seed, dir, robots, threads } = args;
    if let Some(dir) = dir.as_deref().filter(|dir| !dir.is_dir()) {
        return Err(format!("--dir {}: expected a folder", dir.display()));
    }
    raise_descriptor_limit();
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
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}
