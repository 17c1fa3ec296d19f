//! Control frames that wait to be sent, bounded whatever the peer does.

use bytes::Bytes;

use super::frame::{FrameHead, FrameKind};
use crate::limits::WS_CONTROL_BACKLOG_BYTES_MAX;

/// Framed control frames in the order in which they leave.
#[derive(Debug, Default)]
pub(super) struct Transmit {
    frames: Vec<u8>,
    /// The newest pong that found the backlog full; it stands for all of them (RFC 6455 §5.5.3:
    /// an endpoint may answer only the most recent ping).
    late_pong: Vec<u8>,
}

impl Transmit {
    /// Appends a ping or a close; a close is the last frame that is ever pushed.
    pub(super) fn push(&mut self, kind: FrameKind, payload: &[u8]) {
        self.frames.append(&mut self.late_pong);
        frame_into(&mut self.frames, kind, payload);
    }

    /// Appends a pong, or lets it take the place of the one that is late already.
    pub(super) fn push_pong(&mut self, payload: &[u8]) {
        let full = self.frames.len() + payload.len() + 2 > WS_CONTROL_BACKLOG_BYTES_MAX;
        if full || !self.late_pong.is_empty() {
            self.late_pong.clear();
            frame_into(&mut self.late_pong, FrameKind::Pong, payload);
        } else {
            frame_into(&mut self.frames, FrameKind::Pong, payload);
        }
    }

    /// Takes everything that waits.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.frames.append(&mut self.late_pong);
        (!self.frames.is_empty()).then(|| std::mem::take(&mut self.frames).into())
    }

    /// Bytes of heap in use.
    pub(super) fn heap_bytes(&self) -> usize {
        self.frames.capacity() + self.late_pong.capacity()
    }
}

fn frame_into(out: &mut Vec<u8>, kind: FrameKind, payload: &[u8]) {
    let head = FrameHead::new(kind, false, payload.len());
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_flood_of_pings_is_answered_by_the_newest_pong() {
        let mut transmit = Transmit::default();
        for n in 0..100_000u32 {
            transmit.push_pong(&n.to_be_bytes());
            assert!(transmit.heap_bytes() <= 2 * WS_CONTROL_BACKLOG_BYTES_MAX);
        }
        transmit.push(FrameKind::Close, b"\x03\xe8");
        let sent = transmit.take().unwrap();
        assert!(sent.starts_with(b"\x8a\x04\0\0\0\0\x8a\x04\0\0\0\x01"));
        assert!(sent.ends_with(b"\x8a\x04\0\x01\x86\x9f\x88\x02\x03\xe8"));
        assert!(sent.len() <= WS_CONTROL_BACKLOG_BYTES_MAX + 10);
        assert_eq!(transmit.take(), None);
    }
}
