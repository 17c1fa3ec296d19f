//! What the origin saw, for tests to assert on.

use crate::num::to_u64;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Targets that are counted each; later new ones go to the entry `(other)`.
const TARGETS_MAX: usize = 200_000;
/// Request heads kept for `/_requests`.
const HEADS_MAX: usize = 256;

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Requests whose head arrived.
    pub requests: u64,
    /// Requests being answered now.
    pub in_flight: u64,
    /// The most that were at once.
    pub in_flight_max: u64,
    /// Requests answered to the end, the faults that were asked for included.
    pub completed: u64,
    /// Requests whose client went away before the end of the answer.
    pub aborted: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// The most that were open at once.
    pub connections_max: u64,
    /// Bytes written to all connections.
    pub bytes_written: u64,
    /// Heads that were no HTTP.
    pub malformed: u64,
    /// Counts of each target (path and query).
    pub paths: BTreeMap<String, PathStats>,
}

/// Counts of one target.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PathStats {
    /// Requests for it.
    pub hits: u64,
    /// Being answered now.
    pub in_flight: u64,
    /// Whose client went away before the end.
    pub aborted: u64,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As scripted.
    Completed,
    /// The client went away.
    Aborted,
}

/// One request head as it came.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SeenRequest {
    /// Method.
    pub(crate) method: String,
    /// Target as sent.
    pub(crate) target: String,
    /// Fields in order, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

/// The shared, counted state.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stats: Stats,
    heads: VecDeque<SeenRequest>,
    /// Grows with each reset, so that a request which spans one does not end twice.
    epoch: u64,
}

/// A request that began; hand it back to [`Ledger::end`].
#[derive(Debug)]
pub(crate) struct Started {
    target: String,
    epoch: u64,
    /// How many requests for this target came before.
    pub(crate) hit: u64,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection in.
    pub(crate) fn connected(&self) {
        let stats = &mut self.lock().stats;
        stats.connections += 1;
        stats.connections_open += 1;
        stats.connections_max = stats.connections_max.max(stats.connections_open);
    }

    /// Counts a connection out.
    pub(crate) fn disconnected(&self) {
        let stats = &mut self.lock().stats;
        stats.connections_open = stats.connections_open.saturating_sub(1);
    }

    /// Counts bytes that left.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.lock().stats.bytes_written += to_u64(bytes);
    }

    /// Counts a head that could not be read.
    pub(crate) fn malformed(&self) {
        self.lock().stats.malformed += 1;
    }

    /// A request begins.
    pub(crate) fn begin(&self, seen: SeenRequest) -> Started {
        let inner = &mut *self.lock();
        let stats = &mut inner.stats;
        stats.requests += 1;
        stats.in_flight += 1;
        stats.in_flight_max = stats.in_flight_max.max(stats.in_flight);
        let known = stats.paths.len() < TARGETS_MAX || stats.paths.contains_key(&seen.target);
        let target = if known { seen.target.clone() } else { "(other)".to_owned() };
        let path = stats.paths.entry(target.clone()).or_default();
        let hit = path.hits;
        path.hits += 1;
        path.in_flight += 1;
        if inner.heads.len() == HEADS_MAX {
            inner.heads.pop_front();
        }
        inner.heads.push_back(seen);
        Started { target, epoch: inner.epoch, hit }
    }

    /// A request ended.
    pub(crate) fn end(&self, started: &Started, outcome: Outcome) {
        let inner = &mut *self.lock();
        if started.epoch != inner.epoch {
            return;
        }
        let stats = &mut inner.stats;
        let aborted = u64::from(outcome == Outcome::Aborted);
        stats.in_flight = stats.in_flight.saturating_sub(1);
        stats.aborted += aborted;
        stats.completed += 1 - aborted;
        if let Some(path) = stats.paths.get_mut(&started.target) {
            path.in_flight = path.in_flight.saturating_sub(1);
            path.aborted += aborted;
        }
    }

    /// Forgets everything but the connections that are open.
    pub(crate) fn reset(&self) {
        let inner = &mut *self.lock();
        let open = inner.stats.connections_open;
        inner.stats = Stats { connections_open: open, connections_max: open, ..Stats::default() };
        inner.heads.clear();
        inner.epoch += 1;
    }

    /// A copy; with the targets that begin with `prefix`, or none of them.
    pub(crate) fn snapshot(&self, prefix: Option<&str>) -> Stats {
        let inner = self.lock();
        let stats = &inner.stats;
        let paths = match prefix {
            Some(prefix) => stats
                .paths
                .range(prefix.to_owned()..)
                .take_while(|(target, _)| target.starts_with(prefix))
                .map(|(target, path)| (target.clone(), *path))
                .collect(),
            None => BTreeMap::new(),
        };
        Stats {
            paths,
            requests: stats.requests,
            in_flight: stats.in_flight,
            in_flight_max: stats.in_flight_max,
            completed: stats.completed,
            aborted: stats.aborted,
            connections: stats.connections,
            connections_open: stats.connections_open,
            connections_max: stats.connections_max,
            bytes_written: stats.bytes_written,
            malformed: stats.malformed,
        }
    }

    /// The latest request heads, oldest first, whose target begins with `prefix`.
    pub(crate) fn heads(&self, prefix: &str) -> Vec<SeenRequest> {
        self.lock().heads.iter().filter(|head| head.target.starts_with(prefix)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(target: &str) -> SeenRequest {
        SeenRequest { method: "GET".to_owned(), target: target.to_owned(), fields: Vec::new() }
    }

    #[test]
    fn requests_are_counted_in_and_out() {
        let ledger = Ledger::default();
        let first = ledger.begin(seen("/a?x=1"));
        let second = ledger.begin(seen("/a?x=1"));
        assert_eq!((first.hit, second.hit), (0, 1));
        ledger.end(&first, Outcome::Completed);
        ledger.end(&second, Outcome::Aborted);
        let stats = ledger.snapshot(Some("/a"));
        assert_eq!((stats.requests, stats.in_flight, stats.in_flight_max), (2, 0, 2));
        assert_eq!((stats.completed, stats.aborted, stats.paths["/a?x=1"].aborted), (1, 1, 1));
        assert!(ledger.snapshot(Some("/b")).paths.is_empty());
    }

    #[test]
    fn a_request_across_a_reset_does_not_end_below_zero() {
        let ledger = Ledger::default();
        let started = ledger.begin(seen("/a"));
        ledger.reset();
        ledger.end(&started, Outcome::Completed);
        let stats = ledger.snapshot(None);
        assert_eq!((stats.in_flight, stats.completed), (0, 0));
    }
}
