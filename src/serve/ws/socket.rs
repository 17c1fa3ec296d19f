//! The loop of one socket: reads ops, takes events from the streams in turn, sends what is ready.
//!
//! Reading goes on while a send is stalled: a peer is judged by what it says, and may want to cancel
//! the very stream that fills its connection. While nothing is to be said no buffer is held.

use super::super::access::peer::{Outcome, Peer};
use super::super::conn::Gone;
use super::super::socket;
use super::Upgraded;
use super::attached::{Attached, Marks, Next};
use super::op::{self, Op, Refused};
use super::outbox::Outbox;
use crate::crawl::node::Node;
use crate::error::{ApiCode, ApiError};
use crate::limits::{READ_HERE_BYTES_MAX, WS_GATHERED_BYTES_MAX};
use crate::local::Notify;
use crate::observe::metrics::{Counter, Way};
use crate::proto::ws::{CloseCode, Event, SendError, Session, Status};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::arena::{self, Buf};
use uring::{Either, Gather, select2};

/// How long a peer may keep us from saying, in TLS, that nothing more comes.
const SHUT_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes asked of a socket at a time.
const READ_BYTES: usize = 16 * 1024;
/// Time for ops before the loop does something else.
const TURN: Duration = Duration::from_micros(100);
/// Bytes that are compressed at most before the loop does something else.
const DEFLATE_TURN_BYTES: usize = 32 * 1024;

/// See the module.
pub(super) struct Socket {
    pub(super) node: Rc<Node>,
    socket: socket::Socket,
    /// Who has opened it.
    pub(super) peer: Peer,
    session: Session,
    /// The streams that are sent here; whose turn it is stands in front.
    pub(super) streams: VecDeque<Box<Attached>>,
    /// Streams whose last event waits to be sent.
    leaving: Vec<Marks>,
    /// Raised when a stream has something new, and when the server stops.
    pub(super) news: Rc<Notify>,
    /// Whose streams it begins and may see.
    pub(super) principal: Arc<str>,
    outbox: Option<Box<Outbox>>,
    /// Bytes of answers to ops so far.
    pub(super) answered: u64,
    /// What was read and not obeyed yet: answers to what stood before it wait to be sent.
    unread: Option<Buf>,
    gathered: Gathered,
    /// Whether our side of the socket is shut.
    shut: bool,
}

/// A socket's part of what its core gathers; given back when dropped.
struct Gathered {
    node: Rc<Node>,
    bytes: usize,
}

