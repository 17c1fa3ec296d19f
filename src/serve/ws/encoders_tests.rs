//! Events written for each transport and read by parsers that know nothing of us.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::outbox::Outbox;
use crate::error::{PageCode, PageError, Stage};
use crate::observe::Core;
use crate::observe::hist::Epoch;
use crate::proto::blocks::Blocks;
use crate::proto::events::{self, Counts, Document, Event, PageResult};
use crate::proto::json;
use crate::proto::ws::extension::Agreement;
use crate::proto::ws::{Config, DeflateConfig, Session};
use crate::serve::transport::{Encoder, Transport};
use bytes::{BufMut, BytesMut};
use flate2::{Decompress, FlushDecompress};
use proptest::prelude::*;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::io::Cursor;
use std::time::{Instant, UNIX_EPOCH};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};
use ulid::Ulid;
use uring::Gather;
use uring::ring::{BufferConfig, Frame, Ring};

/// A page with a document of some text, a few bytes or more than a ring's frame holds, or none.
fn page() -> impl Strategy<Value = (String, Option<String>, String)> {
    let text = prop_oneof![
        4 => any::<String>(),
        1 => (0usize..100_000).prop_map(|length| "äb\n\"".repeat(length / 4)),
    ];
    (any::<String>(), proptest::option::of(text), any::<String>())
}

fn event(seq: u64, (url, text, message): (String, Option<String>, String)) -> Event {
    let out = &mut BytesMut::new();
    let counts = Counts { total: 9, successful: seq, ..Counts::default() };
    let error = PageError::new(PageCode::DnsFailed, Stage::Dns, message);
    let mut page = PageResult::failed(url.into(), error);
    if let Some(text) = text {
        json::string(out, &text);
        let document = Document { json: out.split().freeze(), quality: "0.5".into() };
        page = PageResult { document: Some(document), error: None, ..page };
    }
    events::result(out, seq, 0, &page, &counts)
}

/// A stream as it is: metadata's place is taken by a heartbeat, then results, then the summary.
fn stream(pages: Vec<(String, Option<String>, String)>) -> Vec<Event> {
    let out = &mut BytesMut::new();
    let mut all = vec![events::heartbeat(out, UNIX_EPOCH)];
    all.extend((0..).zip(pages).map(|(seq, page)| event(seq, page)));
    let facts =
        events::Summary { counts: Counts::default(), total_ms: 1, ttfr_ms: None, status: "done" };
    all.push(events::summary(out, all.len() as u64 - 1, &facts));
    all
}

fn value(event: &Event) -> Value {
    serde_json::from_slice(&[&event.head[..], &event.body, &event.tail].concat()).unwrap()
}

/// What a ring makes of frames, sent a few bytes at a time.
fn sent(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    let mut ring = Ring::new(BufferConfig::default()).unwrap();
    let (mut out, mut gather) = (Vec::new(), Gather::new());
    for frame in frames {
        ring.push(frame).unwrap();
        let bytes = ring.poll_gather(&mut gather);
        gather.copy_to(&mut out);
        gather.advance(bytes);
        ring.handle_sent(Instant::now(), bytes, std::time::Duration::ZERO);
    }
    out
}

fn over_http(transport: Transport, chunked: bool, events: &[Event]) -> Vec<u8> {
    let mut encoder = Encoder::new(transport, Ulid::from_parts(1, 2), chunked);
    let (mut scratch, mut frames) = (BytesMut::new(), VecDeque::new());
    frames.extend(encoder.preamble(&mut scratch));
    for event in events {
        encoder.event(&mut scratch, event, &mut frames);
        frames.push_back(encoder.keep_alive(&mut scratch));
    }
    frames.extend(encoder.end());
    let bytes = sent(frames);
    if chunked { dechunk(&bytes) } else { bytes }
}

/// RFC 9112 §7.1.3, without trailers.
fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let (chunk, rest) = bytes[end + 2..].split_at(size);
        out.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n").unwrap();
        if size == 0 {
            assert!(bytes.is_empty());
            return out;
        }
    }
}

