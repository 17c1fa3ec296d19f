//! From flags, variables and a TOML file to one validated [`Config`], with every mistake at once.

use super::{Config, SETTINGS, Setting, Wrong};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
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
    /// Nowhere: it is the setting's default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => out.write_str(name),
            Self::Flag(name) => write!(out, "--{name}"),
            Self::Default => out.write_str("default"),
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
    /// `FOREBAY_*` variables whose value is no UTF-8.
    pub unreadable: Vec<String>,
    /// Settings given as flags, by dotted name.
    pub flags: Vec<(String, String)>,
}

/// What was read, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where those came from that are not their defaults.
    pub(super) origins: BTreeMap<&'static str, Source>,
    /// What was passed over, and why.
    pub warnings: Vec<String>,
}

/// A setting's name elsewhere: in the file, or after `FOREBAY_`. Read as ours.
struct Seed {
    name: &'static str,
    setting: &'static str,
    /// Whether it is a factor (`1.5`) where ours is in percent (`150`).
    factor: bool,
}

const fn seed(name: &'static str, setting: &'static str) -> Seed {
    Seed { name, setting, factor: false }
}

/// Names that configurations of the kind already use for a stream's buffer and its keep-alive.
const SEEDS: [Seed; 10] = [
    seed("buffer.min_size", "buffer.frames_min"),
    seed("buffer.initial_size", "buffer.frames_start"),
    seed("buffer.max_size", "buffer.frames_max"),
    Seed { name: "buffer.growth_factor", setting: "buffer.growth_percent", factor: true },
    Seed { name: "buffer.shrink_factor", setting: "buffer.shrink_percent", factor: true },
    seed("buffer.backpressure_window", "buffer.window_sends"),
    seed("buffer.slow_send_threshold_ms", "buffer.slow_send_ms"),
    seed("buffer.max_slow_sends", "buffer.slow_sends_max"),
    seed("stream.keep_alive_interval_ms", "stream.heartbeat_ms"),
    seed("ndjson.buffer_size", "buffer.bytes_max"),
];

impl Seed {
    /// The value as ours.
    fn translate(&self, text: &str) -> Result<String, String> {
        if !self.factor {
            return Ok(text.to_owned());
        }
        let expected = || format!("expected a factor with at most two decimals, found {text:?}");
        let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let digits = format!("{whole}{part:0<2}");
        let fits = part.len() <= 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let percent: Option<u32> = digits.parse().ok().filter(|_| fits && !whole.is_empty());
        percent.map(|percent| percent.to_string()).ok_or_else(expected)
    }
}

/// Reads everything and validates it.
///
/// # Errors
/// Every mistake found, not the first only.
pub fn load(sources: &Sources) -> Result<Config, Vec<Problem>> {
    load_traced(sources).map(|loaded| loaded.config)
}

