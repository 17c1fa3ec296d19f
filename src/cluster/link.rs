//! The connection on the control thread, and the two breakers before it: one for everything, one
//! for what writes. A Redis that is full or a replica still answers reads.

use super::breaker::{Breaker, State};
use super::dial::{Connection, Dialer};
use super::gauges::{Gauges, Health};
use super::target::Kind;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, cmd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes of an error's text that are kept for `/healthz`.
const ERROR_BYTES_MAX: usize = 200;
/// How often Redis is looked at while nobody asks for anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Milliseconds that the key of a write probe lives.
const PROBE_MS: u64 = 10_000;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is no `redis.url`.
    #[error("there is no Redis")]
    Off,
    /// The breaker is open, or there is no connection.
    #[error("Redis is not used until it is well again")]
    Open,
    /// Too much waits for Redis already.
    #[error("too much waits for Redis")]
    Busy,
    /// There was no answer in time.
    #[error("Redis did not answer in time")]
    Late,
    /// The connection failed, or what came was no answer.
    #[error("the connection to Redis failed")]
    Broken,
    /// Redis refused; its code, as in `OOM`, `READONLY`, `BUSYGROUP`.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// What is there is not what we wrote.
    #[error("Redis holds something else there")]
    Garbage,
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Changes nothing: also a replica and a full Redis answer it.
    Read,
    /// Changes something.
    Write,
    /// Changes something, with so many bytes that its time says nothing of Redis.
    Bulk,
}

/// The way to Redis, for tasks on the control thread. Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    prefix: String,
    /// An answer that takes longer speaks against Redis, though it is used.
    slow: Duration,
    connection: Mutex<Option<Connection>>,
    reads: Mutex<Breaker>,
    writes: Mutex<Breaker>,
    /// A breaker has opened.
    changed: Notify,
    gauges: Arc<Gauges>,
}

impl Link {
    /// A link without a connection; [`Link::keep`] makes it.
    #[must_use]
    pub(super) fn new(dialer: Dialer, prefix: String, slow: Duration, gauges: Arc<Gauges>) -> Self {
        let now = Instant::now();
        Self(Arc::new(Inner {
            dialer,
            prefix,
            slow,
            connection: Mutex::new(None),
            reads: Mutex::new(Breaker::new(now)),
            writes: Mutex::new(Breaker::new(now)),
            changed: Notify::new(),
            gauges,
        }))
    }

