//! A core: one thread pinned to one CPU with one loop.

use std::any::Any;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::arena::{self, ArenaConfig};
use crate::probe::{Driver, RingFlags};
use crate::task::{self, Ended};
use crate::{doorbell, stats, sys, time};

/// How long a stopping core waits for the kernel to let go of buffers. It does so within a turn or two once an operation is cancelled; if not,
/// the ring and the buffers are leaked, not freed under the kernel's hands.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Turns of the loop after the last task, so that cancelled waits and closes are submitted and reaped.
const DRAIN_TURNS: usize = 3;

/// How to run one core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The core's number, from 0.
    pub index: usize,
    /// The CPU to pin it to; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// What drives its loop: [`crate::probe::choose`] knows.
    pub driver: Driver,
    /// Entries of the submission queue, or of epoll's event list; at least 256.
    pub ring_entries: u32,
    /// The thread's name, of which Linux shows 15 bytes.
    pub name: String,
    /// Bounds of its buffer arena.
    pub arena: ArenaConfig,
    /// The slice to ask the scheduler for (`sched_runtime`, Linux 6.12): a shorter one is scheduled sooner. `None` leaves the default.
    pub slice: Option<Duration>,
}

impl CoreConfig {
    /// Core `index` on `driver`, not pinned, with the defaults.
    pub fn new(index: usize, driver: Driver) -> CoreConfig {
        CoreConfig {
            index,
            cpu: None,
            driver,
            ring_entries: 1024,
            name: format!("core-{index}"),
            arena: ArenaConfig::default(),
            slice: None,
        }
    }
}

/// What a core turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreInfo {
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// What drives it.
    pub driver: Driver,
    /// The ring's flags, where it has a ring.
    pub flags: RingFlags,
    /// What did not work and isn't fatal, for the log: pinning, the slice.
    pub warnings: Vec<String>,
}

/// A core's end that was not its own doing.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// Its main future, or the loop itself, panicked.
    #[error("core {index} panicked: {message}")]
    Panicked {
        /// The core's number.
        index: usize,
        /// The panic's message.
        message: String,
    },
}

/// A running core.
#[derive(Debug)]
pub struct CoreHandle<T> {
    index: usize,
    info: CoreInfo,
    thread: thread::JoinHandle<Ended<T>>,
}

impl<T> CoreHandle<T> {
    /// What the core turned out to be.
    pub fn info(&self) -> &CoreInfo {
        &self.info
    }

    /// Whether the core has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the core's end: its main future's output.
    ///
    /// # Errors
    /// When it panicked.
    pub fn join(self) -> Result<T, CoreError> {
        let panic = match self.thread.join() {
            Ok(Ended::Done(output)) => return Ok(output),
            Ok(Ended::Panicked(panic)) | Err(panic) => message(&*panic),
            Ok(Ended::Stopped) => "the main future was stopped".to_owned(),
        };
        Err(CoreError::Panicked { index: self.index, message: panic })
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Where one core goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorePlan {
    /// The core's number, from 0.
    pub index: usize,
    /// Its CPU; `None` when the affinity mask can't be read.
    pub cpu: Option<usize>,
    /// Whether an earlier core has that CPU already: more cores than CPUs, worth a warning.
    pub shared: bool,
}

/// Maps `cores` (default: one per CPU) to the CPUs that the process may use. More cores than CPUs wrap around and say so by `shared`; zero is one.
pub fn plan(cores: Option<usize>) -> Vec<CorePlan> {
    let cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|cpu| cpu.id).collect();
    let cores = cores.unwrap_or(cpus.len()).max(1);
    (0..cores)
        .map(|index| CorePlan {
            index,
            cpu: (!cpus.is_empty()).then(|| cpus[index % cpus.len()]),
            shared: !cpus.is_empty() && index >= cpus.len(),
        })
        .collect()
}

/// Pins the calling thread; the error is a sentence for the log.
pub(crate) fn pin(cpu: usize) -> Result<(), String> {
    // A `cpu_set_t` has that many bits; the crate would index past them.
    let known = cpu < usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    if known && core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(format!("could not pin to CPU {cpu}: {}", io::Error::last_os_error()))
    }
}

