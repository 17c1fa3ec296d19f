//! The settings as a person or a program reads them: `forebay config`.

use super::live::hidden;
use super::{Config, Loaded, SETTINGS, Setting, Source};
use crate::proto::json;
use bytes::{BufMut, BytesMut};
use std::fmt::Write as _;

impl Config {
    /// A value as it may be shown: of a secret only whether there is one.
    #[must_use]
    pub fn shown(&self, setting: &Setting) -> String {
        let value = self.show(setting.name).unwrap_or_default();
        if setting.secret { hidden(&value) } else { value }
    }
}

/// The effective values and where each came from.
impl Loaded {
    /// Where a setting's value came from; `None` is its default.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&Source> {
        self.origins.get(name)
    }

    fn told(&self, setting: &Setting) -> String {
        self.origin(setting.name).map_or("default".to_owned(), ToString::to_string)
    }

    /// A line per setting: name, value, where it came from.
    #[must_use]
    pub fn table(&self) -> String {
        let values: Vec<String> =
            SETTINGS.iter().map(|setting| self.config.shown(setting)).collect();
        let names = SETTINGS.iter().map(|setting| setting.name.len()).max().unwrap_or_default();
        let widest =
            values.iter().map(|value| value.chars().count()).max().unwrap_or_default().min(32);
        let mut out = String::new();
        for (setting, value) in SETTINGS.iter().zip(&values) {
            let value = if value.is_empty() { "-" } else { value };
            writeln!(out, "{:<names$}  {value:<widest$}  {}", setting.name, self.told(setting))
                .expect("writing to a String can't fail");
        }
        out
    }

    /// An object per setting, by its name: `value`, `source`, `default`, `reloadable`, and what else
    /// is known of it.
    #[must_use]
    pub fn json(&self) -> BytesMut {
        let defaults = Config::default();
        let mut out = BytesMut::with_capacity(32 * 1024);
        for (at, setting) in SETTINGS.iter().enumerate() {
            out.put_slice(if at == 0 { b"{\n" } else { b",\n" });
            json::string(&mut out, setting.name);
            out.put_slice(b":{\"value\":");
            json::string(&mut out, &self.config.shown(setting));
            out.put_slice(b",\"source\":");
            json::string(&mut out, &self.told(setting));
            out.put_slice(b",\"default\":");
            json::string(&mut out, &defaults.show(setting.name).unwrap_or_default());
            out.put_slice(b",\"expected\":");
            json::string(&mut out, setting.expected);
            out.put_slice(b",\"unit\":");
            json::string_or_null(&mut out, setting.unit());
            if let Some((min, max)) = setting.bounds {
                json::integers(&mut out, &[("min", min), ("max", max)]);
            }
            out.put_slice(b",\"reloadable\":");
            json::boolean(&mut out, setting.reloadable());
            out.put_slice(b",\"secret\":");
            json::boolean(&mut out, setting.secret);
            out.put_u8(b'}');
        }
        out.put_slice(b"\n}\n");
        out
    }

    /// A file with the effective values; a secret is left out. Where each came from stands beside it.
    #[must_use]
    pub fn toml(&self) -> String {
        sections(|setting, key, out| {
            let value = self.config.show(setting.name).unwrap_or_default();
            let line = if setting.secret && !value.is_empty() {
                format!("# {key} is a secret: {}", self.told(setting))
            } else if value.is_empty() {
                format!("# {key} = {}", toml_value(&self.config, setting))
            } else {
                format!("{key} = {} # {}", toml_value(&self.config, setting), self.told(setting))
            };
            out.push_str(&line);
            out.push('\n');
        })
    }
}

/// A file with every setting at its default, commented out, with what it does and may be.
#[must_use]
pub fn default_toml() -> String {
    let defaults = Config::default();
    let mut out = String::from(
        "# Every setting with its default. Take away the # in front of what you change.\n",
    );
    out.push_str(&sections(|setting, key, out| {
        for line in wrap(setting.doc, 96) {
            writeln!(out, "# {line}").expect("writing to a String can't fail");
        }
        let bounds = setting.bounds.map(|(min, max)| format!(", {min} to {max}"));
        let live = if setting.reloadable() { "; taken over by a reload" } else { "" };
        writeln!(out, "# ({}{}{live})", setting.expected, bounds.unwrap_or_default())
            .expect("writing to a String can't fail");
        writeln!(out, "#{key} = {}\n", toml_value(&defaults, setting))
            .expect("writing to a String can't fail");
    }));
    out
}

/// Every setting under its section's heading.
fn sections(mut write: impl FnMut(&Setting, &str, &mut String)) -> String {
    let mut names: Vec<&str> = Vec::new();
    for setting in SETTINGS {
        let section = setting.name.split_once('.').map_or("", |(section, _)| section);
        if !names.contains(&section) {
            names.push(section);
        }
    }
    let mut out = String::new();
    for section in names {
        writeln!(out, "\n[{section}]").expect("writing to a String can't fail");
        for setting in SETTINGS {
            if let Some((own, key)) = setting.name.split_once('.')
                && own == section
            {
                write(setting, key, &mut out);
            }
        }
    }
    out
}

