//! A run: scenario → schedule → connections → tallies, one thread per shard, and the collector
//! that puts their seconds together.

mod conn;
mod context;
mod exchange;
pub(crate) mod process;
pub(crate) mod scenario;
mod schedule;
mod shard;
pub(crate) mod tally;
mod timer;
mod ws;

use crate::report::live::Live;
use process::Usage;
use scenario::Scenario;
use shard::{Report, Shard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tally::{Metric, Tally};
use tokio::sync::watch;

/// Everything that a run found out.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) started_at: SystemTime,
    /// From the start to the end of the schedule or the last answer, whichever is later.
    pub(crate) elapsed: Duration,
    /// Each second of each group: `seconds[group][second]`.
    pub(crate) seconds: Vec<BTreeMap<u64, Tally>>,
    /// The sum of each group.
    pub(crate) totals: Vec<Tally>,
    /// The generator itself, from the end of the warm-up on.
    pub(crate) client: (Usage, Usage),
    /// The server: before any connection, with all connections made, at the end of the warm-up, after
    /// the run.
    pub(crate) server: Option<[Usage; 4]>,
    /// Somebody stopped it early.
    pub(crate) interrupted: bool,
}

/// Runs a scenario.
///
/// # Errors
/// When it can't start; failures of requests are figures, not errors.
pub(crate) fn run(scenario: Scenario, pid: Option<u32>, progress: bool) -> Result<Outcome, String> {
    crate::cli::raise_descriptor_limit(shard::descriptors(&scenario.groups))?;
    let scenario = Arc::new(scenario);
    let pid = pid.map(|pid| pid.to_string());
    let usage = || pid.as_deref().map(Usage::of).transpose();
    let server_before = usage()?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_for_interrupt(&stop)?;
    let (reports, inbox) = mpsc::channel();
    let (start_sender, start) = watch::channel(None);
    let threads: Vec<_> = (0..scenario.threads)
        .map(|index| {
            let shard = Shard {
                index,
                scenario: Arc::clone(&scenario),
                reports: reports.clone(),
                start: start.clone(),
                stop: Arc::clone(&stop),
            };
            thread::Builder::new().name(format!("shard {index}")).spawn(move || shard.run())
        })
        .collect::<Result<_, _>>()
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    drop(reports);
    let mut collector = Collector::new(&scenario, progress);
    collector.wait_ready(&inbox)?;
    // A moment for the server to come to rest after the connects.
    thread::sleep(Duration::from_millis(if pid.is_some() { 300 } else { 10 }));
    let server_ready = usage()?;
    let (started_at, began) = (SystemTime::now(), Instant::now());
    let (over, until_over) = mpsc::channel();
    let warm = watch_warmup(scenario.warmup, until_over, pid.clone())?;
    let _ = start_sender.send(Some(began));
    let collected = collector.collect(&inbox, || usage().ok().flatten());
    let elapsed = began.elapsed();
    let last_end = collector.totals.iter().filter_map(|total| total.last_end).max();
    let (client_after, server_after) = (Usage::of("self")?, usage()?);
    for thread in threads {
        thread.join().map_err(|_| "a client thread panicked".to_owned())?;
    }
    collected?;
    let (seconds, totals) = collector.finish();
    drop(over);
    let (client_before, server_warm) =
        warm.join().map_err(|_| "a thread panicked".to_owned())??;
    let server = match (server_before, server_ready, server_warm, server_after) {
        (Some(before), Some(ready), Some(warm), Some(after)) => Some([before, ready, warm, after]),
        _ => None,
    };
    Ok(Outcome {
        started_at,
        // Closing ten thousand idle connections is no part of the throughput.
        elapsed: last_end
            .map(|end| end.saturating_duration_since(began))
            .max(scenario.duration)
            .map_or(elapsed, |worked| worked.min(elapsed)),
        scenario,
        seconds,
        totals,
        client: (client_before, client_after),
        server,
        interrupted: stop.load(Ordering::Relaxed),
    })
}

