//! Scenarios: what to send where, how often, for how long. Read from TOML or made of flags.

use crate::num;
use crate::run::schedule::Schedule;
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A scenario as written; see README.md for every key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScenarioSpec {
    pub(crate) name: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) duration: Option<String>,
    pub(crate) warmup: Option<String>,
    pub(crate) drain: Option<String>,
    pub(crate) seed: Option<u64>,
    pub(crate) threads: Option<usize>,
    pub(crate) group: Vec<GroupSpec>,
}

/// A group of clients as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GroupSpec {
    pub(crate) name: Option<String>,
    pub(crate) measured: bool,
    pub(crate) kind: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Option<String>,
    pub(crate) body_file: Option<PathBuf>,
    pub(crate) crawl: Option<CrawlSpec>,
    pub(crate) rate: Option<f64>,
    pub(crate) schedule: Option<String>,
    pub(crate) steps: Option<String>,
    pub(crate) closed: Option<usize>,
    pub(crate) connections: Option<usize>,
    pub(crate) requests: Option<u64>,
    pub(crate) timeout: Option<String>,
    pub(crate) read_bytes_per_s: Option<u64>,
    pub(crate) cut_after_events: Option<u64>,
    pub(crate) cuts: Option<u64>,
    pub(crate) new_connection: bool,
    pub(crate) then: Option<String>,
    pub(crate) start_after: Option<String>,
    pub(crate) check: Option<String>,
}

/// A crawl request built for each stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CrawlSpec {
    /// URL of each page; `{{n}}` becomes a number that no other page has.
    pub(crate) url: String,
    /// Pages per stream.
    pub(crate) urls: Option<u64>,
    /// The request's `options`.
    pub(crate) options: BTreeMap<String, serde_json::Value>,
}

/// A checked scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) duration: Option<Duration>,
    pub(crate) warmup: Duration,
    pub(crate) drain: Duration,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) groups: Vec<Group>,
}

/// What a group's clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests, one after another per connection.
    Load,
    /// Connections that are held open and say nothing.
    Idle,
    /// A new connection for each arrival.
    Storm(Then),
}

/// What a storm does with a connection it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Closes it.
    Close,
    /// Aborts it by RST.
    Reset,
    /// Sends half a request head and waits for the server to lose patience.
    Half,
}

/// How requests and events travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Request and response.
    Http,
    /// A stream of JSON lines.
    Ndjson,
    /// An event stream.
    Sse,
    /// WebSocket messages.
    Ws,
}

impl Transport {
    /// Its name in scenarios.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ndjson => "ndjson",
            Self::Sse => "sse",
            Self::Ws => "ws",
        }
    }
}

/// Cutting connections on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Events between cuts, on average.
    pub(crate) after: u64,
    /// Cuts per stream.
    pub(crate) times: u64,
}

/// A checked group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) measured: bool,
    pub(crate) kind: Kind,
    pub(crate) transport: Transport,
    pub(crate) addr: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) method: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    /// `None` is a closed loop.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) connections: usize,
    pub(crate) requests: Option<u64>,
    pub(crate) timeout: Duration,
    pub(crate) read_bytes_per_s: Option<u64>,
    pub(crate) cut: Option<Cut>,
    pub(crate) new_connection: bool,
    pub(crate) start_after: Duration,
    /// Parse every event wholly.
    pub(crate) whole: bool,
}

/// A request body.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// None.
    Empty,
    /// The same each time, but for `{{n}}`.
    Text(String),
    /// A crawl of so many pages.
    Crawl { url: String, urls: u64, options: String },
}

impl Body {
    /// The body of request `n`.
    pub(crate) fn render(&self, n: u64) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => fill(text, n),
            Self::Crawl { url, urls, options } => {
                let urls: Vec<String> = (0..*urls).map(|i| fill(url, n * urls + i)).collect();
                let urls = serde_json::Value::from(urls);
                format!("{{\"urls\":{urls},\"options\":{options}}}")
            }
        }
    }

    /// Whether it differs from request to request.
    pub(crate) fn varies(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Text(text) => text.contains("{{n}}"),
            Self::Crawl { url, .. } => url.contains("{{n}}"),
        }
    }
}