/// A value as TOML writes it.
fn toml_value(config: &Config, setting: &Setting) -> String {
    let value = config.show(setting.name).unwrap_or_default();
    if setting.expected.starts_with("a list") {
        let items = value.split(',').filter(|item| !item.is_empty());
        let numbers = setting.expected.contains("whole numbers");
        let quoted = items.map(|item| if numbers { item.to_owned() } else { quote(item) });
        return format!("[{}]", quoted.collect::<Vec<_>>().join(", "));
    }
    let number = setting.bounds.is_some() && value.bytes().all(|byte| byte.is_ascii_digit());
    let bare = number || matches!(&*value, "true" | "false");
    if bare && !value.is_empty() { value } else { quote(&value) }
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Breaks a sentence at its blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a line");
        if !last.is_empty() && last.len() + word.len() >= width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::{Sources, load, load_traced};
    use super::*;
    use std::path::PathBuf;

    /// Settings that are secret by their type.
    const SECRETS: [&str; 4] = ["redis.url", "egress.proxy", "search.key", "otlp.headers"];

    fn sources(text: &str) -> Sources {
        Sources { file: Some((PathBuf::from("f.toml"), text.to_owned())), ..Sources::default() }
    }

    fn loaded() -> Loaded {
        let mut sources = sources("[stream]\nurls_max = 7\n[egress]\nproxy = \"http://u:p@h:1\"");
        sources.variables.push(("FOREBAY_STREAM_HEARTBEAT_MS".into(), "70".into()));
        sources.flags.push(("server.cores".into(), "2".into()));
        load_traced(&sources).unwrap()
    }

    #[test]
    fn each_value_says_where_it_came_from_and_secrets_say_nothing() {
        let loaded = loaded();
        let table = loaded.table();
        for (name, value, source) in [
            ("stream.urls_max", "7", "f.toml:2"),
            ("stream.heartbeat_ms", "70", "FOREBAY_STREAM_HEARTBEAT_MS"),
            ("server.cores", "2", "--cores"),
            ("egress.proxy", "***", "f.toml:4"),
            ("server.ring_entries", "1024", "default"),
        ] {
            let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words, [name, value, source], "{line}");
        }
        let json: serde_json::Value = serde_json::from_slice(&loaded.json()).unwrap();
        assert_eq!(json["stream.urls_max"]["source"], "f.toml:2");
        assert_eq!(json["stream.heartbeat_ms"]["unit"], "ms");
        assert_eq!(json.as_object().unwrap().len(), SETTINGS.len());
        for text in [table, json.to_string(), loaded.toml()] {
            assert!(!text.contains("u:p"), "{text}");
        }
    }

    #[test]
    fn whatever_is_printed_hides_every_secret_alike() {
        let secrets: Vec<_> = SETTINGS.iter().filter(|setting| setting.secret).collect();
        let names: Vec<&str> = secrets.iter().map(|setting| setting.name).collect();
        assert_eq!(names, SECRETS);
        let mut sources = Sources::default();
        for setting in &secrets {
            // As a URL with a password, as a key, and as a field's value.
            let canary = "x=http://ann:C4NARY@host/?password=C4NARY";
            sources.variables.push((setting.variable(), canary.to_owned()));
        }
        let loaded = load_traced(&sources).unwrap();
        let (before, after) = (Config::default(), loaded.config.clone());
        let live = super::super::Live::new(before);
        let (changed, restart) = live.compare(&after);
        let changes: Vec<_> = changed.iter().chain(&restart).collect();
        assert_eq!(changes.len(), secrets.len());
        assert!(changes.iter().all(|change| change.from.is_empty() && change.to == "***"));
        let (table, toml) = (loaded.table(), loaded.toml());
        for setting in &secrets {
            let line = |line: &&str| line.starts_with(&format!("{} ", setting.name));
            let words: Vec<&str> = table.lines().find(line).unwrap().split_whitespace().collect();
            assert_eq!(words, [setting.name, "***", &*setting.variable()]);
            let key = setting.name.split_once('.').unwrap().1;
            let told = format!("# {key} is a secret: {}", setting.variable());
            assert!(toml.contains(&told), "{toml}");
        }
        let json = String::from_utf8_lossy(&loaded.json()).into_owned();
        let debugged = format!("{:?} {changes:?}", loaded.config);
        for text in [table, toml, json, debugged] {
            assert!(!text.contains("C4NARY"), "{text}");
        }
        // A file that was printed has none of them, and does not set them to what was shown.
        let toml = loaded.toml();
        assert_eq!(load(&self::sources(&toml)).unwrap(), Config::default());
    }

    #[test]
    fn what_is_printed_as_toml_can_be_read() {
        let before = loaded();
        let mut again = load(&sources(&before.toml())).unwrap();
        again.egress_proxy.clone_from(&before.config.egress_proxy);
        assert_eq!(again, before.config);
        let open: String = default_toml()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(load(&sources(&open)).unwrap(), Config::default());
        assert_eq!(load(&sources(&default_toml())).unwrap(), Config::default());
    }
}
