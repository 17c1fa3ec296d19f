//! What Redis costs the streams of a node that has one: events per second and time per event with and
//! without it, in one run; and what its death costs those who are being served.

use crate::compare::{Compared, Env, FLAGS, Figure, Run, compare_runs};
use crate::flags::Flags;
use crate::load::Load;
use crate::process::{Process, pinned, scratch};
use crate::ratio::{Limit, Spread, Verdict};
use crate::{Failure, Outcome, http};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clients of a closed loop whose streams are of cached pages, and pages of each.
const CACHED: (usize, usize) = (64, 100);
/// The same where every page is fetched.
const FRESH: (usize, usize) = (4, 20);
/// Streams that run when Redis dies, unless told.
const STREAMS: usize = 200;
/// p99.9 to the first byte with a Redis that dies, over one that lives; the bar.
const DEATH_RATIO_MAX: f64 = 2.0;
/// How long Redis may take to answer, or the server to use it.
const START: Duration = Duration::from_secs(20);

/// A `redis-server` of its own; killed when dropped.
struct Redis {
    child: Child,
    addr: SocketAddr,
}

impl Redis {
    /// Starts one on a CPU, on a free port, that keeps nothing on disk.
    fn start(cpu: usize) -> Result<Self, Failure> {
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = std::fs::File::create(scratch("redis.log"))?;
        let (port, folder) = (addr.port().to_string(), std::env::temp_dir());
        let child = pinned(cpu, Path::new("redis-server"))
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let redis = Self { child, addr };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if begun.elapsed() > START {
                return Err("redis-server did not come up".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether there is a `redis-server`, or why it is skipped.
pub(crate) fn lacks() -> Option<&'static str> {
    let found = Command::new("redis-server").arg("--version").output().is_ok();
    (!found).then_some("there is no redis-server (Debian: apt-get install redis-server)")
}

/// Prints both; in budget unless the death of Redis is felt in every round.
pub(crate) fn run(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &[&FLAGS[..], &["--streams"]].concat())?;
    if let Some(why) = lacks() {
        return Err(why.into());
    }
    let bench = Bench { env: Env::new(&flags)?, pages: Cell::new(0), left_alone: Cell::new(0) };
    println!("{}", bench.env.describe());
    println!("here: with Redis over without it, the same server; Redis runs beside the load\n");
    for (name, measure) in [
        ("cached pages", Bench::cached as fn(&Bench, &Run<'_>) -> _),
        ("fresh pages", Bench::fresh),
    ] {
        println!("resumable streams of {name}:");
        for (line, added) in bench.compare(measure)? {
            print_line(&line, &added);
        }
        let times = bench.left_alone.take();
        println!(
            "  left alone for being slow {times} times; what it was not told then cost nothing"
        );
    }
    bench.death(flags.get("--streams", STREAMS)?)
}

/// A figure of both, and what Redis adds to it.
type Line = (Compared, Spread);

fn print_line(line: &Compared, added: &Spread) {
    let Compared { figure, unit, ours, theirs, .. } = line;
    let (ours, theirs) = (format!("{ours} {unit}"), format!("{theirs} {unit}"));
    println!("  {figure:<28} with {ours:<34} without {theirs:<34} {}", line.ratio_text());
    if *unit == "µs" {
        println!("  {:<28} {added} µs", "  added");
    }
}

struct Bench {
    env: Env,
    /// No page is fresh twice.
    pages: Cell<u32>,
    /// How often Redis was left alone because it was too slow.
    left_alone: Cell<u64>,
}

type Measured = Result<Vec<Figure>, Failure>;

impl Bench {
    /// Blocks of runs: with Redis, without, without, with.
    fn compare(&self, measure: impl Fn(&Self, &Run<'_>) -> Measured) -> Result<Vec<Line>, Failure> {
        let mut runs = Vec::new();
        for _ in 0..self.env.rounds {
            for with in [true, false, false, true] {
                let redis = with.then(|| Redis::start(self.env.client_cpu)).transpose()?;
                let server = self.server(redis.as_ref())?;
                runs.push(measure(self, &Run { env: &self.env, server: &server })?);
                if with {
                    let health = http::get(server.addr, "/healthz")?.body();
                    let health: serde_json::Value = serde_json::from_str(&health)?;
                    let times = health["redis"]["breaker_open"].as_u64();
                    let times = times.ok_or("/healthz says nothing of the breaker")?;
                    self.left_alone.set(self.left_alone.get() + times);
                }
            }
        }
        let added = |at: usize| {
            let (blocks, _) = runs.as_chunks::<4>();
            let added = |block: &[Vec<Figure>; 4]| {
                let [a, b, c, d] = block.each_ref().map(|run| run[at].value);
                f64::midpoint(a, d) - f64::midpoint(b, c)
            };
            Spread::of(blocks.iter().map(added).collect()).ok_or("no round was run")
        };
        let lines = compare_runs(&runs)?.into_iter().enumerate();
        lines.map(|(at, line)| Ok((line, added(at)?))).collect()
    }

    /// A server that uses the Redis, if there is one.
    fn server(&self, redis: Option<&Redis>) -> Result<Process, Failure> {
        let Some(redis) = redis else { return self.env.forebay(&[]) };
        let url = format!("redis://{}", redis.addr);
        let server = self.env.forebay(&["--redis-url", &url])?;
        let begun = Instant::now();
        while !http::get(server.addr, "/healthz")?.body().contains("\"redis\":{\"state\":\"up\"") {
            if begun.elapsed() > START {
                return Err("the server does not use its Redis".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn cached(&self, run: &Run<'_>) -> Measured {
        let page = |n| self.env.page(&format!("/page/{n}?size=4000"));
        let body = run.primed(&(0..CACHED.1).map(page).collect::<Vec<_>>(), &[])?;
        let flags = || vec!["--body".to_owned(), body.clone()];
        self.figures(run, CACHED.0, &flags)
    }

    fn fresh(&self, run: &Run<'_>) -> Measured {
        let flags = || self.fresh_flags(FRESH.1, "size=20000");
        self.figures(run, FRESH.0, &flags)
    }

    /// A crawl of pages that nobody has had before, kept by the cache and by Redis.
    fn fresh_flags(&self, urls: usize, query: &str) -> Vec<String> {
        let load = self.pages.replace(self.pages.get() + 1);
        let page = self.env.page(&format!("/page/{{{{n}}}}?load={load}&{query}"));
        let urls = urls.to_string();
        ["--crawl", &page, "--urls", &urls, "--option", "robots=ignore"].map(str::to_owned).into()
    }

    /// What many clients get in a second, and how long one alone waits for an event; `flags` are new
    /// ones each time.
    fn figures(&self, run: &Run<'_>, clients: usize, flags: &dyn Fn() -> Vec<String>) -> Measured {
        self.closed(run, clients, self.env.seconds / 10.0, flags())?;
        let many = self.closed(run, clients, self.env.seconds, flags())?;
        let one = self.closed(run, 1, self.env.seconds, flags())?;
        let events = one.count("events") / one.count("ok");
        let (user, system) = many.server_cpu_s();
        let figure = |name, unit, value| Figure { name, unit, value };
        Ok(vec![
            figure("events per second", "/s", many.per_second("events")),
            figure("CPU per event", "µs", (user + system) * 1e6 / many.count("events")),
            figure("time per event, one client", "µs", one.micros("service", "p50_us")? / events),
            figure("time to the first result", "µs", one.micros("ttfr_service", "p50_us")?),
        ])
    }

    fn closed(
        &self,
        run: &Run<'_>,
        clients: usize,
        seconds: f64,
        flags: Vec<String>,
    ) -> Result<Load, Failure> {
        let (clients, duration) = (clients.to_string(), format!("{}ms", (seconds * 1e3).ceil()));
        let closed = ["--closed", &clients, "-d", &duration, "--drain", "60s"];
        let flags = flags.iter().map(|flag| &**flag);
        let all: Vec<&str> =
            closed.into_iter().chain(["--transport", "ndjson"]).chain(flags).collect();
        run.load("/crawl/stream", &all)
    }

    /// Streams of two slow pages each while Redis is killed, beside the same with a Redis that lives. A
    /// request that fails in either ends the benchmark.
    fn death(&self, streams: usize) -> Outcome {
        println!("{streams} streams while redis-server is killed, against one that lives:");
        let (mut blocks, mut answered) = (Vec::new(), 0.0);
        for _ in 0..self.env.rounds {
            let mut block = [0.0; 4];
            for (slot, dies) in block.iter_mut().zip([true, false, false, true]) {
                let load = self.loaded(streams, dies)?;
                answered += load.count("ok");
                *slot = load.micros("ttfb", "p99_9_us")?;
            }
            blocks.push(block);
        }
        let side = |at: [usize; 2]| {
            Spread::of(blocks.iter().flat_map(|block| at.map(|at| block[at])).collect())
        };
        let none = "no round was run";
        let (killed, well) = (side([0, 3]).ok_or(none)?, side([1, 2]).ok_or(none)?);
        let ratio = Spread::of_blocks(&blocks).ok_or("there is no ratio")?;
        let limit = Limit::AtMost(DEATH_RATIO_MAX);
        let verdict = limit.judge(&ratio);
        println!("  {answered} requests answered, 0 failed");
        println!("  TTFB p99.9: killed {killed} µs, well {well} µs");
        println!("  {verdict}: ratio {ratio}, {limit}");
        Ok(verdict != Verdict::Missed)
    }

    fn loaded(&self, streams: usize, dies: bool) -> Result<Load, Failure> {
        // A tail needs samples: five times the usual length.
        let seconds = self.env.seconds * 5.0;
        let mut redis = Redis::start(self.env.client_cpu)?;
        let server = self.server(Some(&redis))?;
        let mut flags = self.fresh_flags(2, "size=2000&latency=400ms");
        flags.extend(["--option", "concurrency=1", "--timeout", "60s"].map(str::to_owned));
        let run = Run { env: &self.env, server: &server };
        std::thread::scope(|scope| {
            if dies {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs_f64(seconds / 2.0));
                    redis.kill();
                });
            }
            self.closed(&run, streams, seconds, flags)
        })
    }
}
