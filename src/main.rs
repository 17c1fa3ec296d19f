//! The command line: which command, with which configuration.

#![forbid(unsafe_code)]

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use forebay::cli::{crawl, demo, key, run};
use forebay::config::{self, Config, SETTINGS, Sources};
use forebay::observe::logging;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status for a configuration or a start that failed.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let (name, matches) = matches.subcommand().expect("clap wants a command");
    if name == "key" {
        return key::run(&arguments(matches)).unwrap_or_else(|message| {
            eprintln!("forebay: {message}");
            ExitCode::from(FAILED)
        });
    }
    let config = match configuration(matches) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("forebay: {problem}"));
            return ExitCode::from(FAILED);
        }
    };
    // A command that prints its results for people keeps the log for what goes wrong.
    let level = if name == "serve" { config.log_level.clone() } else { "warn".to_owned() };
    let rust_log = std::env::var("RUST_LOG").ok();
    if let Err(error) = logging::init(config.log_format, &level, rust_log.as_deref()) {
        eprintln!("forebay: {error}");
        return ExitCode::from(FAILED);
    }
    let outcome = match name {
        "serve" => run::serve(config),
        "check" => run::check(&config),
        "crawl" => crawl::run(arguments(matches), config),
        "extract" => run::extract(&arguments(matches), &config),
        _ => demo::run(&arguments(matches), config),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("forebay: {message}");
        ExitCode::from(FAILED)
    })
}

fn command() -> Command {
    Command::new("forebay")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Fetches web pages, extracts their content in a WASM sandbox, streams each result the moment it is ready")
        .after_help("Every setting is also a variable (FOREBAY_EGRESS_ALLOW) and a key of the file (allow under [egress]).\nFlags win over variables, variables over the file.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(
            Command::new("serve")
                .about("Run the server until SIGTERM or SIGINT")
                .after_help("The first signal stops accepting and lets streams end for server.drain_timeout_s; a second one ends at once."),
        ))
        .subcommand(with_settings(
            demo::DemoArgs::augment_args(Command::new("demo"))
                .about("Crawl a synthetic web on loopback and show the stream and its latencies; needs nothing else"),
        ))
        .subcommand(with_settings(
            crawl::CrawlArgs::augment_args(Command::new("crawl"))
                .about("Crawl URLs once: NDJSON on stdout, a progress bar on stderr")
                .after_help("Exit status: 0 every URL has its document; 1 some have not; 2 the request was refused or the crawl broke off."),
        ))
        .subcommand(with_settings(
            run::ExtractArgs::augment_args(Command::new("extract"))
                .about("Extract one HTML file in the sandbox and print the document as JSON"),
        ))
        .subcommand(
            key::KeyArgs::augment_args(Command::new("key"))
                .about("Make API keys for the file that auth.keys_file names"),
        )
        .subcommand(with_settings(
            Command::new("check").about("Validate the configuration, and say what this kernel allows"),
        ))
}

/// Adds a flag for each setting, under its section's heading.
fn with_settings(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("TOML file with settings")
        .value_parser(clap::value_parser!(PathBuf))
        .help_heading("Settings");
    let defaults = Config::default();
    SETTINGS.iter().fold(command.arg(file), |command, setting| {
        let default = defaults.show(setting.name).unwrap_or_default();
        let bounds =
            setting.bounds.map(|(min, max)| format!(" [{min} to {max}]")).unwrap_or_default();
        let default =
            if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
        let section = setting.name.split('.').next().unwrap_or_default();
        command.arg(
            Arg::new(setting.name)
                .long(setting.flag())
                .value_name("VALUE")
                .action(ArgAction::Append)
                .help(format!("{}{default}{bounds}", setting.doc.trim().trim_end_matches('.')))
                .help_heading(format!("Settings: {section}")),
        )
    })
}

/// Reads file, variables and flags; every mistake in them comes back at once.
fn configuration(matches: &ArgMatches) -> Result<Config, Vec<String>> {
    let mut sources = Sources::default();
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("{}: {error}", path.display())])?;
        sources.file = Some((path.clone(), text));
    }
    sources.variables = std::env::vars().filter(|(name, _)| name.starts_with("FOREBAY_")).collect();
    for setting in SETTINGS {
        // A list may be given as several flags.
        let given: Vec<String> =
            matches.get_many::<String>(setting.name).into_iter().flatten().cloned().collect();
        if !given.is_empty() {
            sources.flags.push((setting.name.to_owned(), given.join(",")));
        }
    }
    config::load(&sources).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn arguments<T: FromArgMatches>(matches: &ArgMatches) -> T {
    T::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}
