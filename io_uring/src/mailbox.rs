//! Bounded mailboxes: from any thread (loops, lanes, the control thread) to one receiver on a core's loop.
//!
//! Sending never blocks and never allocates. A receiver that has nothing announces that it sleeps; the sender that finds the announcement takes it back and
//! rings the core's bell (see `doorbell`), so a burst costs one wake-up. One bell serves all of a core's mailboxes, hence a mailbox
//! costs no descriptor and a stream can have its own.
//!
//! Why no wake-up is lost: the receiver announces and then looks again; a sender pushes and then looks for the announcement; a
//! sequentially consistent fence stands between the two steps on both sides. So at least one of them sees what the other did.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::doorbell::{self, Seat};
use crate::queue::Queue;
use crate::time;

/// Waits between two tries of [`Sender::send`], after the first, which yields: doubling between these.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

struct Shared<T> {
    queue: Queue<T>,
    /// The receiver is asleep, or about to be: the next sender wakes it.
    asleep: AtomicBool,
    senders: AtomicUsize,
    refused: AtomicU64,
    receiver_gone: AtomicBool,
    /// Where the receiver waits; set when it first does.
    seat: OnceLock<Seat>,
}

/// Why a value was not taken, and the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// No room: the receiver is behind.
    Full(T),
    /// Nobody will receive.
    Closed(T),
}

impl<T> SendError<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Full(value) | SendError::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full(_) => "Full(..)",
            SendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full(_) => "the mailbox is full",
            SendError::Closed(_) => "the mailbox is closed",
        })
    }
}

impl<T> std::error::Error for SendError<T> {}

/// The sending end.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The receiving end. It may be moved to the core that will receive; from its first wait on it belongs to that core.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// A mailbox for `capacity` values. It closes when the receiver is dropped, or when all senders are and it is empty.
///
/// # Panics
/// When `capacity` is zero.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: Queue::new(capacity),
        asleep: AtomicBool::new(false),
        senders: AtomicUsize::new(1),
        refused: AtomicU64::new(0),
        receiver_gone: AtomicBool::new(false),
        seat: OnceLock::new(),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

impl<T> Shared<T> {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        // The swap acquires what the receiver released with its announcement: its seat.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.seat.get().expect("the receiver takes its seat before it sleeps").signal();
        }
    }
}

impl<T: Send> Sender<T> {
    /// Sends without waiting, from any thread.
    ///
    /// # Errors
    /// [`SendError::Full`] or [`SendError::Closed`], with the value. A value sent while the receiver is being dropped may be taken and
    /// never received; it is dropped with the last end of the mailbox.
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.receiver_gone.load(Ordering::Acquire) {
            return Err(SendError::Closed(value));
        }
        if let Err(value) = self.shared.queue.push(value) {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::Full(value));
        }
        self.shared.wake();
        Ok(())
    }

    /// Sends on a core's loop, waiting for room: it yields once, then tries again after 1, 2, 4, 8, 16, 16 … ms. A receiver that is this far behind is
    /// the bottleneck, so the waits cost nothing but latency; senders take no order among each other.
    ///
    /// # Errors
    /// [`SendError::Closed`] with the value.
    ///
    /// # Panics
    /// When it has to wait off a core's loop.
    pub async fn send(&self, mut value: T) -> Result<(), SendError<T>> {
        let mut pause = None;
        loop {
            match self.try_send(value) {
                Err(SendError::Full(back)) => value = back,
                done => return done,
            }
            match pause {
                None => doorbell::yield_now().await,
                Some(pause) => time::sleep(pause).await,
            }
            pause = Some(pause.map_or(RETRY.0, |last: Duration| (last * 2).min(RETRY.1)));
        }
    }

    /// Whether nobody will receive.
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.load(Ordering::Acquire)
    }

    /// Values waiting; a moment later it may be another number.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Times that a value found no room, whoever sent it.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Release: what this sender sent is there before its end is seen.
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.wake();
        }
    }
}

impl<T: Send> Receiver<T> {
    /// The next value, or `None` when all senders are gone and everything they sent was received. May be dropped at any time and loses nothing.
    ///
    /// # Panics
    /// When it waits off a core's loop, or on another core than before.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next value if there is one now. From any thread.
    pub fn try_recv(&mut self) -> Option<T> {
        // SAFETY: pops only happen here, behind the only receiver's `&mut`.
        unsafe { self.shared.queue.pop() }
    }

    /// As [`Receiver::recv`], for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.try_recv() {
            return Poll::Ready(Some(value));
        }
        self.shared.seat.get_or_init(Seat::take).wait(cx.waker());
        // Release: who sees the announcement sees the seat.
        self.shared.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        // Read before the last look: with it at zero, everything ever sent is visible to that look.
        let ended = self.shared.senders.load(Ordering::Acquire) == 0;
        match self.try_recv() {
            None if !ended => Poll::Pending,
            last => {
                // A sender may have taken it back already and rung: one idle turn.
                self.shared.asleep.store(false, Ordering::Relaxed);
                Poll::Ready(last)
            }
        }
    }

    /// Values waiting.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Release);
        self.shared.asleep.store(false, Ordering::Relaxed);
        // SAFETY: the only receiver, and it is being dropped. What waits must not keep its memory until the last sender goes.
        while unsafe { self.shared.queue.pop() }.is_some() {}
        if let Some(seat) = self.shared.seat.get() {
            seat.leave();
        }
    }
}
