//! How an event's JSON becomes bytes of one transport.

use crate::proto::chunked::{CHUNK_END, ChunkHead, LAST_CHUNK};
use crate::proto::events::{self, Event, Kind};
use crate::proto::ndjson;
use crate::proto::sse::{self, EventId};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::SystemTime;
use ulid::Ulid;
use uring::ring::Frame;

/// Bytes of a document that one frame holds at most; below the smallest `buffer.bytes_max`.
const PIECE_BYTES: usize = 32 * 1024;

/// How a stream is written to a client over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One JSON text a line.
    Ndjson,
    /// Server-Sent Events (WHATWG HTML §9.2).
    Sse,
    /// One JSON text for the whole stream: `{"metadata":…,"results":[…],"summary":…}`, of a deepsearch
    /// with its `search` behind the metadata.
    Json,
}

impl Transport {
    /// The answer's content type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
            Self::Json => "application/json",
        }
    }
}

/// Writes events as frames: what stands around the JSON is small and written here, the JSON's
/// pieces are shared.
#[derive(Debug)]
pub struct Encoder {
    transport: Transport,
    stream: Ulid,
    /// Whether each event is a chunk of the chunked coding (RFC 9112 §7.1).
    chunked: bool,
    /// Results written, for the commas of [`Transport::Json`].
    results: u64,
}

impl Encoder {
    /// An encoder for one reader of one stream.
    #[must_use]
    pub const fn new(transport: Transport, stream: Ulid, chunked: bool) -> Self {
        Self { transport, stream, chunked, results: 0 }
    }

    /// What stands before the first event.
    #[must_use]
    pub fn preamble(&self, scratch: &mut BytesMut) -> Option<Frame> {
        (self.transport == Transport::Sse).then(|| self.small(scratch, sse::PREAMBLE))
    }

    /// What keeps a quiet connection alive where the stream has nothing to say.
    #[must_use]
    pub fn keep_alive(&self, scratch: &mut BytesMut) -> Frame {
        match self.transport {
            Transport::Ndjson => {
                let event = events::heartbeat(scratch, SystemTime::now());
                let text = [&event.head[..], ndjson::LINE_END].concat();
                self.small(scratch, &text)
            }
            Transport::Sse => self.small(scratch, sse::KEEP_ALIVE),
            // White space between two tokens means nothing (RFC 8259 §2).
            Transport::Json => self.small(scratch, b"\n"),
        }
    }

    /// One event as frames behind `out`; nothing where the transport leaves it out.
    pub fn event(&mut self, scratch: &mut BytesMut, event: &Event, out: &mut VecDeque<Frame>) {
        match self.transport {
            Transport::Ndjson => self.frames(scratch, b"", event, ndjson::LINE_END, out),
            Transport::Sse => {
                let seq = event.seq;
                let id = event.kind.durable().then_some(EventId { stream_id: self.stream, seq });
                let prefix = sse::Prefix::new(event.kind.as_str(), id);
                self.frames(scratch, &prefix, event, sse::SUFFIX, out);
            }
            Transport::Json => self.part(scratch, event, out),
        }
    }

    /// A part of the one JSON text: the events are its values.
    fn part(&mut self, scratch: &mut BytesMut, event: &Event, out: &mut VecDeque<Frame>) {
        let (before, after): (&[u8], &[u8]) = match event.kind {
            Kind::Metadata => (b"{\"metadata\":", b""),
            Kind::Search => (b",\"search\":", b""),
            Kind::Result => {
                self.results += 1;
                (if self.results > 1 { b"," } else { b",\"results\":[" }, b"")
            }
            Kind::Summary if self.results == 0 => (b",\"results\":[],\"summary\":", b"}\n"),
            Kind::Summary => (b"],\"summary\":", b"}\n"),
            Kind::Error if self.results == 0 => (b",\"results\":[],\"error\":", b"}\n"),
            Kind::Error => (b"],\"error\":", b"}\n"),
            Kind::Gap | Kind::Progress | Kind::Heartbeat => return,
        };
        self.frames(scratch, before, event, after, out);
    }

    /// The end of the body.
    #[must_use]
    pub fn end(&self) -> Option<Frame> {
        self.chunked.then(|| Frame::new().with(LAST_CHUNK))
    }

    fn small(&self, scratch: &mut BytesMut, bytes: &[u8]) -> Frame {
        self.open_chunk(scratch, bytes.len());
        scratch.put_slice(bytes);
        self.close_chunk(scratch);
        Frame::new().with(scratch.split().freeze())
    }

    /// Chunk size and `before`, then the event's own head and body, then its tail with `after`: the
    /// tail is short, and one copy of it spares the kernel a vector. A large body becomes several
    /// frames, so that none is larger than a ring.
    fn frames(
        &self,
        scratch: &mut BytesMut,
        before: &[u8],
        event: &Event,
        after: &[u8],
        out: &mut VecDeque<Frame>,
    ) {
        self.open_chunk(scratch, before.len() + event.len() + after.len());
        scratch.put_slice(before);
        let front = scratch.split().freeze();
        scratch.put_slice(&event.tail);
        scratch.put_slice(after);
        self.close_chunk(scratch);
        let back: Bytes = scratch.split().freeze();
        let frame = Frame::new().with(front).with(event.head.clone());
        if event.body.len() <= PIECE_BYTES {
            out.push_back(frame.with(event.body.clone()).with(back));
            return;
        }
        out.push_back(frame);
        let mut body = event.body.clone();
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            out.push_back(Frame::new().with(piece));
        }
        out.push_back(Frame::new().with(back));
    }

    fn open_chunk(&self, scratch: &mut BytesMut, bytes: usize) {
        if self.chunked {
            let head = ChunkHead::new(bytes);
            scratch.put_slice(head.expect("an event is never empty").as_bytes());
        }
    }

    fn close_chunk(&self, scratch: &mut BytesMut) {
        if self.chunked {
            scratch.put_slice(CHUNK_END);
        }
    }
}
