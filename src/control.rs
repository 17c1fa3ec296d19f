//! The control thread: what is not on a request's path to its first byte. One tokio `current_thread`
//! runtime, spoken to by message only: names are resolved here, Redis is asked from here, and signals arrive here.

use crate::cluster::Keeper;
use crate::fetch::resolve::{self, Question};
use crate::serve::access::Access;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Questions for names that may wait.
const QUESTIONS_MAX: usize = 1024;
/// How often the process' memory is looked at, where it has a limit.
const MEMORY_EVERY: Duration = Duration::from_millis(250);
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

/// Starts the thread; from here on SIGTERM, SIGINT and SIGHUP are ours. SIGHUP reads keys and
/// certificate again.
///
/// # Errors
/// When the thread or its runtime can't be made.
pub fn start(access: &Arc<Access>, redis: Option<Keeper>) -> io::Result<Control> {
    let (reloaded, watched) = (Arc::clone(access), Arc::clone(access));
    let (questions, asked) = resolve::channel(QUESTIONS_MAX);
    let (signalled, signals) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(watch_signals(signalled));
            tokio::spawn(watch_hangups(reloaded));
            tokio::spawn(watch_memory(watched));
            if let Some(redis) = redis {
                tokio::spawn(redis.run());
            }
            tokio::spawn(async move {
                if let Err(error) = resolve::run(asked).await {
                    tracing::error!("names can't be resolved: {error}");
                }
            });
            // An error is a server that was dropped without a stop; that ends this thread as well.
            let _ = stopped.await;
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
async fn watch_hangups(access: Arc<Access>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::error!("SIGHUP can't be watched");
        return;
    };
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: keys, certificate and audit file are read again");
        access.reload();
    }
}

async fn watch_memory(access: Arc<Access>) {
    let mut ticks = tokio::time::interval(MEMORY_EVERY);
    while access.watches_memory() {
        ticks.tick().await;
        access.measure_memory();
    }
}
