//! The tools `crawl` and `search`: a stream like any other, told as progress while it runs and as one
//! result at its end.

mod gather;

use super::super::conn::{Conn, Gone};
use super::super::handle;
use super::super::reply::{JSON, NO_SNIFFING, Reply};
use super::super::sender::Reader;
use super::call::{Asked, failed};
use crate::config::Config;
use crate::crawl::live::{Live, Terms};
use crate::crawl::request::{self, CrawlRequest, OrderName};
use crate::error::{ApiCode, ApiError};
use crate::limits::MCP_URLS_MAX;
use crate::local::Notify;
use crate::proto::chunked::{CHUNK_END, ChunkHead, LAST_CHUNK};
use crate::proto::h1::AnswerBody;
use bytes::{BufMut, Bytes, BytesMut};
use gather::{Gathered, Step};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;
use uring::net::PeerState;
use uring::{Either, select2};

/// How often it is looked whether the client is still there.
const PEER_CHECK: Duration = Duration::from_millis(100);

/// Reads and checks a tool's arguments.
pub(super) type Parse = fn(&mut [u8], &Config) -> Result<CrawlRequest, ApiError>;

/// Runs the tool.
pub(super) async fn run(
    conn: &mut Conn,
    asked: &Asked,
    token: Option<String>,
    request: CrawlRequest,
) -> Result<(), Gone> {
    if let Err(error) = conn.node.admit() {
        return failed(conn, asked, &error).await;
    }
    let place = match handle::admit(conn, &request) {
        Ok(place) => place,
        Err(error) => return failed(conn, asked, &error).await,
    };
    let mut gathered = Gathered::new(&request, &conn.node.shared.config);
    let (node, news) = (conn.node.clone(), Rc::<Notify>::default());
    let request_id = node.request_id(conn.request_id.clone());
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
    let (heard, trace) = (Rc::clone(&news), conn.visit.trace);
    let reader = Live::start(&node, request, terms, |stream| {
        if let Some(trace) = &trace {
            stream.join_trace(trace);
        }
        Reader::attach_with(&node, stream, None, heard)
    });
    let mut out = Out::begin(conn, asked, &reader)?;
    let mut heard_at = Instant::now();
    loop {
        let over = take(&reader, &mut gathered, |step| {
            if let Some(token) = &token {
                out.event(&step.notification(token));
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

/// Reads the arguments: those of the route that does the same, with fewer URLs, and Markdown alone
/// where nothing is said of formats.
pub(super) fn read(
    config: &Config,
    parse: Parse,
    arguments: &mut [u8],
) -> Result<CrawlRequest, ApiError> {
    let silent = memchr::memmem::find(arguments, b"\"formats\"").is_none();
    let mut request = parse(arguments, config)?;
    let most = request.urls_max(config);
    if most > MCP_URLS_MAX {
        let message = format!("{most} urls, maximum {MCP_URLS_MAX}");
        return Err(ApiError::new(ApiCode::TooManyUrls, message).limit("urls", MCP_URLS_MAX as u64));
    }
    if silent {
        let options = Arc::make_mut(&mut request.options);
        options.formats = vec![request::Format::Markdown, request::Format::Metadata];
    }
    Ok(request)
}

/// Takes what is new; `true` when there will be no more.
fn take(reader: &Reader, gathered: &mut Gathered, mut tell: impl FnMut(&Step)) -> bool {
    let stream = &reader.stream;
    let mut taken = false;
    loop {
        let (event, over) = reader.take_if(|_| true);
        let Some(event) = event else {
            if taken && stream.paused() {
                reader.look();
            }
            return over;
        };
        taken = true;
        if let Some(step) = gathered.add(&event) {
            tell(&step);
        }
        if over {
            return true;
        }
    }
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
            let id = conn.request_id.clone();
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
        conn.flush(Instant::now()).await?;
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
