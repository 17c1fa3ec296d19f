//! What Redis does for us, as every thread may read it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There has not been a connection yet.
    Connecting,
    /// Reads and writes work.
    Up,
    /// Reads work; writes are refused.
    ReadOnly,
    /// It is not asked until a probe finds it well.
    Down,
}

impl Health {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Up, Self::ReadOnly, Self::Down];

    /// The word for `/healthz` and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::ReadOnly => "read_only",
            Self::Down => "down",
        }
    }
}

/// Counts and states; written by the control thread and by loops, read by anybody.
#[derive(Debug, Default)]
pub struct Gauges {
    health: AtomicU8,
    /// Answers, errors among them.
    pub asked: AtomicU64,
    /// Of them, errors.
    pub failed: AtomicU64,
    /// Of them, slower than `redis.lookup_timeout_ms`.
    pub slow: AtomicU64,
    /// Connections made.
    pub connected: AtomicU64,
    /// How often a breaker has opened.
    pub opened: AtomicU64,
    /// Letters that found the queue full, or that came too late.
    pub dropped: AtomicU64,
    /// Pages found.
    pub hits: AtomicU64,
    /// Pages not found.
    pub misses: AtomicU64,
    /// Pages stored.
    pub stored: AtomicU64,
    /// Pages that could not be stored.
    pub not_stored: AtomicU64,
    /// Writes of streams' logs that have to be tried again.
    pub log_failed: AtomicU64,
    /// Values that were not what we wrote.
    pub garbage: AtomicU64,
    /// Bytes of pages that wait to be stored.
    pub pending_bytes: AtomicU64,
    pub(super) last_error: Mutex<String>,
}

impl Gauges {
    /// How Redis is.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::ALL[usize::from(self.health.load(Ordering::Relaxed)) % Health::ALL.len()]
    }

    /// Sets it; what it was.
    pub(super) fn set_health(&self, health: Health) -> Health {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        Health::ALL[usize::from(before) % Health::ALL.len()]
    }

    /// The last error, in Redis' or the system's words; empty where there was none.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
