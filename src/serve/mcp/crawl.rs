//! The tool `crawl`: a stream like any other, told as progress while it runs and as one result at
//! its end.

use super::super::conn::{Conn, Gone};
use super::super::reply::{JSON, NO_SNIFFING, Reply};
use super::super::sender::Reader;
use super::call::{Asked, content, failed, text_block};
use super::rpc;
use crate::crawl::live::{Live, Terms};
use crate::crawl::request::{self, CrawlRequest, OrderName};
use crate::error::{ApiCode, ApiError};
use crate::limits::{MCP_ANSWER_BYTES_MAX, MCP_URLS_MAX};
use crate::local::Notify;
use crate::proto::chunked::{CHUNK_END, ChunkHead, LAST_CHUNK};
use crate::proto::events::{Event, Kind};
use crate::proto::h1::AnswerBody;
use crate::proto::json;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;
use uring::net::PeerState;
use uring::{Either, select2};

/// How often it is looked whether the client is still there.
const PEER_CHECK: Duration = Duration::from_millis(100);

/// Stands where a text was cut off; JSON already.
const CUT: &[u8] = b"\\n\\n[cut off: the answer is full; ask for fewer pages]";

/// What is needed of a result beside its document.
#[derive(Debug, Deserialize)]
struct Seen {
    index: usize,
    result: SeenResult,
    progress: SeenProgress,
}

#[derive(Debug, Deserialize)]
struct SeenResult {
    url: String,
    status: u16,
    error: Option<SeenError>,
}

