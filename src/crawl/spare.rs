//! Memory that streams leave behind for the next ones, so that sending allocates nothing in the long
//! run.

use super::node::Node;
use crate::proto::blocks::Blocks;
use bytes::BytesMut;
use std::collections::VecDeque;
use uring::Gather;
use uring::ring::{Frame, RingMemory};

/// Spares of one kind that a core keeps whether they are needed or not.
const SPARES_KEPT: usize = 32;
/// Spares that are freed before the loop does something else.
const FREED_AT_ONCE: usize = 32;

/// What a connection has only while it sends, so that one that has nothing to say costs none.
#[derive(Default)]
pub struct SendMemory {
    /// The ring's own.
    pub ring: RingMemory,
    /// For what does not fit into the ring.
    pub held: VecDeque<Frame>,
}

/// What connections send with, while none uses it.
#[derive(Default)]
pub(super) struct Spares {
    send: Pool<SendMemory>,
    queues: Pool<Gather>,
    /// What a message is compressed into, before it is known how long that is.
    pub(super) deflated: Vec<u8>,
}

/// Spares of one kind: as many as were in use at one time of late, by those who send at that time.
struct Pool<T> {
    spares: Vec<T>,
    /// The fewest that there were since the last sweep: so many were not needed.
    idle: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { spares: Vec::new(), idle: 0 }
    }
}

impl<T: Default> Pool<T> {
    fn take(&mut self) -> T {
        let spare = self.spares.pop();
        self.idle = self.idle.min(self.spares.len());
        spare.unwrap_or_default()
    }

    fn put(&mut self, spare: T) {
        self.spares.push(spare);
    }

    /// Gives some back that were not needed since the last time; `true` while there are more.
    fn sweep(&mut self) -> bool {
        let unneeded = self.idle.min(self.spares.len().saturating_sub(SPARES_KEPT));
        let now = unneeded.min(FREED_AT_ONCE);
        self.spares.truncate(self.spares.len() - now);
        if unneeded > now {
            self.idle = unneeded - now;
            return true;
        }
        self.spares.shrink_to(2 * self.spares.len().max(SPARES_KEPT));
        self.idle = self.spares.len();
        false
    }
}

impl Node {
    /// As events are written, what stands around them on the wire, which lives for a send only.
    pub fn with_frames<T>(&self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        write(self.frames.borrow_mut().writer())
    }

    /// As [`Node::with_frames`], for what may be long: the blocks themselves, and memory to compress a
    /// message into.
    pub fn with_blocks<T>(&self, write: impl FnOnce(&mut Blocks, &mut Vec<u8>) -> T) -> T {
        write(&mut self.frames.borrow_mut(), &mut self.spares.borrow_mut().deflated)
    }

    /// Finds memory that has become free, and gives back what was not needed of late.
    pub(super) async fn sweep_spares(&self) {
        for blocks in [&self.events, &self.frames] {
            while blocks.borrow_mut().sweep() {
                uring::yield_now().await;
            }
        }
        while self.spares.borrow_mut().send.sweep() {
            uring::yield_now().await;
        }
        while self.spares.borrow_mut().queues.sweep() {
            uring::yield_now().await;
        }
    }

    /// Memory for a connection's next sends; new where there is none.
    pub fn lend(&self) -> SendMemory {
        self.spares.borrow_mut().send.take()
    }

    /// What [`Node::lend`] gave is not used for now; nothing may wait in it.
    pub fn take_back(&self, memory: SendMemory) {
        self.spares.borrow_mut().send.put(memory);
    }

    /// A queue for a connection's next answer.
    pub fn lend_queue(&self) -> Gather {
        self.spares.borrow_mut().queues.take()
    }

    /// What [`Node::lend_queue`] gave is not used for now.
    pub fn take_queue_back(&self, queue: Gather) {
        // One that was never used would only stand before those that were.
        if queue.has_memory() {
            self.spares.borrow_mut().queues.put(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_spares_are_kept_as_were_needed_at_one_time() {
        let mut pool = Pool::<Vec<u8>>::default();
        let sweep = |pool: &mut Pool<Vec<u8>>| while pool.sweep() {};
        let crowd = |pool: &mut Pool<Vec<u8>>, size: usize| {
            let taken: Vec<_> = (0..size).map(|_| pool.take()).collect();
            let new = taken.iter().filter(|spare| spare.capacity() == 0).count();
            taken.into_iter().for_each(|mut spare| {
                spare.reserve(1);
                pool.put(spare);
            });
            new
        };
        assert_eq!(crowd(&mut pool, 500), 500);
        for _ in 0..3 {
            sweep(&mut pool);
            assert_eq!(crowd(&mut pool, 500), 0, "a crowd that comes each time");
        }
        sweep(&mut pool);
        assert_eq!(crowd(&mut pool, 100), 0);
        sweep(&mut pool);
        assert_eq!(pool.spares.len(), 100, "what a smaller one does not need goes");
        for _ in 0..2 {
            sweep(&mut pool);
        }
        assert_eq!(pool.spares.len(), SPARES_KEPT);
        assert!(pool.spares.capacity() <= 4 * SPARES_KEPT);
    }
}
