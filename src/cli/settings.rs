//! The command line's settings: a flag for each, where all of them are read, and `forebay config`.

use crate::config::reload::Recipe;
use crate::config::{Config, Loaded, SETTINGS, effective};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, ValueEnum};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// How to print the settings.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A line per setting for people, a file that `--config` takes, or JSON.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Print a TOML file with every setting at its default, commented out, instead.
    #[arg(long)]
    pub default: bool,
}

/// A form of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Name, value, and where it came from.
    Table,
    /// A file that `--config` takes.
    Toml,
    /// An object per setting.
    Json,
}

/// Adds a flag for each setting, under its section's heading.
#[must_use]
pub fn with_settings(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("TOML file with settings")
        .value_parser(clap::value_parser!(PathBuf))
        .value_hint(clap::ValueHint::FilePath)
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

/// What of the settings was given on the command line and in the environment.
#[must_use]
pub fn recipe(matches: &ArgMatches) -> Recipe {
    let mut recipe = Recipe {
        file: matches.get_one::<PathBuf>("config").cloned(),
        variables: std::env::vars().filter(|(name, _)| name.starts_with("FOREBAY_")).collect(),
        ..Recipe::default()
    };
    for setting in SETTINGS {
        // A list may be given as several flags.
        let given: Vec<String> =
            matches.get_many::<String>(setting.name).into_iter().flatten().cloned().collect();
        if !given.is_empty() {
            recipe.flags.push((setting.name.to_owned(), given.join(",")));
        }
    }
    recipe
}

/// Prints the settings.
///
/// # Errors
/// Standard output can't be written.
pub fn run(args: &ConfigArgs, loaded: &Loaded) -> Result<ExitCode, String> {
    let text = match (args.default, args.format) {
        (true, _) => effective::default_toml().into_bytes(),
        (false, Format::Table) => loaded.table().into_bytes(),
        (false, Format::Toml) => loaded.toml().into_bytes(),
        (false, Format::Json) => loaded.json().into(),
    };
    io::stdout().lock().write_all(&text).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}
