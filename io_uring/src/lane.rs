//! Lanes: a thread beside a loop on the same CPU, for work that takes long and must not make the loop wait.
//!
//! The kernel lets the loop preempt it (see [`Class`]), so the work is a plain synchronous call. Jobs come through a bounded queue
//! and carry the mailbox [`crate::mailbox::Sender`] for their answer. A job that panics costs itself.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::core::pin;
use crate::mailbox::SendError;
use crate::queue::Queue;
use crate::sys;

/// How the scheduler treats a lane against its loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// As the loop: several times worse tails for the loop; for comparison.
    Normal,
    /// `SCHED_OTHER`, nice 19: the lowest weight.
    #[default]
    Nice19,
    /// `SCHED_BATCH`, nice 19: as above, and never preempts on waking.
    Batch,
    /// `SCHED_IDLE`: below everything else on the CPU, so other processes can starve it.
    Idle,
}

/// Not `normal`, `nice19`, `batch` or `idle`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown lane class {0:?}: expected normal, nice19, batch or idle")]
pub struct UnknownClass(pub String);

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Class, UnknownClass> {
        match text {
            "normal" => Ok(Class::Normal),
            "nice19" => Ok(Class::Nice19),
            "batch" => Ok(Class::Batch),
            "idle" => Ok(Class::Idle),
            _ => Err(UnknownClass(text.to_owned())),
        }
    }
}

/// How to run a lane.
#[derive(Clone, Debug, Default)]
pub struct LaneConfig {
    /// The CPU to pin it to: its loop's.
    pub cpu: Option<usize>,
    /// Its class.
    pub class: Class,
    /// The thread's name, of which Linux shows 15 bytes.
    pub name: String,
}

/// What a lane did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Jobs waiting now.
    pub queued: usize,
    /// Jobs finished.
    pub done: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs refused because the queue was full.
    pub refused: u64,
    /// CPU time used, as of the last job's end.
    pub busy: Duration,
}

struct Shared<J> {
    queue: Queue<J>,
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
    stopping: AtomicBool,
    dropping: AtomicBool,
    closed: AtomicBool,
    done: AtomicU64,
    panicked: AtomicU64,
    refused: AtomicU64,
    busy_ns: AtomicU64,
}

/// A running lane. Dropping it is [`Lane::stop`] without the wait.
pub struct Lane<J> {
    shared: Arc<Shared<J>>,
    thread: Option<thread::JoinHandle<()>>,
    warnings: Vec<String>,
}

impl<J: Send + 'static> Lane<J> {
    /// Starts a lane with room for `capacity` waiting jobs. `factory` makes the worker on the lane's own thread, so the worker needn't be `Send`.
    ///
    /// # Errors
    /// When the thread can't be made. Failing to pin or to set the class is no error: see [`Lane::warnings`].
    ///
    /// # Panics
    /// When `capacity` is zero.
    pub fn start<F, W>(config: LaneConfig, capacity: usize, factory: F) -> io::Result<Lane<J>>
    where
        F: FnOnce() -> W + Send + 'static,
        W: FnMut(J) + 'static,
    {
        let shared = Arc::new(Shared {
            queue: Queue::new(capacity),
            thread: OnceLock::new(),
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            dropping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            done: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
        });
        let (report, reported) = mpsc::sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(config.name.clone()).spawn(move || {
            let _closed = CloseOnExit(&theirs);
            let _ = report.send(prepare(&config));
            drop(report);
            work(&theirs, factory());
        })?;
        let _ = shared.thread.set(thread.thread().clone());
        let warnings = reported.recv().unwrap_or_default();
        Ok(Lane { shared, thread: Some(thread), warnings })
    }

    /// Queues a job without waiting, from any thread.
    ///
    /// # Errors
    /// [`SendError::Full`], or [`SendError::Closed`] when the lane is stopping or its factory panicked; with the job.
    pub fn try_submit(&self, job: J) -> Result<(), SendError<J>> {
        submit(&self.shared, job)
    }

    /// A handle that only submits.
    pub fn submitter(&self) -> Submitter<J> {
        Submitter { shared: Arc::clone(&self.shared) }
    }

    /// What did not work when it started and isn't fatal, for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the lane did so far.
    pub fn stats(&self) -> LaneStats {
        self.shared.stats()
    }

    /// Takes no more jobs, finishes those queued and waits for that. A job submitted at the same time may be dropped, and its reply's sender
    /// with it. Blocks: not for a loop.
    pub fn stop(mut self) -> LaneStats {
        self.end()
    }

    /// Takes no more jobs, drops those queued, and waits for the one that runs. Blocks: not for a loop.
    pub fn stop_now(mut self) -> LaneStats {
        self.shared.dropping.store(true, Ordering::Release);
        self.end()
    }

    fn end(&mut self) -> LaneStats {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the factory was printed and closed the lane.
            let _ = thread.join();
            // A job queued while the lane looked for the last time.
            // SAFETY: the lane's thread, the only other one that pops, has ended, and `&mut self` keeps others from here.
            while unsafe { self.shared.queue.pop() }.is_some() {}
        }
        self.shared.stats()
    }
}

