//! Tasks of a core: spawning, joining, and ending them all when the core stops.
//!
//! Every task is wrapped so that (a) a panic ends that task and not its core, and (b) a stopping core can drop each task's future while
//! the loop still runs. The second is a need: an operation in flight holds its driver, the driver holds the operation's waker, the
//! waker holds the task, and the task holds the operation, so a runtime dropped with tasks waiting frees neither descriptors nor memory.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::stats;

/// A spawned task; awaiting it gives its output, dropping it lets it run on.
///
/// There is no abort: a task ends by its own `select` or when what it waits for is dropped. When the task panicked, awaiting it panics
/// likewise; when the core is stopping, awaiting it never ends (the waiting task is being dropped, too).
#[must_use = "dropping a Task detaches it; say so with drop(…) or let _"]
pub struct Task<T> {
    handle: Option<monoio::task::JoinHandle<Ended<T>>>,
}

/// How a task's future ended.
pub(crate) enum Ended<T> {
    Done(T),
    Panicked(Box<dyn Any + Send>),
    Stopped,
}

#[derive(Default)]
struct Registry {
    /// By task number: the waker of a live task once it was polled.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    stopping: bool,
    idle: Option<Waker>,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::new(Registry::default());
}

/// Starts a task on this core's loop; it runs when the current one waits.
///
/// # Panics
/// When called off a core's loop.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let number = REGISTRY.with_borrow_mut(|registry| {
        registry.free.pop().unwrap_or_else(|| {
            registry.wakers.push(None);
            registry.wakers.len() - 1
        })
    });
    stats::update(|s| {
        s.tasks_live += 1;
        s.tasks_spawned += 1;
    });
    Task {
        handle: Some(monoio::spawn(Supervised { number, registered: false, future: Some(future) })),
    }
}

impl<T> Task<T> {
    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(monoio::task::JoinHandle::is_finished)
    }

    /// As awaiting, with the way it ended as a value.
    pub(crate) async fn ended(mut self) -> Ended<T> {
        match self.handle.take() {
            Some(handle) => handle.await,
            None => Ended::Stopped,
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(handle) = &mut self.handle else { return Poll::Pending };
        let Poll::Ready(ended) = Pin::new(handle).poll(cx) else { return Poll::Pending };
        self.handle = None;
        match ended {
            Ended::Done(output) => Poll::Ready(output),
            Ended::Panicked(panic) => resume_unwind(panic),
            Ended::Stopped => Poll::Pending,
        }
    }
}

struct Supervised<F> {
    number: usize,
    registered: bool,
    /// `None` once it ended. Pinned structurally: dropped in place, never moved.
    future: Option<F>,
}

impl<F: Future> Future for Supervised<F> {
    type Output = Ended<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is only ever polled through a pin or dropped in place (`Option` assigned `None`); the other fields are `Unpin`.
        let this = unsafe { self.get_unchecked_mut() };
        let stopping = REGISTRY.with_borrow_mut(|registry| {
            if !this.registered {
                this.registered = true;
                registry.wakers[this.number] = Some(cx.waker().clone());
            }
            registry.stopping
        });
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if stopping {
                return Poll::Ready(Ended::Stopped);
            }
            let future = this.future.as_mut().expect("a task isn't polled after its end");
            // SAFETY: `this` came from a pin, and see above.
            unsafe { Pin::new_unchecked(future) }.poll(cx).map(Ended::Done)
        }));
        let mut ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(ended)) => ended,
            Err(panic) => Ended::Panicked(panic),
        };
        // What the future holds goes before its waiters run. A destructor that panics is the task's panic, too.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| this.future = None)) {
            ended = Ended::Panicked(panic);
        }
        if matches!(ended, Ended::Panicked(_)) {
            stats::update(|s| s.tasks_panicked += 1);
        }
        this.deregister();
        Poll::Ready(ended)
    }
}

impl<F> Supervised<F> {
    fn deregister(&mut self) {
        if self.number == usize::MAX {
            return;
        }
        stats::update(|s| s.tasks_live -= 1);
        let live = stats().tasks_live;
        let (waker, idle) = REGISTRY.with_borrow_mut(|registry| {
            registry.free.push(self.number);
            let idle = if live == 0 { registry.idle.take() } else { None };
            (registry.wakers[self.number].take(), idle)
        });
        self.number = usize::MAX;
        drop(waker);
        if let Some(idle) = idle {
            idle.wake();
        }
    }
}

impl<F> Drop for Supervised<F> {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// Ends every task of this core: each is dropped in its next turn, and what is spawned from now on is dropped unpolled.
pub(crate) fn stop_all() {
    let wakers = REGISTRY.with_borrow_mut(|registry| {
        registry.stopping = true;
        registry.wakers.clone()
    });
    for waker in wakers.into_iter().flatten() {
        waker.wake();
    }
}

/// Waits until no task is live.
pub(crate) async fn all_ended() {
    poll_fn(|cx| {
        if stats().tasks_live == 0 {
            return Poll::Ready(());
        }
        REGISTRY.with_borrow_mut(|registry| registry.idle = Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}
