//! Timers of the core's loop, with a granularity of one millisecond, rounded up.
//!
//! Timers are only looked at when the loop parks, so tasks that keep waking each other without ever waiting for a
//! completion hold them up; [`crate::yield_now`] is the cure. No timer allocates, and none lies in the future that waits for it: see
//! `timers`. One timer of monoio's waits for the first of them.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use crate::sys;
use crate::timers::Timers;

/// The longest a timer waits: the loop's own timer holds two years; a longer wait is cut to this.
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

/// This core's timers, and the task that fires them.
#[derive(Default)]
struct Clock {
    timers: Timers,
    /// What the loop's own timer is set to.
    armed: Option<Instant>,
    /// The task, while it waits.
    waker: Option<Waker>,
    stopped: bool,
}

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::default();
}

/// The future of [`sleep`] and [`sleep_until`]. Dropping it removes the timer.
#[must_use = "a timer does nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    /// Its number among the core's timers, from the first poll that has to wait on.
    timer: Option<u32>,
}

/// The monotonic clock's time since its origin, for who has to tell another process a time.
pub fn monotonic() -> Duration {
    sys::monotonic()
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
    assert!(sys::driver().is_some(), "timers are for a core's loop");
    Sleep { deadline, timer: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = self.timer else {
            if Instant::now() < self.deadline {
                self.timer = Some(insert(self.deadline, cx.waker()));
                return Poll::Pending;
            }
            return Poll::Ready(());
        };
        let (fired, replaced) = CLOCK.with_borrow_mut(|clock| clock.timers.poll(timer, cx.waker()));
        drop(replaced);
        if fired { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            // A future may be dropped as late as with its thread.
            let waker = CLOCK.try_with(|clock| clock.borrow_mut().timers.remove(timer));
            drop(waker);
        }
    }
}

fn insert(deadline: Instant, waker: &Waker) -> u32 {
    let (timer, woken) = CLOCK.with_borrow_mut(|clock| {
        let timer = clock.timers.insert(deadline, waker);
        let sooner = clock.armed.is_none_or(|armed| deadline < armed);
        (timer, if sooner { clock.waker.take() } else { None })
    });
    if let Some(woken) = woken {
        woken.wake();
    }
    timer
}

/// Fires this core's timers until [`stop`].
pub(crate) async fn run() {
    let mut own = pin!(monoio::time::sleep(WAIT_MAX));
    poll_fn(|cx| {
        loop {
            let now = Instant::now();
            // Whoever is woken runs later, and the borrow is over by then.
            while let Some(due) = CLOCK.with_borrow_mut(|clock| clock.timers.fire(now)) {
                due.wake();
            }
            let (first, changed) = CLOCK.with_borrow_mut(|clock| {
                clock.waker = Some(cx.waker().clone());
                let first = clock.timers.first().map(|first| first.min(now + WAIT_MAX));
                let before = std::mem::replace(&mut clock.armed, first);
                (first, before != first)
            });
            if CLOCK.with_borrow(|clock| clock.stopped) {
                return Poll::Ready(());
            }
            let Some(first) = first else { return Poll::Pending };
            if changed {
                own.as_mut().reset(monoio::time::Instant::from_std(first));
            }
            if own.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // What has fired once must be set anew.
            CLOCK.with_borrow_mut(|clock| clock.armed = None);
        }
    })
    .await;
}

/// Ends [`run`]; whoever still waits does so for ever.
pub(crate) fn stop() {
    let woken = CLOCK.with_borrow_mut(|clock| {
        clock.stopped = true;
        clock.waker.take()
    });
    if let Some(woken) = woken {
        woken.wake();
    }
}

/// A timer for a task that waits over and over, each time until a little later, and mostly in vain: it stays where it is among the core's
/// timers while that is early enough, so that most waits never touch them. For that it may wake the task early, without effect.
pub struct Alarm {
    sleep: Sleep,
}

/// The future of [`Alarm::at`].
#[must_use = "a timer does nothing unless awaited"]
pub struct Ringing<'a> {
    alarm: &'a mut Alarm,
    deadline: Instant,
}

impl Alarm {
    /// An alarm that rings at `deadline` first, if it is asked until then.
    ///
    /// # Panics
    /// When called off a core's loop.
    pub fn new(deadline: Instant) -> Alarm {
        Alarm { sleep: sleep_until(deadline) }
    }

    /// Waits until `deadline`; ready at once when it has passed.
    pub fn at(&mut self, deadline: Instant) -> Ringing<'_> {
        Ringing { alarm: self, deadline }
    }

    /// As [`timeout_at`].
    ///
    /// # Errors
    /// [`Elapsed`] when the time passed first.
    pub fn timeout_at<F: Future>(
        &mut self,
        deadline: Instant,
        future: F,
    ) -> Timeout<F, Ringing<'_>> {
        Timeout { future, sleep: self.at(deadline) }
    }
}

impl Future for Ringing<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Ringing { alarm, deadline } = self.get_mut();
        if alarm.sleep.deadline > *deadline {
            alarm.sleep = sleep_until(*deadline);
        }
        ready!(Pin::new(&mut alarm.sleep).poll(cx));
        while alarm.sleep.deadline < *deadline {
            alarm.sleep = sleep_until(*deadline);
            ready!(Pin::new(&mut alarm.sleep).poll(cx));
        }
        Poll::Ready(())
    }
}

/// The future of [`timeout`], [`timeout_at`] and [`Alarm::timeout_at`].
#[must_use = "a timeout does nothing unless awaited"]
pub struct Timeout<F, S = Sleep> {
    future: F,
    sleep: S,
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

impl<F: Future, S: Future<Output = ()> + Unpin> Future for Timeout<F, S> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is pinned structurally: it is never moved out of `self`, and `Timeout` has no `Drop`. A timer is `Unpin`.
        let (future, sleep) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.sleep)
        };
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every wait that is bounded holds one of these.
    #[test]
    fn a_timer_is_small() {
        assert!(size_of::<Sleep>() <= 24);
    }
}
