//! What waits to be sent on a socket; there is none while nothing does.

use crate::crawl::node::Node;
use crate::crawl::spare::SendMemory;
use crate::observe::Core;
use crate::observe::rings::Share;
use crate::proto::blocks::Blocks;
use crate::proto::events::Event;
use crate::proto::ws::{MessageKind, SendError, Session};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::Instant;
use uring::Gather;
use uring::ring::{BufferConfig, BufferConfigError, Frame, PushError, Ring, RingStats};

/// Bytes of a message that are copied rather than given to the kernel as vectors of their own.
const COPIED_BYTES_MAX: usize = 1024;
/// Bytes of a document that one ring frame holds at most; below the smallest `buffer.bytes_max`.
const PIECE_BYTES: usize = 32 * 1024;
/// Bytes of answers to ops above which no more ops are read.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// See the module.
pub(super) struct Outbox {
    ring: Ring,
    /// What did not fit into the ring: messages and control frames, each whole, in order.
    held: VecDeque<Frame>,
    held_bytes: usize,
    /// Since when the ring has been above its high watermark.
    pub(super) pressed_since: Option<Instant>,
    /// Whether the memory to send with is lent out.
    resting: bool,
    /// The ring's share in what `/metrics` says of the core's.
    share: Share,
}

impl Outbox {
    pub(super) fn new(config: BufferConfig, observe: &Core) -> Result<Self, BufferConfigError> {
        Ok(Self {
            ring: Ring::new(config)?,
            held: VecDeque::new(),
            held_bytes: 0,
            pressed_since: None,
            resting: true,
            share: Share::new(observe),
        })
    }

    /// Gets memory to send with, where it has none.
    pub(super) fn rise(&mut self, node: &Node) {
        if std::mem::take(&mut self.resting) {
            let SendMemory { ring, held } = node.lend();
            self.ring.equip(ring);
            self.held = held;
        }
    }

    /// Lends the memory to others while there is nothing to send; what is known of the reader stays.
    pub(super) fn rest(&mut self, node: &Node) {
        if !self.resting && self.held.is_empty() && self.ring.is_empty() {
            self.resting = true;
            let held = std::mem::take(&mut self.held);
            node.take_back(SendMemory { ring: self.ring.lend(), held });
        }
    }

    /// Queues ready frames of the session's own.
    pub(super) fn control(&mut self, frames: Bytes) {
        self.hold(Frame::new().with(frames));
    }

    /// Queues an event as one message, with `prefix` in the place of its opening brace. The document
    /// is shared, not copied, unless the message is compressed; answers whether it was.
    pub(super) fn event(
        &mut self,
        memory: (&mut Blocks, &mut Vec<u8>),
        session: &mut Session,
        prefix: &[u8],
        event: &Event,
    ) -> Result<bool, SendError> {
        let parts = [event.head.slice(1..), event.body.clone(), event.tail.clone()];
        self.message(memory, session, prefix, parts)
    }

    /// Queues a whole text as one message.
    pub(super) fn text(
        &mut self,
        memory: (&mut Blocks, &mut Vec<u8>),
        session: &mut Session,
        text: Bytes,
    ) -> Result<bool, SendError> {
        self.message(memory, session, &[], [Bytes::new(), text, Bytes::new()])
    }

    fn message(
        &mut self,
        (blocks, deflated): (&mut Blocks, &mut Vec<u8>),
        session: &mut Session,
        prefix: &[u8],
        [head, body, tail]: [Bytes; 3],
    ) -> Result<bool, SendError> {
        let parts: [&[u8]; 4] = [prefix, &head, &body, &tail];
        let outgoing = session.send(MessageKind::Text, &parts, deflated)?;
        let scratch = blocks.writer();
        scratch.put_slice(&outgoing.head);
        if outgoing.deflated {
            // With what there is room for behind the head, in one piece.
            let (near, far) =
                deflated.split_at(deflated.len().min(scratch.capacity() - scratch.len()));
            scratch.put_slice(near);
            self.hold(Frame::new().with(scratch.split().freeze()));
            blocks.copy(far, |piece| self.hold(Frame::new().with(piece)));
            return Ok(true);
        }
        scratch.put_slice(prefix);
        if head.len() + body.len() + tail.len() <= COPIED_BYTES_MAX {
            [head, body, tail].iter().for_each(|part| scratch.put_slice(part));
            self.frames(scratch, Bytes::new(), Bytes::new(), Bytes::new());
        } else {
            self.frames(scratch, head, body, tail);
        }
        Ok(false)
    }

    /// What is in the scratch, then these; a large body becomes several frames, so that none is
    /// larger than a ring.
    fn frames(&mut self, scratch: &mut BytesMut, head: Bytes, mut body: Bytes, tail: Bytes) {
        let frame = Frame::new().with(scratch.split().freeze()).with(head);
        if body.len() <= PIECE_BYTES {
            return self.hold(frame.with(body).with(tail));
        }
        self.hold(frame);
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            self.hold(Frame::new().with(piece));
        }
        self.hold(Frame::new().with(tail));
    }

    fn hold(&mut self, frame: Frame) {
        self.held_bytes += frame.len();
        self.held.push_back(frame);
    }

    /// Moves what is held into the ring; whether there is room for more.
    pub(super) fn has_room(&mut self) -> bool {
        while let Some(frame) = self.held.pop_front() {
            let bytes = frame.len();
            if let Err(PushError::Full(frame) | PushError::TooLarge(frame)) = self.ring.push(frame)
            {
                self.held.push_front(frame);
                return false;
            }
            self.held_bytes -= bytes;
        }
        !self.ring.above_high()
    }

    /// Whether more answers to ops may be queued.
    pub(super) const fn takes_answers(&self) -> bool {
        self.held_bytes < HELD_BYTES_MAX
    }

    /// Everything ready, for one vectored send.
    pub(super) fn poll_gather(&mut self, out: &mut Gather) {
        self.has_room();
        self.ring.poll_gather(out);
    }

    /// Says how the ring is, to `/metrics` as well.
    pub(super) fn stats(&mut self, node: &Node) -> RingStats {
        let stats = self.ring.stats();
        self.share.update(&node.observe, &stats);
        stats
    }

    /// A send ended; whether the ring is still above its high watermark.
    pub(super) fn handle_sent(&mut self, now: Instant, bytes: usize, begun: Instant) -> bool {
        self.ring.handle_sent(now, bytes, now - begun);
        self.ring.above_high()
    }
}
