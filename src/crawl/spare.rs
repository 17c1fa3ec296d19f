//! Memory that streams leave behind for the next ones, so that sending allocates nothing in the long
//! run.

use super::node::Node;
use bytes::BytesMut;
use std::collections::VecDeque;
use uring::Gather;
use uring::ring::{Frame, RingMemory};

/// Spares of one kind that a core keeps: as many as are sending at one moment need theirs.
const SPARES_MAX: usize = 32;

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
    send: Vec<SendMemory>,
    queues: Vec<Gather>,
}

impl Node {
    /// As events are written, what stands around them on the wire, which lives for a send only.
    pub fn with_frames<T>(&self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        write(self.frames.borrow_mut().writer())
    }

    /// Finds memory that has become free, and gives back what was not needed of late.
    pub(super) async fn sweep_spares(&self) {
        for blocks in [&self.events, &self.frames] {
            while blocks.borrow_mut().sweep() {
                uring::yield_now().await;
            }
        }
    }

    /// Memory for a connection's next sends; new where there is none.
    pub fn lend(&self) -> SendMemory {
        self.spares.borrow_mut().send.pop().unwrap_or_default()
    }

    /// What [`Node::lend`] gave is not used for now; nothing may wait in it.
    pub fn take_back(&self, memory: SendMemory) {
        let send = &mut self.spares.borrow_mut().send;
        if send.len() < SPARES_MAX {
            send.push(memory);
        }
    }

    /// A queue for a connection's next answer.
    pub fn lend_queue(&self) -> Gather {
        self.spares.borrow_mut().queues.pop().unwrap_or_default()
    }

    /// What [`Node::lend_queue`] gave is not used for now.
    pub fn take_queue_back(&self, queue: Gather) {
        let queues = &mut self.spares.borrow_mut().queues;
        // One that was never used would only stand before those that were.
        if queues.len() < SPARES_MAX && queue.has_memory() {
            queues.push(queue);
        }
    }
}
