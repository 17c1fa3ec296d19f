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
use super::reply::{Head, NO_SNIFFING, Reply, date_field};
use super::route::Route;
use super::sender::{Manner, Reader};
use super::slow::Stages;
use super::socket::Socket;
use super::ws::{self, Upgraded};
use crate::config::Config;
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
use crate::stream::place::Place;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::arena::{self, Buf};
use uring::time::{Alarm, Elapsed};
use uring::{Either, Gather};

/// Bytes asked of a socket at a time.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// Bytes for a request that is expected soon; a longer one takes more.
const SOON_BYTES: usize = 4 * 1024;
/// Room is made for so many times the bytes of a body that have come, where more are announced.
const BODY_AHEAD: usize = 4;
/// How long a connection that was just answered keeps a buffer for its next request.
const SOON: Duration = Duration::from_millis(20);
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
    /// For every wait of this connection that has an end.
    pub(super) alarm: Alarm,
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
    /// The request in progress, until its handler takes it; none of `GET /livez`.
    pub(super) ask: Option<Box<Ask>>,
    /// The stream that is left to be sent as its answer.
    pub(super) stream: Option<Box<(Reader, Manner)>>,
    status: u16,
    /// Requests read so far.
    requests: u64,
    /// Set once the connection has gone over to another protocol.
    pub(super) upgraded: Option<Box<Upgraded>>,
}

