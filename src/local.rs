//! Waiting for each other within one core: no atomics, no locks, nothing crosses a thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A flag that one task waits for and others on the same core raise; raising it twice is raising it once.
#[derive(Debug, Default)]
pub struct Notify {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Notify {
    /// Raises the flag and wakes who waits.
    pub fn notify(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for the flag and lowers it. One task may wait at a time.
    pub async fn notified(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            let mut slot = self.waker.borrow_mut();
            if !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *slot = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// A place for one value that one task waits for.
#[derive(Debug)]
pub struct Slot<T> {
    value: RefCell<Option<T>>,
    notify: Notify,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { value: RefCell::new(None), notify: Notify::default() }
    }
}

impl<T> Slot<T> {
    /// Puts the value there and wakes who waits.
    pub fn fill(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        self.notify.notify();
    }

    /// Waits for the value and takes it.
    pub async fn take(&self) -> T {
        loop {
            if let Some(value) = self.value.borrow_mut().take() {
                return value;
            }
            self.notify.notified().await;
        }
    }
}

/// A counting semaphore, first come, first served.
#[derive(Debug)]
pub struct Semaphore {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Notify>>>,
}

/// The right to use one place; given back when dropped.
#[derive(Debug)]
pub struct Permit(Rc<Semaphore>);

impl Semaphore {
    /// A semaphore with so many places.
    #[must_use]
    pub fn new(places: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(places), waiting: RefCell::default() })
    }

    /// Waits for a place. Dropping the future gives up the turn.
    pub async fn acquire(self: &Rc<Self>) -> Permit {
        if self.free.get() == 0 || !self.waiting.borrow().is_empty() {
            let mut turn = Turn { semaphore: self, notify: Rc::default(), taken: false };
            self.waiting.borrow_mut().push_back(Rc::clone(&turn.notify));
            self.wake_next();
            turn.notify.notified().await;
            turn.taken = true;
        } else {
            self.free.set(self.free.get() - 1);
        }
        Permit(Rc::clone(self))
    }

    /// Places free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.get()
    }

    fn release(&self) {
        self.free.set(self.free.get() + 1);
        self.wake_next();
    }

    /// Hands free places to those who wait; a place is taken in the waiter's name at once, so that
    /// nobody can come between.
    fn wake_next(&self) {
        while self.free.get() > 0 {
            let Some(next) = self.waiting.borrow_mut().pop_front() else { return };
            self.free.set(self.free.get() - 1);
            next.notify();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A waiter's turn: given up, it leaves the queue, or passes on the place that it was given.
struct Turn<'a> {
    semaphore: &'a Rc<Semaphore>,
    notify: Rc<Notify>,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut waiting = self.semaphore.waiting.borrow_mut();
        let before = waiting.len();
        waiting.retain(|other| !Rc::ptr_eq(other, &self.notify));
        let was_waiting = waiting.len() < before;
        drop(waiting);
        if !was_waiting {
            self.semaphore.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn places_go_round_in_order_and_given_up_turns_are_not_lost() {
        let semaphore = Semaphore::new(1);
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(semaphore.acquire());
        let Poll::Ready(permit) = first.as_mut().poll(&mut context) else { panic!("free") };
        let mut second = Box::pin(semaphore.acquire());
        let mut third = pin!(semaphore.acquire());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(permit);
        // The second has been given the place but never asks for it again.
        drop(second);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert_eq!(semaphore.free(), 1);
    }

    #[test]
    fn a_notification_is_not_lost_before_anybody_waits() {
        let notify = Notify::default();
        notify.notify();
        notify.notify();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(notify.notified()).poll(&mut context).is_ready());
        assert!(pin!(notify.notified()).poll(&mut context).is_pending());
    }
}