#[derive(Debug, Deserialize)]
struct SeenError {
    code: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct SeenProgress {
    completed: u64,
    total: u64,
}

/// One page of the answer.
#[derive(Debug, Default)]
struct Told {
    /// A block of content.
    block: Bytes,
    /// The event without its document.
    event: Bytes,
}

/// What has come so far.
struct Gathered {
    pages: Vec<Told>,
    bytes: usize,
    good: usize,
    last: Bytes,
}

/// Runs the tool.
pub(super) async fn run(
    conn: &mut Conn,
    asked: &Asked,
    token: Option<String>,
    arguments: &mut [u8],
) -> Result<(), Gone> {
    let request = match read(conn, arguments) {
        Ok(request) => request,
        Err(error) => return failed(conn, asked, &error).await,
    };
    let place = match conn.begin_stream(request.urls.iter().map(|url| &**url)) {
        Ok(place) => place,
        Err(error) => return failed(conn, asked, &error).await,
    };
    let (node, news) = (conn.node.clone(), Rc::<Notify>::default());
    let request_id = node.request_id(conn.request_id);
    let terms = Terms {
        id: Ulid::generate(),
        principal: conn.principal(),
        order: OrderName::Completion,
        // Closing the connection is what cancels a call.
        resumable: false,
        idempotency_key: None,
        place,
        request_id,
        endpoint: conn.endpoint,
        background: None,
    };
    let urls = request.urls.len();
    let heard = Rc::clone(&news);
    let reader = Live::start(&node, request, terms, |stream| {
        Reader::attach_with(&node, stream, None, heard)
    });
    let mut gathered =
        Gathered { pages: Vec::new(), bytes: 0, good: 0, last: Bytes::from_static(b"null") };
    gathered.pages.resize_with(urls, Told::default);
    let mut out = Out::begin(conn, asked, &reader)?;
    let mut heard_at = Instant::now();
    loop {
        let over = take(&reader, &mut gathered, |seen| {
            if let Some(token) = &token {
                out.event(&progress(token, seen));
            }
        });
        if over {
            break;
        }
        if out.flush(conn).await? {
            heard_at = Instant::now();
        }
        wait(conn, &news).await?;
        let quiet = Duration::from_millis(conn.node.shared.config.heartbeat_ms);
        if heard_at.elapsed() >= quiet || conn.socket.peer_state() == PeerState::Finished {
            // A client that has closed answers the next bytes with a reset.
            out.comment();
        }
    }
    drop(reader);
    let answer = gathered.answer(asked);
    out.end(conn, answer).await
}

/// Reads the arguments: those of `POST /crawl`, with fewer URLs, and Markdown alone where nothing
/// is said of formats.
fn read(conn: &Conn, arguments: &mut [u8]) -> Result<CrawlRequest, ApiError> {
    conn.node.admit()?;
    let silent = memchr::memmem::find(arguments, b"\"formats\"").is_none();
    let mut request = request::parse_crawl(arguments, &conn.node.shared.config)?;
    if request.urls.len() > MCP_URLS_MAX {
        let message = format!("{} urls, maximum {MCP_URLS_MAX}", request.urls.len());
        return Err(ApiError::new(ApiCode::TooManyUrls, message).limit("urls", MCP_URLS_MAX as u64));
    }
    if silent {
        let options = Arc::make_mut(&mut request.options);
        options.formats = vec![request::Format::Markdown, request::Format::Metadata];
    }
    Ok(request)
}

/// Takes what is new; `true` when there will be no more.
fn take(reader: &Reader, gathered: &mut Gathered, mut tell: impl FnMut(&Seen)) -> bool {
    let (stream, id) = (&reader.stream, reader.id);
    let mut taken = false;
    loop {
        let (event, over) = stream.with_log(|log| (log.next(id), log.drained(id)));
        let Some(event) = event else {
            if taken && stream.paused() {
                reader.look();
            }
            return over;
        };
        taken = true;
        if let Some(seen) = gathered.add(&event) {
            tell(&seen);
        }
        if over {
            return true;
        }
    }
}

impl Gathered {
    fn add(&mut self, event: &Event) -> Option<Seen> {
        match event.kind {
            Kind::Result => {}
            Kind::Summary | Kind::Error => {
                self.last = [&event.head[..], &event.body, &event.tail].concat().into();
                return None;
            }
            _ => return None,
        }
        let bare = [&event.head[..], b"null", &event.tail].concat();
        let seen: Seen = simd_json::serde::from_slice(&mut bare.clone()).ok()?;
        let found = content(&event.body).filter(|_| seen.result.error.is_none());
        let head = match (&seen.result.error, found) {
            (Some(error), _) => format!("{}\n\n{}: {}", seen.result.url, error.code, error.message),
            (None, None) => {
                format!("{}\n\nstatus {}, no content", seen.result.url, seen.result.status)
            }
            (None, Some(_)) => format!("{}\n\n", seen.result.url),
        };
        let room = MCP_ANSWER_BYTES_MAX.saturating_sub(self.bytes);
        let (text, cut) = fitting(found.unwrap_or_default(), room);
        let mut block = BytesMut::with_capacity(256 + text.len());
        text_block(&mut block, &head, text, if cut { CUT } else { b"" });
        self.bytes += block.len();
        self.good += usize::from(seen.result.error.is_none());
        let told = self.pages.get_mut(seen.index)?;
        *told = Told { block: block.freeze(), event: bare.into() };
        Some(seen)
    }

    fn answer(&self, asked: &Asked) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes + 1024);
        rpc::begin(&mut out, &asked.id);
        out.put_slice(b"{\"content\":[");
        list(&mut out, self.pages.iter().map(|told| &told.block));
        out.put_slice(b"],\"structuredContent\":{\"results\":[");
        list(&mut out, self.pages.iter().map(|told| &told.event));
        out.put_slice(b"],\"summary\":");
        out.put_slice(&self.last);
        out.put_slice(b"},\"isError\":");
        json::boolean(&mut out, self.good == 0);
        rpc::end(&mut out, false, asked.modern);
        out.freeze()
    }
}

/// As much of an escaped text as there is room for, and whether something is cut off: at a space,
/// which is never within an escape or a character.
fn fitting(text: &[u8], room: usize) -> (&[u8], bool) {
    if text.len() <= room {
        return (text, false);
    }
    let end = memchr::memrchr(b' ', &text[..room]).unwrap_or_default();
    (&text[..end], true)
}

