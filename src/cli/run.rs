//! `forebay serve`, `check` and `extract`.

use super::startup;
use crate::config::reload::Recipe;
use crate::config::{Config, Loaded, SETTINGS, Wrong};
use crate::extract::{Extractor, Input, Options, Ticker};
use crate::notify::Notifier;
use crate::parts::extract_config;
use crate::server::{Server, StartError, Surroundings};
use clap::Args;
use std::io::{self, Read, Write};
use std::net::TcpListener;
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
pub fn serve(
    loaded: Loaded,
    recipe: Recipe,
    sockets: Vec<TcpListener>,
) -> Result<ExitCode, String> {
    let notifier = Notifier::from_env().map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    let around = Surroundings { recipe, sockets, notifier: notifier.clone() };
    let server = Server::start_in(loaded.config.clone(), around);
    let server = server.map_err(|error| placed(&loaded, &error))?;
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
        return Err(placed(&loaded, &error));
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

/// A failed start, with the place of the setting that it is about.
fn placed(loaded: &Loaded, error: &StartError) -> String {
    match error.setting() {
        Some(setting) => loaded.problem(&Wrong::new(setting, error)).to_string(),
        None => error.to_string(),
    }
}

/// Says what the configuration comes to and what the kernel allows. What a look at the settings can't
/// show comes last: it compiles the extractor, whose code is then in the cache.
///
/// # Errors
/// What would keep the server from starting.
pub fn check(loaded: &Loaded) -> Result<ExitCode, String> {
    let config = &loaded.config;
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
    let extractor = Extractor::load(&extract_config(config, 1));
    extractor.map_err(|error| placed(loaded, &error.into()))?;
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
    let settings = extract_config(config, 1);
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
