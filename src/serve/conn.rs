//! One client connection: reads requests, hands them to their handlers, writes what they answer.
//!
//! The rules of HTTP live in [`h1::Connection`]; here are the socket, the buffer and the clock. An
//! idle connection holds no buffer: it waits for readability.

use super::Serving;
use super::access::Access;
use super::access::table::Counted;
use super::access::visit::Visit;
use super::arrive::Arrival;
use super::ask::Ask;
use super::guard;
use super::pages::Site;
use super::reply::{Head, NO_SNIFFING, Reply};
use super::route::Route;
use super::slow::Stages;
use super::socket::Socket;
use super::ws::{self, Upgraded};
use crate::crawl::node::Node;
use crate::error::ApiError;
use crate::jobs::Jobs;
use crate::local::Notify;
use crate::observe::metrics::{Counter, StatusClass};
use crate::observe::request_id::RequestId;
use crate::observe::series::{Endpoint, Key, Measure};
use crate::proto::h1::{
    self, Answer, AnswerBody, Connection, Event, Refusal, State, Timeouts, WantBodyError,
};
use crate::proto::timestamp::imf_fixdate;
use crate::stream::place::Place;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use uring::arena::{self, Buf};
use uring::{Either, Gather};

/// Bytes asked of a socket at a time.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// Room for the head of any answer of ours.
const HEAD_BYTES: usize = 1024;
/// How long a new connection may take to ask once the server stops: so that a restart answers every
/// client whose connection was accepted.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// The same for one that has asked before: for what is in the socket already.
const NEXT_REQUEST_GRACE: Duration = Duration::from_millis(2);
/// How long a client may take to close after the last answer (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// One client connection and the exchange in progress on it.
pub struct Conn {
    pub(super) node: Rc<Node>,
    pub(super) access: Arc<Access>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) site: Arc<Site>,
    pub(super) socket: Socket,
    /// Who is at the other end: the client, or its proxy.
    peer: IpAddr,
    /// The request in progress, as access control sees it.
    pub(super) visit: Visit,
    /// The connection's place among those of its client.
    pub(super) counted: Option<Counted>,
    /// Its place among those of a key, and whose it is.
    pub(super) place: Option<Place>,
    pub(super) place_of: Arc<str>,
    /// Bytes written so far.
    pub(super) sent: u64,
    h1: Connection,
    /// Bytes that have come and are not done with; none are held while there are none.
    inbox: Option<Buf>,
    pub(super) out: Gather,
    /// When the request in progress could first be known of: the accept, or readability.
    pub(super) since: Instant,
    pub(super) request_id: Option<RequestId>,
    /// What the exchange's times and outcome count as.
    pub(super) endpoint: Endpoint,
    /// When the request in progress came past which point.
    pub(super) stages: Stages,
    status: u16,
    /// Requests read so far.
    requests: u64,
    /// Set once the connection has gone over to another protocol.
    pub(super) upgraded: Option<Box<Upgraded>>,
}

