//! A client's side, for tests: frames by hand, and events that outlive their input.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Instant;

use super::{Event, Session, Violation};

/// One masked frame: `first` is its first byte (FIN, RSV, opcode).
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            out.push(0xfe);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0xff);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// An [`Event`] of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(Violation),
    Turn,
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(std::str::from_utf8(text).unwrap().to_owned()),
            Event::Binary(data) => Self::Binary(data.to_vec()),
            Event::Ping(data) => Self::Ping(data.to_vec()),
            Event::Pong(data) => Self::Pong(data.to_vec()),
            Event::Close(code, reason) => Self::Close(code.map(|c| c.get()), reason.to_owned()),
            Event::Violation(violation) => Self::Violation(violation),
            Event::Turn => Self::Turn,
        }
    }
}

/// Feeds `bytes` and gathers what happens.
pub(super) fn feed(session: &mut Session, now: Instant, bytes: &[u8]) -> Vec<Seen> {
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    let mut seen = Vec::new();
    while let Some(event) = session.handle_bytes(now, &mut input) {
        seen.push(event.into());
    }
    assert!(input.is_empty(), "what is not an event's is kept or thrown away");
    seen
}