fn ndjson(bytes: &[u8]) -> Vec<Value> {
    assert!(bytes.ends_with(b"\n"));
    bytes[..bytes.len() - 1]
        .split(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The `data:` of every event, and its `event:` (WHATWG HTML §9.2.6).
fn sse(bytes: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut all = Vec::new();
    for block in text.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(data) = field("data: ") {
            let data = serde_json::from_str(data).unwrap();
            all.push((field("event: ").unwrap().to_owned(), data));
        }
    }
    all
}

fn over_ws(session: &mut Session, id: &str, events: &[Event]) -> Vec<u8> {
    let mut prefix = BytesMut::new();
    prefix.put_slice(b"{\"id\":");
    json::string(&mut prefix, id);
    prefix.put_u8(b',');
    let (mut blocks, mut deflated) = (Blocks::default(), Vec::new());
    let epoch = Epoch::now();
    let mut outbox =
        Outbox::new(BufferConfig::default(), &Core::new(epoch, epoch.instant)).unwrap();
    let (mut out, mut gather) = (Vec::new(), Gather::new());
    for event in events {
        outbox.event((&mut blocks, &mut deflated), session, &prefix, event).unwrap();
        loop {
            outbox.poll_gather(&mut gather);
            if gather.is_empty() {
                break;
            }
            let bytes = gather.len();
            gather.copy_to(&mut out);
            gather.advance(bytes);
            let now = Instant::now();
            outbox.handle_sent(now, bytes, now);
        }
    }
    out
}

fn session(agreement: Option<Agreement>) -> Session {
    let deflate = DeflateConfig { level: 1, bytes_min: 300, bytes_max: 50_000 };
    Session::new(Instant::now(), Config { deflate, ..Config::default() }, agreement)
}

/// Every frame's payload by tungstenite's header codec, inflated where RSV1 says so (RFC 7692).
fn inflated(mut bytes: &[u8]) -> Vec<Value> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        let start = usize::try_from(cursor.position()).unwrap();
        let (payload, rest) = bytes[start..].split_at(usize::try_from(length).unwrap());
        bytes = rest;
        if !header.rsv1 {
            all.push(serde_json::from_slice(payload).unwrap());
            continue;
        }
        let mut text = Vec::with_capacity(1 << 20);
        let wire = [payload, b"\0\0\xff\xff"].concat();
        let mut inflate = Decompress::new(false);
        inflate.decompress_vec(&wire, &mut text, FlushDecompress::Sync).unwrap();
        assert!(text.len() > payload.len(), "only what pays is compressed");
        all.push(serde_json::from_slice(&text).unwrap());
    }
    all
}

fn with_id(event: &Event, id: &str) -> Value {
    let Value::Object(event) = value(event) else { panic!("an event is an object") };
    let mut all = Map::from_iter([("id".to_owned(), Value::from(id))]);
    all.extend(event);
    Value::Object(all)
}

proptest! {
    #[test]
    fn every_transport_carries_the_same_events(
        pages in proptest::collection::vec(page(), 0..5), id: String, chunked: bool,
    ) {
        let events = stream(pages);
        let expected: Vec<Value> = events.iter().map(value).collect();

        let lines = ndjson(&over_http(Transport::Ndjson, chunked, &events));
        let told: Vec<Value> = lines.into_iter().step_by(2).collect();
        prop_assert_eq!(&told, &expected);

        let told = sse(&over_http(Transport::Sse, chunked, &events));
        prop_assert_eq!(told.len(), expected.len());
        for ((name, data), expected) in told.into_iter().zip(&expected) {
            prop_assert_eq!(expected["type"].as_str(), Some(name.as_str()));
            prop_assert_eq!(&data, expected);
        }

        let expected: Vec<Value> = events.iter().map(|event| with_id(event, &id)).collect();
        let wire = over_ws(&mut session(None), &id, &events);
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let mut client =
            WebSocket::from_raw_socket(Cursor::new(wire), Role::Client, Some(config));
        let mut told = Vec::new();
        while let Ok(message) = client.read() {
            let Message::Text(text) = message else { panic!("{message:?}") };
            told.push(serde_json::from_str::<Value>(&text).unwrap());
        }
        prop_assert_eq!(&told, &expected);

        let agreement = Agreement {
            server_context_takeover: false,
            client_context_takeover: false,
            server_window_bits: 15,
            client_window_bits: 15,
        };
        let wire = over_ws(&mut session(Some(agreement)), &id, &events);
        prop_assert_eq!(&inflated(&wire), &expected);
    }
}