/// Starts a core: `main` makes its main future, on the core's thread. When that future ends, every other task of the core is dropped, what the kernel
/// still holds is waited for, and the thread ends. A graceful stop is the main future's affair.
///
/// # Errors
/// When the thread or its loop can't be made.
pub fn spawn<M, F>(config: CoreConfig, main: M) -> io::Result<CoreHandle<F::Output>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let (report, reported) = mpsc::sync_channel(1);
    let index = config.index;
    let thread = thread::Builder::new().name(config.name.clone()).spawn(move || {
        let mut warnings = Vec::new();
        let pinned =
            config.cpu.filter(|&cpu| pin(cpu).map_err(|warning| warnings.push(warning)).is_ok());
        if let Some(slice) = config.slice
            && let Err(error) = sys::set_slice(slice)
        {
            warnings.push(format!("could not set a slice of {slice:?}: {error}"));
        }
        arena::configure(config.arena);
        sys::set_driver(config.driver);
        let built = doorbell::install().and_then(|()| build(&config));
        let (runtime, flags) = match built {
            Ok(built) => built,
            Err(error) => {
                let _ = report.send(Err(error));
                return Ended::Stopped;
            }
        };
        let _ = report.send(Ok(CoreInfo { cpu: pinned, driver: config.driver, flags, warnings }));
        match runtime {
            Loop::IoUring(runtime) => run(runtime, main),
            Loop::Epoll(runtime) => run(runtime, main),
        }
    })?;
    match reported.recv() {
        Ok(Ok(info)) => Ok(CoreHandle { index, info, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the core's thread ended before its loop ran")),
    }
}

enum Loop {
    IoUring(monoio::Runtime<TimeDriver<IoUringDriver>>),
    Epoll(monoio::Runtime<TimeDriver<LegacyDriver>>),
}

/// Builds the loop, with fewer flags where the kernel refuses some.
fn build(config: &CoreConfig) -> io::Result<(Loop, RingFlags)> {
    if config.driver == Driver::Epoll {
        let builder = RuntimeBuilder::<LegacyDriver>::new().with_entries(config.ring_entries);
        return Ok((Loop::Epoll(builder.enable_timer().build()?), RingFlags::default()));
    }
    let mut last = None;
    for (single_issuer, coop_taskrun) in [(true, true), (false, true), (false, false)] {
        let flags = RingFlags { single_issuer, coop_taskrun };
        let builder = RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(config.ring_entries)
            .uring_builder(flags.builder());
        match builder.enable_timer().build() {
            Ok(runtime) => return Ok((Loop::IoUring(runtime), flags)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.expect("the loop above ran"))
}

fn run<D, M, F>(runtime: monoio::Runtime<D>, main: M) -> Ended<F::Output>
where
    D: monoio::Driver,
    M: FnOnce() -> F + 'static,
    F: Future + 'static,
    F::Output: 'static,
{
    // Not dropped by an unwinding panic of the loop itself: then operations may be in flight.
    let mut runtime = ManuallyDrop::new(runtime);
    let (ended, drained) = runtime.block_on(async {
        // Outside the tasks that a stop ends: the drain below needs the bell.
        let bell = monoio::spawn(async {
            doorbell::answer().await.expect("an eventfd of ours can be waited for");
        });
        let clock = monoio::spawn(time::run());
        let ended = task::spawn(async move { main().await }).ended().await;
        task::stop_all();
        task::all_ended().await;
        let drained = drain().await;
        doorbell::stop();
        bell.await;
        time::stop();
        clock.await;
        (ended, drained)
    });
    if drained {
        drop(ManuallyDrop::into_inner(runtime));
    }
    ended
}

/// Waits until the kernel holds no buffer; `false` when it won't let go.
async fn drain() -> bool {
    let deadline = Instant::now() + DRAIN_MAX;
    doorbell::turns(DRAIN_TURNS).await;
    while stats().buffers_in_flight > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    // The buffers' own descriptors were closed in the turn that reaped them; submit those closes.
    doorbell::turns(DRAIN_TURNS).await;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_wraps_around_and_says_so() {
        let one_per_cpu = plan(None);
        assert!(!one_per_cpu.is_empty());
        assert!(one_per_cpu.iter().all(|core| !core.shared));
        let twice = plan(Some(one_per_cpu.len() * 2));
        assert_eq!(twice.len(), one_per_cpu.len() * 2);
        assert_eq!(twice.iter().filter(|core| core.shared).count(), one_per_cpu.len());
        assert_eq!(twice[one_per_cpu.len()].cpu, twice[0].cpu);
        assert_eq!(plan(Some(0)).len(), 1);
    }
}