    /// A key of ours: the prefix, a colon, and this.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.0.prefix)
    }

    /// What Redis has done for us so far.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.0.gauges
    }

    /// Whether commands of a kind are let through.
    #[must_use]
    pub fn admits(&self, does: Does) -> bool {
        let closed = |breaker: &Mutex<Breaker>| lock(breaker).state() == State::Closed;
        closed(&self.0.reads) && (does == Does::Read || closed(&self.0.writes))
    }

    /// Asks one thing.
    ///
    /// # Errors
    /// [`Trouble`]; after `redis.timeout_ms` at the latest.
    pub async fn ask<T: FromRedisValue>(&self, does: Does, command: &Cmd) -> Result<T, Trouble> {
        let mut connection = self.connection(does)?;
        let began = Instant::now();
        let asked = tokio::time::timeout(self.0.dialer.timeout, connection.ask(command)).await;
        self.judge(does, began, asked.unwrap_or_else(|_| Err(late())))
    }

    /// Asks many things at once; in a cluster all keys are of one slot.
    ///
    /// # Errors
    /// [`Trouble`]; after `redis.timeout_ms` at the latest.
    pub async fn ask_all<T: FromRedisValue>(
        &self,
        does: Does,
        commands: &Pipeline,
    ) -> Result<T, Trouble> {
        let mut connection = self.connection(does)?;
        let began = Instant::now();
        let asked = tokio::time::timeout(self.0.dialer.timeout, connection.ask_all(commands)).await;
        self.judge(does, began, asked.unwrap_or_else(|_| Err(late())))
    }

    fn connection(&self, does: Does) -> Result<Connection, Trouble> {
        if !self.admits(does) {
            return Err(Trouble::Open);
        }
        lock(&self.0.connection).clone().ok_or(Trouble::Open)
    }

    fn judge<T>(&self, does: Does, began: Instant, asked: RedisResult<T>) -> Result<T, Trouble> {
        let gauges = &self.0.gauges;
        let now = Instant::now();
        let slow = does != Does::Bulk && now.saturating_duration_since(began) > self.0.slow;
        gauges.asked.fetch_add(1, Ordering::Relaxed);
        if slow {
            gauges.slow.fetch_add(1, Ordering::Relaxed);
        }
        let error = match asked {
            Ok(answer) => {
                lock(&self.0.reads).handle_answer(now, !slow);
                if does != Does::Read {
                    lock(&self.0.writes).handle_answer(now, true);
                }
                self.publish();
                return Ok(answer);
            }
            Err(error) => error,
        };
        let (trouble, fault) = classify(&error);
        match fault {
            Fault::Ours => {
                lock(&self.0.reads).handle_answer(now, !slow);
                return Err(trouble);
            }
            Fault::Writes => {
                lock(&self.0.reads).handle_answer(now, !slow);
                lock(&self.0.writes).handle_answer(now, false);
                // The primary is another node now: whoever knows it has to be asked again.
                let moved = trouble == Trouble::Refused("READONLY".to_owned());
                if moved && matches!(self.0.dialer.target.kind, Kind::Sentinel(_)) {
                    lock(&self.0.reads).handle_broken(now);
                }
            }
            Fault::Answer => lock(&self.0.reads).handle_answer(now, false),
            Fault::Connection => lock(&self.0.reads).handle_broken(now),
        }
        gauges.failed.fetch_add(1, Ordering::Relaxed);
        self.note(&error);
        self.publish();
        Err(trouble)
    }

    /// Connects, and connects again; probes what is open. Never ends.
    pub(super) async fn keep(self) {
        loop {
            let due = [&self.0.reads, &self.0.writes]
                .into_iter()
                .filter_map(|breaker| lock(breaker).poll_timeout())
                .min();
            match due {
                // While nobody asks for anything, its end would not be seen.
                None => {
                    let idle = tokio::time::sleep(LOOK_EVERY);
                    tokio::select! {
                        () = idle => drop(self.ask::<Option<String>>(Does::Read, &self.look()).await),
                        () = self.0.changed.notified() => {}
                    }
                    continue;
                }
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due.into()) => {}
                        () = self.0.changed.notified() => continue,
                    }
                }
            }
            self.probe_reads().await;
            if lock(&self.0.reads).state() == State::Closed {
                self.probe_writes().await;
            } else {
                // Writes wait for reads; their own time counts from then on.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.publish();
        }
    }

    async fn probe_reads(&self) {
        let was = lock(&self.0.reads).state();
        if was != State::Closed {
            // A connection that may be stuck is not tried again.
            *lock(&self.0.connection) = None;
        }
        while lock(&self.0.reads).poll_probe(Instant::now()) {
            let good = self.probe(Does::Read).await;
            if !good {
                *lock(&self.0.connection) = None;
            }
            lock(&self.0.reads).handle_probe(Instant::now(), good);
        }
    }

    async fn probe_writes(&self) {
        while lock(&self.0.writes).poll_probe(Instant::now()) {
            let good = self.probe(Does::Write).await;
            lock(&self.0.writes).handle_probe(Instant::now(), good);
        }
    }

    async fn probe(&self, does: Does) -> bool {
        let known = lock(&self.0.connection).clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => match self.0.dialer.dial().await {
                Ok(connection) => {
                    self.0.gauges.connected.fetch_add(1, Ordering::Relaxed);
                    *lock(&self.0.connection) = Some(connection.clone());
                    connection
                }
                Err(error) => {
                    self.note(&error);
                    return false;
                }
            },
        };
        let asked = async {
            match does {
                // The answer of something that is no Redis is no text of ours.
                Does::Read => {
                    let found = connection.ask::<Option<String>>(&self.look()).await;
                    found.map(|found| found.is_none_or(|text| text == "1"))
                }
                Does::Write | Does::Bulk => {
                    let mut set = cmd("SET");
                    set.arg(self.key("probe")).arg("1").arg("PX").arg(PROBE_MS);
                    connection.ask::<String>(&set).await.map(|text| text == "OK")
                }
            }
        };
        match tokio::time::timeout(self.0.slow, asked).await {
            Ok(Ok(good)) => good,
            Ok(Err(error)) => {
                self.note(&error);
                false
            }
            Err(_) => {
                self.note(&late());
                false
            }
        }
    }

    /// The command that finds out whether there is somebody.
    fn look(&self) -> Cmd {
        let mut get = cmd("GET");
        get.arg(self.key("probe"));
        get
    }

    /// Keeps an error for whoever looks. Redis' own words may hold keys, but no secret of ours.
    fn note(&self, error: &RedisError) {
        let mut text = error.to_string();
        if let Some(end) = (0..=ERROR_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)) {
            text.truncate(end);
        }
        let mut last = lock(&self.0.gauges.last_error);
        if *last != text {
            if self.0.gauges.health() == Health::Connecting {
                tracing::warn!("no connection to Redis yet: {text}");
            }
            *last = text;
        }
    }

    /// Says where the breakers stand to whoever asks from another thread, and to the keeper.
    fn publish(&self) {
        let (reads, writes) = (lock(&self.0.reads), lock(&self.0.writes));
        let gauges = &self.0.gauges;
        let health = match (reads.state(), writes.state()) {
            (State::Closed, State::Closed) => Health::Up,
            (State::Closed, _) => Health::ReadOnly,
            _ if gauges.connected.load(Ordering::Relaxed) == 0 => Health::Connecting,
            _ => Health::Down,
        };
        gauges.opened.store(reads.opened() + writes.opened(), Ordering::Relaxed);
        drop((reads, writes));
        let before = gauges.set_health(health);
        if before == health {
            return;
        }
        match health {
            Health::Up => tracing::info!("Redis at {} works", self.0.dialer.target),
            Health::ReadOnly => tracing::warn!("Redis takes no writes: {}", gauges.last_error()),
            Health::Down | Health::Connecting => {
                tracing::warn!("Redis is left alone: {}", gauges.last_error());
            }
        }
        self.0.changed.notify_one();
    }
}

