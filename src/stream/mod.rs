//! A stream's life: state machine, log, and who is told when something is new.
//!
//! A stream belongs to the core that took its request: only that core drives its machine and writes
//! its log. Readers may sit on any core; the log is behind a lock that is held for a few pointer moves,
//! and contended only when a reader of another core happens to take an event at that moment.

pub mod log;
pub mod machine;
pub mod principal;
pub mod registry;
pub mod state;

use crate::proto::events::Event;
use log::{Log, ReaderId};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ulid::Ulid;

/// Bytes that all streams' logs hold together, and how many streams there are.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes of events held in logs.
    pub bytes: AtomicUsize,
    /// Streams that have not reached their last event.
    pub running: AtomicUsize,
}

/// How to wake a reader: its core, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watcher {
    /// Index of the reader's core.
    pub core: usize,
    /// What the core knows the reader by.
    pub token: usize,
}

/// What is shared of a stream: its log, its readers, and whether its work is still wanted.
#[derive(Debug)]
pub struct Stream {
    /// Unique, sorted by time; its text is the `stream_id`.
    pub id: Ulid,
    /// `id` as text, 26 characters.
    pub id_text: Box<str>,
    /// Index of the core that drives it.
    pub owner: usize,
    aborted: Arc<AtomicBool>,
    paused: AtomicBool,
    shared: Mutex<Shared>,
    totals: Arc<Totals>,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    watchers: Vec<(ReaderId, Watcher)>,
}

impl Stream {
    /// A stream with an empty log.
    #[must_use]
    pub fn new(id: Ulid, owner: usize, replay_bytes_max: usize, totals: Arc<Totals>) -> Arc<Self> {
        totals.running.fetch_add(1, Ordering::Relaxed);
        let shared = Shared { log: Log::new(replay_bytes_max), watchers: Vec::new() };
        Arc::new(Self {
            id,
            id_text: id.to_string().into(),
            owner,
            aborted: Arc::default(),
            paused: AtomicBool::new(false),
            shared: Mutex::new(shared),
            totals,
        })
    }

    /// Writes an event to the log and answers who is to be woken.
    pub fn append(&self, event: Event, woken: &mut Vec<Watcher>) {
        let last = event.kind.last();
        let mut shared = self.lock();
        let grown = shared.log.append(event);
        woken.extend(shared.watchers.iter().map(|(_, watcher)| *watcher));
        drop(shared);
        if grown >= 0 {
            self.totals.bytes.fetch_add(grown.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.totals.bytes.fetch_sub(grown.unsigned_abs(), Ordering::Relaxed);
        }
        if last {
            self.totals.running.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A reader joins behind `after`, or at the very beginning.
    pub fn attach(&self, after: Option<u64>, watcher: Watcher) -> ReaderId {
        let mut shared = self.lock();
        let id = shared.log.attach(after);
        shared.watchers.push((id, watcher));
        id
    }

    /// A reader leaves. Answers how many are left.
    pub fn detach(&self, id: ReaderId) -> usize {
        let mut shared = self.lock();
        shared.log.detach(id);
        shared.watchers.retain(|(reader, _)| *reader != id);
        shared.watchers.len()
    }

    /// The log, for a moment: nothing may be awaited while it is held.
    pub fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        look(&mut self.lock().log)
    }

    /// Says to everything that runs for this stream that nobody wants it any more.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// Whether [`Stream::abort`] was called.
    #[must_use]
    pub fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// The flag itself, for the lane's watchdog.
    #[must_use]
    pub fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.aborted)
    }

    /// Whether the crawl waits for readers: they tell its core when they have taken something.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// The crawl begins or ends to wait for readers.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// A panic elsewhere can't leave the log half written: every change of it is one call.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (bytes, ended) = self.with_log(|log| (log.bytes(), log.ended()));
        self.totals.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if !ended {
            self.totals.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