/// The connection is over; nothing more can be said on it.
#[derive(Debug)]
pub struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Conn {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(node: Rc<Node>, serving: Serving, arrival: Arrival) -> Self {
        let Serving { access, jobs, site } = serving;
        let config = &node.shared.config;
        let millis = Duration::from_millis;
        let timeouts = Timeouts {
            head: millis(config.head_timeout_ms),
            body: millis(config.body_timeout_ms),
            idle: millis(config.idle_timeout_ms),
            write_stall: millis(config.write_stall_ms),
            linger: LINGER,
        };
        let now = Instant::now();
        Self {
            h1: Connection::new(now, timeouts),
            place_of: Arc::clone(&node.anonymous),
            node,
            access,
            jobs,
            site,
            socket: arrival.socket,
            peer: arrival.peer,
            visit: Visit::unknown(arrival.peer),
            counted: arrival.counted,
            place: None,
            sent: 0,
            inbox: arrival.early,
            out: Gather::new(),
            since: now,
            request_id: None,
            endpoint: Endpoint::Other,
            stages: Stages::parsed(now),
            status: 0,
            requests: 0,
            upgraded: None,
        }
    }

    /// Serves the connection to its end, or to its change of protocol. `drain` is raised when the
    /// server stops.
    pub async fn run(mut self, drain: &Notify) -> Option<Box<Upgraded>> {
        while let Ok(Some(ask)) = self.next_request(drain).await {
            self.request_id = ask.request_id;
            if guard::handle(&mut self, ask).await.is_err() {
                break;
            }
        }
        self.upgraded
    }

    /// Reads until a request's head is complete; `None` when the connection has come to its end.
    async fn next_request(&mut self, drain: &Notify) -> Result<Option<Ask>, Gone> {
        loop {
            let now = Instant::now();
            let held: &[u8] = self.inbox.as_deref().unwrap_or_default();
            match self.h1.handle_bytes(now, held) {
                Ok(Event::Request { head_len }) => {
                    let request = self.h1.request(held).expect("the head is complete");
                    let mut ask = Ask::of(&request);
                    if ask.route == Some(Route::CrawlWs) {
                        ask.upgrade = Some(ws::judge(&request, &self.node.shared.config));
                    }
                    self.visit = Visit::of(&self.access, self.peer, &request, ask.route);
                    self.consume(head_len);
                    self.requests += 1;
                    self.endpoint = ask.endpoint();
                    self.stages = Stages::parsed(now);
                    self.record(Measure::AcceptToParse, now);
                    return Ok(Some(ask));
                }
                Ok(Event::Drop { consumed }) => self.consume(consumed),
                Ok(Event::Closed) => return Ok(None),
                Ok(_) => self.read_more(drain).await?,
                Err(refusal) => {
                    self.request_id = None;
                    self.endpoint = Endpoint::Other;
                    self.visit = Visit::unknown(self.peer);
                    let sent = self.sent;
                    let refused = self.refuse(&refusal.into()).await;
                    guard::note(self, now, sent, refused.is_err());
                    refused?;
                }
            }
            match self.h1.state() {
                State::Closed => return Ok(None),
                // More of the last request's body, or whatever a leaving client still sends.
                State::Drain | State::Linger if self.inbox.is_none() => {
                    self.read_more(drain).await?;
                }
                _ => {}
            }
        }
    }

    /// Waits for bytes and appends them; a timeout is answered or closes the connection.
    async fn read_more(&mut self, drain: &Notify) -> Result<(), Gone> {
        if self.inbox.as_ref().is_none_or(|inbox| inbox.is_empty()) {
            self.inbox = None;
        }
        if self.h1.state() == State::Idle && self.node.draining() && !self.is_spoken_to().await {
            self.h1.close_soon(Instant::now());
            return Ok(());
        }
        let (until, _) = self.h1.poll_timeout().expect("reading always has a limit");
        let was_idle = self.h1.state() == State::Idle;
        let readable = uring::time::timeout_at(until, self.socket.readable());
        let woken = if was_idle {
            match uring::select2(readable, drain.notified()).await {
                Either::Left(woken) => woken,
                // Whether there is something to answer first, the next round looks.
                Either::Right(()) => return Ok(()),
            }
        } else {
            readable.await
        };
        let now = Instant::now();
        match woken {
            Ok(readable) => readable?,
            Err(_) => return self.handle_timeout(now).await,
        }
        if was_idle && self.requests > 0 {
            self.since = now;
        }
        self.read(now).await
    }

    /// Whether a request has come, or is about to: a client that has just connected meant to ask.
    async fn is_spoken_to(&self) -> bool {
        let patience = if self.requests == 0 { FIRST_REQUEST_GRACE } else { NEXT_REQUEST_GRACE };
        matches!(uring::time::timeout(patience, self.socket.readable()).await, Ok(Ok(())))
    }

    async fn read(&mut self, now: Instant) -> Result<(), Gone> {
        if self.receive().await? == 0
            && let Err(refusal) = self.h1.handle_eof(now)
        {
            return self.refuse(&refusal.into()).await;
        }
        Ok(())
    }

    async fn handle_timeout(&mut self, now: Instant) -> Result<(), Gone> {
        match self.h1.handle_timeout(now) {
            h1::Action::Wait => Ok(()),
            h1::Action::Refuse(_) => self.refuse(&Refusal::Timeout.into()).await,
            h1::Action::Close(_) => Err(Gone),
        }
    }

    /// Drops bytes that are done with, and the buffer with the last of them.
    fn consume(&mut self, bytes: usize) {
        if let Some(inbox) = &mut self.inbox {
            inbox.advance(bytes);
            if inbox.is_empty() {
                self.inbox = None;
            }
        }
    }

    /// Reads the request's body, at most `bytes_max` of it.
    ///
    /// # Errors
    /// Inner: the refusal to answer with. Outer: the connection is gone.
    pub async fn read_body(&mut self, bytes_max: usize) -> Result<Result<Vec<u8>, ApiError>, Gone> {
        match self.h1.want_body(Instant::now(), bytes_max as u64) {
            Ok(Some(interim)) => self.write_interim(interim).await?,
            Ok(None) => {}
            Err(WantBodyError::Refused(refusal)) => return Ok(Err(refusal.into())),
            Err(WantBodyError::Illegal(bug)) => unreachable!("{bug}"),
        }
        let mut body = Vec::new();
        while self.h1.state() == State::Body {
            let now = Instant::now();
            let held: &[u8] = self.inbox.as_deref().unwrap_or_default();
            match self.h1.handle_bytes(now, held) {
                Ok(Event::Body(step)) => {
                    body.extend_from_slice(&held[step.data.clone()]);
                    self.consume(step.consumed);
                }
                Ok(_) => {
                    if let Some(error) = self.read_body_bytes().await? {
                        return Ok(Err(error));
                    }
                }
                Err(refusal) => return Ok(Err(refusal.into())),
            }
        }
        self.stages.read = Instant::now();
        Ok(Ok(body))
    }

    async fn read_body_bytes(&mut self) -> Result<Option<ApiError>, Gone> {
        let (until, _) = self.h1.poll_timeout().expect("a body always has a limit");
        match uring::time::timeout_at(until, self.socket.readable()).await {
            Ok(readable) => readable?,
            Err(_) => {
                return match self.h1.handle_timeout(Instant::now()) {
                    h1::Action::Wait => Ok(None),
                    h1::Action::Refuse(_) => Ok(Some(Refusal::Timeout.into())),
                    h1::Action::Close(_) => Err(Gone),
                };
            }
        }
        if self.receive().await? == 0 {
            return Ok(self.h1.handle_eof(Instant::now()).err().map(Into::into));
        }
        Ok(None)
    }

    /// Reads once, behind what the inbox holds; 0 is the end.
    async fn receive(&mut self) -> Result<usize, Gone> {
        let mut inbox = self.inbox.take().unwrap_or_else(|| arena::alloc(READ_BYTES));
        if inbox.spare_capacity() == 0 {
            inbox.reserve(READ_BYTES);
        }
        let (read, inbox) = self.socket.read(inbox).await;
        self.inbox = Some(inbox);
        let read = read?;
        self.node.observe.add(Counter::BytesIn, read as u64);
        // An empty buffer goes back at once.
        self.consume(0);
        Ok(read)
    }

    /// Goes over to another protocol: what answers the request and what has come behind it
    /// (RFC 9110 §7.8). Nothing is sent yet.
    pub(super) fn start_upgrade(
        &mut self,
        protocol: &str,
        fields: &[(&str, &[u8])],
    ) -> Result<Option<Buf>, Gone> {
        let mut head = Head(arena::alloc(HEAD_BYTES));
        let date = imf_fixdate(SystemTime::now());
        let started =
            self.h1.start_upgrade(Instant::now(), &mut head, protocol, Some(&date), fields);
        if let Err(bug) = started {
            tracing::error!("a connection was not upgraded: {bug}");
            return Err(Gone);
        }
        self.status = 101;
        self.out.push(head.0);
        self.node.observe.count(Counter::Requests(self.endpoint, StatusClass::Informational));
        Ok(self.inbox.take())
    }

    async fn write_interim(&mut self, interim: &'static [u8]) -> Result<(), Gone> {
        self.out.push(interim);
        self.flush().await
    }

    /// Answers with a refusal.
    pub(super) async fn refuse(&mut self, error: &ApiError) -> Result<(), Gone> {
        let id = self.request_id;
        self.node.observe.count(Counter::ApiErrors(error.code));
        self.visit.refused = Some(error.code);
        self.reply(Reply::error(error, id.as_ref().map(RequestId::as_str))).await
    }

    /// Answers with a whole body, in one send.
    pub(super) async fn reply(&mut self, reply: Reply) -> Result<(), Gone> {
        let id = self.request_id;
        let mut fields: Vec<(&str, &[u8])> = Vec::with_capacity(6);
        if !reply.content_type.is_empty() {
            fields.push(("Content-Type", reply.content_type.as_bytes()));
        }
        fields.push(NO_SNIFFING);
        fields.extend(reply.fields.iter().map(|(name, value)| (*name, &value[..])));
        if let Some(id) = &id {
            fields.push(("X-Request-ID", id.as_str().as_bytes()));
        }
        let body = match reply.status {
            204 | 304 => AnswerBody::None,
            _ => AnswerBody::Length(reply.len()),
        };
        let (answer, head) = self.start_answer(reply.status, body, &fields)?;
        self.out.push(head);
        if !answer.head_only {
            reply.body.into_iter().for_each(|part| self.out.push(part));
        }
        self.finish_answer().await
    }

    /// Answers with a short fixed text; allocates nothing.
    pub(super) async fn reply_plain(
        &mut self,
        status: u16,
        text: &'static str,
    ) -> Result<(), Gone> {
        let fields: [(&str, &[u8]); 1] = [("Content-Type", super::reply::TEXT.as_bytes())];
        let id = self.request_id;
        let length = AnswerBody::Length(text.len() as u64);
        let (answer, head) = match &id {
            Some(id) => {
                let echoed = [fields[0], ("X-Request-ID", id.as_str().as_bytes())];
                self.start_answer(status, length, &echoed)?
            }
            None => self.start_answer(status, length, &fields)?,
        };
        self.out.push(head);
        if !answer.head_only {
            self.out.push(text);
        }
        self.finish_answer().await
    }

    /// Writes an answer's head, to be sent with what follows it.
    pub(super) fn start_answer(
        &mut self,
        status: u16,
        body: AnswerBody,
        fields: &[(&str, &[u8])],
    ) -> Result<(Answer, Buf), Gone> {
        self.status = status;
        let mut head = Head(arena::alloc(HEAD_BYTES));
        let date = imf_fixdate(SystemTime::now());
        let now = Instant::now();
        if self.node.draining() {
            self.h1.close_soon(now);
        }
        let more;
        let fields = if self.visit.fields.is_empty() {
            fields
        } else {
            let ours = self.visit.fields.iter().map(|(name, value)| (*name, &value[..]));
            more = fields.iter().copied().chain(ours).collect::<Vec<_>>();
            &more
        };
        match self.h1.start_answer(now, &mut head, status, body, Some(&date), fields) {
            Ok(answer) => Ok((answer, head.0)),
            Err(bug) => {
                tracing::error!("an answer was not started: {bug}");
                Err(Gone)
            }
        }
    }

    /// Sends what waits, and goes over to what follows the answer.
    pub(super) async fn finish_answer(&mut self) -> Result<(), Gone> {
        if !self.out.is_empty() {
            let ready = Instant::now();
            self.flush().await?;
            let now = Instant::now();
            self.note_first_byte(ready, now);
            self.record(Measure::Ttfb, now);
            self.record(Measure::Whole, now);
        }
        let class = StatusClass::of(self.status);
        self.node.observe.count(Counter::Requests(self.endpoint, class));
        match self.h1.finish_answer(Instant::now()) {
            Ok(State::Linger) => self.shut_write().await,
            Ok(State::Closed) | Err(_) => Err(Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Sends all that waits in `out`; a client that takes nothing for too long is cut.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        let stall = Duration::from_millis(self.node.shared.config.write_stall_ms);
        while !self.out.is_empty() {
            let sent = uring::time::timeout(stall, self.socket.send(&mut self.out)).await;
            match sent {
                Ok(Ok(sent)) => self.count_sent(sent),
                Ok(Err(_)) => return Err(Gone),
                Err(_) => {
                    // Nothing that is still queued may keep the socket alive.
                    let _ = self.socket.set_linger_zero();
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    /// Counts bytes that were written to the client.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.node.observe.add(Counter::BytesOut, bytes as u64);
    }

    /// The status of the last answer; 0 before there is one.
    pub(super) const fn status(&self) -> u16 {
        self.status
    }

    async fn shut_write(&self) -> Result<(), Gone> {
        let stall = Duration::from_millis(self.node.shared.config.write_stall_ms);
        match uring::time::timeout(stall, self.socket.shutdown_write()).await {
            Ok(shut) => Ok(shut?),
            Err(_) => Err(Gone),
        }
    }

    fn record(&self, measure: Measure, now: Instant) {
        let spent = now.saturating_duration_since(self.since);
        self.node.observe.record(Key::At(self.endpoint, measure), spent);
    }
}
