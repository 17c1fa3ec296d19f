//! Server-sent events (WHATWG HTML §9.2, "event stream"): the encoder, and the event ids that a
//! client comes back with.
//!
//! An event whose payload lies on one line leaves as a gather list, [`Prefix`], payload,
//! [`SUFFIX`], and no byte of the payload is copied. [`encode`] takes any payload.

use std::fmt;

use ulid::Ulid;

/// What a stream begins with: after a lost connection the client waits a second (API §3).
pub const PREAMBLE: &[u8] = b"retry: 1000\n\n";
/// A comment that keeps proxies from closing a quiet stream.
pub const KEEP_ALIVE: &[u8] = b":\n\n";
/// What ends an event behind a payload on one line.
pub const SUFFIX: &[u8] = b"\n\n";

/// Bytes of an event's type at most.
const EVENT_BYTES_MAX: usize = 32;
/// Bytes of an id: ULID, dot, and the 20 digits of the largest number.
const ID_BYTES_MAX: usize = ulid::ULID_LEN + 1 + 20;
const PREFIX_BYTES_MAX: usize = EVENT_BYTES_MAX + ID_BYTES_MAX + b"event: \nid: \ndata: ".len();

/// The position of a durable event, as `01J9….17`: what the client sends back in `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The stream.
    pub stream_id: Ulid,
    /// The event's number in its stream.
    pub seq: u64,
}

impl EventId {
    /// Reads a `Last-Event-ID` field's value. `None` for everything that [`fmt::Display`] would
    /// not have written, to the letter: ids are ours alone to make.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > ID_BYTES_MAX {
            return None;
        }
        let (stream_id, seq) = std::str::from_utf8(value).ok()?.split_once('.')?;
        let id = Self { stream_id: Ulid::from_string(stream_id).ok()?, seq: seq.parse().ok()? };
        let mut written = [0; ulid::ULID_LEN];
        let exact = id.stream_id.array_to_str(&mut written) == stream_id
            && itoa::Buffer::new().format(id.seq) == seq;
        exact.then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream_id, self.seq)
    }
}

/// The lines before an event's payload, without heap memory.
#[derive(Clone, Copy)]
pub struct Prefix {
    bytes: [u8; PREFIX_BYTES_MAX],
    len: usize,
}

impl Prefix {
    /// The prefix of an event of that type; `id` for durable events only, since an id moves the
    /// client's resume cursor.
    ///
    /// # Panics
    ///
    /// If `event` has more than 32 bytes or a line break: types are ours, never a peer's.
    #[must_use]
    pub fn new(event: &'static str, id: Option<EventId>) -> Self {
        assert!(event.len() <= EVENT_BYTES_MAX, "an event type has at most 32 bytes");
        assert!(is_single_line(event.as_bytes()), "an event type is one line");
        let mut prefix = Self { bytes: [0; PREFIX_BYTES_MAX], len: 0 };
        prefix.push("event: ");
        prefix.push(event);
        if let Some(id) = id {
            prefix.push("\nid: ");
            prefix.push(id.stream_id.array_to_str(&mut [0; ulid::ULID_LEN]));
            prefix.push(".");
            prefix.push(itoa::Buffer::new().format(id.seq));
        }
        prefix.push("\ndata: ");
        prefix
    }

    fn push(&mut self, part: &str) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part.as_bytes());
        self.len += part.len();
    }
}

impl std::ops::Deref for Prefix {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prefix").field(&String::from_utf8_lossy(self)).finish()
    }
}

/// Whether `payload` may stand between a [`Prefix`] and [`SUFFIX`] as it is.
#[must_use]
pub fn is_single_line(payload: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', payload).is_none()
}

/// Appends a whole event with any UTF-8 payload. Every line of it gets its `data:`; a client reads
/// CR LF and CR back as LF, which is white space in JSON.
pub fn encode(event: &'static str, id: Option<EventId>, payload: &[u8], out: &mut Vec<u8>) {
    let prefix = Prefix::new(event, id);
    out.reserve(prefix.len() + payload.len() + SUFFIX.len());
    out.extend_from_slice(&prefix);
    let mut rest = payload;
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..end]);
        out.extend_from_slice(b"\ndata: ");
        let is_pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(is_pair)..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(SUFFIX);
}

/// Entries for fuzzers, also run by a test below.
#[doc(hidden)]
pub mod fuzzing {
    use super::{EventId, ID_BYTES_MAX};