/// CPU time of the generator and, where it is watched, of the server.
type Warm = (Usage, Option<Usage>);

/// Reads the CPU times at the end of the warm-up, or of the run should that come first: what came before
/// must not be divided by the measured requests.
fn watch_warmup(
    warmup: Duration,
    over: Receiver<()>,
    pid: Option<String>,
) -> Result<thread::JoinHandle<Result<Warm, String>>, String> {
    thread::Builder::new()
        .name("warm-up".to_owned())
        .spawn(move || {
            let _ = over.recv_timeout(warmup);
            Ok((Usage::of("self")?, pid.as_deref().map(Usage::of).transpose()?))
        })
        .map_err(|error| format!("cannot start a thread: {error}"))
}

/// Ctrl-C ends the run early; its figures are still reported.
fn watch_for_interrupt(stop: &Arc<AtomicBool>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    let stop = Arc::clone(stop);
    thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .map(|_| ())
        .map_err(|error| format!("cannot start a thread: {error}"))
}

/// Puts the shards' seconds together.
#[derive(Debug)]
struct Collector {
    shards: usize,
    seconds: Vec<BTreeMap<u64, Tally>>,
    totals: Vec<Tally>,
    heard: BTreeMap<u64, (usize, u64, u64)>,
    live: Live,
    measured: usize,
}

impl Collector {
    fn new(scenario: &Scenario, progress: bool) -> Self {
        let measured = scenario.groups.iter().position(|group| group.measured).unwrap_or(0);
        Self {
            shards: scenario.threads,
            seconds: scenario.groups.iter().map(|_| BTreeMap::new()).collect(),
            totals: scenario.groups.iter().map(|_| Tally::default()).collect(),
            heard: BTreeMap::new(),
            live: Live::new(progress, scenario.duration),
            measured,
        }
    }

    fn wait_ready(&mut self, inbox: &Receiver<Report>) -> Result<(), String> {
        for _ in 0..self.shards {
            match inbox.recv() {
                Ok(Report::Ready) => {}
                Ok(Report::Done(Err(error))) => return Err(error),
                Ok(_) | Err(_) => return Err("a client thread ended before the start".to_owned()),
            }
        }
        Ok(())
    }

    fn collect(
        &mut self,
        inbox: &Receiver<Report>,
        usage: impl Fn() -> Option<Usage>,
    ) -> Result<(), String> {
        let mut done = 0;
        while done < self.shards {
            match inbox.recv() {
                Ok(Report::Done(result)) => {
                    result?;
                    done += 1;
                }
                Ok(Report::Second { second, tallies, in_flight, waiting }) => {
                    self.take_second(second, &tallies, in_flight, waiting, &usage);
                }
                Ok(Report::Ready) => {}
                Err(_) => return Err("a client thread ended without a word".to_owned()),
            }
        }
        self.live.clear();
        Ok(())
    }

    fn take_second(
        &mut self,
        second: u64,
        tallies: &[Tally],
        in_flight: u64,
        waiting: u64,
        usage: &impl Fn() -> Option<Usage>,
    ) {
        for ((seconds, total), tally) in self.seconds.iter_mut().zip(&mut self.totals).zip(tallies)
        {
            total.merge(tally);
            let kept = seconds.entry(second).or_default();
            kept.merge(tally);
            kept.keep_only(Metric::Latency);
        }
        let heard = self.heard.entry(second).or_default();
        heard.0 += 1;
        heard.1 += in_flight;
        heard.2 += waiting;
        if heard.0 == self.shards {
            let (_, in_flight, waiting) = *heard;
            if let Some(tally) = self.seconds[self.measured].get(&second) {
                let rss =
                    if self.live.is_on() { usage().map(|usage| usage.rss_bytes) } else { None };
                self.live.show(second + 1, tally, in_flight, waiting, rss);
            }
        }
    }

    fn finish(self) -> (Vec<BTreeMap<u64, Tally>>, Vec<Tally>) {
        (self.seconds, self.totals)
    }
}
