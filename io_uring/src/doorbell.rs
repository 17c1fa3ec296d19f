//! The core's doorbell: one eventfd by which other threads, and the core itself, make its loop look around.
//!
//! No waker crosses threads (monoio without `sync` forbids it, and its `sync` costs every wake-up). What crosses is a bit per waiting
//! receiver and, when the bell wasn't rung already, one write to the eventfd. The bell's own task, alone on the core in waiting for
//! the eventfd, then wakes the receivers whose bits are set.
//!
//! [`yield_now`] goes the same way. A task that wakes itself is put in front of monoio's queue and no I/O happens; a task that waits for the
//! bell comes back by a completion, behind everything that was ready before it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use crate::sys;

/// Bits of one word.
const WORD: usize = 64;

/// Words of bits; one bit of a summary word stands for each.
const WORDS: usize = 1024;

/// Receivers that have a bit of their own; those above share the last one.
const BITS: usize = WORD * WORDS;

/// The half that any thread may touch.
pub(crate) struct Doorbell {
    fd: OwnedFd,
    /// Set from the first ring until the core looks: rings between cost no system call.
    rung: AtomicBool,
    summary: [AtomicU64; WORDS / WORD],
    words: Box<[AtomicU64]>,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Doorbell> {
        Ok(Doorbell {
            fd: sys::eventfd()?,
            rung: AtomicBool::new(false),
            summary: [const { AtomicU64::new(0) }; WORDS / WORD],
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Marks the receiver and rings. From any thread; never blocks.
    pub(crate) fn signal(&self, token: usize) {
        let bit = token.min(BITS - 1);
        let word = bit / WORD;
        // AcqRel throughout: the core that sees a bit sees what was pushed before it was set.
        self.words[word].fetch_or(1 << (bit % WORD), Ordering::AcqRel);
        self.summary[word / WORD].fetch_or(1 << (word % WORD), Ordering::AcqRel);
        self.ring();
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            sys::eventfd_write(self.fd.as_raw_fd());
        }
    }

    /// Takes every bit that is set. Bits set after `rung` was cleared ring anew.
    fn take(&self, mut each: impl FnMut(usize)) {
        sys::eventfd_drain(self.fd.as_raw_fd());
        self.rung.swap(false, Ordering::AcqRel);
        for (group, summary) in self.summary.iter().enumerate() {
            for word in ones(summary.swap(0, Ordering::AcqRel)) {
                let word = group * WORD + word;
                for bit in ones(self.words[word].swap(0, Ordering::AcqRel)) {
                    each(word * WORD + bit);
                }
            }
        }
    }
}

fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        bit
    })
}

/// The half that only the core touches.
struct Local {
    bell: Arc<Doorbell>,
    waiting: RefCell<Waiting>,
    rounds: Cell<u64>,
    stop: Cell<bool>,
}

#[derive(Default)]
struct Waiting {
    /// By receiver token.
    receivers: Vec<Option<Waker>>,
    free: Vec<usize>,
    yielders: Vec<Waker>,
    /// Kept for its memory.
    spare: Vec<Waker>,
}

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

fn local() -> Option<Rc<Local>> {
    LOCAL.try_with(|local| local.borrow().clone()).ok().flatten()
}

/// Gives this thread a bell.
pub(crate) fn install() -> io::Result<()> {
    let bell = Arc::new(Doorbell::new()?);
    let new =
        Local { bell, waiting: RefCell::default(), rounds: Cell::new(0), stop: Cell::new(false) };
    LOCAL.with(|local| *local.borrow_mut() = Some(Rc::new(new)));
    Ok(())
}

/// The bell's task: runs until [`stop`].
pub(crate) async fn answer() -> io::Result<()> {
    let local = local().expect("installed before the loop starts");
    let fd = sys::Pollable::new(local.bell.fd.try_clone()?)?;
    while !local.stop.get() {
        fd.readable().await?;
        local.rounds.set(local.rounds.get() + 1);
        local.bell.take(|token| wake(&local, token));
        let mut yielders = {
            let mut waiting = local.waiting.borrow_mut();
            let spare = std::mem::take(&mut waiting.spare);
            std::mem::replace(&mut waiting.yielders, spare)
        };
        yielders.drain(..).for_each(Waker::wake);
        local.waiting.borrow_mut().spare = yielders;
    }
    Ok(())
}

