//! What is done to server and peer, and which figures come of it.

use super::env::Env;
use crate::Failure;
use crate::crowd::Kind;
use crate::http;
use crate::idle;
use crate::load::{self, Load};
use crate::process::{Process, Side};

/// Clients of a closed loop.
const CLIENTS: usize = 64;
/// Milliseconds between the frames of a stream that has nothing else to say.
const TICK_MS: u64 = 40;
/// Cached pages of one stream where frames are results.
const CACHED_URLS: usize = 100;
/// Pages of one stream where every page is fetched.
const FRESH_URLS: usize = 20;
/// A page of usual length.
const PAGE: &str = "/page/1?size=20000";
const FRESH_PAGE: &str = "/page/{{n}}?size=20000";

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The cheapest request.
    Livez,
    /// A stream of one page out of the cache.
    CachedStream,
    /// Fetch, extract, stream.
    Pages,
    /// Small events to many streams at once.
    FramesSse,
    /// The same over WebSocket.
    FramesWs,
    /// Cached documents to many streams at once.
    ResultsSse,
    /// The same over WebSocket.
    ResultsWs,
    /// Latency at half of what the slower side can take.
    HalfLoad,
    /// Memory of connections that say nothing.
    Idle,
}

impl Scenario {
    /// All, in the order in which they are run.
    pub(crate) const ALL: [Self; 9] = [
        Self::Livez,
        Self::CachedStream,
        Self::Pages,
        Self::FramesSse,
        Self::FramesWs,
        Self::ResultsSse,
        Self::ResultsWs,
        Self::HalfLoad,
        Self::Idle,
    ];

    /// Its name, for `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Livez => "livez",
            Self::CachedStream => "cached-stream",
            Self::Pages => "pages",
            Self::FramesSse => "frames-sse",
            Self::FramesWs => "frames-ws",
            Self::ResultsSse => "results-sse",
            Self::ResultsWs => "results-ws",
            Self::HalfLoad => "half-load",
            Self::Idle => "idle",
        }
    }

    /// What it does.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Livez => "GET /livez on 64 keep-alive connections, closed loop",
            Self::CachedStream => {
                "POST /crawl/stream of one cached page, 64 connections, closed loop"
            }
            Self::Pages => "POST /crawl/stream of 20 fresh pages of 20 kB each, 4 connections",
            Self::FramesSse => "many SSE streams that say a progress event every 40 ms",
            Self::FramesWs => "many WebSockets that say a progress event every 40 ms",
            Self::ResultsSse => "many SSE streams of 100 cached pages each",
            Self::ResultsWs => "many WebSockets with a stream of 100 cached pages each",
            Self::HalfLoad => {
                "POST /crawl/stream of one page, open loop, half of what the slower side takes"
            }
            Self::Idle => "keep-alive connections that have asked once and say nothing more",
        }
    }

    /// Whom Forebay is compared with.
    pub(crate) fn peers(self) -> &'static [Side] {
        match self {
            Self::Livez => &[Side::Epoll, Side::Ring, Side::Axum],
            _ => &[Side::Axum],
        }
    }

    /// Why it can't be run with this server, if so.
    pub(crate) fn lacks(self, env: &Env) -> Option<String> {
        let cached = matches!(self, Self::CachedStream | Self::ResultsSse | Self::ResultsWs);
        if cached && !env.caches {
            let why = "the server says from_cache:false for a page that it has just had";
            return Some(why.to_owned());
        }
        let websockets = matches!(self, Self::FramesWs | Self::ResultsWs);
        (websockets && !env.websockets).then(|| "the server has no /crawl/ws".to_owned())
    }

    /// One run: a fresh process, a short warm-up, the load, the figures.
    ///
    /// # Errors
    /// When it could not be made or did not go well.
    pub(crate) fn run(self, env: &Env, side: Side) -> Result<Vec<Figure>, Failure> {
        if self == Self::Idle {
            let each = idle::measure(env, side, &Kind::KeepAlive)?.anonymous;
            return Ok(vec![Figure { name: "memory per connection", unit: "bytes", value: each }]);
        }
        let server = env.start(side)?;
        let run = Run { env, server: &server };
        match self {
            Self::Livez => {
                let load = run.closed("/livez", CLIENTS, &[])?;
                Ok(cpu_figures(&load, load.count("ok"), Per::Request))
            }
            Self::CachedStream => {
                let body = run.primed(&[env.page(PAGE)], &[])?;
                let flags = ["--transport", "ndjson", "--body", &body];
                let load = run.closed("/crawl/stream", CLIENTS, &flags)?;
                Ok(cpu_figures(&load, load.count("ok"), Per::Stream))
            }
            Self::Pages => {
                let load = run.fresh(FRESH_URLS, 4)?;
                Ok(cpu_figures(&load, load.count("results"), Per::Page))
            }
            Self::FramesSse => run.ticks("sse"),
            Self::FramesWs => run.ticks("ws"),
            Self::ResultsSse => run.results("sse"),
            Self::ResultsWs => run.results("ws"),
            Self::HalfLoad => run.half_load(side),
            Self::Idle => Err("measured without load".into()),
        }
    }
}

