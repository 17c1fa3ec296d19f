//! Waiting, on one core, for an event.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// An event of one core that happens once; everybody who waits goes on. Cheap to clone.
#[derive(Clone, Default)]
pub struct Signal {
    state: Rc<SignalState>,
}

#[derive(Default)]
struct SignalState {
    set: Cell<bool>,
    waiters: Waiters,
}

impl Signal {
    /// An event that has not happened.
    pub fn new() -> Signal {
        Signal::default()
    }

    /// Makes it happen.
    pub fn set(&self) {
        self.state.set.set(true);
        self.state.waiters.wake();
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.state.set.get()
    }

    /// Waits until it happens. May be dropped at any time.
    pub async fn wait(&self) {
        self.state.waiters.until(|| self.state.set.get()).await;
    }
}

/// Those who wait, each at a place of its own that it leaves when it goes on or is dropped: a waker keeps its task's memory.
#[derive(Default)]
struct Waiters {
    places: RefCell<Places>,
}

#[derive(Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Waiters {
    /// Waits until `done`, which is looked at again whenever [`Waiters::wake`] was called.
    async fn until(&self, done: impl Fn() -> bool) {
        let place = Place { waiters: self, at: Cell::new(None) };
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            place.wait(cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        let places = self.places.borrow().wakers.len();
        for at in 0..places {
            // Woken without the borrow: what a waker does is not known here.
            let waker = self.places.borrow_mut().wakers[at].take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

struct Place<'a> {
    waiters: &'a Waiters,
    at: Cell<Option<usize>>,
}

impl Place<'_> {
    fn wait(&self, waker: &Waker) {
        let mut places = self.waiters.places.borrow_mut();
        let at = self.at.get().or_else(|| places.free.pop()).unwrap_or_else(|| {
            places.wakers.push(None);
            places.wakers.len() - 1
        });
        self.at.set(Some(at));
        let before = places.wakers[at].replace(waker.clone());
        drop(places);
        drop(before);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(at) = self.at.get() else { return };
        let mut places = self.waiters.places.borrow_mut();
        let waker = places.wakers[at].take();
        places.free.push(at);
        drop(places);
        // Its last owner may be this waker: then a task goes, and what it waits for with it.
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut cx = Context::from_waker(&waker);
        let signal = Signal::new();
        for _ in 0..100 {
            assert!(pin!(signal.wait()).poll(&mut cx).is_pending());
        }
        assert_eq!(Arc::strong_count(&counted), 2, "only the context's waker is left");
        assert_eq!(signal.state.waiters.places.borrow().wakers.len(), 1);
        signal.set();
        assert_eq!(counted.0.load(Ordering::Relaxed), 0, "nobody waits");
        assert!(pin!(signal.wait()).poll(&mut cx).is_ready());
    }

    #[test]
    fn everybody_who_waits_is_woken_once() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut cx = Context::from_waker(&waker);
        let signal = Signal::new();
        let mut first = pin!(signal.wait());
        let mut second = pin!(signal.wait());
        for _ in 0..3 {
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert!(second.as_mut().poll(&mut cx).is_pending());
        }
        signal.set();
        assert_eq!(counted.0.load(Ordering::Relaxed), 2);
        assert!(first.as_mut().poll(&mut cx).is_ready());
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }
}
