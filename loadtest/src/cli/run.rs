//! `loadtest run` and `loadtest report`: flags into a scenario, a run into its outputs.

use crate::cli::write_file;
use crate::report::hdr::{self, Interval};
use crate::report::model::RunReport;
use crate::report::{html, table};
use crate::run::scenario::{CrawlSpec, GroupSpec, ScenarioSpec};
use crate::run::tally::Metric;
use crate::run::{self, Outcome};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    /// Request and response.
    Http,
    /// A crawl streamed as JSON lines (POST /crawl/stream).
    Ndjson,
    /// A crawl streamed as server-sent events (POST /crawl/sse).
    Sse,
    /// Crawls over a WebSocket (GET /crawl/ws).
    Ws,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Requests.
    Load,
    /// Connections held open that say nothing.
    Idle,
    /// A new connection for each arrival, which is then closed, reset or left half a request.
    Storm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScheduleName {
    /// Evenly spaced.
    Constant,
    /// Exponential gaps, as of many clients that don't know each other.
    Poisson,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Scenario file (TOML, see README.md) with one or more groups of clients. Of the flags, --url,
    /// --duration, --warmup, --drain, --seed, --threads and the outputs go with one.
    #[arg(value_name = "SCENARIO.toml")]
    scenario: Option<PathBuf>,
    /// What to load: http://HOST:PORT/PATH. Without a path, the transport's own.
    #[arg(long, value_name = "URL", help_heading = "Target")]
    url: Option<String>,
    /// How requests and their events travel.
    #[arg(long, value_enum, help_heading = "Target")]
    transport: Option<Transport>,
    /// Request method; POST where there is a body, else GET.
    #[arg(long, help_heading = "Target")]
    method: Option<String>,
    /// Request header, repeatable.
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", help_heading = "Target")]
    headers: Vec<String>,
    /// Request body. In body and path, an n in double braces becomes the request's number.
    #[arg(long, conflicts_with_all = ["body_file", "crawl"], help_heading = "Target")]
    body: Option<String>,
    /// File with the request body.
    #[arg(long, value_name = "FILE", conflicts_with = "crawl", help_heading = "Target")]
    body_file: Option<PathBuf>,
    /// Crawl pages with this URL, in which an n in double braces becomes a number that no other page
    /// has.
    #[arg(long, value_name = "URL", help_heading = "Target")]
    crawl: Option<String>,
    /// Pages per crawl.
    #[arg(long, value_name = "N", requires = "crawl", help_heading = "Target")]
    urls: Option<u64>,
    /// Field of the crawl's options, repeatable: concurrency=8, cache_mode=bypass.
    #[arg(long = "option", value_name = "NAME=JSON", requires = "crawl", help_heading = "Target")]
    options: Vec<String>,

    /// Open loop: so many requests are meant to start each second.
    #[arg(long, value_name = "PER_SECOND", help_heading = "Load")]
    rate: Option<f64>,
    /// How the starts of an open loop are spread.
    #[arg(long, value_enum, help_heading = "Load")]
    schedule: Option<ScheduleName>,
    /// Open loop in steps: 100:10s,200:10s,400:10s.
    #[arg(long, value_name = "RATE:TIME,…", conflicts_with = "rate", help_heading = "Load")]
    steps: Option<String>,
    /// Closed loop: so many clients, each asks again when it is answered.
    #[arg(long, value_name = "CLIENTS", conflicts_with_all = ["rate", "steps"], help_heading = "Load")]
    closed: Option<usize>,
    /// Connections of an open loop, at most so many requests at once [default: 64].
    #[arg(long, short = 'c', value_name = "N", help_heading = "Load")]
    connections: Option<usize>,
    /// How long requests are started [default: 10s, or until --requests].
    #[arg(long, short = 'd', value_name = "TIME", help_heading = "Load")]
    duration: Option<String>,
    /// Stop after so many requests.
    #[arg(long, short = 'n', value_name = "N", help_heading = "Load")]
    requests: Option<u64>,
    /// Time at the start that is not measured.
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    warmup: Option<String>,
    /// How long to wait for answers after the last request [default: 5s].
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    drain: Option<String>,
    /// A request that takes longer has failed [default: 30s].
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    timeout: Option<String>,
    /// A new connection for each request.
    #[arg(long, help_heading = "Load")]
    new_connection: bool,
    /// Threads of the generator [default: 1].
    #[arg(long, value_name = "N", help_heading = "Load")]
    threads: Option<usize>,
    /// What schedule, cuts and numbers follow from [default: 1].
    #[arg(long, value_name = "N", help_heading = "Load")]
    seed: Option<u64>,

    /// What the clients do.
    #[arg(long, value_enum, help_heading = "Unkind clients")]
    kind: Option<Kind>,
    /// What a storm does with a connection: close, reset, or half (of a request head).
    #[arg(long, value_name = "HOW", help_heading = "Unkind clients")]
    then: Option<String>,
    /// Beside the measured clients, so many that read slowly, in a closed loop of their own.
    #[arg(long, value_name = "N", help_heading = "Unkind clients")]
    slow_readers: Option<usize>,
    /// How slowly those read.
    #[arg(long, value_name = "N", default_value_t = 2000, help_heading = "Unkind clients")]
    slow_bytes_per_s: u64,
    /// Cut each stream after about so many events, resume it, and check that nothing is missing.
    #[arg(long, value_name = "N", help_heading = "Unkind clients")]
    cut_after_events: Option<u64>,
    /// Cuts per stream [default: 1].
    #[arg(long, value_name = "N", requires = "cut_after_events", help_heading = "Unkind clients")]
    cuts: Option<u64>,
    /// Beside the measured clients, so many connections that are held open and idle.
    #[arg(long, value_name = "N", help_heading = "Unkind clients")]
    idle: Option<usize>,
    /// Parse every event wholly instead of its first fields.
    #[arg(long, help_heading = "Unkind clients")]
    check_full: bool,

    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Debug, Args)]
