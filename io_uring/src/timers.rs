//! The timers of one core: a heap whose entries know their places in it. Sans-IO: no clock, no waiting.
//!
//! An entry is some forty bytes, whoever waits holds its number alone, and no timer allocates once the heap has grown to the most timers
//! at once. That is why it is here: monoio's own timers are ten times as large and lie in the future that waits, and most of what an
//! idle connection costs would be timers.

use std::task::Waker;
use std::time::Instant;

/// `Entry::at` of a timer that has fired.
const FIRED: u32 = u32::MAX;

struct Entry {
    deadline: Instant,
    /// Its place in the heap.
    at: u32,
    waker: Option<Waker>,
}

/// See the module. Timers are known by their numbers, from [`Timers::insert`] to [`Timers::remove`].
#[derive(Default)]
pub(crate) struct Timers {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Numbers of entries; each is due no later than the two below it.
    heap: Vec<u32>,
}

impl Timers {
    /// A timer; its number.
    pub(crate) fn insert(&mut self, deadline: Instant, waker: &Waker) -> u32 {
        let at = self.heap.len();
        let entry = Entry { deadline, at: index(at), waker: Some(waker.clone()) };
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                index(self.entries.len() - 1)
            }
        };
        self.heap.push(number);
        self.rise(at);
        number
    }

    /// Whether a timer has fired; until it does, this task is the one to wake. Also who was before: a waker's end can be its task's, and
    /// with that of other timers, so the caller drops it once it is done here.
    pub(crate) fn poll(&mut self, number: u32, waker: &Waker) -> (bool, Option<Waker>) {
        let entry = &mut self.entries[number as usize];
        if entry.at == FIRED {
            return (true, None);
        }
        if entry.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return (false, None);
        }
        (false, entry.waker.replace(waker.clone()))
    }

    /// Forgets a timer; whom it would have woken, to be dropped as in [`Timers::poll`].
    pub(crate) fn remove(&mut self, number: u32) -> Option<Waker> {
        let entry = &mut self.entries[number as usize];
        let waker = entry.waker.take();
        if entry.at != FIRED {
            let at = entry.at as usize;
            self.take_out(at);
        }
        self.free.push(number);
        waker
    }

    /// When the first timer is due.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.heap.first().map(|&number| self.entries[number as usize].deadline)
    }

    /// Fires the first timer if it is due; whom to wake.
    pub(crate) fn fire(&mut self, now: Instant) -> Option<Waker> {
        let number = *self.heap.first()?;
        if self.entries[number as usize].deadline > now {
            return None;
        }
        self.take_out(0);
        let entry = &mut self.entries[number as usize];
        entry.at = FIRED;
        entry.waker.take()
    }

    fn take_out(&mut self, at: usize) {
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.entries[self.heap[at] as usize].at = index(at);
            let at = self.rise(at);
            self.sink(at);
        }
    }

    /// Moves an entry up to where it belongs; where that is.
    fn rise(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let above = (at - 1) / 2;
            if self.deadline(above) <= self.deadline(at) {
                break;
            }
            self.swap(above, at);
            at = above;
        }
        at
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut below = 2 * at + 1;
            if below >= self.heap.len() {
                return;
            }
            if below + 1 < self.heap.len() && self.deadline(below + 1) < self.deadline(below) {
                below += 1;
            }
            if self.deadline(at) <= self.deadline(below) {
                return;
            }
            self.swap(at, below);
            at = below;
        }
    }

    fn deadline(&self, at: usize) -> Instant {
        self.entries[self.heap[at] as usize].deadline
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for at in [one, other] {
            self.entries[self.heap[at] as usize].at = index(at);
        }
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("there are fewer timers than 2^32")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_removed_ones_do_not() {
        let (mut timers, begin) = (Timers::default(), Instant::now());
        let mut model = BTreeSet::new();
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut now = begin;
        let mut fired = Vec::new();
        for _ in 0..20_000 {
            match next(4) {
                0 | 1 => {
                    let deadline = now + Duration::from_micros(next(1_000));
                    model.insert((deadline, timers.insert(deadline, Waker::noop())));
                }
                2 => {
                    let skip = usize::try_from(next(model.len() as u64 + 1)).unwrap();
                    if let Some(entry) = model.iter().nth(skip).copied() {
                        model.remove(&entry);
                        timers.remove(entry.1);
                    }
                }
                _ => {
                    now += Duration::from_micros(next(200));
                    while timers.first().is_some_and(|first| first <= now) {
                        assert!(timers.fire(now).is_some());
                    }
                    let due = |entry: &(Instant, u32)| entry.0 <= now;
                    fired.extend(model.iter().copied().filter(due));
                    model.retain(|entry| !due(entry));
                    for (_, number) in fired.drain(..) {
                        assert!(timers.poll(number, Waker::noop()).0);
                        timers.remove(number);
                    }
                }
            }
            assert_eq!(timers.first(), model.first().map(|first| first.0));
            assert_eq!(timers.heap.len(), model.len());
        }
        for (_, number) in &model {
            assert!(!timers.poll(*number, Waker::noop()).0);
        }
        assert!(timers.entries.len() < 20_000, "numbers are used again");
    }
}
