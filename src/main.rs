//! The command line: which command, with which configuration.

#![forbid(unsafe_code)]

use clap::{ArgMatches, FromArgMatches};
use forebay::checks;
use forebay::cli::command::command;
use forebay::cli::{crawl, demo, files, hdr, key, run, settings, startup, top};
use forebay::observe::logging;
use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exit status for a configuration or a start that failed.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let (name, matches) = matches.subcommand().expect("clap wants a command");
    let outcome = match name {
        "key" => key::run(&arguments(matches)),
        "top" => top::run(&arguments(matches)),
        "hdr" => hdr::run(&arguments(matches)),
        "files" => files::run(&arguments(matches)),
        "completions" => files::completions(&arguments(matches), command()),
        "man" => files::man(command()),
        _ => return with_settings(name, matches),
    };
    status(outcome)
}

/// A command that works with the settings.
fn with_settings(name: &str, matches: &ArgMatches) -> ExitCode {
    let recipe = settings::recipe(matches);
    let read = match name {
        "serve" => startup::recipe(recipe),
        _ => Ok((recipe, Vec::new())),
    };
    let (recipe, sockets) = match read {
        Ok(read) => read,
        Err(message) => return status(Err(message)),
    };
    let checked = match name {
        "serve" | "check" => checks::read(&recipe),
        _ => recipe.read(),
    };
    let loaded = match checked {
        Ok(loaded) => loaded,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("forebay: {problem}"));
            return ExitCode::from(FAILED);
        }
    };
    if name == "config" {
        loaded.warnings.iter().for_each(|warning| eprintln!("forebay: {warning}"));
        return status(settings::run(&arguments(matches), &loaded));
    }
    let config = &loaded.config;
    // A command that prints its results for people keeps the log for what goes wrong.
    let level = if name == "serve" { config.log_level.clone() } else { "warn".to_owned() };
    let rust_log = std::env::var("RUST_LOG").ok();
    if let Err(error) = logging::init(config.log_format, &level, rust_log.as_deref()) {
        return status(Err(error.to_string()));
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    status(match name {
        "serve" => run::serve(loaded, recipe, sockets),
        "check" => run::check(&loaded),
        "crawl" => crawl::run(arguments(matches), loaded.config),
        "extract" => run::extract(&arguments(matches), &loaded.config),
        _ => demo::run(&arguments(matches), loaded.config),
    })
}

fn status(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|message| {
        eprintln!("forebay: {message}");
        ExitCode::from(FAILED)
    })
}

fn arguments<T: FromArgMatches>(matches: &ArgMatches) -> T {
    T::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}
