//! Waiting, on one core, for an event.

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