/// Puts a request's number in place of `{{n}}`.
pub(crate) fn fill(text: &str, n: u64) -> String {
    if text.contains("{{n}}") { text.replace("{{n}}", &n.to_string()) } else { text.to_owned() }
}

impl ScenarioSpec {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// Where and what is wrong in it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let mut spec: Self =
            toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for group in &mut spec.group {
            group.body_file = group.body_file.take().map(|file| folder.join(file));
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        spec.name = spec.name.or(stem);
        Ok(spec)
    }

    /// Checks it.
    ///
    /// # Errors
    /// Which key is wrong and what was expected.
    pub(crate) fn check(self) -> Result<Scenario, String> {
        let time = |text: &Option<String>, default: Duration| {
            text.as_deref().map_or(Ok(default), units::duration)
        };
        if self.group.is_empty() {
            return Err("expected at least one [[group]]".to_owned());
        }
        let count = self.group.len();
        let mut groups = self
            .group
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let name = spec.name.clone().unwrap_or_else(|| format!("group {}", index + 1));
                spec.check(&name, self.url.as_deref()).map_err(|e| format!("group `{name}`: {e}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if !groups.iter().any(|group| group.measured) {
            groups[0].measured = true;
        }
        let bounded = groups.iter().all(|g| g.kind == Kind::Load && g.requests.is_some());
        let duration = match &self.duration {
            Some(text) => Some(units::duration(text)?),
            None if bounded => None,
            None => Some(Duration::from_secs(10)),
        };
        Ok(Scenario {
            name: self.name.unwrap_or_else(|| {
                if count == 1 { groups[0].path.clone() } else { "mixed".to_owned() }
            }),
            duration,
            warmup: time(&self.warmup, Duration::ZERO)?,
            drain: time(&self.drain, Duration::from_secs(5))?,
            seed: self.seed.unwrap_or(1),
            threads: self.threads.unwrap_or(1).clamp(1, 64),
            groups,
        })
    }
}

impl GroupSpec {
    fn check(&self, name: &str, base: Option<&str>) -> Result<Group, String> {
        let url = self.url.as_deref().or(base).ok_or("expected a url, here or for the scenario")?;
        let (host, mut path) = split_url(url)?;
        let addr = host
            .to_socket_addrs()
            .map_err(|error| format!("url `{url}`: {error}"))?
            .next()
            .ok_or_else(|| format!("url `{url}`: the host has no address"))?;
        let transport = self.transport()?;
        let body = self.body()?;
        let kind = self.kind()?;
        if let Some(own) = &self.path {
            path.clone_from(own);
        } else if path == "/" {
            path = default_path(kind, transport, &body).to_owned();
        }
        let sends_body = !matches!(body, Body::Empty);
        let default_method = if sends_body { "POST" } else { "GET" };
        if transport == Transport::Ws && kind == Kind::Load && !sends_body {
            return Err("transport `ws`: expected a crawl or a body to send as `data`".to_owned());
        }
        let cut = self
            .cut_after_events
            .map(|after| Cut { after: after.max(1), times: self.cuts.unwrap_or(1) });
        if cut.is_some() && transport == Transport::Http {
            return Err("cut_after_events: expected transport ndjson, sse or ws".to_owned());
        }
        let schedule = self.schedule(kind)?;
        let connections = match (self.closed, self.connections) {
            (Some(closed), _) => closed,
            (None, Some(connections)) => connections,
            (None, None) if matches!(kind, Kind::Storm(_)) => 256,
            (None, None) => 64,
        };
        Ok(Group {
            name: name.to_owned(),
            measured: self.measured,
            kind,
            transport,
            addr,
            host,
            path,
            method: self.method.clone().unwrap_or_else(|| default_method.to_owned()),
            headers: self.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect(),
            body,
            schedule,
            connections: connections.max(1),
            requests: self.requests,
            timeout: self
                .timeout
                .as_deref()
                .map_or(Ok(Duration::from_secs(30)), units::duration)?,
            read_bytes_per_s: self.read_bytes_per_s,
            cut,
            new_connection: self.new_connection,
            start_after: self.start_after.as_deref().map_or(Ok(Duration::ZERO), units::duration)?,
            whole: match self.check.as_deref() {
                None | Some("fast") => false,
                Some("full") => true,
                Some(other) => return Err(format!("check `{other}`: expected fast or full")),
            },
        })
    }