struct Outputs {
    /// Name of the run in its reports.
    #[arg(long, help_heading = "Output")]
    name: Option<String>,
    /// Process id of the server: report its CPU time, and its memory before, during and after.
    #[arg(long, help_heading = "Output")]
    pid: Option<u32>,
    /// Show a line each second even when stderr is no terminal.
    #[arg(long, help_heading = "Output")]
    progress: bool,
    /// Write the whole result as JSON, `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write the latency's percentile distribution, as HdrHistogram's plotter reads it.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hgrm: Option<PathBuf>,
    /// Write an interval log (HdrHistogram V2), one line per second and group.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hlog: Option<PathBuf>,
    /// Write a report with plots: one file, no outside resources.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
}

impl RunArgs {
    /// Runs and writes what was asked for.
    pub(crate) fn run(self) -> Result<u8, String> {
        let spec = self.spec()?;
        let Outputs { pid, progress, .. } = self.outputs;
        let outcome = run::run(spec.check()?, pid, progress)?;
        let report = RunReport::of(&outcome)?;
        self.outputs.write(&outcome, &report)?;
        let failed = report.groups.iter().filter(|group| group.measured).any(|group| {
            let counts = &group.counts;
            counts.failed + counts.unsent + counts.violations > 0
        });
        Ok(u8::from(failed))
    }

    /// The scenario that file and flags describe together.
    fn spec(&self) -> Result<ScenarioSpec, String> {
        let mut spec = match &self.scenario {
            Some(path) => ScenarioSpec::read(path)?,
            None => ScenarioSpec::default(),
        };
        let set = |slot: &mut Option<String>, value: &Option<String>| {
            if value.is_some() {
                slot.clone_from(value);
            }
        };
        set(&mut spec.url, &self.url);
        set(&mut spec.name, &self.outputs.name);
        set(&mut spec.duration, &self.duration);
        set(&mut spec.warmup, &self.warmup);
        set(&mut spec.drain, &self.drain);
        spec.seed = self.seed.or(spec.seed);
        spec.threads = self.threads.or(spec.threads);
        let group = self.group()?;
        if self.scenario.is_some() {
            self.refuse_group_flags(&group)?;
        } else {
            if let Some(count) = self.slow_readers {
                spec.group.push(GroupSpec {
                    name: Some("slow readers".to_owned()),
                    closed: Some(count),
                    rate: None,
                    steps: None,
                    schedule: None,
                    requests: None,
                    cut_after_events: None,
                    measured: false,
                    read_bytes_per_s: Some(self.slow_bytes_per_s),
                    timeout: Some("1h".to_owned()),
                    ..group.clone()
                });
            }
            if let Some(count) = self.idle {
                spec.group.push(GroupSpec {
                    name: Some("idle crowd".to_owned()),
                    kind: Some("idle".to_owned()),
                    connections: Some(count),
                    path: Some("/".to_owned()),
                    ..GroupSpec::default()
                });
            }
            spec.group.insert(0, group);
        }
        Ok(spec)
    }

