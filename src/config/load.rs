//! From flags, variables and a TOML file to one validated [`Config`], with every mistake at once.

use super::{Config, SETTINGS, Setting};
use std::fmt;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
    /// The relations between several settings.
    Relation,
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => out.write_str(name),
            Self::Flag(name) => write!(out, "--{name}"),
            Self::Relation => out.write_str("settings together"),
        }
    }
}

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub source: Source,
    /// The setting, where one is meant.
    pub setting: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Variable(name) if *name == self.setting => {
                write!(out, "{name}: {}", self.message)
            }
            source => write!(out, "{source}: {}: {}", self.setting, self.message),
        }
    }
}

/// What was given, weakest first: the file, then the environment, then the flags.
#[derive(Debug, Default)]
pub struct Sources {
    /// Path and text of the TOML file.
    pub file: Option<(PathBuf, String)>,
    /// `FOREBAY_*` variables.
    pub variables: Vec<(String, String)>,
    /// Settings given as flags, by dotted name.
    pub flags: Vec<(String, String)>,
}

/// Reads everything and validates it.
///
/// # Errors
/// Every mistake found, not the first only.
pub fn load(sources: &Sources) -> Result<Config, Vec<Problem>> {
    let mut config = Config::default();
    let mut problems = Vec::new();
    if let Some((path, text)) = &sources.file {
        match DeTable::parse(text) {
            Ok(table) => {
                let at = |offset: usize| Source::File(path.clone(), line_of(text, offset));
                read_table(&mut config, "", table.get_ref(), &at, &mut problems);
            }
            Err(error) => problems.push(Problem {
                source: Source::File(
                    path.clone(),
                    line_of(text, error.span().map_or(0, |s| s.start)),
                ),
                setting: "TOML".to_owned(),
                message: error.message().to_owned(),
            }),
        }
    }
    for (variable, text) in &sources.variables {
        let source = Source::Variable(variable.clone());
        match SETTINGS.iter().find(|setting| setting.variable() == *variable) {
            Some(setting) => apply(&mut config, setting.name, text, source, &mut problems),
            None => problems.push(unknown(variable, source, |s| s.variable())),
        }
    }
    for (name, text) in &sources.flags {
        let setting = SETTINGS.iter().find(|setting| setting.name == *name);
        let source = Source::Flag(setting.map_or_else(|| name.clone(), Setting::flag));
        apply(&mut config, name, text, source, &mut problems);
    }
    if let Err(relations) = config.validate() {
        problems.extend(relations.into_iter().map(|message| Problem {
            source: Source::Relation,
            setting: "expected".to_owned(),
            message,
        }));
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// The README's table of settings; a test holds the README to it.
#[must_use]
pub fn table_markdown() -> String {
    use fmt::Write as _;
    let defaults = Config::default();
    let mut out = String::from("| setting | default | what it does |\n| --- | --- | --- |\n");
    for setting in SETTINGS {
        let default = defaults.show(setting.name).unwrap_or_default();
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        writeln!(out, "| `{}` | {default} | {} |", setting.name, setting.doc.trim())
            .expect("writing to a String can't fail");
    }
    out
}

fn read_table(
    config: &mut Config,
    prefix: &str,
    table: &DeTable<'_>,
    at: &dyn Fn(usize) -> Source,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in table {
        let name = if prefix.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{prefix}.{}", key.get_ref())
        };
        let source = at(key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => read_table(config, &name, inner, at, problems),
            other if SETTINGS.iter().any(|setting| setting.name == name) => match text_of(other) {
                Some(text) => apply(config, &name, &text, source, problems),
                None => problems.push(Problem {
                    source,
                    setting: name,
                    message: "expected text, a number, true, false or a list of those".to_owned(),
                }),
            },
            _ => problems.push(unknown(&name, source, |s| s.name.to_owned())),
        }
    }
}

/// A TOML scalar, or a list of scalars, as the text that a flag would hold.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| text_of(item.get_ref())).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

fn apply(config: &mut Config, name: &str, text: &str, source: Source, problems: &mut Vec<Problem>) {
    if let Err(message) = config.set(name, text) {
        problems.push(Problem { source, setting: name.to_owned(), message });
    }
}

fn unknown(name: &str, source: Source, spelled: impl Fn(&Setting) -> String) -> Problem {
    let nearest = SETTINGS
        .iter()
        .map(|setting| (distance(name, &spelled(setting)), spelled(setting)))
        .min()
        .filter(|(far, _)| *far <= name.len().div_ceil(3));
    let message = match nearest {
        Some((_, near)) => format!("no setting has this name; did you mean {near}?"),
        None => "no setting has this name; `forebay serve --help` lists all".to_owned(),
    };
    Problem { source, setting: name.to_owned(), message }
}

/// Levenshtein distance, in one row.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn file(text: &str) -> Sources {
        Sources { file: Some((PathBuf::from("f.toml"), text.to_owned())), ..Sources::default() }
    }

    #[test]
    fn flags_win_over_variables_over_the_file() {
        let mut sources =
            file("[stream]\nurls_max = 7\nheartbeat_ms = 70\n[egress]\nports = [80, 81]");
        sources.variables.push(("FOREBAY_STREAM_URLS_MAX".into(), "8".into()));
        let config = load(&sources).unwrap();
        assert_eq!((config.urls_max, config.heartbeat_ms), (8, 70));
        assert_eq!(config.egress_ports, [80, 81]);
        sources.flags.push(("stream.urls_max".into(), "9".into()));
        assert_eq!(load(&sources).unwrap().urls_max, 9);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place() {
        let mut sources =
            file("[stream]\nurls_maxx = 7\nheartbeat_ms = 1\n\n[server]\nruntime = \"uring\"");
        sources.variables.push(("FOREBAY_CORE".into(), "1".into()));
        let problems = load(&sources).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:#?}");
        assert!(told.iter().any(|t| t.starts_with("f.toml:2") && t.contains("stream.urls_max?")));
        assert!(told.iter().any(|t| t.starts_with("f.toml:3") && t.contains("10 to 300000")));
        assert!(
            told.iter().any(|t| t.starts_with("f.toml:6") && t.contains("auto, io_uring or epoll"))
        );
        assert!(told.iter().any(|t| t.contains("did you mean FOREBAY_CORES?")));
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let defaults = Config::default();
        let mut config = Config::default();
        for setting in SETTINGS {
            config.set(setting.name, &defaults.show(setting.name).unwrap()).unwrap();
        }
        assert_eq!(config, defaults);
        defaults.validate().unwrap();
    }
}
