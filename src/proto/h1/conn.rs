//! The life of one server connection: what may follow what, when to keep it, and when to give up.
//!
//! ```text
//!           ┌────────────────────────── finish_answer, kept ──────────────────────────┐
//!           ▼                                                                         │
//!  new →  Idle ─ first byte → Head ─ complete → Request ─────── start_answer ───→  Answer
//!          ▲                   │                 │    ▲                            ▲  │ │
//!          │                   │       want_body │    │ body complete              │  │ │
//!          │                   │                 ▼    │                            │  │ │
//!          │                   │                Body ─┴── refused or early ────────┤  │ │
//!          │                   └── refused, 408 ───────────────────────────────────┘  │ │
//!          └──────────── rest of the body read away ──── Drain ◄──────────────────────┘ │
//!                                                          │ too much                   │
//!                                                          ▼                            │
//!  Closed ◄──────────────────────────────────────────── Linger ◄── finish_answer, closing
//!  Request ─ start_upgrade → Upgraded
//! ```
//!
//! Every state falls to `Closed` by [`Connection::abort`], a stalled write or the end of the
//! connection, but a request that is complete is answered although its client has shut down its
//! sending side.

mod event;
mod timeout;

use std::rc::Rc;
use std::time::Instant;

pub use event::{AnswerError, Event, Illegal, Refusal, State, WantBodyError};
pub use timeout::{Action, Timeout, Timeouts};

use super::write::{write_head, write_upgrade};
use super::{
    Answer, AnswerBody, BodyError, BodyReader, CONTINUE, Framing, Method, Reject, Request,
    RequestDecoder, Sink, Version,
};
use crate::limits::{DRAIN_BYTES_MAX, LINGER_BYTES_MAX, PIPELINE_BYTES_MAX};
use crate::proto::chunked::Strictness;

/// The server's side of one connection, without its socket, clock and buffer.
///
/// The caller keeps the bytes that have come and are not done with, and calls in this order:
/// 1. [`Self::handle_bytes`] until [`Event::Request`]; view it with [`Self::request`]; route it.
/// 2. [`Self::want_body`] if the route takes a body, write the interim answer that it gives, then
///    [`Self::handle_bytes`] until [`Event::Body`] is done.
/// 3. [`Self::start_answer`], then the answer's body as [`Answer`] says, then
///    [`Self::finish_answer`].
/// 4. By the state that gives: `Idle`: 1 again, with what is in the buffer, at once. `Drain`:
///    [`Self::handle_bytes`] until `Idle`. `Linger`: shut down the sending side and go on reading
///    and giving bytes until `Closed`. `Closed`: close.
///
/// On [`Refusal`] go to 3 with its code. At any time: read while [`Self::wants_read`], report the
/// end with [`Self::handle_eof`], sleep until [`Self::poll_timeout`] and then call
/// [`Self::handle_timeout`]; tell [`Self::handle_write`] how writing goes.
#[derive(Debug)]
pub struct Connection {
    timeouts: Rc<Timeouts>,
    state: State,
    /// When the state was entered.
    since: Instant,
    decoder: RequestDecoder,
    exchange: Exchange,
    body: Body,
    /// Whether a request was refused or timed out: the answer is the last one.
    refused: bool,
    /// Whether the next answer is to be the last one.
    closing: bool,
    /// Whether the answer in progress lets another request follow.
    keep_alive: bool,
    /// Whether the client has shut down its sending side.
    eof: bool,
    /// Whether no request has been served yet.
    is_new: bool,
    /// Bytes that were read away in the current state.
    dropped_bytes: u64,
    /// The last progress of a write that is not finished.
    writing_since: Option<Instant>,
}

/// What the answer depends on.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    version: Version,
    head_only: bool,
    keep_alive: bool,
}

#[derive(Debug)]
enum Body {
    /// There is none, or it is complete.
    Done,
    /// Not asked for yet.
    Unread {
        framing: Framing,
        expects_continue: bool,
    },
    Reading(BodyReader),
}

