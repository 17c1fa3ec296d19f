//! The command line's settings: a flag for each, where all of them are read, and `forebay config`.

use crate::config::reload::{FILE_VARIABLE, Recipe};
use crate::config::{Config, Loaded, SETTINGS, Setting, effective};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, ValueEnum};
use std::ffi::OsString;
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
        .help("TOML file with settings [env: FOREBAY_CONFIG]")
        .value_parser(clap::value_parser!(PathBuf))
        .value_hint(clap::ValueHint::FilePath)
        .help_heading("Settings");
    let defaults = Config::default();
    SETTINGS.iter().fold(command.arg(file), |command, setting| {
        let section = setting.name.split('.').next().unwrap_or_default();
        let default = defaults.show(setting.name).unwrap_or_default();
        command.arg(
            Arg::new(setting.name)
                .long(setting.flag())
                .value_name("VALUE")
                .action(ArgAction::Append)
                .help(help(setting, &default))
                .help_heading(format!("Settings: {section}")),
        )
    })
}

/// What a setting does, with everything that is known of it: default, bounds with their unit, variable,
/// and whether a reload takes it over.
fn help(setting: &Setting, default: &str) -> String {
    let mut help = setting.doc.trim().trim_end_matches('.').to_owned();
    if !default.is_empty() {
        help.push_str(&format!(" [default: {default}]"));
    }
    if let Some((min, max)) = setting.bounds {
        let unit = setting.unit().map(|unit| format!(" {unit}")).unwrap_or_default();
        help.push_str(&format!(" [{min} to {max}{unit}]"));
    }
    help.push_str(&format!(" [env: {}]", setting.variable()));
    if setting.reloadable() {
        help.push_str(" [reloadable]");
    }
    help
}

/// What of the settings was given on the command line and in the environment.
#[must_use]
pub fn recipe(matches: &ArgMatches) -> Recipe {
    let mut recipe = of_variables(std::env::vars_os());
    if let Some(file) = matches.get_one::<PathBuf>("config") {
        recipe.file = Some(file.clone());
        recipe.file_by_variable = false;
    }
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

/// What the environment says. A variable of somebody else's may hold any bytes.
fn of_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Recipe {
    let mut recipe = Recipe::default();
    for (name, value) in variables {
        // A name of ours that is no UTF-8 is found to be unknown.
        let name = name.to_string_lossy().into_owned();
        if name == FILE_VARIABLE {
            recipe.file = (!value.is_empty()).then(|| PathBuf::from(value));
            recipe.file_by_variable = true;
        } else if name.starts_with("FOREBAY_") {
            match value.into_string() {
                Ok(text) => recipe.variables.push((name, text)),
                Err(_) => recipe.unreadable.push(name),
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn help_says_all_that_is_known_of_a_setting() {
        let told = |name: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.name == name);
            let setting = setting.expect("it is one");
            help(setting, &Config::default().show(name).expect("it is one"))
        };
        let head = told("server.head_timeout_ms");
        let expected =
            "[default: 10000] [10 to 600000 ms] [env: FOREBAY_HEAD_TIMEOUT_MS] [reloadable]";
        assert!(head.ends_with(expected), "{head}");
        let listen = told("server.listen");
        assert!(listen.ends_with("[default: 127.0.0.1:8080] [env: FOREBAY_LISTEN]"), "{listen}");
        let file = told("auth.keys_file");
        assert!(file.ends_with("the server is open [env: FOREBAY_AUTH_KEYS_FILE]"), "{file}");
        let mut command = with_settings(Command::new("serve"));
        // Lines break where a terminal's end is.
        let whole = command.render_long_help().to_string();
        let whole = whole.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in SETTINGS {
            assert!(whole.contains(&format!("[env: {}]", setting.variable())), "{}", setting.name);
        }
    }

    #[test]
    fn variables_may_hold_any_bytes() {
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let recipe = of_variables(
            [
                (bytes(b"OTHER"), bytes(b"\xff")),
                (bytes(b"\xff"), bytes(b"x")),
                (bytes(b"FOREBAY_TLS_CERT"), bytes(b"/a\xff")),
                (bytes(b"FOREBAY_CORES"), bytes(b"2")),
                (bytes(b"FOREBAY_CONFIG"), bytes(b"/f\xff.toml")),
            ]
            .into_iter(),
        );
        assert_eq!(recipe.unreadable, ["FOREBAY_TLS_CERT"]);
        assert_eq!(recipe.variables, [("FOREBAY_CORES".to_owned(), "2".to_owned())]);
        assert_eq!(recipe.file, Some(PathBuf::from(bytes(b"/f\xff.toml"))));
    }
}