    fn transport(&self) -> Result<Transport, String> {
        match self.transport.as_deref() {
            None | Some("http") => Ok(Transport::Http),
            Some("ndjson") => Ok(Transport::Ndjson),
            Some("sse") => Ok(Transport::Sse),
            Some("ws") => Ok(Transport::Ws),
            Some(other) => Err(format!("transport `{other}`: expected http, ndjson, sse or ws")),
        }
    }

    fn kind(&self) -> Result<Kind, String> {
        let then = match self.then.as_deref() {
            None | Some("close") => Then::Close,
            Some("reset") => Then::Reset,
            Some("half") => Then::Half,
            Some(other) => return Err(format!("then `{other}`: expected close, reset or half")),
        };
        match self.kind.as_deref() {
            None | Some("load") => Ok(Kind::Load),
            Some("idle") => Ok(Kind::Idle),
            Some("storm") => Ok(Kind::Storm(then)),
            Some(other) => Err(format!("kind `{other}`: expected load, idle or storm")),
        }
    }

    fn body(&self) -> Result<Body, String> {
        match (&self.body, &self.body_file, &self.crawl) {
            (None, None, None) => Ok(Body::Empty),
            (Some(text), None, None) => Ok(Body::Text(text.clone())),
            (None, Some(file), None) => std::fs::read_to_string(file)
                .map(Body::Text)
                .map_err(|error| format!("body_file {}: {error}", file.display())),
            (None, None, Some(crawl)) => {
                if crawl.url.is_empty() {
                    return Err(
                        "crawl: expected url, such as http://127.0.0.1:9000/page/{{n}}".into()
                    );
                }
                let options = serde_json::to_string(&crawl.options)
                    .map_err(|error| format!("crawl.options: {error}"))?;
                let urls = crawl.urls.unwrap_or(1).max(1);
                Ok(Body::Crawl { url: crawl.url.clone(), urls, options })
            }
            _ => Err("expected one of body, body_file and crawl".to_owned()),
        }
    }

    fn schedule(&self, kind: Kind) -> Result<Option<Schedule>, String> {
        if self.closed.is_some() || kind == Kind::Idle {
            return match self.rate {
                Some(_) => Err("a closed loop or an idle crowd has no rate".to_owned()),
                None => Ok(None),
            };
        }
        if let Some(steps) = &self.steps {
            return Schedule::steps(steps).map(Some);
        }
        let rate = self.rate.ok_or("expected rate (open loop), steps, or closed (closed loop)")?;
        if !rate.is_finite() || rate <= 0.0 {
            return Err(format!("rate {rate}: expected requests per second above 0"));
        }
        match self.schedule.as_deref() {
            None | Some("constant") => Ok(Some(Schedule::Constant(rate))),
            Some("poisson") => Ok(Some(Schedule::Poisson(rate))),
            Some(other) => {
                Err(format!("schedule `{other}`: expected constant, poisson, or steps = \"…\""))
            }
        }
    }
}

fn default_path(kind: Kind, transport: Transport, body: &Body) -> &'static str {
    match (transport, body) {
        (Transport::Http, _) if kind == Kind::Idle => "/livez",
        (Transport::Ndjson, _) => "/crawl/stream",
        (Transport::Sse, _) => "/crawl/sse",
        (Transport::Ws, _) => "/crawl/ws",
        (Transport::Http, Body::Crawl { .. }) => "/crawl",
        (Transport::Http, _) => "/",
    }
}