impl Exchange {
    /// For an answer to bytes that are no request.
    const UNKNOWN: Self = Self { version: Version::Http11, head_only: false, keep_alive: false };
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(now: Instant, timeouts: impl Into<Rc<Timeouts>>) -> Self {
        Self {
            timeouts: timeouts.into(),
            state: State::Idle,
            since: now,
            decoder: RequestDecoder::new(),
            exchange: Exchange::UNKNOWN,
            body: Body::Done,
            refused: false,
            closing: false,
            keep_alive: false,
            eof: false,
            is_new: true,
            dropped_bytes: 0,
            writing_since: None,
        }
    }

    /// Where the connection stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes the bytes that are not done with. What they were taken for depends on the state, so
    /// call it again after each event until it asks for more or is busy.
    ///
    /// # Errors
    /// [`Refusal`]: start the answer that it asks for.
    pub fn handle_bytes(&mut self, now: Instant, buf: &[u8]) -> Result<Event, Refusal> {
        match self.state {
            State::Idle | State::Head => self.handle_head(now, buf).map_err(Refusal::Head),
            State::Body => self.handle_body(now, buf).map_err(|error| {
                self.refused = true;
                Refusal::Body(error)
            }),
            State::Drain => Ok(self.handle_drain(now, buf)),
            State::Linger => {
                self.dropped_bytes += buf.len() as u64;
                if self.dropped_bytes > LINGER_BYTES_MAX {
                    self.enter(State::Closed, now);
                }
                Ok(Event::Drop { consumed: buf.len() })
            }
            State::Request | State::Answer | State::Upgraded => Ok(Event::Busy),
            State::Closed => Ok(Event::Closed),
        }
    }

    /// The request, in the buffer that completed it, from [`Event::Request`] to
    /// [`Self::finish_answer`] for as long as the caller keeps the head's bytes in place.
    #[must_use]
    pub fn request<'b>(&'b self, buf: &'b [u8]) -> Option<Request<'b>> {
        self.decoder.request(buf)
    }

