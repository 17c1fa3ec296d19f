//! `forebay serve`, `check` and `extract`.

use super::startup;
use crate::config::reload::Recipe;
use crate::config::{Config, SETTINGS};
use crate::extract::{Extractor, Input, Options, Ticker};
use crate::notify::Notifier;
use crate::serve::access::Access;
use crate::server::{Server, Surroundings};
use clap::Args;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use uring::probe;

/// What to extract.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// HTML file, or `-` for stdin.
    pub file: PathBuf,
    /// Base of the document's links.
    #[arg(long, default_value = "")]
    pub url: String,
    /// Charset of the file, as a Content-Type would name it; detected where not given.
    #[arg(long)]
    pub charset: Option<String>,
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// Why it does not start.
pub fn serve(config: Config, recipe: Recipe) -> Result<ExitCode, String> {
    let sockets = startup::passed_sockets()?;
    let notifier = Notifier::from_env().map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    let around = Surroundings { recipe, sockets, notifier: notifier.clone() };
    let server = Server::start_in(config, around).map_err(|error| error.to_string())?;
    let scheme = if server.speaks_tls() { "https" } else { "http" };
    for warning in &server.warnings {
        tracing::warn!("{warning}");
    }
    startup::tell(&server);
    tracing::info!(
        cores = server.cores(),
        runtime = %server.runtime.driver,
        reason = server.runtime.reason,
        "listening on {scheme}://{}",
        server.addr()
    );
    if let Err(error) = server.wait_ready() {
        server.stop(Duration::ZERO);
        return Err(error.to_string());
    }
    tracing::info!("ready: the extractor is loaded");
    notifier.ready();
    let signal = server.wait_for_signal();
    let patience = Duration::from_secs(server.config().drain_timeout_s);
    tracing::info!(
        "{signal}: draining for at most {} s; once more to end at once",
        patience.as_secs()
    );
    server.stop(patience);
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// Says what the configuration comes to and what the kernel allows.
///
/// # Errors
/// What would keep the server from starting.
pub fn check(config: &Config) -> Result<ExitCode, String> {
    for setting in SETTINGS {
        println!("{} = {}", setting.name, config.shown(setting));
    }
    let kernel = probe::probe();
    println!("\nkernel {}", kernel.release);
    match &kernel.io_uring {
        Ok(flags) => println!("io_uring works{flags}"),
        Err(error) => println!("{error}"),
    }
    let choice = probe::choose(config.runtime, &kernel).map_err(|error| error.to_string())?;
    println!("loops run on {}: {}", choice.driver, choice.reason);
    let plans = uring::core::plan((config.cores > 0).then_some(config.cores));
    for plan in &plans {
        let cpu = plan.cpu.map_or("no CPU of its own".to_owned(), |cpu| format!("CPU {cpu}"));
        println!("core {}: {cpu}{}", plan.index, if plan.shared { ", shared" } else { "" });
    }
    crate::server::fetch_config(config).map_err(|error| error.to_string())?;
    crate::cluster::open(config)?;
    Access::start(config).map_err(|error| error.to_string())?;
    println!("the configuration is good");
    Ok(ExitCode::SUCCESS)
}

/// Extracts one document in the sandbox and prints it as JSON.
///
/// # Errors
/// An unreadable file, or why the extractor gives no document.
pub fn extract(args: &ExtractArgs, config: &Config) -> Result<ExitCode, String> {
    let mut body = Vec::new();
    let read = if args.file.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut body)
    } else {
        std::fs::File::open(&args.file).and_then(|mut file| file.read_to_end(&mut body))
    };
    read.map_err(|error| format!("{}: {error}", args.file.display()))?;
    let settings = crate::server::extract_config(config, 1);
    let extractor = Extractor::load(&settings).map_err(|error| error.to_string())?;
    let ticking = Ticker::start(&extractor, Duration::from_millis(5));
    let _ticking = ticking.map_err(|error| error.to_string())?;
    let options = Options::default();
    let mut input = Input::new(&body, &args.url, &options);
    input.charset_label = args.charset.as_deref();
    let mut worker = extractor.worker(uring::lane::thread_cpu_time);
    let extracted = worker.extract(&input).map_err(|error| error.to_string())?;
    let mut stdout = io::stdout().lock();
    let done = stdout.write_all(&extracted.answer()).and_then(|()| stdout.write_all(b"\n"));
    done.map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}