/// How long a client may take, by the settings in force.
pub(super) fn timeouts(config: &Config) -> Timeouts {
    let millis = Duration::from_millis;
    Timeouts {
        head: millis(config.head_timeout_ms),
        body: millis(config.body_timeout_ms),
        idle: millis(config.idle_timeout_ms),
        write_stall: millis(config.write_stall_ms),
        linger: LINGER,
    }
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
    /// A connection that was accepted at `since`.
    #[must_use]
    pub fn new(
        node: Rc<Node>,
        serving: Serving,
        arrival: Arrival,
        timeouts: Rc<Timeouts>,
        since: Instant,
    ) -> Box<Self> {
        let Serving { access, jobs, site } = serving;
        let now = Instant::now();
        Box::new(Self {
            alarm: Alarm::new(now + timeouts.head),
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
            since,
            request_id: None,
            endpoint: Endpoint::Other,
            stages: Stages::parsed(now),
            ask: None,
            stream: None,
            status: 0,
            requests: 0,
            upgraded: None,
        })
    }

    /// Serves the connection to its end, or to its change of protocol. `drain` is raised when the
    /// server stops.
    pub async fn run(mut self: Box<Self>, drain: &Notify) -> Option<Box<Upgraded>> {
        while let Ok(true) = self.next_request(drain).await {
            if guard::handle(&mut self).await.is_err() {
                break;
            }
        }
        self.upgraded
    }

    /// Reads until a request's head is complete; `false` when the connection has come to its end.
    async fn next_request(&mut self, drain: &Notify) -> Result<bool, Gone> {
        let mut now = Instant::now();
        loop {
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
                    self.rest();
                    self.out = self.node.lend_queue();
                    self.requests += 1;
                    self.endpoint = ask.endpoint();
                    let parsed = Instant::now();
                    self.stages = Stages::parsed(parsed);
                    self.record(Measure::AcceptToParse, parsed);
                    self.request_id = ask.request_id.clone();
                    // The quickest route of all needs nothing that has to be kept.
                    self.ask = (!ask.is_livez()).then(|| Box::new(ask));
                    return Ok(true);
                }
                Ok(Event::Drop { consumed }) => self.consume(consumed),
                Ok(Event::Closed) => return Ok(false),
                Ok(_) => now = self.read_more(now, drain).await?,
                Err(refusal) => {
                    self.request_id = None;
                    self.endpoint = Endpoint::Other;
                    self.visit = Visit::unknown(self.peer);
                    let sent = self.sent;
                    let refused = Box::pin(self.refuse(&refusal.into())).await;
                    guard::note(self, now, sent, refused.is_err());
                    refused?;
                }
            }
            match self.h1.state() {
                State::Closed => return Ok(false),
                // More of the last request's body, or whatever a leaving client still sends.
                State::Drain | State::Linger if self.inbox.is_none() => {
                    now = self.read_more(now, drain).await?;
                }
                _ => {}
            }
        }
    }

    /// Waits for bytes and appends them; a timeout is answered or closes the connection. Returns the
    /// time, as the loop that reads knows it.
    async fn read_more(&mut self, now: Instant, drain: &Notify) -> Result<Instant, Gone> {
        if self.inbox.as_ref().is_none_or(|inbox| inbox.is_empty()) {
            self.inbox = None;
        }
        self.rest();
        let (until, _) = self.h1.poll_timeout().expect("reading always has a limit");
        let was_idle = self.h1.state() == State::Idle;
        if was_idle && self.requests > 0 {
            let soon = until.min(now + SOON);
            if let Some(read) = self.read_soon(soon, drain).await? {
                self.since = Instant::now();
                return self.came(read, self.since).await;
            }
        }
        if was_idle && self.node.draining() && !Box::pin(self.is_spoken_to()).await {
            self.h1.close_soon(Instant::now());
            return Ok(Instant::now());
        }
        // Whether there is something to answer first, the next round looks.
        let Some((woken, waited)) = self.readable(until, was_idle, drain).await else {
            return Ok(Instant::now());
        };
        let now = Instant::now();
        match woken {
            Ok(readable) => readable?,
            Err(_) => return Box::pin(self.handle_timeout(now)).await.map(|()| now),
        }
        if was_idle && waited {
            self.since = now;
        }
        let read = self.receive().await?;
        self.came(read, now).await
    }

    /// Waits until the socket is readable or the time is over; while idle, also until the server
    /// drains: `None`. And whether what has come came while it waited: what came with its connection
    /// has waited since the accept.
    async fn readable(
        &mut self,
        until: Instant,
        idle: bool,
        drain: &Notify,
    ) -> Option<(Result<io::Result<()>, Elapsed>, bool)> {
        let mut readable = pin!(self.socket.readable());
        if idle && self.requests == 0 {
            let turn = pin!(uring::yield_now());
            if let Either::Left(ready) = uring::select2(readable.as_mut(), turn).await {
                return Some((Ok(ready), false));
            }
        }
        let readable = self.alarm.timeout_at(until, readable);
        if !idle {
            return Some((readable.await, true));
        }
        match uring::select2(readable, drain.notified()).await {
            Either::Left(woken) => Some((woken, true)),
            Either::Right(()) => None,
        }
    }

    /// Lends the queue of what is sent to others, while nothing is.
    pub(super) fn rest(&mut self) {
        if self.out.is_empty() {
            self.node.take_queue_back(std::mem::take(&mut self.out));
        }
    }

    /// Whether a request has come, or is about to: a client that has just connected meant to ask.
    async fn is_spoken_to(&self) -> bool {
        let patience = if self.requests == 0 { FIRST_REQUEST_GRACE } else { NEXT_REQUEST_GRACE };
        matches!(uring::time::timeout(patience, self.socket.readable()).await, Ok(Ok(())))
    }

    /// Waits for the next request with a buffer at hand: one operation of the ring where a wait and a
    /// read are two. `None` when nothing comes for a moment, or the server drains.
    async fn read_soon(&mut self, soon: Instant, drain: &Notify) -> Result<Option<usize>, Gone> {
        let Socket::Plain(tcp) = &self.socket else { return Ok(None) };
        let stop = uring::select2(self.alarm.at(soon), drain.notified());
        let (read, inbox) = tcp.read_until(arena::alloc(SOON_BYTES), stop).await;
        let read = read?;
        // What waits longer waits without a buffer.
        self.inbox = read.map(|_| inbox);
        Ok(read)
    }

    /// So many bytes came into the inbox; 0 is the end.
    async fn came(&mut self, read: usize, now: Instant) -> Result<Instant, Gone> {
        self.node.observe.add(Counter::BytesIn, read as u64);
        // An empty buffer goes back at once.
        self.consume(0);
        if read == 0
            && let Err(refusal) = self.h1.handle_eof(now)
        {
            Box::pin(self.refuse(&refusal.into())).await?;
        }
        Ok(now)
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
                    let data = &held[step.data.clone()];
                    // Room for what was announced, as far as what has come vouches for it.
                    let vouched = BODY_AHEAD * (body.len() + data.len());
                    let left = self.h1.body_bytes_left().unwrap_or(0);
                    body.reserve(
                        data.len() + usize::try_from(left).unwrap_or(vouched).min(vouched),
                    );
                    body.extend_from_slice(data);
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
        match self.alarm.timeout_at(until, self.socket.readable()).await {
            Ok(readable) => readable?,
            Err(_) => {
                return match self.h1.handle_timeout(Instant::now()) {
                    h1::Action::Wait => Ok(None),
                    h1::Action::Refuse(_) => Ok(Some(Refusal::Timeout.into())),
                    h1::Action::Close(_) => Err(Gone),
                };
            }
        }
        let read = self.receive().await?;
        self.node.observe.add(Counter::BytesIn, read as u64);
        if read == 0 {
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
        Ok(read?)
    }

    /// Goes over to another protocol: what answers the request and what has come behind it
    /// (RFC 9110 §7.8). Nothing is sent yet.
    pub(super) fn start_upgrade(
        &mut self,
        protocol: &str,
        fields: &[(&str, &[u8])],
    ) -> Result<Option<Buf>, Gone> {
        let mut head = Head(arena::alloc(HEAD_BYTES));
        let now = Instant::now();
        let date = date_field(now);
        let started = self.h1.start_upgrade(now, &mut head, protocol, Some(&date), fields);
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
        self.flush(Instant::now()).await
    }

    /// Answers with a refusal.
    pub(super) async fn refuse(&mut self, error: &ApiError) -> Result<(), Gone> {
        let id = self.request_id.clone();
        self.node.observe.count(Counter::ApiErrors(error.code));
        self.visit.refused = Some(error.code);
        self.reply(Reply::error(error, id.as_ref().map(RequestId::as_str))).await
    }

    /// Answers with a whole body, in one send.
    pub(super) async fn reply(&mut self, reply: Reply) -> Result<(), Gone> {
        let id = self.request_id.clone();
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
        let id = self.request_id.clone();
        let length = AnswerBody::Length(text.len() as u64);
        let (answer, head) = match &id {
            Some(id) => {
                let echoed = [fields[0], ("X-Request-ID", id.as_str().as_bytes())];
                self.start_answer(status, length, &echoed)?
            }
            None => self.start_answer(status, length, &fields)?,
        };
        let mut whole = head;
        if !answer.head_only {
            // In one piece with its head.
            whole.reserve(text.len());
            whole.extend_from_slice(text.as_bytes());
        }
        self.out.push(whole);
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
        let now = Instant::now();
        let date = date_field(now);
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
        let ready = Instant::now();
        let waited = !self.out.is_empty();
        self.flush(ready).await?;
        let now = Instant::now();
        if waited {
            self.note_first_byte(ready, now);
            self.record(Measure::Ttfb, now);
            self.record(Measure::Whole, now);
        }
        let class = StatusClass::of(self.status);
        self.node.observe.count(Counter::Requests(self.endpoint, class));
        match self.h1.finish_answer(now) {
            Ok(State::Linger) => Box::pin(self.shut_write()).await,
            Ok(State::Closed) | Err(_) => Err(Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Sends all that waits in `out`; a client that takes nothing for too long is cut.
    pub(super) async fn flush(&mut self, mut now: Instant) -> Result<(), Gone> {
        let stall = Duration::from_millis(self.node.shared.config.write_stall_ms);
        while !self.out.is_empty() {
            let sending = self.socket.send(&mut self.out);
            match self.alarm.timeout_at(now + stall, sending).await {
                Ok(Ok(sent)) => {
                    self.count_sent(sent);
                    if !self.out.is_empty() {
                        now = Instant::now();
                    }
                }
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
        self.visit.charge(&self.access, bytes as u64);
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
