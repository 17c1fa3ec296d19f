//! The control thread: what is not on a request's path to its first byte. One tokio `current_thread`
//! runtime, spoken to by message only: names are resolved here, Redis is asked from here, what is seen
//! is exported from here, and signals arrive here.

use crate::cluster::Keeper;
use crate::config::reload::Request;
use crate::fetch::resolve::{self, Question};
use crate::otlp::Exporter;
use crate::reload::{self, Reloader};
use crate::serve::access::Access;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Questions for names that may wait.
const QUESTIONS_MAX: usize = 4096;
/// How often the process' memory is looked at, where it has a limit.
const MEMORY_EVERY: Duration = Duration::from_millis(250);
/// How long a loop may take to count up once more, at least: it does about once a second.
const BEAT_MIN: Duration = Duration::from_secs(3);
/// How long the end of the process waits for what is still to be exported.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// Exit status after a second signal, as a shell gives it for SIGINT.
const INTERRUPTED: i32 = 130;

/// A running control thread.
#[derive(Debug)]
pub struct Control {
    questions: tokio::sync::mpsc::Sender<Question>,
    signals: mpsc::Receiver<&'static str>,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts the thread; from here on SIGTERM, SIGINT and SIGHUP are ours. SIGHUP reads the settings
/// again, and so does who asks for it.
///
/// # Errors
/// When the thread or its runtime can't be made.
pub fn start(
    reloader: Arc<Reloader>,
    reloads: tokio::sync::mpsc::Receiver<Request>,
    (redis, exporter): (Option<Keeper>, Option<Exporter>),
) -> io::Result<Control> {
    let (watched, exported) = (Arc::clone(&reloader.access), Arc::clone(&reloader.shared));
    let dns_timeout = Duration::from_millis(reloader.shared.config.dns_timeout_ms);
    let (questions, asked) = resolve::channel(QUESTIONS_MAX);
    let (signalled, signals) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(watch_signals(signalled));
            tokio::spawn(watch_hangups(Arc::clone(&reloader)));
            tokio::spawn(feed_watchdog(Arc::clone(&reloader)));
            tokio::spawn(reload::serve(reloader, reloads));
            tokio::spawn(watch_memory(watched));
            if let Some(redis) = redis {
                tokio::spawn(redis.run());
            }
            tokio::spawn(async move {
                if let Err(error) = resolve::run(asked, dns_timeout).await {
                    tracing::error!("names can't be resolved: {error}");
                }
            });
            let exporting = exporter.map(|exporter| {
                let (finish, told) = tokio::sync::oneshot::channel();
                (finish, tokio::spawn(exporter.run(exported, told)))
            });
            // An error is a server that was dropped without a stop; that ends this thread as well.
            let _ = stopped.await;
            if let Some((finish, exporting)) = exporting {
                let _ = finish.send(());
                // A collector that takes longer keeps nobody from ending.
                let _ = tokio::time::timeout(LAST_EXPORT, exporting).await;
            }
        });
    })?;
    Ok(Control { questions, signals, stop, thread })
}

impl Control {
    /// Where a core asks for addresses.
    #[must_use]
    pub fn questions(&self) -> tokio::sync::mpsc::Sender<Question> {
        self.questions.clone()
    }

    /// Blocks until a signal arrives; its name.
    #[must_use]
    pub fn wait_for_signal(&self) -> &'static str {
        self.signals.recv().unwrap_or("no more signals")
    }

    /// Ends the thread.
    pub fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

/// Reports the first signal; a second one ends the process at once.
async fn watch_signals(signalled: mpsc::Sender<&'static str>) {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        tracing::error!("signals can't be watched");
        return;
    };
    let mut told = false;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        // Nobody waits for the first one while a command works; then it ends the process, too.
        if told || signalled.send(name).is_err() {
            std::process::exit(INTERRUPTED);
        }
        told = true;
    }
}

/// What may have changed on disk is read again.
async fn watch_hangups(reloader: Arc<Reloader>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::error!("SIGHUP can't be watched");
        return;
    };
    while hangup.recv().await.is_some() {
        drop(reloader.reload("SIGHUP"));
    }
}

/// Tells the service manager that the server is alive for as long as every loop is: one that stands
/// still keeps the sign of life back.
async fn feed_watchdog(reloader: Arc<Reloader>) {
    let Some(every) = reloader.notifier.watchdog() else { return };
    let (shared, patience) = (&reloader.shared, every.max(BEAT_MIN));
    let mut ticks = tokio::time::interval(every);
    let mut beats = Beats::new(shared.beats.len(), Instant::now());
    loop {
        ticks.tick().await;
        let now = shared.beats.iter().map(|beat| beat.load(Ordering::Relaxed));
        // Cores that have drained turn no more.
        if beats.all_turn(Instant::now(), now, patience) || shared.draining.load(Ordering::Relaxed)
        {
            reloader.notifier.alive();
        } else {
            tracing::error!(
                "a loop stands still: the service manager is not told that it is alive"
            );
        }
    }
}

/// When each loop was last seen to count up.
struct Beats(Vec<(u64, Instant)>);

impl Beats {
    fn new(loops: usize, now: Instant) -> Self {
        Self(vec![(0, now); loops])
    }

    /// Whether each has counted up within `patience`.
    fn all_turn(
        &mut self,
        now: Instant,
        counts: impl Iterator<Item = u64>,
        patience: Duration,
    ) -> bool {
        for (seen, count) in self.0.iter_mut().zip(counts) {
            if seen.0 != count {
                *seen = (count, now);
            }
        }
        self.0.iter().all(|(_, at)| now.saturating_duration_since(*at) <= patience)
    }
}

async fn watch_memory(access: Arc<Access>) {
    let mut ticks = tokio::time::interval(MEMORY_EVERY);
    while access.watches_memory() {
        ticks.tick().await;
        access.measure_memory();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loop_that_stands_still_is_noticed() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut beats = Beats::new(2, begun);
        assert!(beats.all_turn(begun + second, [1, 1].into_iter(), 3 * second));
        assert!(beats.all_turn(begun + 4 * second, [4, 1].into_iter(), 3 * second));
        assert!(!beats.all_turn(begun + 5 * second, [5, 1].into_iter(), 3 * second));
        assert!(beats.all_turn(begun + 6 * second, [6, 2].into_iter(), 3 * second));
    }
}