/// What CPU time is divided by.
#[derive(Clone, Copy, Debug)]
enum Per {
    Request,
    Stream,
    Page,
    Frame,
}

fn cpu_figures(load: &Load, count: f64, per: Per) -> Vec<Figure> {
    let (user, system) = load.server_cpu_s();
    let [whole, in_user, in_kernel] = match per {
        Per::Request => ["CPU per request", "  user part", "  kernel part"],
        Per::Stream => ["CPU per stream", "  user part", "  kernel part"],
        Per::Page => ["CPU per page", "  user part", "  kernel part"],
        Per::Frame => ["CPU per frame", "  user part", "  kernel part"],
    };
    let figure = |name, seconds: f64| Figure { name, unit: "µs", value: seconds * 1e6 / count };
    vec![figure(whole, user + system), figure(in_user, user), figure(in_kernel, system)]
}

/// One server under load.
pub(crate) struct Run<'a> {
    pub(crate) env: &'a Env,
    pub(crate) server: &'a Process,
}

impl Run<'_> {
    pub(crate) fn load(&self, path: &str, flags: &[&str]) -> Result<Load, Failure> {
        let mut all = vec!["--url".to_owned(), format!("http://{}{path}", self.server.addr)];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        load::run(self.env.client_cpu, self.server.pid(), &all)
    }

    /// A closed loop for the seconds of a run, after a tenth of them to get warm.
    fn closed(&self, path: &str, clients: usize, flags: &[&str]) -> Result<Load, Failure> {
        let clients = clients.to_string();
        let lasting = |seconds: f64| -> Result<Load, Failure> {
            let duration = format!("{}ms", (seconds * 1e3).ceil());
            let closed = ["--closed", &clients, "-d", &duration, "--drain", "60s"];
            self.load(path, &[&closed[..], flags].concat())?.without_failed_pages()
        };
        lasting(self.env.seconds / 10.0)?;
        lasting(self.env.seconds)
    }

    /// The body of a crawl whose pages are in the cache by now.
    pub(crate) fn primed(
        &self,
        urls: &[String],
        options: &[(&str, &str)],
    ) -> Result<String, Failure> {
        let body = self.env.crawl_body(urls, options);
        let answer = http::post(self.server.addr, "/crawl/stream", &body)?;
        let all = format!("\"successful\":{}", urls.len());
        if answer.status != 200 || !answer.body().contains(&all) {
            return Err(format!("the pages could not be had: {}", answer.body()).into());
        }
        Ok(body)
    }

    /// Streams of so many pages that nobody has had before.
    pub(crate) fn fresh(&self, urls: usize, clients: usize) -> Result<Load, Failure> {
        let (urls, page) = (urls.to_string(), self.env.page(FRESH_PAGE));
        let flags = ["--transport", "ndjson", "--crawl", &page, "--urls", &urls];
        let options = ["--option", "cache_mode=bypass", "--option", "robots=ignore"];
        self.closed("/crawl/stream", clients, &[&flags[..], &options].concat())
    }

    /// Many streams whose page never comes; each says how far it is, until its deadline.
    fn ticks(&self, transport: &str) -> Result<Vec<Figure>, Failure> {
        let page = self.env.page("/stall?at=head&for=1h&n={{n}}");
        let deadline = format!("deadline_ms={}", (self.env.seconds * 1e3).ceil());
        let tick = format!("progress_ms={TICK_MS}");
        let options = ["--option", &deadline, "--option", &tick, "--option", "robots=ignore"];
        let timeout = ["--option", "timeout_ms=600000", "--crawl", &page];
        let load = self.many(transport, 1, &[&options[..], &timeout].concat())?;
        Ok(cpu_figures(&load, load.count("events"), Per::Frame))
    }

    /// Many streams of cached pages, each frame a document.
    fn results(&self, transport: &str) -> Result<Vec<Figure>, Failure> {
        let urls: Vec<String> =
            (0..CACHED_URLS).map(|n| self.env.page(&format!("/page/{n}?size=4000"))).collect();
        let body = self.primed(&urls, &[])?;
        let load = self.many(transport, 2, &["--body", &body])?.without_failed_pages()?;
        Ok(cpu_figures(&load, load.count("events"), Per::Frame))
    }

    /// So many streams on each of many connections.
    fn many(&self, transport: &str, each: usize, flags: &[&str]) -> Result<Load, Failure> {
        let clients = self.env.connections.to_string();
        let requests = (self.env.connections * each).to_string();
        let run = ["--closed", &clients, "-n", &requests, "--timeout", "10m"];
        // SSE by `Accept`, which both sides know.
        let (path, how): (&str, &[&str]) = if transport == "sse" {
            ("/crawl/stream", &["--transport", "sse", "-H", "Accept: text/event-stream"])
        } else {
            ("/crawl/ws", &["--transport", "ws"])
        };
        self.load(path, &[&run[..], how, flags].concat())
    }

    fn half_load(&self, side: Side) -> Result<Vec<Figure>, Failure> {
        let rate = match self.env.half_load.get() {
            Some(rate) => rate,
            None => {
                let other = if side == Side::Forebay { Side::Axum } else { Side::Forebay };
                let server = self.env.start(other)?;
                let other = Run { env: self.env, server: &server };
                let rate = self.capacity()?.min(other.capacity()?) / 2.0;
                self.env.half_load.set(Some(rate));
                rate
            }
        };
        let rate = format!("{rate:.1}");
        // Percentiles need samples, so this run is longer than the others.
        let duration = format!("{}ms", (self.env.seconds * 3e3).ceil());
        let open = ["--rate", &rate, "--schedule", "poisson", "-d", &duration, "-c", "256"];
        let warm = ["--warmup", "500ms", "--drain", "30s"];
        let one = self.one_page()?;
        let flags: Vec<&str> = one.iter().map(|flag| &**flag).collect();
        let load = self.load("/crawl/stream", &[&open[..], &warm, &flags].concat())?;
        let load = load.without_failed_pages()?;
        [("TTFB p50", "p50_us"), ("TTFB p99", "p99_us"), ("TTFB p99.9", "p99_9_us")]
            .into_iter()
            .map(|(name, quantile)| {
                Ok(Figure { name, unit: "µs", value: load.micros("ttfb", quantile)? })
            })
            .collect()
    }

    /// Streams of one page per second, at most.
    fn capacity(&self) -> Result<f64, Failure> {
        let one = self.one_page()?;
        let flags: Vec<&str> = one.iter().map(|flag| &**flag).collect();
        Ok(self.closed("/crawl/stream", CLIENTS, &flags)?.rate())
    }

    /// Flags of a stream of one page: cached where the server can, else a fresh one.
    pub(crate) fn one_page(&self) -> Result<Vec<String>, Failure> {
        let text = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
        if self.env.caches {
            let body = self.primed(&[self.env.page(PAGE)], &[])?;
            return Ok(text(&["--transport", "ndjson", "--body", &body]));
        }
        let page = self.env.page(FRESH_PAGE);
        let options = ["--option", "robots=ignore", "--option", "cache_mode=bypass"];
        Ok(text(&[&["--transport", "ndjson", "--crawl", &page][..], &options].concat()))
    }
}
