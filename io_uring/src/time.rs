//! Timers of the core's loop: a wheel with a granularity of one millisecond, rounded up.
//!
//! Timers are only looked at when the loop parks, so tasks that keep waking each other without ever waiting for a
//! completion hold them up; [`crate::yield_now`] is the cure. No timer allocates.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The longest a timer waits: the wheel holds two years; a longer wait is cut to this.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time given to [`timeout`] passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

/// The future of [`sleep`] and [`sleep_until`]. Dropping it removes the timer.
#[must_use = "a timer does nothing unless awaited"]
pub struct Sleep(monoio::time::Sleep);

/// The monotonic clock's time since its origin, for who has to tell another process a time.
pub fn monotonic() -> Duration {
    crate::sys::monotonic()
}

/// Waits for `duration`, rounded up to the next millisecond.
///
/// # Panics
/// When called off a core's loop.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration.min(WAIT_MAX))
}

/// Waits until `deadline`; ready at once when it has passed.
///
/// # Panics
/// When called off a core's loop.
pub fn sleep_until(deadline: Instant) -> Sleep {
    let deadline = deadline.min(Instant::now() + WAIT_MAX);
    Sleep(monoio::time::sleep_until(monoio::time::Instant::from_std(deadline)))
}

impl Sleep {
    fn project(self: Pin<&mut Self>) -> Pin<&mut monoio::time::Sleep> {
        // SAFETY: structural projection to the only field; `Sleep` has no `Drop` of its own and never moves the field out.
        unsafe { self.map_unchecked_mut(|sleep| &mut sleep.0) }
    }

    /// Moves the deadline without a new timer: the cheap way to keep an idle timeout on a long connection.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + WAIT_MAX);
        self.project().reset(monoio::time::Instant::from_std(deadline));
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().poll(cx)
    }
}

/// The future of [`timeout`] and [`timeout_at`].
#[must_use = "a timeout does nothing unless awaited"]
pub struct Timeout<F> {
    future: F,
    sleep: Sleep,
}

/// Runs `future` for at most `duration`; a future that loses is dropped when the returned one is.
///
/// # Errors
/// [`Elapsed`] when the time passed first. A future that is ready in the same turn wins.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep(duration) }
}

/// As [`timeout`], with a point in time.
///
/// # Errors
/// [`Elapsed`] when the time passed first.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep_until(deadline) }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: both fields are pinned structurally: neither is moved out of `self`, and `Timeout` has no `Drop`.
        let (future, sleep) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), Pin::new_unchecked(&mut this.sleep))
        };
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.poll(cx).map(|()| Err(Elapsed))
    }
}