impl Gathered {
    /// It is so much now. Answers what all gather.
    fn set(&mut self, bytes: usize) -> usize {
        let all = self.node.ws_gathered.get() - self.bytes + bytes;
        self.bytes = bytes;
        self.node.ws_gathered.set(all);
        all
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Serves a WebSocket to its end. `news` is raised when the server stops.
pub async fn run(upgraded: Box<Upgraded>, news: Rc<Notify>) {
    let Upgraded { node, socket, peer, held, session, glued, principal } = *upgraded;
    let mut this = Socket {
        gathered: Gathered { node: Rc::clone(&node), bytes: 0 },
        node,
        socket,
        peer,
        session,
        streams: VecDeque::new(),
        leaving: Vec::new(),
        news,
        principal,
        outbox: None,
        answered: 0,
        unread: glued,
        shut: false,
    };
    // Whatever ends it, the streams go on for their resume windows.
    let _ = this.serve().await;
    this.leave_all();
    this.node.observe.count(Counter::WsClosed);
    drop(held);
}

impl Socket {
    async fn serve(&mut self) -> Result<(), Gone> {
        let socket = self.socket.clone();
        let mut readable = pin!(socket.readable());
        let mut out = Gather::new();
        loop {
            if out.is_empty() {
                self.node.take_queue_back(std::mem::replace(&mut out, self.node.lend_queue()));
            }
            // The first may have come glued to the handshake.
            if self.takes_ops()
                && let Some(buf) = self.unread.take()
            {
                Box::pin(self.handle_input(buf)).await;
            }
            self.fill(&mut out);
            if self.end_when_over(&out)? {
                Box::pin(self.shut_write()).await?;
            }
            if out.is_empty() {
                self.rest(&mut out);
                let now = Instant::now();
                // With nothing owed its session's own time is the next.
                let paid = self.peer.overdrawn(now).filter(|_| !self.streams.is_empty());
                let until = self.session.poll_timeout().ok_or(Gone)?;
                let until = paid.map_or(until, |owed| until.min(now + owed));
                let quiet = select2(self.news.notified(), uring::time::sleep_until(until));
                match select2(quiet, readable.as_mut()).await {
                    Either::Left(Either::Left(())) => {}
                    Either::Left(Either::Right(())) => {
                        self.session.handle_timeout(Instant::now());
                    }
                    Either::Right(ready) => {
                        Box::pin(self.receive(ready)).await?;
                        readable.set(socket.readable());
                    }
                }
                continue;
            }
            let begun = Instant::now();
            let stalled = begun + self.stall();
            let mut sending = pin!(socket.send(&mut out));
            let sent = loop {
                let until = self.session.poll_timeout().ok_or(Gone)?.min(stalled);
                let hears = self.unread.is_none() && self.takes_ops();
                let heard = when(hears, readable.as_mut());
                let other = select2(uring::time::sleep_until(until), heard);
                match select2(sending.as_mut(), other).await {
                    Either::Left(sent) => break sent?,
                    Either::Right(Either::Left(())) => self.handle_time(stalled)?,
                    Either::Right(Either::Right(ready)) => {
                        Box::pin(self.receive(ready)).await?;
                        readable.set(socket.readable());
                    }
                }
            };
            self.handle_sent(begun, sent)?;
        }
    }

    /// Queues everything that can be said now.
    fn fill(&mut self, out: &mut Gather) {
        if self.node.draining() && self.streams.is_empty() {
            let reason = "the server is shutting down";
            self.session.close(Instant::now(), CloseCode::GOING_AWAY, reason);
        }
        self.check_key();
        if self.session.status() != Status::Open {
            self.leave_all();
        }
        if let Some(frames) = self.session.poll_transmit()
            && let Some((outbox, _)) = self.outbox()
        {
            outbox.control(frames);
        }
        if self.peer.overdrawn(Instant::now()).is_none() {
            self.fill_events();
        }
        self.streams.iter_mut().for_each(|attached| attached.tell_taken(&self.node));
        if let Some(outbox) = &mut self.outbox {
            outbox.poll_gather(out);
            outbox.stats(&self.node);
        }
    }

    /// Takes events from the streams in turn while the ring has room.
    fn fill_events(&mut self) {
        let (mut silent, mut deflated) = (0, 0);
        while silent < self.streams.len()
            && deflated < DEFLATE_TURN_BYTES
            && self.outbox.as_mut().is_none_or(|outbox| outbox.has_room())
        {
            match self.streams[0].next(&self.node) {
                Next::Nothing => {
                    silent += 1;
                    self.streams.rotate_left(1);
                }
                Next::Turn => {
                    silent = 0;
                    self.streams.rotate_left(1);
                }
                Next::Event { event, last } => {
                    silent = 0;
                    let prefix = self.streams[0].prefix.clone();
                    let bytes = event.len();
                    let node = Rc::clone(&self.node);
                    let queued = self.outbox().map(|(outbox, session)| {
                        node.with_blocks(|blocks, deflated| {
                            outbox.event((blocks, deflated), session, &prefix, &event)
                        })
                    });
                    if self.count_queued(queued) {
                        deflated += bytes;
                    }
                    if last && let Some(over) = self.streams.pop_front() {
                        self.leaving.push(over.marks);
                        self.note_end(over, "ok");
                    }
                }
            }
        }
    }

    /// Closes a socket whose key is not known any more: `false`, and nothing of it is obeyed or sent.
    pub(super) fn check_key(&mut self) -> bool {
        let stands = self.peer.stands();
        if !stands {
            let reason = "the API key of this socket is not known any more";
            self.session.close(Instant::now(), CloseCode::POLICY_VIOLATION, reason);
        }
        stands
    }

    /// Leaves all streams to their resume windows.
    fn leave_all(&mut self) {
        while let Some(attached) = self.streams.pop_front() {
            self.note_end(attached, "aborted");
        }
    }

    /// Notes that what an op has begun is not sent here any more.
    fn note_end(&self, mut attached: Box<Attached>, word: &str) {
        let noted = attached.noted.take();
        let stream_id = Some(&*attached.stream().id_text);
        let outcome = Outcome { word, status: 200, stream_id, bytes: attached.bytes };
        self.count_note(self.peer.note(noted, &outcome));
    }

    /// Counts a line of the audit log that was dropped.
    pub(super) fn count_note(&self, written: bool) {
        if !written {
            self.node.observe.count(Counter::AuditDropped);
        }
    }

    /// Queues an answer to an op.
    pub(super) fn answer(&mut self, text: Bytes) {
        self.answered += text.len() as u64;
        let node = Rc::clone(&self.node);
        let queued = self.outbox().map(|(outbox, session)| {
            node.with_blocks(|blocks, deflated| outbox.text((blocks, deflated), session, text))
        });
        self.count_queued(queued);
    }

    /// Counts a message; whether it was compressed.
    fn count_queued(&mut self, queued: Option<Result<bool, SendError>>) -> bool {
        match queued {
            Some(Ok(deflated)) => {
                self.node.observe.count(Counter::WsMessages(Way::Out));
                if deflated {
                    self.node.observe.count(Counter::WsDeflated);
                }
                deflated
            }
            Some(Err(SendError::Deflate)) => {
                tracing::error!("compressing a message failed");
                self.session.close(Instant::now(), CloseCode::INTERNAL_ERROR, "");
                false
            }
            // Nothing is said after a Close.
            Some(Err(SendError::Closed)) | None => false,
        }
    }

    /// The outbox, made when it is first needed, and the session beside it.
    fn outbox(&mut self) -> Option<(&mut Outbox, &mut Session)> {
        if self.outbox.is_none() {
            let made = Outbox::new(self.node.shared.config.ring(), &self.node.observe);
            let made = made.inspect_err(|bug| tracing::error!("a ring was not made: {bug}"));
            self.outbox = made.ok().map(Box::new);
        }
        let outbox = self.outbox.as_deref_mut()?;
        outbox.rise(&self.node);
        Some((outbox, &mut self.session))
    }

    /// Whether to shut our side, because both have closed and all is sent; the end once the socket is
    /// to go.
    fn end_when_over(&mut self, out: &Gather) -> Result<bool, Gone> {
        match self.session.status() {
            Status::Cut(reason) => {
                tracing::debug!(?reason, "a WebSocket has ended");
                Err(Gone)
            }
            Status::Draining if out.is_empty() && !self.shut => {
                self.shut = true;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn shut_write(&self) -> Result<(), Gone> {
        let shut = uring::time::timeout(SHUT_PATIENCE, self.socket.shutdown_write());
        Ok(shut.await.map_err(|_| Gone)??)
    }

    /// Gives back what a socket that has nothing to say does not need.
    fn rest(&mut self, out: &mut Gather) {
        self.node.take_queue_back(std::mem::take(out));
        if let Some(outbox) = &mut self.outbox {
            outbox.rest(&self.node);
        }
        if self.streams.is_empty() {
            self.outbox = None;
            self.leaving = Vec::new();
            self.streams = VecDeque::new();
            self.session.release_idle();
        }
    }

    /// Reads once and obeys what has come. Its callers box it: ops are rare, and their state would be
    /// most of what an idle socket costs.
    async fn receive(&mut self, ready: io::Result<()>) -> Result<(), Gone> {
        ready?;
        let (read, buf) = self.socket.read(arena::alloc(READ_BYTES)).await;
        match read? {
            0 => self.session.handle_eof(),
            read => {
                self.node.observe.add(Counter::BytesIn, read as u64);
                self.handle_input(buf).await;
            }
        }
        Ok(())
    }

    /// Whether there is room for the answers to more ops.
    fn takes_ops(&self) -> bool {
        self.outbox.as_ref().is_none_or(|outbox| outbox.takes_answers())
    }

    /// Obeys what has come; what there is no room to answer waits.
    async fn handle_input(&mut self, mut buf: Buf) {
        let mut input = &mut buf[..];
        // An op's time begins here, whatever stands before it in the buffer.
        let came = Instant::now();
        let mut turn = came;
        loop {
            if !self.takes_ops() {
                let left = input.len();
                buf.advance(buf.len() - left);
                self.unread = Some(buf);
                return;
            }
            let now = Instant::now();
            let bytes_max = self.node.shared.config.body_bytes_max;
            let asked = match self.session.handle_bytes(now, &mut input) {
                None => return self.count_gathered(now),
                Some(Event::Turn) => {
                    self.count_gathered(now);
                    uring::yield_now().await;
                    turn = Instant::now();
                    continue;
                }
                Some(Event::Text(text)) if text.len() > bytes_max => {
                    Err(Refused::message(None, too_long(text.len(), bytes_max)))
                }
                Some(Event::Text(text)) if text.len() > READ_HERE_BYTES_MAX => {
                    let text = text.to_vec();
                    self.read_long(text).await
                }
                Some(Event::Text(text)) => op::parse(text, &self.node.shared.config),
                Some(Event::Binary(_)) => {
                    let text = "an op is a text message, not a binary one";
                    Err(Refused::message(None, ApiError::new(ApiCode::InvalidJson, text)))
                }
                Some(_) => continue,
            };
            self.node.observe.count(Counter::WsMessages(Way::In));
            match asked {
                Ok(op) => self.obey(op, came).await,
                Err(refused) => self.refuse_unread(refused, came).await,
            }
            if turn.elapsed() > TURN {
                uring::yield_now().await;
                turn = Instant::now();
            }
        }
    }

    /// Reads an op beside the loop.
    async fn read_long(&self, mut text: Vec<u8>) -> Result<Op, Refused> {
        let (bytes, shared) = (text.len(), Arc::clone(&self.node.shared));
        let read = move || op::parse(&mut text, &shared.config);
        let read = self.node.shared.reading.read(bytes, READ_HERE_BYTES_MAX, read).await;
        read.unwrap_or_else(|error| Err(Refused::state(None, error)))
    }

    /// Counts what is gathered of a message among all that this core gathers, and gives it up where it
    /// is too much for all.
    fn count_gathered(&mut self, now: Instant) {
        let bytes = self.session.gathered_bytes();
        let grows = bytes > self.gathered.bytes;
        if grows && self.gathered.set(bytes) > WS_GATHERED_BYTES_MAX {
            tracing::debug!("a WebSocket's message has no room");
            self.session.refuse_message(now);
        }
        self.gathered.set(self.session.gathered_bytes());
    }

    /// How long the client may take nothing: what the least patient of its streams says.
    fn stall(&self) -> Duration {
        let own = Duration::from_millis(self.node.shared.config.write_stall_ms);
        self.streams.iter().map(|it| it.stream().birth.patience.stall).min().unwrap_or(own)
    }

    /// Time has passed while a send was under way.
    fn handle_time(&mut self, stalled: Instant) -> Result<(), Gone> {
        let now = Instant::now();
        self.session.handle_timeout(now);
        let cut = matches!(self.session.status(), Status::Cut(_));
        if cut || now >= stalled { self.cut() } else { Ok(()) }
    }

    fn handle_sent(&mut self, begun: Instant, sent: usize) -> Result<(), Gone> {
        let now = Instant::now();
        let observe = &self.node.observe;
        observe.add(Counter::BytesOut, sent as u64);
        self.peer.charge(now, sent);
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        let pressed = outbox.handle_sent(now, sent, begun);
        let stats = outbox.stats(&self.node);
        for attached in &mut self.streams {
            attached.publish(&stats, sent);
            attached.marks.measure(&self.node, now, false);
        }
        self.leaving.drain(..).for_each(|mut marks| marks.measure(&self.node, now, true));
        if !pressed {
            outbox.pressed_since = None;
            return Ok(());
        }
        let since = *outbox.pressed_since.get_or_insert(now);
        let patience = self.streams.iter().map(|attached| attached.stream().birth.patience);
        match patience.filter(|it| it.cut_slow).map(|it| it.stall).min() {
            Some(stall) if now >= since + stall => self.cut(),
            _ => Ok(()),
        }
    }

    /// Cuts off a client that takes nothing: what is queued in the kernel goes, too.
    fn cut(&self) -> Result<(), Gone> {
        let _ = self.socket.set_linger_zero();
        Err(Gone)
    }
}

fn too_long(bytes: usize, most: usize) -> ApiError {
    let message = format!("{bytes} bytes, maximum {most}");
    ApiError::new(ApiCode::PayloadTooLarge, message)
}

/// The future, or a wait for ever.
async fn when<F: Future>(wanted: bool, future: F) -> F::Output {
    if wanted { future.await } else { pending().await }
}
