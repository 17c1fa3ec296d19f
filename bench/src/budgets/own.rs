//! Budgets that hold Forebay against itself.

use super::Measured;
use crate::Failure;
use crate::compare::{Env, Run};
use crate::process::{Side, scratch};
use crate::ratio::Spread;
use crate::{http, load};

/// Streams a second of the measured clients: far from what the server takes, and ten thousand in a run of
/// the default length, so that a tail of 99.9 % is made of ten of them.
const QUIET_RATE: f64 = 350.0;

/// What a light load of streams runs beside.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    /// Clients that keep every lane busy with pages of 100 kB.
    Pages,
    /// A crowd that crawls a megabyte of the worst markup there is.
    Hostile,
}

/// Documents of the synthetic origin that cost an extractor most, each in its own way.
const WORST: [&str; 8] =
    ["amps", "nested", "attributes", "unclosed", "tables", "formatting", "entities", "svg"];

/// p99.9 TTFB of a light load of streams while every lane extracts, over the same load alone.
pub(super) fn busy_over_idle(env: &Env) -> Result<Measured, Failure> {
    over_idle(env, Beside::Pages)
}

/// p99.9 TTFB of a light load of streams beside a hostile crowd, over the same load alone.
pub(super) fn hostile_over_idle(env: &Env) -> Result<Measured, Failure> {
    over_idle(env, Beside::Hostile)
}

fn over_idle(env: &Env, beside: Beside) -> Result<Measured, Failure> {
    let mut blocks = Vec::new();
    for _ in 0..env.rounds {
        let mut block = [0.0; 4];
        let order = [beside, Beside::Nothing, Beside::Nothing, beside];
        for (slot, beside) in block.iter_mut().zip(order) {
            *slot = quiet_clients(env, beside)?;
        }
        blocks.push(block);
    }
    Ok(Measured::Figure(Spread::of_blocks(&blocks).ok_or("there is no ratio")?))
}

fn quiet_clients(env: &Env, beside: Beside) -> Result<f64, Failure> {
    let server = env.start(Side::Forebay)?;
    let run = Run { env, server: &server };
    let quiet = if env.caches {
        let body = run.primed(&[env.page("/page/1?size=20000")], &[])?;
        format!("body = '{body}'")
    } else {
        let page = env.page("/page/{{n}}?size=2000");
        format!("crawl = {{ url = \"{page}\", options = {{ robots = \"ignore\" }} }}")
    };
    let mut scenario = format!(
        "[[group]]\nname = \"quiet\"\nmeasured = true\ntransport = \"ndjson\"\nrate = {QUIET_RATE:?}\n\
         schedule = \"poisson\"\nconnections = 64\n{quiet}\n"
    );
    let mut crowd = |name: &str, clients: u32, path: &str, urls: u32| {
        let page = env.page(path);
        scenario += &format!(
            "[[group]]\nname = \"{name}\"\ntransport = \"ndjson\"\nclosed = {clients}\ntimeout = \"2m\"\n\
             crawl = {{ url = \"{page}\", urls = {urls}, \
             options = {{ robots = \"ignore\", cache_mode = \"bypass\" }} }}\n"
        );
    };
    match beside {
        Beside::Nothing => {}
        // Always the same pages: the origin, which makes them, is beside the clients that measure.
        Beside::Pages => crowd("busy", 4, "/page/1?size=100000", 8),
        Beside::Hostile => {
            for name in WORST {
                crowd(name, 1, &format!("/hostile/{name}?size=1m"), 2);
            }
        }
    }
    let file = scratch("beside.toml");
    std::fs::write(&file, scenario)?;
    let duration = format!("{}s", (env.seconds * 10.0).ceil() + 1.0);
    let url = format!("http://{}", server.addr);
    let file = file.to_string_lossy();
    let flags =
        [&*file, "--url", &url, "--duration", &duration, "--warmup", "1s", "--drain", "30s"];
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let load = load::run(env.client_cpu, server.pid(), &flags)?;
    load.without_failed_pages()?.micros("ttfb", "p99_9_us")
}

/// CPU per fetched and extracted URL in streams of 1, 10, 100 and 1,000: the dearest over the
/// cheapest.
pub(super) fn flatness(env: &Env) -> Result<Measured, Failure> {
    let mut rounds = Vec::new();
    for _ in 0..env.rounds {
        let mut costs = Vec::new();
        for (urls, clients) in [(1, 16), (10, 2), (100, 1), (1000, 1)] {
            let server = env.start(Side::Forebay)?;
            let load = Run { env, server: &server }.fresh(urls, clients)?;
            let (user, system) = load.server_cpu_s();
            costs.push((user + system) / load.count("results"));
        }
        let spread = Spread::of(costs).ok_or("no stream was run")?;
        rounds.push(spread.max / spread.min);
    }
    Ok(Measured::Figure(Spread::of(rounds).ok_or("no round was run")?))
}

/// p99 from the request's last byte to the first byte of its stream on the wire, by the server's own
/// clock (`GET /latency`), under a light load.
pub(super) fn first_byte(env: &Env) -> Result<Measured, Failure> {
    let mut rounds = Vec::new();
    for _ in 0..env.rounds {
        let server = env.start(Side::Forebay)?;
        let run = Run { env, server: &server };
        let one = run.one_page()?;
        let duration = format!("{}ms", (env.seconds * 1e3).ceil());
        let rate = format!("{QUIET_RATE}");
        let mut flags = vec!["--rate", &rate, "--schedule", "poisson", "-d", &duration];
        flags.extend(one.iter().map(|flag| &**flag));
        http::get(server.addr, "/latency?reset")?;
        run.load("/crawl/stream", &flags)?;
        let latency: serde_json::Value =
            serde_json::from_str(&http::get(server.addr, "/latency")?.body())?;
        let series = latency["series"].as_array().ok_or("/latency has no series")?;
        let ttfb = series.iter().find(|series| series["name"] == "crawl.ndjson.ttfb");
        let p99 = ttfb.and_then(|series| series["p99"].as_f64());
        rounds.push(p99.ok_or("/latency has no crawl.ndjson.ttfb")?);
    }
    Ok(Measured::Figure(Spread::of(rounds).ok_or("no round was run")?))
}