    /// The route takes a body of at most `bytes_max`. Gives the interim answer to write, if the
    /// client waits for one (RFC 9110 §10.1.1). Without a body the state stays
    /// [`State::Request`]; else it is [`State::Body`] until the body is complete.
    ///
    /// # Errors
    /// [`WantBodyError::Refused`] for a body that announces more than `bytes_max`.
    pub fn want_body(
        &mut self,
        now: Instant,
        bytes_max: u64,
    ) -> Result<Option<&'static [u8]>, WantBodyError> {
        if self.state != State::Request {
            return Err(self.illegal("want_body").into());
        }
        let Body::Unread { framing, expects_continue } = self.body else { return Ok(None) };
        let reader = BodyReader::new(framing, Strictness::Strict, bytes_max).map_err(|error| {
            self.refused = true;
            Refusal::Body(error)
        })?;
        self.body = Body::Reading(reader);
        self.enter(State::Body, now);
        Ok(expects_continue.then_some(CONTINUE))
    }

    /// Bytes still to come of the body that is being read, where its head told.
    #[must_use]
    pub fn body_bytes_left(&self) -> Option<u64> {
        match &self.body {
            Body::Reading(reader) => reader.remaining_bytes(),
            _ => None,
        }
    }

    /// Writes an answer's head and says how its body must be written: nothing if
    /// [`Answer::head_only`], in chunks if [`Answer::is_chunked`], else plainly.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn start_answer(
        &mut self,
        now: Instant,
        sink: &mut impl Sink,
        status: u16,
        body: AnswerBody,
        date: Option<&[u8]>,
        fields: &[(&str, &[u8])],
    ) -> Result<Answer, AnswerError> {
        let possible = match self.state {
            State::Request | State::Body => true,
            State::Head => self.refused,
            _ => false,
        };
        if !possible {
            return Err(self.illegal("start_answer").into());
        }
        let Exchange { version, head_only, keep_alive } = self.exchange;
        // RFC 9112 §9.3: a body that only the end of the connection ends, ends the connection.
        let delimited = body != AnswerBody::Stream || version == Version::Http11;
        let keep_alive = keep_alive
            && delimited
            && !self.refused
            && !self.closing
            && self.body.is_worth_draining();
        let answer = Answer { status, body, version, keep_alive, head_only };
        write_head(sink, &answer, date, fields)?;
        self.keep_alive = keep_alive;
        self.enter(State::Answer, now);
        Ok(answer)
    }

    /// Goes over to another protocol with 101 (RFC 9110 §7.8). The rest of the buffer belongs to it.
    ///
    /// # Errors
    /// [`AnswerError`]; a request with a body can't be upgraded.
    pub fn start_upgrade(
        &mut self,
        now: Instant,
        sink: &mut impl Sink,
        protocol: &str,
        date: Option<&[u8]>,
        fields: &[(&str, &[u8])],
    ) -> Result<(), AnswerError> {
        if self.state != State::Request || !matches!(self.body, Body::Done) {
            return Err(self.illegal("start_upgrade").into());
        }
        write_upgrade(sink, protocol, date, fields)?;
        self.enter(State::Upgraded, now);
        Ok(())
    }

    /// The answer's last byte has been handed to the socket. Gives the state that follows: `Idle`,
    /// `Drain`, `Linger` or `Closed`.
    ///
    /// # Errors
    /// [`Illegal`], if no answer was in progress.
    pub fn finish_answer(&mut self, now: Instant) -> Result<State, Illegal> {
        if self.state != State::Answer {
            return Err(self.illegal("finish_answer"));
        }
        let next = match (self.keep_alive && !self.closing, &self.body) {
            (true, Body::Done) => State::Idle,
            (true, Body::Unread { .. } | Body::Reading(_)) => State::Drain,
            (false, _) if self.eof => State::Closed,
            (false, _) => State::Linger,
        };
        self.enter(next, now);
        Ok(self.state)
    }

    /// The client shut down its sending side; every byte before was given. A complete request is
    /// still answered.
    ///
    /// # Errors
    /// [`Refusal::Body`], if the body was not complete.
    pub fn handle_eof(&mut self, now: Instant) -> Result<(), Refusal> {
        self.eof = true;
        match self.state {
            State::Head if self.refused => {}
            State::Idle | State::Head | State::Drain | State::Linger => {
                self.enter(State::Closed, now);
            }
            State::Body => {
                self.refused = true;
                return Err(Refusal::Body(BodyError::Truncated));
            }
            State::Request | State::Answer | State::Upgraded | State::Closed => {}
        }
        Ok(())
    }

    /// The server is about to stop: the request in progress is the last one, and an idle
    /// connection closes. Gives the state.
    pub fn close_soon(&mut self, now: Instant) -> State {
        self.closing = true;
        if self.state == State::Idle {
            self.enter(State::Closed, now);
        }
        self.state
    }

    /// The connection can't go on: the socket failed, or an answer broke off in its middle.
    pub fn abort(&mut self, now: Instant) {
        self.enter(State::Closed, now);
    }

    /// Whether to read when the caller holds `buffered` bytes that are not done with. While an
    /// answer is in progress that is for pipelined requests and to notice a client that leaves.
    #[must_use]
    pub fn wants_read(&self, buffered: usize) -> bool {
        let room = match self.state {
            State::Idle | State::Head | State::Body | State::Drain | State::Linger => true,
            State::Request | State::Answer => buffered < PIPELINE_BYTES_MAX,
            State::Upgraded | State::Closed => false,
        };
        room && !self.eof
    }

    /// A write began or made progress, and bytes are `pending`; or none are any more.
    pub fn handle_write(&mut self, now: Instant, pending: bool) {
        self.writing_since = pending.then_some(now);
    }

    fn handle_head(&mut self, now: Instant, buf: &[u8]) -> Result<Event, Reject> {
        let head = self.decoder.handle_bytes(buf);
        if self.state == State::Idle && (head != Ok(None) || self.decoder.has_started(buf)) {
            self.enter(State::Head, now);
        }
        let head_len = match head {
            Ok(Some(head_len)) => head_len,
            Ok(None) if self.eof => {
                self.enter(State::Closed, now);
                return Ok(Event::Closed);
            }
            Ok(None) => return Ok(Event::NeedMore),
            Err(reject) => {
                self.refused = true;
                return Err(reject);
            }
        };
        let request = self.decoder.request(buf).expect("the decoder said that it is complete");
        self.exchange = Exchange {
            version: request.version(),
            head_only: request.method() == Method::Head,
            keep_alive: request.keep_alive(),
        };
        self.body = match request.framing() {
            Framing::None | Framing::Length(0) => Body::Done,
            framing => Body::Unread { framing, expects_continue: request.expects_continue() },
        };
        self.enter(State::Request, now);
        Ok(Event::Request { head_len })
    }

    fn handle_body(&mut self, now: Instant, buf: &[u8]) -> Result<Event, BodyError> {
        let Body::Reading(reader) = &mut self.body else { return Ok(Event::Busy) };
        let step = reader.next(buf)?;
        if step.done {
            self.body = Body::Done;
            self.enter(State::Request, now);
        } else if step.consumed == 0 {
            return if self.eof { Err(BodyError::Truncated) } else { Ok(Event::NeedMore) };
        }
        Ok(Event::Body(step))
    }

    /// Reads away what is left of a body; a broken one only means that the connection ends.
    fn handle_drain(&mut self, now: Instant, buf: &[u8]) -> Event {
        if let Body::Unread { framing, .. } = self.body {
            match BodyReader::new(framing, Strictness::Strict, DRAIN_BYTES_MAX) {
                Ok(reader) => self.body = Body::Reading(reader),
                Err(_) => self.enter_linger(now),
            }
        }
        let mut consumed = 0;
        while let (State::Drain, Body::Reading(reader)) = (self.state, &mut self.body) {
            let Ok(step) = reader.next(&buf[consumed..]) else {
                self.enter_linger(now);
                break;
            };
            consumed += step.consumed;
            self.dropped_bytes += step.consumed as u64;
            if step.done {
                self.enter(State::Idle, now);
            } else if self.eof || self.dropped_bytes > DRAIN_BYTES_MAX {
                self.enter_linger(now);
            } else if step.consumed == 0 {
                break;
            }
        }
        if consumed == 0 && self.state == State::Drain {
            return Event::NeedMore;
        }
        Event::Drop { consumed }
    }

    fn enter_linger(&mut self, now: Instant) {
        self.enter(if self.eof { State::Closed } else { State::Linger }, now);
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.dropped_bytes = 0;
        match state {
            State::Idle => {
                self.decoder.reset();
                self.exchange = Exchange::UNKNOWN;
                self.body = Body::Done;
            }
            State::Request => self.is_new = false,
            _ => {}
        }
    }

    fn illegal(&self, call: &'static str) -> Illegal {
        Illegal { call, state: self.state }
    }
}

impl Body {
    /// Whether what is left of the body is small enough to be read away, so that the connection
    /// can be kept. A client that waits for `100 Continue` may or may not send its body after a
    /// final answer (RFC 9110 §10.1.1), so what follows would be in doubt.
    fn is_worth_draining(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Unread { expects_continue: true, .. } => false,
            Self::Unread { framing: Framing::Length(left), .. } => *left <= DRAIN_BYTES_MAX,
            Self::Unread { .. } => true,
            Self::Reading(reader) => {
                reader.remaining_bytes().is_none_or(|left| left <= DRAIN_BYTES_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests;