    /// Flags that describe a group have no place beside a file that describes its own.
    fn refuse_group_flags(&self, given: &GroupSpec) -> Result<(), String> {
        let none = GroupSpec { name: given.name.clone(), measured: true, ..GroupSpec::default() };
        let beside = self.slow_readers.is_some() || self.idle.is_some();
        if beside || *given != none {
            return Err(
                "a scenario file describes its groups itself: of the flags under Target, Load \
                        and Unkind clients only --url, --duration, --warmup, --drain, --seed and \
                        --threads go with one"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn group(&self) -> Result<GroupSpec, String> {
        let headers = self.headers.iter().map(|header| {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| format!("--header `{header}`: expected NAME:VALUE"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        let name = |value: Option<&str>| value.map(str::to_owned);
        Ok(GroupSpec {
            name: Some("measured".to_owned()),
            measured: true,
            kind: name(self.kind.map(|kind| match kind {
                Kind::Load => "load",
                Kind::Idle => "idle",
                Kind::Storm => "storm",
            })),
            transport: name(self.transport.map(|transport| match transport {
                Transport::Http => "http",
                Transport::Ndjson => "ndjson",
                Transport::Sse => "sse",
                Transport::Ws => "ws",
            })),
            method: self.method.clone(),
            headers: headers.collect::<Result<_, String>>()?,
            body: self.body.clone(),
            body_file: self.body_file.clone(),
            crawl: self.crawl()?,
            rate: self.rate,
            schedule: name(self.schedule.map(|schedule| match schedule {
                ScheduleName::Constant => "constant",
                ScheduleName::Poisson => "poisson",
            })),
            steps: self.steps.clone(),
            closed: self.closed,
            connections: self.connections,
            requests: self.requests,
            timeout: self.timeout.clone(),
            cut_after_events: self.cut_after_events,
            cuts: self.cuts,
            new_connection: self.new_connection,
            then: self.then.clone(),
            check: self.check_full.then(|| "full".to_owned()),
            ..GroupSpec::default()
        })
    }

    fn crawl(&self) -> Result<Option<CrawlSpec>, String> {
        let Some(url) = &self.crawl else { return Ok(None) };
        let mut options = BTreeMap::new();
        for option in &self.options {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| format!("--option `{option}`: expected NAME=JSON"))?;
            // A word that is no JSON is meant as a string.
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            options.insert(name.to_owned(), value);
        }
        Ok(Some(CrawlSpec { url: url.clone(), urls: self.urls, options }))
    }
}

impl Outputs {
    fn write(&self, outcome: &Outcome, report: &RunReport) -> Result<(), String> {
        if let Some(path) = &self.json {
            let json = serde_json::to_vec_pretty(report).map_err(|error| error.to_string())?;
            write_file(path, &json)?;
        }
        if let Some(path) = &self.html {
            write_file(path, html::render(std::slice::from_ref(report))?.as_bytes())?;
        }
        if let Some(path) = &self.hgrm {
            let measured = outcome.scenario.groups.iter().position(|group| group.measured);
            let total = measured.and_then(|index| outcome.totals.get(index));
            let latency = total
                .and_then(|total| total.histogram(Metric::Latency))
                .ok_or("--hgrm: no request was answered")?;
            write_file(path, hdr::percentiles(latency).as_bytes())?;
        }
        if let Some(path) = &self.hlog {
            write_file(path, interval_log(outcome, report.started_at_s)?.as_bytes())?;
        }
        if self.json.as_deref() != Some(std::path::Path::new("-")) {
            print!("{}", table::render(report));
        }
        Ok(())
    }
}

fn interval_log(outcome: &Outcome, started_at_s: f64) -> Result<String, String> {
    let groups = outcome.scenario.groups.iter().zip(&outcome.seconds);
    let mut intervals: Vec<Interval<'_>> = groups
        .flat_map(|(group, seconds)| {
            seconds.iter().filter_map(|(second, tally)| {
                let histogram = tally.histogram(Metric::Latency)?;
                Some(Interval {
                    tag: &group.name,
                    start_s: *second as f64,
                    length_s: 1.0,
                    histogram,
                })
            })
        })
        .collect();
    intervals.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
    hdr::interval_log(started_at_s, intervals.into_iter())
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Files that `loadtest run --json` wrote; the first is what others are compared with.
    #[arg(required = true, value_name = "RUN.json")]
    runs: Vec<PathBuf>,
    /// Where the report goes.
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

impl ReportArgs {
    /// Writes the report.
    pub(crate) fn run(self) -> Result<u8, String> {
        let reports =
            self.runs.iter().map(|path| RunReport::read(path)).collect::<Result<Vec<_>, _>>()?;
        write_file(&self.html, html::render(&reports)?.as_bytes())?;
        Ok(0)
    }
}
