//! The client's side of WebSocket (RFC 6455): handshake, masked frames out, frames in.

use crate::num::{to_u64, to_usize};
use crate::rng::Rng;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Bytes of one message that a server may send.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// RFC 6455 §1.3
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a frame carries (RFC 6455 §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Result<Self, String> {
        match bits {
            0 => Ok(Self::Continuation),
            1 => Ok(Self::Text),
            2 => Ok(Self::Binary),
            8 => Ok(Self::Close),
            9 => Ok(Self::Ping),
            10 => Ok(Self::Pong),
            _ => Err(format!("reserved opcode {bits}")),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A whole message or control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// `Text`, `Binary`, `Close`, `Ping` or `Pong`.
    pub(crate) opcode: Opcode,
    /// Its payload; text is checked to be UTF-8.
    pub(crate) payload: Vec<u8>,
}

/// A fresh `Sec-WebSocket-Key` (RFC 6455 §4.1).
pub(crate) fn new_key(rng: &mut Rng) -> String {
    let mut nonce = rng.next_u64().to_le_bytes().to_vec();
    nonce.extend_from_slice(&rng.next_u64().to_le_bytes());
    STANDARD.encode(nonce)
}

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455 §4.2.2).
pub(crate) fn accept_of(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Writes one final frame under a mask (RFC 6455 §5.2, §5.3).
pub(crate) fn encode(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | opcode.bits());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..=125), _) => out.push(0x80 | len),
        (_, Ok(len)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&to_u64(payload.len()).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Assembles messages out of a server's frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct WsDecoder {
    partial: Option<(Opcode, Vec<u8>)>,
}

impl WsDecoder {
    /// Takes one frame off the front: the bytes taken, and a message where that frame ended one.
    /// `None` until a whole frame is there.
    ///
    /// # Errors
    /// Which rule of RFC 6455 the server broke.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<(usize, Option<Message>)>, String> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let opcode = Opcode::of(first & 0x0f)?;
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err("a reserved bit is set without an extension".to_owned());
        }
        if second & 0x80 != 0 {
            return Err("a server's frame is masked (§5.1)".to_owned());
        }
        let (length, start) = match second {
            126 => match bytes.get(2..4) {
                Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
                _ => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|part| part.try_into().ok()) {
                Some(part) => (u64::from_be_bytes(part), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if opcode.is_control() && (length > 125 || !fin) {
            return Err("a control frame is fragmented or above 125 bytes (§5.5)".to_owned());
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(format!("a frame of {length} bytes"));
        }
        let end = start + to_usize(length);
        let Some(payload) = bytes.get(start..end) else { return Ok(None) };
        Ok(Some((end, self.assemble(opcode, fin, payload)?)))
    }

    fn assemble(
        &mut self,
        opcode: Opcode,
        fin: bool,
        payload: &[u8],
    ) -> Result<Option<Message>, String> {
        if opcode.is_control() {
            return Ok(Some(Message { opcode, payload: payload.to_vec() }));
        }
        let (opcode, mut whole) = match (opcode, self.partial.take()) {
            (Opcode::Continuation, Some(partial)) => partial,
            (Opcode::Continuation, None) => {
                return Err("a continuation of nothing (§5.4)".to_owned());
            }
            (_, Some(_)) => return Err("a new message inside another (§5.4)".to_owned()),
            (opcode, None) => (opcode, Vec::new()),
        };
        whole.extend_from_slice(payload);
        if to_u64(whole.len()) > MESSAGE_BYTES_MAX {
            return Err("an endless message".to_owned());
        }
        if !fin {
            self.partial = Some((opcode, whole));
            return Ok(None);
        }
        if opcode == Opcode::Text && std::str::from_utf8(&whole).is_err() {
            return Err("a text message that is no UTF-8 (§8.1)".to_owned());
        }
        Ok(Some(Message { opcode, payload: whole }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_accept_key_of_the_rfc() {
        // RFC 6455 §1.3
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_frames_of_the_rfc() {
        // RFC 6455 §5.7
        let mut decoder = WsDecoder::default();
        let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        let text = |payload: &[u8]| Message { opcode: Opcode::Text, payload: payload.to_vec() };
        assert_eq!(decoder.take(&hello).unwrap(), Some((7, Some(text(b"Hello")))));
        for end in 0..7 {
            assert_eq!(decoder.take(&hello[..end]).unwrap(), None);
        }
        assert_eq!(decoder.take(&[0x01, 0x03, 0x48, 0x65, 0x6c]).unwrap(), Some((5, None)));
        let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        let between = decoder.take(&ping).unwrap().unwrap().1.unwrap();
        assert_eq!(between.opcode, Opcode::Ping);
        assert_eq!(
            decoder.take(&[0x80, 0x02, 0x6c, 0x6f]).unwrap(),
            Some((4, Some(text(b"Hello"))))
        );
        let mut masked = Vec::new();
        encode(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d], &mut masked);
        assert_eq!(masked, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn long_frames_have_long_lengths() {
        let mut decoder = WsDecoder::default();
        let mut frame = vec![0x82, 0x7e, 0x01, 0x00];
        frame.extend([7; 256]);
        assert_eq!(decoder.take(&frame).unwrap().unwrap().0, 260);
        let mut frame = vec![0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        frame.extend([7; 65_536]);
        assert_eq!(decoder.take(&frame).unwrap().unwrap().1.unwrap().payload.len(), 65_536);
        let mut out = Vec::new();
        encode(Opcode::Binary, &[0; 65_536], [0; 4], &mut out);
        assert_eq!(out[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn broken_rules_are_named() {
        let broken: [(&[u8], &str); 6] = [
            (&[0x81, 0x80, 0, 0, 0, 0], "masked"),
            (&[0xc1, 0x00], "reserved bit"),
            (&[0x83, 0x00], "opcode"),
            (&[0x09, 0x00], "control frame"),
            (&[0x80, 0x00], "continuation"),
            (&[0x81, 0x01, 0xff], "UTF-8"),
        ];
        for (bytes, expected) in broken {
            let error = WsDecoder::default().take(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