/// Submits to a lane, from any thread.
pub struct Submitter<J> {
    shared: Arc<Shared<J>>,
}

impl<J: Send + 'static> Submitter<J> {
    /// As [`Lane::try_submit`].
    ///
    /// # Errors
    /// As [`Lane::try_submit`].
    pub fn try_submit(&self, job: J) -> Result<(), SendError<J>> {
        submit(&self.shared, job)
    }

    /// What the lane did so far.
    pub fn stats(&self) -> LaneStats {
        self.shared.stats()
    }
}

impl<J> Clone for Submitter<J> {
    fn clone(&self) -> Submitter<J> {
        Submitter { shared: Arc::clone(&self.shared) }
    }
}

impl<J> fmt::Debug for Lane<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("stats", &self.shared.stats()).finish()
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// CPU time that the calling thread has used.
pub fn thread_cpu_time() -> Duration {
    sys::thread_cpu_time()
}

fn submit<J>(shared: &Shared<J>, job: J) -> Result<(), SendError<J>> {
    if shared.stopping.load(Ordering::Acquire) || shared.closed.load(Ordering::Acquire) {
        return Err(SendError::Closed(job));
    }
    shared.queue.push(job).map_err(|job| {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        SendError::Full(job)
    })?;
    shared.wake();
    Ok(())
}

impl<J> Shared<J> {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.unpark();
    }

    fn stats(&self) -> LaneStats {
        LaneStats {
            queued: self.queue.len(),
            done: self.done.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed)),
        }
    }
}

/// However the thread ends, nobody waits for it in vain: what is queued is dropped, and with each job its reply's sender.
struct CloseOnExit<'a, J>(&'a Shared<J>);

impl<J> Drop for CloseOnExit<'_, J> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        // SAFETY: the lane's own thread, the only one that pops.
        while unsafe { self.0.queue.pop() }.is_some() {}
    }
}

fn prepare(config: &LaneConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(Err(warning)) = config.cpu.map(pin) {
        warnings.push(warning);
    }
    let set = match config.class {
        Class::Normal => Ok(()),
        Class::Nice19 => sys::set_nice(19),
        Class::Batch => sys::set_nice(19).and_then(|()| sys::set_policy(libc::SCHED_BATCH)),
        Class::Idle => sys::set_policy(libc::SCHED_IDLE),
    };
    if let Err(error) = set {
        warnings.push(format!("could not set the scheduling class {:?}: {error}", config.class));
    }
    warnings
}

fn work<J>(shared: &Shared<J>, mut worker: impl FnMut(J)) {
    while let Some(job) = next(shared) {
        // The worker is used again after a panic: it must hold nothing that a panic leaves half-done, or make it anew for each job.
        if catch_unwind(AssertUnwindSafe(|| worker(job))).is_err() {
            shared.panicked.fetch_add(1, Ordering::Relaxed);
        }
        let busy = u64::try_from(sys::thread_cpu_time().as_nanos()).unwrap_or(u64::MAX);
        shared.busy_ns.store(busy, Ordering::Relaxed);
        shared.done.fetch_add(1, Ordering::Release);
    }
}

/// The next job; `None` when the lane stops.
fn next<J>(shared: &Shared<J>) -> Option<J> {
    loop {
        if shared.dropping.load(Ordering::Acquire) {
            return None;
        }
        // Read before the queue: what was queued before the stop is found.
        let stopping = shared.stopping.load(Ordering::SeqCst);
        // SAFETY: the lane's own thread, the only one that pops.
        if let Some(job) = unsafe { shared.queue.pop() } {
            return Some(job);
        }
        if stopping {
            return None;
        }
        shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // SAFETY: as above.
        if let Some(job) = unsafe { shared.queue.pop() } {
            shared.asleep.store(false, Ordering::Relaxed);
            return Some(job);
        }
        if !shared.stopping.load(Ordering::SeqCst) {
            // An unpark between the look and here makes this return at once.
            thread::park();
        }
        shared.asleep.store(false, Ordering::Relaxed);
    }
}
