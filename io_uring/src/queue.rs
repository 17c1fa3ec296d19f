//! A bounded queue from many threads to one, without locks: under mailboxes and lanes.
//!
//! After Dmitry Vyukov's bounded queue: a ring of slots, each with a sequence number that says whose turn it is. For the value number
//! `n` in a ring of `capacity` slots, the slot `n % capacity` holds `2n` while it is the producer's, `2n + 1` when it is filled and
//! `2(n + capacity)` when it is emptied for the next lap.
//!
//! Why not a lock: a lane runs at the lowest priority on the loop's own CPU. A lock that it holds while the loop preempts it would be waited for, and a
//! queue that spins until a half-done push is done would spin for ever. Here a push that was preempted halfway makes the queue look empty until it goes on.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Slot<T> {
    turn: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// The queue. Any thread pushes; one thread at a time pops (the callers' duty, see [`Queue::pop`]).
pub(crate) struct Queue<T> {
    slots: Box<[Slot<T>]>,
    /// Number of the next value to push.
    tail: AtomicUsize,
    /// Number of the next value to pop.
    head: AtomicUsize,
}

// SAFETY: values move between threads (`T: Send`), and a slot is touched only by the thread whose turn it is.
unsafe impl<T: Send> Sync for Queue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Queue<T> {}

impl<T> Queue<T> {
    /// # Panics
    /// When `capacity` is zero.
    pub(crate) fn new(capacity: usize) -> Queue<T> {
        assert!(capacity > 0, "a queue needs room");
        let slot = |n: usize| Slot {
            turn: AtomicUsize::new(2 * n),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Queue {
            slots: (0..capacity).map(slot).collect(),
            tail: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Values waiting; a moment later it may be another number.
    pub(crate) fn len(&self) -> usize {
        let head = self.head.load(Ordering::Relaxed);
        self.tail.load(Ordering::Relaxed).saturating_sub(head).min(self.capacity())
    }

    /// Appends `value`, or gives it back when the queue is full.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut number = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[number % self.capacity()];
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == 2 * number {
                match self.tail.compare_exchange_weak(
                    number,
                    number + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        // SAFETY: the turn says that the slot is empty and waits for value `number`, which the exchange made ours alone.
                        unsafe { (*slot.value.get()).write(value) };
                        slot.turn.store(2 * number + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => number = now,
                }
            } else if turn < 2 * number {
                // The value of the lap before is still in it.
                return Err(value);
            } else {
                number = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Takes the oldest value, `None` when there is none or its push isn't done.
    ///
    /// # Safety
    /// No other call of `pop` runs at the same time.
    pub(crate) unsafe fn pop(&self) -> Option<T> {
        let number = self.head.load(Ordering::Relaxed);
        let slot = &self.slots[number % self.capacity()];
        if slot.turn.load(Ordering::Acquire) != 2 * number + 1 {
            return None;
        }
        // SAFETY: the turn says that it is filled, and no producer touches it before the store below; the caller is the only consumer.
        let value = unsafe { (*slot.value.get()).assume_init_read() };
        slot.turn.store(2 * (number + self.capacity()), Ordering::Release);
        self.head.store(number + 1, Ordering::Relaxed);
        Some(value)
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: nobody else pops.
        while unsafe { self.pop() }.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use std::sync::Arc;

    #[test]
    fn keeps_order_and_bounds_over_many_laps() {
        for capacity in [1, 2, 3, 7] {
            let queue = Queue::new(capacity);
            let mut next = 0;
            for lap in 0..50_usize {
                let fill = lap % (capacity + 1);
                for n in 0..fill {
                    queue.push(Box::new(next + n)).unwrap();
                }
                assert_eq!(queue.len(), fill);
                if fill == capacity {
                    assert!(queue.push(Box::new(0)).is_err());
                }
                for n in 0..fill {
                    // SAFETY: one thread.
                    assert_eq!(unsafe { queue.pop() }.as_deref(), Some(&(next + n)));
                }
                // SAFETY: one thread.
                assert!(unsafe { queue.pop() }.is_none());
                next += fill;
            }
            queue.push(Box::new(1)).unwrap();
        }
    }

    #[test]
    fn every_value_of_many_producers_arrives_once_and_in_its_producers_order() {
        const PRODUCERS: usize = 4;
        let each: usize = if cfg!(miri) { 50 } else { 20_000 };
        let queue = Arc::new(Queue::new(5));
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for n in 0..each {
                        let mut value = (producer, n);
                        while let Err(back) = queue.push(value) {
                            value = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; PRODUCERS];
        while next.iter().sum::<usize>() < PRODUCERS * each {
            // SAFETY: only this thread pops.
            match unsafe { queue.pop() } {
                Some((producer, n)) => {
                    assert_eq!(n, next[producer]);
                    next[producer] += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    }
}
