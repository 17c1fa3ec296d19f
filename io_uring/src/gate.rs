//! Waiting, on one core, for an event ([`Signal`]) or for everything in flight to end ([`Gate`]).

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// An event of one core that happens once; everybody who waits goes on. Cheap to clone.
#[derive(Clone, Default)]
pub struct Signal {
    state: Rc<RefCell<SignalState>>,
}

#[derive(Default)]
struct SignalState {
    set: bool,
    waiting: Vec<Waker>,
}

impl Signal {
    /// An event that has not happened.
    pub fn new() -> Signal {
        Signal::default()
    }

    /// Makes it happen.
    pub fn set(&self) {
        let waiting = {
            let mut state = self.state.borrow_mut();
            state.set = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.state.borrow().set
    }

    /// Waits until it happens. May be dropped at any time.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.set {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Counts what is in flight on one core, so that a graceful stop can wait for it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gate {
    state: Rc<RefCell<GateState>>,
}

#[derive(Default)]
struct GateState {
    inside: usize,
    waiting: Vec<Waker>,
}

/// One thing in flight; dropping it says that it has ended.
#[must_use = "dropping the pass leaves the gate"]
pub struct Pass {
    state: Rc<RefCell<GateState>>,
}

impl Gate {
    /// A gate with nothing inside.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Enters.
    pub fn enter(&self) -> Pass {
        self.state.borrow_mut().inside += 1;
        Pass { state: Rc::clone(&self.state) }
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.state.borrow().inside
    }

    /// Waits until nobody is inside. May be dropped at any time.
    pub async fn drained(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.inside == 0 {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.state.borrow_mut();
            state.inside -= 1;
            if state.inside > 0 {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}