/// What an error speaks against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing: the command was wrong for what is there.
    Ours,
    /// Writes are refused.
    Writes,
    /// An answer of no use.
    Answer,
    /// The connection.
    Connection,
}

fn classify(error: &RedisError) -> (Trouble, Fault) {
    let code = match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => error.code().unwrap_or("ERR"),
        ErrorKind::UnexpectedReturnType => return (Trouble::Garbage, Fault::Answer),
        ErrorKind::Io if error.is_timeout() || error.detail() == Some(LATE) => {
            return (Trouble::Late, Fault::Answer);
        }
        _ => return (Trouble::Broken, Fault::Connection),
    };
    let fault = match code {
        "OOM" | "READONLY" | "MISCONF" | "NOREPLICAS" => Fault::Writes,
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "NOAUTH" | "WRONGPASS" | "NOPERM" | "BUSY"
        | "TRYAGAIN" | "MOVED" | "ASK" => Fault::Answer,
        _ => Fault::Ours,
    };
    (Trouble::Refused(code.to_owned()), fault)
}

const LATE: &str = "no answer in time";

fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "Redis", LATE.to_owned()))
}

/// A panic elsewhere can't leave one of these half changed: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        match value.and_then(redis::Value::extract_error) {
            Err(error) => error,
            Ok(value) => panic!("{value:?}"),
        }
    }

    #[test]
    fn errors_speak_against_what_they_are_about() {
        for (line, code, fault) in [
            ("OOM command not allowed", "OOM", Fault::Writes),
            ("READONLY You can't write", "READONLY", Fault::Writes),
            ("MISCONF can't persist", "MISCONF", Fault::Writes),
            ("LOADING dataset", "LOADING", Fault::Answer),
            ("NOAUTH Authentication required", "NOAUTH", Fault::Answer),
            ("WRONGTYPE Operation", "WRONGTYPE", Fault::Ours),
            ("BUSYGROUP exists", "BUSYGROUP", Fault::Ours),
        ] {
            let expected = (Trouble::Refused(code.to_owned()), fault);
            assert_eq!(classify(&server_error(line)), expected, "{line}");
        }
        assert_eq!(classify(&late()), (Trouble::Late, Fault::Answer));
        let broken = RedisError::from((ErrorKind::Io, "reset"));
        assert_eq!(classify(&broken), (Trouble::Broken, Fault::Connection));
        let odd = RedisError::from((ErrorKind::Parse, "garbage"));
        assert_eq!(classify(&odd), (Trouble::Broken, Fault::Connection));
    }
}
