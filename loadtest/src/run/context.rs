//! What the clients of one group on one thread share.

use crate::num;
use crate::rng::Rng;
use crate::run::conn::Conn;
use crate::run::scenario::{Body, Group, Transport, fill};
use crate::run::tally::{Metric, Tally};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// A request that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Its number in the group.
    pub(crate) n: u64,
    /// When it was meant to start.
    pub(crate) intended: Instant,
}

/// Group, figures and the queue of due requests.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) group: Arc<Group>,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) rng: RefCell<Rng>,
    /// Requests being answered.
    pub(crate) in_flight: Cell<u64>,
    /// Arrivals before this moment are warm-up and not measured.
    pub(crate) measure_from: Cell<Instant>,
    /// The run was interrupted.
    pub(crate) stop: Arc<AtomicBool>,
    due: RefCell<VecDeque<Arrival>>,
    more: Notify,
    closed: Cell<bool>,
    ready_request: Option<Vec<u8>>,
}

impl Context {
    /// The shared state of a group's clients on one thread.
    pub(crate) fn new(group: Arc<Group>, rng: Rng, stop: Arc<AtomicBool>) -> Self {
        let varies = group.body.varies() || group.path.contains("{{n}}");
        let ready_request =
            (!varies && group.transport != Transport::Ws).then(|| request_bytes(&group, 0));
        Self {
            group,
            tally: RefCell::default(),
            rng: RefCell::new(rng),
            in_flight: Cell::new(0),
            measure_from: Cell::new(Instant::now()),
            stop,
            due: RefCell::default(),
            more: Notify::new(),
            closed: Cell::new(false),
            ready_request,
        }
    }

    /// Whether the run was interrupted.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Hands out a request.
    pub(crate) fn push(&self, arrival: Arrival) {
        self.due.borrow_mut().push_back(arrival);
        self.more.notify_one();
    }

    /// No more will come.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.more.notify_waiters();
    }

    /// The next request that is due; `None` when no more will come.
    pub(crate) async fn pop(&self) -> Option<Arrival> {
        loop {
            let more = self.more.notified();
            if let Some(arrival) = self.due.borrow_mut().pop_front() {
                return Some(arrival);
            }
            if self.closed.get() {
                return None;
            }
            more.await;
        }
    }

    /// Requests that are due and wait for a connection.
    pub(crate) fn waiting(&self) -> u64 {
        num::to_u64(self.due.borrow().len())
    }

    /// Those that were due and never sent have waited at least until now.
    pub(crate) fn record_unsent(&self, now: Instant) {
        for arrival in self.due.borrow().iter().filter(|arrival| self.measures(arrival)) {
            self.record_since(Metric::Latency, arrival.intended, now);
        }
    }

    /// Whether an arrival is past the warm-up.
    pub(crate) fn measures(&self, arrival: &Arrival) -> bool {
        arrival.intended >= self.measure_from.get()
    }

    /// Records the time since `from`.
    pub(crate) fn record_since(&self, metric: Metric, from: Instant, now: Instant) {
        self.tally.borrow_mut().record(metric, now.saturating_duration_since(from));
    }

    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.borrow_mut());
    }

    /// Moves a connection's byte counts into the tally.
    pub(crate) fn count_bytes(&self, conn: &mut Conn) {
        let (bytes_in, bytes_out) =
            (std::mem::take(&mut conn.bytes_in), std::mem::take(&mut conn.bytes_out));
        self.count(|tally| {
            tally.counts.bytes_in += bytes_in;
            tally.counts.bytes_out += bytes_out;
        });
    }

    /// The bytes of request `n`, ready to send.
    pub(crate) fn with_request<R>(&self, n: u64, f: impl FnOnce(&[u8]) -> R) -> R {
        match &self.ready_request {
            Some(bytes) => f(bytes),
            None => f(&request_bytes(&self.group, n)),
        }
    }

    /// Connects and records how long that took.
    ///
    /// # Errors
    /// The class of the failure.
    pub(crate) async fn connect(&self) -> Result<Conn, String> {
        let start = Instant::now();
        let connecting = tokio::time::timeout(self.group.timeout, Conn::connect(&self.group));
        let conn = connecting
            .await
            .map_err(|_| "connect timeout".to_owned())?
            .map_err(|error| class("connect", &error))?;
        self.record_since(Metric::Connect, start, Instant::now());
        self.count(|tally| tally.counts.connects += 1);
        Ok(conn)
    }
}

/// The whole of request `n` of a group.
fn request_bytes(group: &Group, n: u64) -> Vec<u8> {
    let body = group.body.render(n);
    let path = fill(&group.path, n);
    let mut out = format!("{} {path} HTTP/1.1\r\nHost: {}\r\n", group.method, group.host);
    let has = |name: &str| group.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    match group.transport {
        Transport::Sse if !has("accept") => out.push_str("Accept: text/event-stream\r\n"),
        Transport::Ndjson if !has("accept") => out.push_str("Accept: application/x-ndjson\r\n"),
        _ => {}
    }
    let has_body = !matches!(group.body, Body::Empty) || group.method == "POST";
    if has_body {
        if !has("content-type") {
            let html = body.trim_start().starts_with('<');
            let kind = if html { "text/html; charset=utf-8" } else { "application/json" };
            out.push_str(&format!("Content-Type: {kind}\r\n"));
        }
        out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in &group.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if group.new_connection {
        out.push_str("Connection: close\r\n");
    }
    out.push_str("\r\n");
    out.push_str(&body);
    out.into_bytes()
}

/// The class of an I/O error at a stage.
pub(crate) fn class(stage: &str, error: &io::Error) -> String {
    use io::ErrorKind;
    let what = match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset => "reset",
        ErrorKind::ConnectionAborted => "aborted",
        ErrorKind::BrokenPipe => "broken pipe",
        ErrorKind::TimedOut => "timeout",
        ErrorKind::AddrNotAvailable => "no local port",
        _ => return format!("{stage} error: {error}"),
    };
    format!("{stage} {what}")
}
