//! Frame headers (RFC 6455 §5.2), by `tungstenite`'s codec; which of them a client may send.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::Violation;
use crate::limits::WS_CONTROL_BYTES_MAX;

/// Bytes of the longest header that a client sends: two, eight of length, four of mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// A client's frame whose header obeys every rule that can be judged without the message state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    /// The last frame of its message; always so for control frames.
    pub(super) is_final: bool,
    /// RSV1: the message that starts here is compressed (RFC 7692 §6.1).
    pub(super) compressed: bool,
    /// Bytes of payload.
    pub(super) length: u64,
    pub(super) mask: [u8; 4],
}

/// The defined opcodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl FrameKind {
    /// Whether it carries a message or a part of one.
    pub(super) const fn is_data(self) -> bool {
        matches!(self, Self::Continuation | Self::Text | Self::Binary)
    }
}

/// A frame header to send, of two to ten bytes: the server's frames bear no mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    bytes: [u8; 10],
    len: u8,
}

impl std::ops::Deref for FrameHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl FrameHead {
    /// The header of one whole, unfragmented frame with `length` bytes of payload.
    pub(super) fn new(kind: FrameKind, compressed: bool, length: usize) -> Self {
        let opcode = match kind {
            FrameKind::Continuation => OpCode::Data(Data::Continue),
            FrameKind::Text => OpCode::Data(Data::Text),
            FrameKind::Binary => OpCode::Data(Data::Binary),
            FrameKind::Close => OpCode::Control(Control::Close),
            FrameKind::Ping => OpCode::Control(Control::Ping),
            FrameKind::Pong => OpCode::Control(Control::Pong),
        };
        let header = FrameHeader { opcode, rsv1: compressed, ..FrameHeader::default() };
        let mut bytes = [0; 10];
        let mut rest = &mut bytes[..];
        header.format(length as u64, &mut rest).expect("an unmasked header has at most ten bytes");
        let len = u8::try_from(10 - rest.len()).expect("ten at most");
        Self { bytes, len }
    }
}

/// Parses a client's frame header at the start of `bytes`: the frame and its header's length, or
/// `None` if more bytes are needed.
///
/// `deflate` says whether permessage-deflate is agreed, which gives RSV1 a meaning.
///
/// # Errors
///
/// The rule that the header breaks.
pub(super) fn parse(bytes: &[u8], deflate: bool) -> Result<Option<(Frame, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    // An opcode without a meaning is the only thing that the codec itself refuses.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::ReservedOpcode)?;
    let Some((header, length)) = parsed else { return Ok(None) };
    let consumed = usize::try_from(cursor.position()).expect("it lies within a slice");
    let kind = match header.opcode {
        OpCode::Data(Data::Continue) => FrameKind::Continuation,
        OpCode::Data(Data::Text) => FrameKind::Text,
        OpCode::Data(Data::Binary) => FrameKind::Binary,
        OpCode::Control(Control::Close) => FrameKind::Close,
        OpCode::Control(Control::Ping) => FrameKind::Ping,
        OpCode::Control(Control::Pong) => FrameKind::Pong,
        _ => return Err(Violation::ReservedOpcode),
    };
    // RFC 7692 §6.1: RSV1 marks the first frame of a compressed message and nothing else.
    let compressible = deflate && matches!(kind, FrameKind::Text | FrameKind::Binary);
    if header.rsv2 || header.rsv3 || (header.rsv1 && !compressible) {
        return Err(Violation::ReservedBit);
    }
    // RFC 6455 §5.2: "the minimal number of bytes MUST be used", "the most significant bit MUST
    // be 0".
    if consumed != header.len(length) || length > i64::MAX.unsigned_abs() {
        return Err(Violation::MalformedLength);
    }
    if matches!(kind, FrameKind::Close | FrameKind::Ping | FrameKind::Pong) {
        if !header.is_final {
            return Err(Violation::ControlFragmented);
        }
        if length > WS_CONTROL_BYTES_MAX as u64 {
            return Err(Violation::ControlTooLong);
        }
    }
    let mask = header.mask.ok_or(Violation::NotMasked)?; // RFC 6455 §5.1
    let (is_final, compressed) = (header.is_final, header.rsv1);
    Ok(Some((Frame { kind, is_final, compressed, length, mask }, consumed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illegal_headers_are_refused() {
        let cases: [(&[u8], Violation); 10] = [
            (b"\x83\x80\0\0\0\0", Violation::ReservedOpcode),
            (b"\x8b\x80\0\0\0\0", Violation::ReservedOpcode),
            (b"\xa1\x80\0\0\0\0", Violation::ReservedBit),
            (b"\x91\x80\0\0\0\0", Violation::ReservedBit),
            (b"\xc0\x80\0\0\0\0", Violation::ReservedBit), // RSV1 on a continuation
            (b"\xc9\x80\0\0\0\0", Violation::ReservedBit), // RSV1 on a ping
            (b"\x81\x01x", Violation::NotMasked),
            (b"\x82\xfe\x00\x7d\0\0\0\0", Violation::MalformedLength), // 125 in two bytes
            (b"\x09\x80\0\0\0\0", Violation::ControlFragmented),
            (b"\x89\xfe\x00\x7e\0\0\0\0", Violation::ControlTooLong),
        ];
        for (bytes, violation) in cases {
            assert_eq!(parse(bytes, true), Err(violation), "{bytes:02x?}");
        }
        assert_eq!(parse(b"\xc1\x80\0\0\0\0", false), Err(Violation::ReservedBit));
        let sign = b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(parse(sign, true), Err(Violation::MalformedLength));
    }

    #[test]
    fn a_cut_header_waits_for_its_rest() {
        let header = b"\x82\xff\0\0\0\0\0\x01\0\0\x01\x02\x03\x04";
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end], false), Ok(None), "{end} bytes");
        }
        let frame = Frame {
            kind: FrameKind::Binary,
            is_final: true,
            compressed: false,
            length: 65_536,
            mask: [1, 2, 3, 4],
        };
        assert_eq!(parse(header, false), Ok(Some((frame, HEADER_BYTES_MAX))));
    }

    #[test]
    fn heads_have_their_shortest_form() {
        assert_eq!(&*FrameHead::new(FrameKind::Text, false, 125), b"\x81\x7d");
        assert_eq!(&*FrameHead::new(FrameKind::Text, true, 126), b"\xc1\x7e\x00\x7e");
        let long = FrameHead::new(FrameKind::Binary, false, 65_536);
        assert_eq!(&*long, b"\x82\x7f\0\0\0\0\0\x01\0\0");
    }
}