/// Ends the bell's task.
pub(crate) fn stop() {
    if let Some(local) = local() {
        local.stop.set(true);
        local.bell.ring();
    }
}

/// Wakes the receiver, and for the shared last bit every receiver that shares it.
fn wake(local: &Local, token: usize) {
    if token < BITS - 1 {
        return wake_one(local, token);
    }
    let places = local.waiting.borrow().receivers.len();
    (token..places).for_each(|token| wake_one(local, token));
}

/// No borrow is held while a waker runs or is dropped: with the last one its task goes, and with that perhaps a receiver that leaves its seat.
fn wake_one(local: &Local, token: usize) {
    let waker = local.waiting.borrow_mut().receivers.get_mut(token).and_then(Option::take);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A receiver's place at its core's bell.
pub(crate) struct Seat {
    pub(crate) bell: Arc<Doorbell>,
    pub(crate) token: usize,
}

impl Seat {
    /// Takes a place at this thread's bell.
    pub(crate) fn take() -> Seat {
        let local = local().expect("a mailbox is received from on a core's loop");
        let mut waiting = local.waiting.borrow_mut();
        let token = waiting.free.pop().unwrap_or_else(|| {
            waiting.receivers.push(None);
            waiting.receivers.len() - 1
        });
        Seat { bell: Arc::clone(&local.bell), token }
    }

    /// Sets whom the bell wakes.
    pub(crate) fn wait(&self, waker: &Waker) {
        let local = local().filter(|local| Arc::ptr_eq(&local.bell, &self.bell));
        let local = local.expect("a receiver stays on the core where it first waited");
        let replaced = {
            let mut waiting = local.waiting.borrow_mut();
            let place = &mut waiting.receivers[self.token];
            if place.as_ref().is_some_and(|set| set.will_wake(waker)) {
                return;
            }
            place.replace(waker.clone())
        };
        drop(replaced);
    }

    /// Wakes without a system call when this thread is the receiver's own, else rings. From any thread.
    pub(crate) fn signal(&self) {
        match local() {
            Some(local) if Arc::ptr_eq(&local.bell, &self.bell) => wake(&local, self.token),
            _ => self.bell.signal(self.token),
        }
    }

    /// Gives the place back. On another thread than its own the place stays taken: a few bytes, once per such receiver.
    pub(crate) fn leave(&self) {
        if let Some(local) = local().filter(|local| Arc::ptr_eq(&local.bell, &self.bell)) {
            let left = {
                let mut waiting = local.waiting.borrow_mut();
                waiting.free.push(self.token);
                waiting.receivers[self.token].take()
            };
            drop(left);
        }
    }
}

/// Lets everything else that is ready on this core run, I/O included, and comes back by a completion.
///
/// Long work on a loop calls it every 200 µs at the latest. Costs two small system calls, shared by all tasks that yield in the same turn.
///
/// # Panics
/// When polled off a core's loop.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut asked: Option<(u64, Waker)> = None;
    poll_fn(move |cx| poll_yield(&mut asked, cx))
}

fn poll_yield(asked: &mut Option<(u64, Waker)>, cx: &mut Context<'_>) -> Poll<()> {
    let local = local().expect("yield_now is for a core's loop");
    let round = match asked {
        Some((round, _)) if *round < local.rounds.get() => return Poll::Ready(()),
        Some((_, waker)) if waker.will_wake(cx.waker()) => return Poll::Pending,
        Some((round, _)) => *round,
        None => local.rounds.get(),
    };
    *asked = Some((round, cx.waker().clone()));
    local.waiting.borrow_mut().yielders.push(cx.waker().clone());
    local.bell.ring();
    Poll::Pending
}

/// Waits for `rounds` turns of the loop: each one submits what is queued and reaps what is complete.
pub(crate) async fn turns(rounds: usize) {
    for _ in 0..rounds {
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_rings_once_and_the_bell_coalesces() {
        let bell = Doorbell::new().expect("an eventfd");
        let tokens = [0, 1, 63, 64, 4095, 4096, BITS - 2, BITS - 1, BITS + 7];
        for token in tokens.into_iter().chain(tokens) {
            bell.signal(token);
        }
        let mut taken = Vec::new();
        bell.take(|token| taken.push(token));
        assert_eq!(taken, [0, 1, 63, 64, 4095, 4096, BITS - 2, BITS - 1]);
        bell.take(|_| panic!("taken already"));
    }
}