/// Host with port, and path with query.
fn split_url(url: &str) -> Result<(String, String), String> {
    let wrong = || {
        format!(
            "url `{url}`: expected http://HOST:PORT/PATH (TLS is not spoken: load the plain port)"
        )
    };
    let rest = url.strip_prefix("http://").or(url.strip_prefix("ws://")).ok_or_else(wrong)?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    if host.is_empty() {
        return Err(wrong());
    }
    let has_port =
        host.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok()) && host.contains(':');
    let host = if has_port { host.to_owned() } else { format!("{host}:80") };
    let path = match path.chars().next() {
        None => "/".to_owned(),
        Some('?') => format!("/{path}"),
        _ => path.to_owned(),
    };
    Ok((host, path))
}

/// The share of `total` that belongs to one of `parts`.
pub(crate) fn share(total: usize, parts: usize, index: usize) -> usize {
    total / parts + usize::from(index < total % parts)
}

/// The number of requests at which all parts together reach `total`, for one part.
pub(crate) fn share_u64(total: u64, parts: usize, index: usize) -> u64 {
    let parts = num::to_u64(parts);
    total / parts + u64::from(num::to_u64(index) < total % parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn check(text: &str) -> Result<Scenario, String> {
        toml::from_str::<ScenarioSpec>(text).map_err(|e| e.to_string())?.check()
    }

    #[test]
    fn urls_split() {
        assert_eq!(split_url("http://a:1/b?c").unwrap(), ("a:1".into(), "/b?c".into()));
        assert_eq!(split_url("http://a").unwrap(), ("a:80".into(), "/".into()));
        assert_eq!(split_url("ws://[::1]:5?x").unwrap(), ("[::1]:5".into(), "/?x".into()));
        assert!(split_url("https://a/").unwrap_err().contains("TLS"));
    }

    #[test]
    fn crawls_number_their_pages_without_overlap() {
        let body = Body::Crawl { url: "http://o/page/{{n}}".into(), urls: 2, options: "{}".into() };
        assert_eq!(
            body.render(3),
            r#"{"urls":["http://o/page/6","http://o/page/7"],"options":{}}"#
        );
        assert!(body.varies());
    }

    #[test]
    fn what_is_wrong_says_what_was_expected() {
        let base = "url = \"http://127.0.0.1:1\"\n";
        for (text, expected) in [
            ("", "at least one"),
            ("[[group]]\n", "expected a url"),
            ("[[group]]\nurl = \"http://127.0.0.1:1\"\n", "expected rate"),
            ("[[group]]\nurl = \"http://127.0.0.1:1\"\nrate = 0.0\n", "above 0"),
            ("[[group]]\nurl = \"http://127.0.0.1:1\"\nrate = 1.0\ntransport = \"h2\"\n", "ndjson"),
            ("[[group]]\nurl = \"http://127.0.0.1:1\"\nrate = 1.0\nspeed = 1\n", "unknown field"),
            ("[[group]]\nurl = \"http://127.0.0.1:1\"\nrate = 1.0\nclosed = 1\n", "no rate"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let good =
            check(&format!("{base}[[group]]\nrate = 5.0\ntransport = \"ndjson\"\n")).unwrap();
        assert_eq!(good.groups[0].path, "/crawl/stream");
        assert!(good.groups[0].measured && good.duration == Some(Duration::from_secs(10)));
    }

    #[test]
    fn the_ready_scenarios_are_good() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let scenario = ScenarioSpec::read(&path).and_then(ScenarioSpec::check);
                assert!(scenario.is_ok(), "{scenario:?}");
                seen += 1;
            }
        }
        assert!(seen >= 6);
    }

    #[test]
    fn shares_add_up() {
        let sum: usize = (0..3).map(|index| share(64, 3, index)).sum();
        assert_eq!((sum, share_u64(10, 4, 0), share_u64(10, 4, 3)), (64, 3, 2));
    }
}