    /// Any field value: no panic, and what is taken reads back to the letter.
    pub fn last_event_id(data: &[u8]) {
        if let Some(id) = EventId::parse(data) {
            assert_eq!(id.to_string().as_bytes(), data);
            assert!(data.len() <= ID_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    /// An event as a browser dispatches it.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    struct Dispatched {
        event: String,
        data: String,
        last_event_id: String,
    }

    /// The standard's own steps (WHATWG HTML §9.2.6), line by line: an independent reader.
    fn interpret(stream: &[u8]) -> (Vec<Dispatched>, Option<u64>) {
        let text = String::from_utf8(stream.to_vec()).unwrap();
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut retry) = (Vec::new(), None);
        let (mut data, mut event, mut id) = (String::new(), String::new(), String::new());
        // What stands behind the last line end is an unfinished line, and is discarded.
        let lines = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for line in lines.split('\n') {
            if line.is_empty() {
                if !data.is_empty() {
                    data.pop();
                    let event = if event.is_empty() { "message".to_owned() } else { event.clone() };
                    let last_event_id = id.clone();
                    events.push(Dispatched { event, data: data.clone(), last_event_id });
                }
                data.clear();
                event.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event = value.to_owned(),
                "data" => {
                    data.push_str(value);
                    data.push('\n');
                }
                "id" if !value.contains('\0') => id = value.to_owned(),
                "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    retry = value.parse().ok();
                }
                _ => {}
            }
        }
        (events, retry)
    }

    const TYPES: [&str; 4] = ["metadata", "result", "progress", "summary"];

    fn payload() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            proptest::collection::vec(
                prop_oneof![
                    Just("\r\n"),
                    Just("\n"),
                    Just("\r"),
                    Just(" a"),
                    Just("data: x"),
                    Just(":"),
                    Just("\u{feff}"),
                    Just("{\"a\":1}"),
                    Just("\0"),
                    Just("\u{2028}"),
                ],
                0..8
            )
            .prop_map(|parts| parts.concat()),
        ]
    }

    #[test]
    fn events_on_the_wire() {
        let id = EventId { stream_id: Ulid::from_parts(1, 2), seq: 17 };
        let mut out = PREAMBLE.to_vec();
        out.extend_from_slice(&Prefix::new("result", Some(id)));
        out.extend_from_slice(b"{}");
        out.extend_from_slice(SUFFIX);
        out.extend_from_slice(KEEP_ALIVE);
        encode("progress", None, b"a\r\n\rb", &mut out);
        let expected = "retry: 1000\n\n\
            event: result\nid: 00000000010000000000000002.17\ndata: {}\n\n\
            :\n\n\
            event: progress\ndata: a\ndata: \ndata: b\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_longest_prefix_fits() {
        let id = EventId { stream_id: Ulid(u128::MAX), seq: u64::MAX };
        let prefix = Prefix::new("abcdefghijklmnopqrstuvwxyz012345", Some(id));
        assert_eq!(prefix.len(), PREFIX_BYTES_MAX);
        assert_eq!(EventId::parse(id.to_string().as_bytes()), Some(id));
    }

    #[test]
    fn ids_that_are_not_ours() {
        for id in [
            "",
            ".",
            "17",
            "00000000010000000000000002",
            "00000000010000000000000002.",
            "00000000010000000000000002.-1",
            "00000000010000000000000002.+1",
            "00000000010000000000000002.01",
            "00000000010000000000000002.1 ",
            "00000000010000000000000002.18446744073709551616",
            "0000000001000000000000000z.1",
            "80000000000000000000000000.1",
            "0000000001000000000000000.1",
            "00000000010000000000000002.1.1",
        ] {
            assert_eq!(EventId::parse(id.as_bytes()), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn an_independent_reader_sees_the_same_events(
            sent in proptest::collection::vec(
                (0usize..4, any::<Option<(u128, u64)>>(), payload(), any::<bool>()), 0..6),
        ) {
            let mut out = PREAMBLE.to_vec();
            let mut expected = Vec::new();
            let mut last_event_id = String::new();
            for (event, id, payload, quiet) in sent {
                let event = TYPES[event];
                let id = id.map(|(stream, seq)| EventId { stream_id: Ulid(stream), seq });
                if is_single_line(payload.as_bytes()) {
                    let parts = [&*Prefix::new(event, id), payload.as_bytes(), SUFFIX];
                    out.extend(parts.concat());
                    let mut whole = Vec::new();
                    encode(event, id, payload.as_bytes(), &mut whole);
                    prop_assert!(out.ends_with(&whole), "both ways write the same");
                } else {
                    encode(event, id, payload.as_bytes(), &mut out);
                }
                if quiet {
                    out.extend_from_slice(KEEP_ALIVE);
                }
                last_event_id = id.map_or(last_event_id, |id| id.to_string());
                expected.push(Dispatched {
                    event: event.to_owned(),
                    data: payload.replace("\r\n", "\n").replace('\r', "\n"),
                    last_event_id: last_event_id.clone(),
                });
            }
            let (events, retry) = interpret(&out);
            prop_assert_eq!(retry, Some(1000));
            prop_assert_eq!(events, expected);
        }

        #[test]
        fn ids_round_trip_and_others_do_not_panic(
            stream: u128, seq: u64, at in 0usize..48, byte: u8, noise: Vec<u8>,
        ) {
            let id = EventId { stream_id: Ulid(stream), seq };
            let mut value = id.to_string().into_bytes();
            prop_assert_eq!(EventId::parse(&value), Some(id));
            fuzzing::last_event_id(&noise);
            let at = at % value.len();
            value[at] = byte;
            fuzzing::last_event_id(&value);
        }
    }
}