/// As [`load`], with where each value came from.
///
/// # Errors
/// As [`load`].
pub fn load_traced(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let (loaded, problems) = load_partly(sources);
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// Everything that can be read, and every mistake found: a setting with a mistake is at its default.
#[must_use]
pub fn load_partly(sources: &Sources) -> (Loaded, Vec<Problem>) {
    let mut reading = Reading::default();
    if let Some((path, text)) = &sources.file {
        reading.read_file(path, text);
    }
    for (variable, text) in &sources.variables {
        reading.read_variable(variable, text);
    }
    for variable in &sources.unreadable {
        reading.problems.push(Problem {
            source: Source::Variable(variable.clone()),
            setting: variable.clone(),
            message: "expected text in UTF-8".to_owned(),
        });
    }
    for (name, text) in &sources.flags {
        let setting = SETTINGS.iter().find(|setting| setting.name == *name);
        let source = Source::Flag(setting.map_or_else(|| name.clone(), Setting::flag));
        reading.apply(name, text, source);
    }
    let Reading { config, origins, mut problems, warnings } = reading;
    let loaded = Loaded { config, origins, warnings };
    loaded.add(loaded.config.validate(), &mut problems);
    (loaded, problems)
}

impl Loaded {
    /// Adds mistakes with their places. What is about a setting that could not be read is left out: it
    /// would speak of the default.
    pub fn add(&self, wrongs: Vec<Wrong>, problems: &mut Vec<Problem>) {
        let known: Vec<String> = problems.iter().map(|problem| problem.setting.clone()).collect();
        let about =
            |wrong: &Wrong| wrong.settings.iter().any(|name| known.iter().any(|k| k == name));
        let new = wrongs.iter().filter(|wrong| !about(wrong));
        problems.extend(new.map(|wrong| self.problem(wrong)));
    }
}

fn spelled_as_variable(name: &str) -> String {
    format!("FOREBAY_{}", name.replace('.', "_").to_uppercase())
}

/// The README's table of settings; a test holds the README to it.
#[must_use]
pub fn table_markdown() -> String {
    use fmt::Write as _;
    let defaults = Config::default();
    let mut out = String::from(
        "| setting | default | bounds | reload | what it does |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let default = defaults.show(setting.name).unwrap_or_default();
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        let unit = setting.unit().map(|unit| format!(" {unit}")).unwrap_or_default();
        let bounds = setting.bounds.map(|(min, max)| format!("{min} to {max}{unit}"));
        let bounds = bounds.unwrap_or_default();
        let reload = if setting.reloadable() { "yes" } else { "" };
        let (name, doc) = (setting.name, setting.doc.trim());
        writeln!(out, "| `{name}` | {default} | {bounds} | {reload} | {doc} |")
            .expect("writing to a String can't fail");
    }
    out
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    config: Config,
    origins: BTreeMap<&'static str, Source>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reading {
    fn read_file(&mut self, path: &Path, text: &str) {
        let at = |offset: usize| Source::File(path.to_owned(), line_of(text, offset));
        match DeTable::parse(text) {
            Ok(table) => self.read_table("", table.get_ref(), &at),
            Err(error) => self.problems.push(Problem {
                source: at(error.span().map_or(0, |span| span.start)),
                setting: "TOML".to_owned(),
                message: error.message().to_owned(),
            }),
        }
    }

    fn read_variable(&mut self, variable: &str, text: &str) {
        let source = Source::Variable(variable.to_owned());
        let ours = SETTINGS.iter().find(|setting| setting.variable() == variable);
        let seed = SEEDS.iter().find(|seed| spelled_as_variable(seed.name) == variable);
        match (ours, seed) {
            (Some(setting), _) => self.apply(setting.name, text, source),
            (None, Some(seed)) => self.apply_seed(seed, text, source),
            (None, None) if is_service_link(variable, text) => self.warnings.push(format!(
                "{variable} looks like what Kubernetes says of a Service: it is no setting and passed over"
            )),
            (None, None) => self.problems.push(unknown(variable, source, |s| s.variable())),
        }
    }

    fn read_table(&mut self, prefix: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Source) {
        for (key, value) in table {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let source = at(key.span().start);
            let seed = SEEDS.iter().find(|seed| seed.name == name);
            let known = seed.is_some() || SETTINGS.iter().any(|setting| setting.name == name);
            match value.get_ref() {
                DeValue::Table(inner) => self.read_table(&name, inner, at),
                other if known => match (text_of(other), seed) {
                    (Some(text), Some(seed)) => self.apply_seed(seed, &text, source),
                    (Some(text), None) => self.apply(&name, &text, source),
                    (None, _) => self.problems.push(Problem {
                        source,
                        setting: name,
                        message: "expected text, a number, true, false or a list of those"
                            .to_owned(),
                    }),
                },
                _ => self.problems.push(unknown(&name, source, |s| s.name.to_owned())),
            }
        }
    }

    fn apply(&mut self, name: &str, text: &str, source: Source) {
        match self.config.set(name, text) {
            Ok(()) => {
                if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
                    self.origins.insert(setting.name, source);
                }
            }
            Err(message) => {
                let secret = SETTINGS.iter().any(|setting| setting.name == name && setting.secret);
                let message = if secret { "not what is expected here".to_owned() } else { message };
                self.problems.push(Problem { source, setting: name.to_owned(), message });
            }
        }
    }

    fn apply_seed(&mut self, seed: &Seed, text: &str, source: Source) {
        match seed.translate(text) {
            Ok(text) => self.apply(seed.setting, &text, source),
            Err(message) => {
                self.problems.push(Problem { source, setting: seed.name.to_owned(), message });
            }
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

/// Whether a variable is one of those that Kubernetes gives every container of a namespace that has a
/// Service of the name `forebay`, or of one that begins so (Kubernetes, "Service": environment
/// variables): by its name and by its value, so that a setting that is meant is still asked about.
fn is_service_link(variable: &str, text: &str) -> bool {
    let Some(name) = variable.strip_prefix("FOREBAY_") else { return false };
    let number = |text: &str| text.parse::<u16>().is_ok();
    let protocol = |text: &str| matches!(text, "tcp" | "udp" | "sctp");
    let link = |text: &str| {
        text.split_once("://").is_some_and(|(scheme, rest)| {
            protocol(scheme) && rest.rsplit_once(':').is_some_and(|(_, port)| number(port))
        })
    };
    // Behind the name of a Service that begins with ours.
    let starts = name.match_indices('_').map(|(at, _)| &name[at + 1..]);
    std::iter::once(name).chain(starts).any(|rest| {
        if rest == "SERVICE_HOST" {
            return text.parse::<IpAddr>().is_ok();
        }
        if rest == "SERVICE_PORT" || rest.starts_with("SERVICE_PORT_") {
            return number(text);
        }
        if rest == "PORT" {
            return link(text);
        }
        let parts: Vec<&str> = rest.split('_').collect();
        let ["PORT", port, kind, last @ ..] = &*parts else { return false };
        number(port)
            && protocol(&kind.to_lowercase())
            && match last {
                [] => link(text),
                ["PROTO"] => protocol(text),
                ["PORT"] => number(text),
                ["ADDR"] => text.parse::<IpAddr>().is_ok(),
                _ => false,
            }
    })
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
    fn what_clashes_is_told_where_it_stands_beside_what_cannot_be_read() {
        let mut sources = file(
            "[buffer]\nframes_min = 300\n[stream]\nbytes_max = 1_048_576\nheartbeat_ms = 1\n[log]\nlevel = \"[\"\n[search]\nprovider = \"brave\"",
        );
        sources.flags.push(("buffer.slow_sends_max".into(), "60".into()));
        let (loaded, problems) = load_partly(&sources);
        assert_eq!(loaded.config.stream_bytes_max, 1_048_576);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for start in [
            "f.toml:5: stream.heartbeat_ms: expected 10 to 300000",
            "f.toml:2: buffer.frames_min: expected 0 < frames_min",
            "--buffer-slow-sends-max: buffer.slow_sends_max: expected slow_sends_max below",
            "f.toml:4: stream.bytes_max: ",
            "f.toml:7: log.level: ",
            "f.toml:9: search.provider: ",
        ] {
            assert!(told.iter().any(|told| told.starts_with(start)), "{start} in {told:#?}");
        }
        assert_eq!(told.len(), 6, "{told:#?}");
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_passed_over() {
        let with = |name: &str, value: &str| {
            let variables = vec![(name.to_owned(), value.to_owned())];
            load_traced(&Sources { variables, ..Sources::default() })
        };
        for (name, value) in [
            ("FOREBAY_SERVICE_HOST", "10.0.171.239"),
            ("FOREBAY_SERVICE_PORT", "8080"),
            ("FOREBAY_SERVICE_PORT_HTTP", "8080"),
            ("FOREBAY_PORT", "tcp://10.0.171.239:8080"),
            ("FOREBAY_PORT_8080_TCP", "tcp://10.0.171.239:8080"),
            ("FOREBAY_PORT_8080_TCP_PROTO", "tcp"),
            ("FOREBAY_PORT_8080_TCP_PORT", "8080"),
            ("FOREBAY_PORT_8080_TCP_ADDR", "fd00::1"),
            ("FOREBAY_PORT_53_UDP", "udp://[fd00::1]:53"),
            ("FOREBAY_METRICS_SERVICE_HOST", "10.0.171.240"),
            ("FOREBAY_METRICS_PORT_9100_TCP_ADDR", "10.0.171.240"),
        ] {
            let loaded = with(name, value).unwrap();
            assert_eq!(loaded.config, Config::default());
            assert!(loaded.warnings[0].starts_with(name), "{:?}", loaded.warnings);
        }
        for (name, value) in [
            ("FOREBAY_PORT", "8080"),
            ("FOREBAY_PORT_8080", "tcp://10.0.171.239:8080"),
            ("FOREBAY_SERVICE_HOST", "example.com"),
            ("FOREBAY_PORT_8080_TCP_NAME", "tcp"),
            ("FOREBAY_URLS_MAX", "7"),
        ] {
            assert!(with(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_a_mistake() {
        let unreadable = vec!["FOREBAY_TLS_CERT".to_owned()];
        let told = load(&Sources { unreadable, ..Sources::default() }).unwrap_err();
        assert_eq!(told[0].to_string(), "FOREBAY_TLS_CERT: expected text in UTF-8");
    }

    #[test]
    fn seed_names_are_ours() {
        let mut sources = file(
            "[buffer]\ninitial_size = 128\ngrowth_factor = 1.5\nshrink_factor = 0.8\nbackpressure_window = 40",
        );
        sources.variables.push(("FOREBAY_BUFFER_MAX_SLOW_SENDS".into(), "4".into()));
        let loaded = load_traced(&sources).unwrap();
        let config = &loaded.config;
        assert_eq!((config.buffer_frames_start, config.buffer_window_sends), (128, 40));
        assert_eq!((config.buffer_growth_percent, config.buffer_shrink_percent), (150, 80));
        assert_eq!(config.buffer_slow_sends_max, 4);
        assert_eq!(loaded.origin("buffer.shrink_percent").unwrap().to_string(), "f.toml:4");
        for wrong in ["\"fast\"", "1.555", "-1.5", "\"\""] {
            let told = load(&file(&format!("[buffer]\ngrowth_factor = {wrong}"))).unwrap_err();
            assert!(told[0].to_string().starts_with("f.toml:2: buffer.growth_factor: expected"));
        }
        for seed in &SEEDS {
            assert!(SETTINGS.iter().any(|setting| setting.name == seed.setting), "{}", seed.name);
        }
    }

    #[test]
    fn a_wrong_secret_is_not_repeated() {
        let told = load(&file("[egress]\nproxy = { password = \"S3CRET\" }")).unwrap_err();
        assert!(told.iter().all(|problem| !problem.to_string().contains("S3CRET")));
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let defaults = Config::default();
        let mut config = Config::default();
        for setting in SETTINGS {
            config.set(setting.name, &defaults.show(setting.name).unwrap()).unwrap();
        }
        assert_eq!(config, defaults);
        assert_eq!(defaults.validate(), []);
    }
}