fn list<'a>(out: &mut BytesMut, parts: impl Iterator<Item = &'a Bytes>) {
    for (at, part) in parts.filter(|part| !part.is_empty()).enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(part);
    }
}

fn progress(token: &str, seen: &Seen) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":");
    out.put_slice(token.as_bytes());
    json::integers(
        &mut out,
        &[("progress", seen.progress.completed), ("total", seen.progress.total)],
    );
    out.put_slice(b",\"message\":");
    json::string(&mut out, &seen.result.url);
    out.put_slice(b"}}");
    out.freeze()
}

/// Waits for news of the stream, or for the time to look after the client.
async fn wait(conn: &Conn, news: &Notify) -> Result<(), Gone> {
    let woken = select2(news.notified(), uring::time::sleep(PEER_CHECK)).await;
    match woken {
        Either::Right(()) if conn.socket.peer_state() == PeerState::Gone => Err(Gone),
        _ => Ok(()),
    }
}

/// The answer as it grows: Server-Sent Events, or nothing until its end.
struct Out {
    events: bool,
    chunked: bool,
    scratch: BytesMut,
}

impl Out {
    fn begin(conn: &mut Conn, asked: &Asked, reader: &Reader) -> Result<Self, Gone> {
        let mut chunked = false;
        if asked.events {
            let id = conn.request_id;
            let mut fields: Vec<(&str, &[u8])> = vec![
                ("Content-Type", b"text/event-stream"),
                ("Cache-Control", b"no-cache, no-transform"),
                ("X-Accel-Buffering", b"no"),
                NO_SNIFFING,
                ("X-Stream-ID", reader.stream.id_text.as_bytes()),
            ];
            if let Some(id) = &id {
                fields.push(("X-Request-ID", id.as_str().as_bytes()));
            }
            let (answer, head) = conn.start_answer(200, AnswerBody::Stream, &fields)?;
            conn.out.push(head);
            chunked = answer.is_chunked();
        }
        Ok(Self { events: asked.events, chunked, scratch: BytesMut::new() })
    }

    fn write(&mut self, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if self.chunked {
            let head = ChunkHead::new(bytes).expect("an event is never empty");
            self.scratch.put_slice(head.as_bytes());
        }
        parts.iter().for_each(|part| self.scratch.put_slice(part));
        if self.chunked {
            self.scratch.put_slice(CHUNK_END);
        }
    }

    fn event(&mut self, message: &[u8]) {
        self.write(&[b"event: message\ndata: ", message, b"\n\n"]);
    }

    fn comment(&mut self) {
        if self.events {
            self.write(&[b":\n\n"]);
        }
    }

    /// Sends what is there; whether there was anything.
    async fn flush(&mut self, conn: &mut Conn) -> Result<bool, Gone> {
        if !self.scratch.is_empty() {
            conn.out.push(self.scratch.split().freeze());
        }
        let any = !conn.out.is_empty();
        conn.flush().await?;
        Ok(any)
    }

    async fn end(mut self, conn: &mut Conn, answer: Bytes) -> Result<(), Gone> {
        if !self.events {
            return conn.reply(Reply::new(200, JSON, answer)).await;
        }
        self.event(&answer);
        if self.chunked {
            self.scratch.put_slice(LAST_CHUNK);
        }
        self.flush(conn).await?;
        conn.finish_answer().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_text_is_cut_where_json_may_end() {
        let text = "a \"quoted\" \u{1} \u{e9}\\ text".repeat(9);
        let escaped = serde_json::to_string(&text).unwrap();
        let escaped = &escaped.as_bytes()[1..escaped.len() - 1];
        for room in 0..=escaped.len() {
            let (fits, cut) = fitting(escaped, room);
            assert!(fits.len() <= room && cut == (room < escaped.len()));
            let mut block = BytesMut::new();
            text_block(&mut block, "", fits, if cut { CUT } else { b"" });
            let read: serde_json::Value = serde_json::from_slice(&block).unwrap();
            let read = read["text"].as_str().unwrap();
            assert!(text.starts_with(read.split("\n\n[cut off").next().unwrap()));
        }
    }
}
