//! One thread of clients: its share of every group, on a runtime of its own.

use crate::num;
use crate::rng::Rng;
use crate::run::conn::Conn;
use crate::run::context::{Arrival, Context};
use crate::run::scenario::{Group, Kind, Scenario, Then, Transport, share, share_u64};
use crate::run::tally::{Metric, Tally};
use crate::run::timer::Timer;
use crate::run::{exchange, ws};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Connections that are made at once before the run.
const CONNECTING_MAX: usize = 128;

/// What a shard tells the collector.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its connections are made; failures to connect are in the tallies.
    Ready,
    /// What happened since the last one, by group.
    Second { second: u64, tallies: Vec<Tally>, in_flight: u64, waiting: u64 },
    /// It is over.
    Done(Result<(), String>),
}

/// What a shard is given.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) reports: Sender<Report>,
    /// The moment of the start, once all shards are ready.
    pub(crate) start: watch::Receiver<Option<Instant>>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Shard {
    /// Runs to the end of the scenario.
    pub(crate) fn run(self) {
        let reports = self.reports.clone();
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime: {error}"))
            .and_then(|runtime| {
                LocalSet::new().block_on(&runtime, self.drive()).map_err(|e| e.to_string())
            });
        // The collector may be gone already; then nobody wants to know.
        let _ = reports.send(Report::Done(result));
    }

    async fn drive(mut self) -> io::Result<()> {
        let groups: Vec<Rc<Context>> = self
            .scenario
            .groups
            .iter()
            .enumerate()
            .map(|(number, group)| {
                let label = format!("shard {} group {number}", self.index);
                let rng = Rng::labelled(self.scenario.seed, &label);
                Rc::new(Context::new(Arc::new(group.clone()), rng, Arc::clone(&self.stop)))
            })
            .collect();
        let mut pools = Vec::new();
        for context in &groups {
            pools.push(self.open_pool(context).await);
        }
        let _ = self.reports.send(Report::Ready);
        let start = loop {
            if let Some(start) = *self.start.borrow_and_update() {
                break start;
            }
            if self.start.changed().await.is_err() {
                return Ok(());
            }
        };
        for context in &groups {
            context.measure_from.set(start + self.scenario.warmup);
        }
        let ticker = spawn_local(seconds(groups.clone(), start, self.reports.clone()));
        let mut running = Vec::new();
        for (number, (context, pool)) in groups.iter().zip(pools).enumerate() {
            running.extend(self.start_group(number, context, pool, start));
        }
        self.wait_for_end(&groups, running, start).await;
        ticker.abort();
        let _ = ticker.await;
        let second = start.elapsed().as_secs();
        report_second(&groups, second, &self.reports);
        Ok(())
    }

    /// Makes the connections that a group starts with.
    async fn open_pool(&self, context: &Rc<Context>) -> Vec<Option<Conn>> {
        let group = &context.group;
        let count = share(group.connections, self.scenario.threads, self.index);
        if group.new_connection || matches!(group.kind, Kind::Storm(_)) {
            return (0..count).map(|_| None).collect();
        }
        let gate = Rc::new(Semaphore::new(CONNECTING_MAX));
        let connecting: Vec<JoinHandle<Option<Conn>>> = (0..count)
            .map(|_| {
                let (context, gate) = (Rc::clone(context), Rc::clone(&gate));
                spawn_local(async move {
                    let _permit = gate.acquire().await;
                    let connected = match context.group.transport {
                        Transport::Ws => ws::connect(&context).await,
                        _ => context.connect().await,
                    };
                    connected.map_err(|failure| context.count(|tally| tally.fail(&failure))).ok()
                })
            })
            .collect();
        let mut pool = Vec::with_capacity(count);
        for conn in connecting {
            pool.push(conn.await.ok().flatten());
        }
        pool
    }

    /// Starts a group's workers and, in an open loop, its dispatcher.
    fn start_group(
        &self,
        number: usize,
        context: &Rc<Context>,
        pool: Vec<Option<Conn>>,
        start: Instant,
    ) -> Vec<JoinHandle<()>> {
        let group = &context.group;
        let end = self.scenario.duration.map(|duration| start + duration);
        let begin = start + group.start_after;
        let mut running = Vec::new();
        if group.schedule.is_some() {
            let seed = self.scenario.seed.wrapping_add(num::to_u64(number));
            let (index, threads) = (self.index, self.scenario.threads);
            let context = Rc::clone(context);
            running.push(spawn_local(async move {
                if let Err(error) = dispatch(&context, seed, index, threads, begin, end).await {
                    context.count(|tally| tally.fail(&format!("timer: {error}")));
                }
                context.close();
            }));
        }
        let left = group.requests.map(|n| share_u64(n, self.scenario.threads, self.index));
        let plan = Rc::new(Plan {
            left: Cell::new(left.unwrap_or(u64::MAX)),
            next: Cell::new(num::to_u64(self.index)),
            step: num::to_u64(self.scenario.threads),
        });
        for conn in pool {
            let (context, plan) = (Rc::clone(context), Rc::clone(&plan));
            running.push(match (group.kind, group.schedule.is_some()) {
                (Kind::Idle, _) => spawn_local(idle(context, conn, end)),
                (_, true) => spawn_local(async move {
                    let mut conn = conn;
                    while let Some(arrival) = context.pop().await {
                        serve(&context, &mut conn, arrival).await;
                    }
                }),
                (_, false) => spawn_local(closed_loop(context, conn, plan, begin, end)),
            });
        }
        running
    }

    /// Waits for the clients, at most until the drain is over; what is left then has failed.
    async fn wait_for_end(
        &self,
        groups: &[Rc<Context>],
        running: Vec<JoinHandle<()>>,
        start: Instant,
    ) {
        let end = self.scenario.duration.map(|duration| start + duration + self.scenario.drain);
        let all = async {
            for task in &running {
                while !task.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        let stopped = async {
            while !groups.iter().any(|context| context.is_stopped()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let deadline = async {
            match end {
                Some(end) => tokio::time::sleep_until(end.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = all => {}
            () = stopped => {}
            () = deadline => {}
        }
        for task in &running {
            task.abort();
        }
        let now = Instant::now();
        for context in groups {
            let unfinished = context.in_flight.get();
            context.count(|tally| {
                tally.counts.unsent += context.waiting();
                for _ in 0..unfinished {
                    tally.fail("unfinished at the end");
                }
            });
            context.record_unsent(now);
        }
    }
}

/// Hands out requests when the schedule says, never looking at what became of the last ones.
async fn dispatch(
    context: &Context,
    seed: u64,
    index: usize,
    threads: usize,
    begin: Instant,
    end: Option<Instant>,
) -> io::Result<()> {
    let Some(schedule) = &context.group.schedule else { return Ok(()) };
    let timer = Timer::new()?;
    let limit = context.group.requests.unwrap_or(u64::MAX);
    for (n, offset) in (0..limit).zip(schedule.arrivals(seed)) {
        if n % num::to_u64(threads) != num::to_u64(index) {
            continue;
        }
        let intended = begin + offset;
        if end.is_some_and(|end| intended >= end) {
            break;
        }
        timer.sleep_until(intended).await?;
        if context.is_stopped() {
            break;
        }
        let arrival = Arrival { n, intended };
        if context.measures(&arrival) {
            context.record_since(Metric::Slip, intended, Instant::now());
        }
        context.push(arrival);
        if n % 64 == 63 {
            // A generator that is behind must still let its clients run.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// One request from start to end, with its counts.
async fn serve(context: &Context, conn: &mut Option<Conn>, arrival: Arrival) {
    let measured = context.measures(&arrival);
    context.in_flight.set(context.in_flight.get() + 1);
    if measured {
        context.count(|tally| tally.counts.started += 1);
    }
    let begun = Begun { context, arrival, measured };
    let exchange = async {
        match (context.group.kind, context.group.transport) {
            (Kind::Storm(then), _) => storm(context, arrival, then).await,
            (_, Transport::Ws) => ws::run(context, conn, arrival).await,
            _ => exchange::run(context, conn, arrival).await,
        }
    };
    let result = match tokio::time::timeout(context.group.timeout, exchange).await {
        Ok(result) => {
            begun.ended();
            result
        }
        Err(_) => Err("timeout".to_owned()),
    };
    context.in_flight.set(context.in_flight.get() - 1);
    context.count(|tally| tally.last_end = Some(Instant::now()));
    if let Err(failure) = result
        && measured
    {
        context.count(|tally| tally.fail(&failure));
    }
}

/// A request that was sent. Where it is given up before it has ended, by its timeout or at the end of
/// the run, it has waited at least until then: left out, a server that hangs would look quick.
struct Begun<'a> {
    context: &'a Context,
    arrival: Arrival,
    measured: bool,
}

impl Begun<'_> {
    /// It has ended, and whoever saw the end has recorded it.
    fn ended(mut self) {
        self.measured = false;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.measured {
            self.context.record_since(Metric::Latency, self.arrival.intended, Instant::now());
        }
    }
}

/// What the clients of a closed loop on one thread still have to ask.
#[derive(Debug)]
struct Plan {
    left: Cell<u64>,
    /// Number of the next request; each thread has its own residue.
    next: Cell<u64>,
    step: u64,
}

/// A loop that waits for each answer before it asks again: the server sets the pace, and its
/// stalls are measured once instead of by everyone who would have come meanwhile.
async fn closed_loop(
    context: Rc<Context>,
    mut conn: Option<Conn>,
    plan: Rc<Plan>,
    begin: Instant,
    end: Option<Instant>,
) {
    tokio::time::sleep_until(begin.into()).await;
    while plan.left.get() > 0 && !context.is_stopped() {
        let intended = Instant::now();
        if end.is_some_and(|end| intended >= end) {
            break;
        }
        let n = plan.next.get();
        plan.next.set(n + plan.step);
        plan.left.set(plan.left.get() - 1);
        serve(&context, &mut conn, Arrival { n, intended }).await;
        if conn.is_none() {
            // A server that refuses must not turn this into a busy loop.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Makes a connection, and does what the storm does with it.
async fn storm(context: &Context, arrival: Arrival, then: Then) -> Result<(), String> {
    let sent = Instant::now();
    let mut conn = context.connect().await?;
    match then {
        Then::Close => {}
        Then::Reset => conn.reset(),
        Then::Half => {
            let bytes = context.with_request(arrival.n, |bytes| bytes[..bytes.len() / 2].to_vec());
            let cut = bytes.len().min(24);
            let _ = conn.send(&bytes[..cut]).await;
            // However the server ends it, by answer or by close, is its right.
            let _ = conn.fill().await;
            context.count_bytes(&mut conn);
        }
    }
    exchange::finish(context, arrival, sent);
    Ok(())
}

/// Holds a connection open, answers pings, and notices when the server ends it.
async fn idle(context: Rc<Context>, conn: Option<Conn>, end: Option<Instant>) {
    let Some(mut conn) = conn else { return };
    let hold = async {
        if conn.ws.is_none() {
            // A connection that has never asked is no idle one: servers close it soon.
            let bytes = context.with_request(0, <[u8]>::to_vec);
            if conn.send(&bytes).await.is_err() {
                return;
            }
        }
        loop {
            conn.shrink();
            if conn.readable().await.is_err() {
                return;
            }
            if conn.ws.is_some() {
                if ws::next_text(&context, &mut conn).await.is_err() {
                    return;
                }
            } else {
                match conn.fill().await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => conn.consume(read),
                }
            }
        }
    };
    let lost = match end {
        Some(end) => tokio::time::timeout_at(end.into(), hold).await.is_ok(),
        None => {
            hold.await;
            true
        }
    };
    context.count(|tally| tally.counts.idle_lost += u64::from(lost));
    context.count_bytes(&mut conn);
}

/// Sends the figures of each second as it ends.
async fn seconds(groups: Vec<Rc<Context>>, start: Instant, reports: Sender<Report>) {
    for second in 0_u64.. {
        let end = start + Duration::from_secs(second + 1);
        tokio::time::sleep_until(end.into()).await;
        report_second(&groups, second, &reports);
    }
}

fn report_second(groups: &[Rc<Context>], second: u64, reports: &Sender<Report>) {
    let tallies = groups.iter().map(|context| context.tally.take()).collect();
    let in_flight = groups.iter().map(|context| context.in_flight.get()).sum();
    let waiting = groups.iter().map(|context| context.waiting()).sum();
    // The collector may be gone already; then nobody wants to know.
    let _ = reports.send(Report::Second { second, tallies, in_flight, waiting });
}

/// The descriptors that a scenario needs.
pub(crate) fn descriptors(groups: &[Group]) -> u64 {
    let connections: usize = groups.iter().map(|group| group.connections).sum();
    num::to_u64(connections) + 128
}
