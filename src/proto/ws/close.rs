//! Close codes (RFC 6455 §7.4), Close payloads (§5.5.1), and violations with the code that each
//! one closes with.

use crate::limits::WS_CONTROL_BYTES_MAX;

/// A close code that may stand in a Close frame: 1000-1003, 1007-1014 and 3000-4999.
///
/// The reserved codes 1005, 1006 and 1015 never go over the wire (RFC 6455 §7.4.1) and so can't be
/// made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away, as a server that drains.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The peer sent a kind of data that is not taken, as binary messages.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// A message's bytes do not fit its type, as a text that is no UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// The peer broke a rule that has no code of its own.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A message is above a limit.
    pub const TOO_BIG: Self = Self(1009);
    /// An error of ours.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server restarts; come back after a random delay.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The server is overloaded; come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code with that number, if it may go over the wire.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The code's number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// How a peer broke the protocol or a limit; the session closes with [`Violation::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// RSV2 or RSV3 is set, or RSV1 where no compressed message starts (RFC 6455 §5.2).
    #[error("reserved bit set")]
    ReservedBit,
    /// An opcode that no standard defines.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client's frame without a mask (RFC 6455 §5.1).
    #[error("frame not masked")]
    NotMasked,
    /// A length in more bytes than it needs, or above 2^63 - 1 (RFC 6455 §5.2).
    #[error("malformed payload length")]
    MalformedLength,
    /// A control frame with more than 125 bytes (RFC 6455 §5.5).
    #[error("control frame over {WS_CONTROL_BYTES_MAX} bytes")]
    ControlTooLong,
    /// A control frame that is not final (RFC 6455 §5.5).
    #[error("fragmented control frame")]
    ControlFragmented,
    /// A continuation frame with nothing to continue (RFC 6455 §5.4).
    #[error("continuation without a message")]
    LoneContinuation,
    /// A new message inside a fragmented one (RFC 6455 §5.4).
    #[error("message inside a message")]
    InterleavedMessage,
    /// A Close payload of one byte, or with a code that may not be sent (RFC 6455 §7.4).
    #[error("malformed close payload")]
    MalformedClose,
    /// A text message or a close reason that is no UTF-8 (RFC 6455 §8.1).
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// A compressed message that does not inflate (RFC 7692 §7.2.2).
    #[error("malformed compressed data")]
    MalformedDeflate,
    /// A message above the byte limit, before or after inflating.
    #[error("message too big")]
    MessageTooBig,
    /// A message in more fragments than the limit.
    #[error("message in too many fragments")]
    TooManyFragments,
    /// A message whose end does not come.
    #[error("message takes too long")]
    MessageTooSlow,
    /// A message for which there is no room now: no fault of the peer.
    #[error("no room for the message now")]
    NoRoom,
}

impl Violation {
    /// The code that the session closes with.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::MalformedDeflate => CloseCode::INVALID_DATA,
            Self::MessageTooBig | Self::TooManyFragments => CloseCode::TOO_BIG,
            Self::MessageTooSlow => CloseCode::POLICY_VIOLATION,
            Self::NoRoom => CloseCode::TRY_AGAIN_LATER,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Reads a Close frame's payload: nothing, or a code and a reason (RFC 6455 §5.5.1).
pub(super) fn parse_close(payload: &[u8]) -> Result<(Option<CloseCode>, &str), Violation> {
    match payload {
        [] => Ok((None, "")),
        [_] => Err(Violation::MalformedClose),
        [high, low, reason @ ..] => {
            let code = CloseCode::new(u16::from_be_bytes([*high, *low]));
            let code = code.ok_or(Violation::MalformedClose)?;
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
            Ok((Some(code), reason))
        }
    }
}

/// Writes a Close frame's payload; a reason that does not fit is cut before a character.
pub(super) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(WS_CONTROL_BYTES_MAX - 2)];
    [&code.get().to_be_bytes(), reason.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn only_codes_for_the_wire_exist() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert_eq!(CloseCode::new(code), None, "{code}");
        }
        for code in [1000, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::new(code).unwrap().get(), code);
        }
    }

    #[test]
    fn payloads_are_judged() {
        assert_eq!(parse_close(b""), Ok((None, "")));
        assert_eq!(parse_close(b"\x03"), Err(Violation::MalformedClose));
        assert_eq!(parse_close(b"\x03\xed"), Err(Violation::MalformedClose)); // 1005
        assert_eq!(parse_close(b"\x03\xe8bye"), Ok((Some(CloseCode::NORMAL), "bye")));
        assert_eq!(parse_close(b"\x03\xe8\xff"), Err(Violation::InvalidUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_before_a_character() {
        let payload = close_payload(CloseCode::NORMAL, &"é".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        assert!(parse_close(&payload).is_ok());
    }
}
