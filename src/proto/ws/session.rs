//! One WebSocket connection after its handshake.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::close::{CloseCode, Violation, close_payload, parse_close};
use super::deflate::{Deflater, Inflater};
use super::event::{CutReason, Event, MessageKind, Outgoing, SendError, Status};
use super::extension::Agreement;
use super::frame::{self, Frame, FrameHead, FrameKind, HEADER_BYTES_MAX};
use super::mask::unmask;
use super::transmit::Transmit;
use super::utf8::Utf8Check;
use crate::limits::{
    BODY_BYTES_PER_S_MIN, WS_FRAGMENTS_MAX, WS_INFLATE_PIECE_BYTES, WS_INFLATE_TURN_BYTES,
    WS_MESSAGE_BYTES_MAX,
};

/// Bytes of the message buffer that are kept from one message to the next.
const KEPT_BYTES_MAX: usize = 2 * 1024;

/// Limits and times of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a received message, before and after inflating; above it close code 1009.
    pub message_bytes_max: usize,
    /// Fragments of a received message before the frame that ends it; above it close code 1009.
    pub fragments_max: usize,
    /// Time for a message from its first frame to its last, beside a second for each
    /// [`BODY_BYTES_PER_S_MIN`] bytes that have come; above it close code 1008.
    pub message_timeout: Duration,
    /// Time between two pings of ours.
    pub ping_interval: Duration,
    /// Pings in a row after which nothing at all came back, before the peer is cut.
    pub silent_pings_max: u8,
    /// Time for the peer to finish the closing handshake, and then to close the socket.
    pub close_timeout: Duration,
    /// How to compress where the handshake agreed on it.
    pub deflate: DeflateConfig,
}

/// Which messages to compress, and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateConfig {
    /// zlib's level, 1 to 9.
    pub level: u8,
    /// Messages below this many bytes go as they are: they gain nothing.
    pub bytes_min: usize,
    /// Messages above this many bytes go as they are: they would hold up the loop.
    pub bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            message_bytes_max: WS_MESSAGE_BYTES_MAX,
            fragments_max: WS_FRAGMENTS_MAX,
            message_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            silent_pings_max: 2,
            close_timeout: Duration::from_secs(5),
            deflate: DeflateConfig { level: 3, bytes_min: 256, bytes_max: 64 * 1024 },
        }
    }
}

/// One WebSocket connection, server side, without socket and clock.
///
/// 1. Give received bytes to [`handle_bytes`](Self::handle_bytes) until it returns `None`.
/// 2. Put a message's frame head before its parts with [`send`](Self::send).
/// 3. After both, write what [`poll_transmit`](Self::poll_transmit) has, behind messages already
///    queued, and look at [`status`](Self::status).
/// 4. At the instant of [`poll_timeout`](Self::poll_timeout) call
///    [`handle_timeout`](Self::handle_timeout), at end of file
///    [`handle_eof`](Self::handle_eof).
///
/// A peer is judged silent by what is *read*: reading must go on while sending is stalled.
///
/// Memory: nothing is allocated for messages that arrive in one piece. A message in pieces is
/// gathered in a buffer that grows with what has arrived, never with what was announced.
/// Compression state exists from the first compressed message on; it lives as long as the
/// connection where context takeover is agreed, else until the connection is quiet.
#[derive(Debug)]
pub struct Session {
    config: Config,
    agreement: Option<Agreement>,
    status: Status,
    /// The start of a header that has not arrived whole: fewer than 14 bytes.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    frame: Option<Current>,
    message: Option<Message>,
    /// The message in progress as far as it is gathered; after its event, the message delivered.
    buffer: Vec<u8>,
    /// The same for a control frame's payload.
    control: Vec<u8>,
    delivered: bool,
    /// Bytes that this turn's messages were inflated to.
    inflated: usize,
    utf8: Utf8Check,
    inflater: Option<Box<Inflater>>,
    deflater: Option<Box<Deflater>>,
    transmit: Transmit,
    /// Open: when the next ping is due. Closing, Draining: when patience ends.
    timer: Instant,
    /// Anything was read since the last ping.
    heard: bool,
    silent_pings: u8,
    pings: u32,
}

/// The frame whose payload is arriving; `done <= length`.
#[derive(Debug, Clone, Copy)]
struct Current {
    kind: FrameKind,
    is_final: bool,
    mask: [u8; 4],
    length: usize,
    done: usize,
}

/// The message whose fragments are arriving.
#[derive(Debug, Clone, Copy)]
struct Message {
    kind: MessageKind,
    compressed: bool,
    fragments: usize,
    /// Bytes of payload announced by its frames so far.
    wire_bytes: u64,
    since: Instant,
    /// Bytes of payload that have come.
    come: u64,
}

/// A frame or message that is whole. `payload` is `None` if it was gathered in the session.
struct Whole<'i> {
    kind: FrameKind,
    payload: Option<&'i mut [u8]>,
}

/// What the input holds next.
enum Step<'i> {
    /// Nothing whole: more input is needed.
    Dry,
    Turn,
    Whole(Whole<'i>),
}

impl Session {
    /// A session right after its handshake, with what was agreed there.
    #[must_use]
    pub fn new(now: Instant, config: Config, agreement: Option<Agreement>) -> Self {
        Self {
            config,
            agreement,
            status: Status::Open,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            message: None,
            buffer: Vec::new(),
            control: Vec::new(),
            delivered: false,
            inflated: 0,
            utf8: Utf8Check::default(),
            inflater: None,
            deflater: None,
            transmit: Transmit::default(),
            timer: now + config.ping_interval,
            heard: true,
            silent_pings: 0,
            pings: 0,
        }
    }

    /// Where the connection stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Takes bytes off the front of `input` up to the next event, and unmasks them in place.
    ///
    /// `None` means that `input` is used up. Between two events the caller may stop and come back
    /// with the same rest.
    pub fn handle_bytes<'s, 'i: 's>(
        &'s mut self,
        now: Instant,
        input: &mut &'i mut [u8],
    ) -> Option<Event<'s>> {
        self.heard |= !input.is_empty();
        self.forget_delivered();
        if !matches!(self.status, Status::Open | Status::Closing) {
            *input = &mut [];
            self.release();
            return None;
        }
        self.inflated = 0;
        let whole = match self.next_whole(now, input) {
            Ok(Step::Whole(whole)) => whole,
            Ok(Step::Dry) => return None,
            Ok(Step::Turn) => return Some(Event::Turn),
            Err(violation) => return Some(self.fail(now, violation)),
        };
        self.delivered = true;
        if let Err(violation) = self.obey(now, &whole) {
            return Some(self.fail(now, violation));
        }
        let gathered = match whole.kind {
            FrameKind::Text | FrameKind::Binary | FrameKind::Continuation => &mut self.buffer,
            FrameKind::Close | FrameKind::Ping | FrameKind::Pong => &mut self.control,
        };
        let payload = whole.payload.unwrap_or(gathered);
        Some(match whole.kind {
            FrameKind::Text => Event::Text(payload),
            FrameKind::Binary | FrameKind::Continuation => Event::Binary(payload),
            FrameKind::Ping => Event::Ping(payload),
            FrameKind::Pong => Event::Pong(payload),
            FrameKind::Close => {
                let (code, reason) = parse_close(payload).expect("it was obeyed");
                Event::Close(code, reason)
            }
        })
    }

    /// The peer has closed its side of the socket.
    pub fn handle_eof(&mut self) {
        self.cut(match self.status {
            Status::Draining => CutReason::Finished,
            _ => CutReason::PeerGone,
        });
    }

    /// The instant of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.message_due().is_some_and(|due| due <= now) {
            self.fail(now, Violation::MessageTooSlow);
        }
        if now < self.timer {
            return;
        }
        match self.status {
            Status::Cut(_) => {}
            Status::Closing | Status::Draining => self.cut(CutReason::CloseTimeout),
            Status::Open => self.ping(now),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.message_due().map_or(self.timer, |due| due.min(self.timer));
        (!matches!(self.status, Status::Cut(_))).then_some(timer)
    }

    /// When the message in progress must be whole.
    fn message_due(&self) -> Option<Instant> {
        let message = self.message.filter(|_| self.status == Status::Open)?;
        let slow = Duration::from_secs(message.come / BODY_BYTES_PER_S_MIN);
        message.since.checked_add(self.config.message_timeout + slow)
    }

    /// Bytes of heap that the message in progress holds.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        if self.message.is_some() { self.buffer.capacity() } else { 0 }
    }

    /// There is no room for the message in progress: closes with 1013.
    pub fn refuse_message(&mut self, now: Instant) {
        self.fail(now, Violation::NoRoom);
    }

    /// Control frames to write, whole and in order. They may go between any two frames.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.take()
    }

    /// Frames a message that is given in parts, as head, shared document and tail.
    ///
    /// Without compression no byte of the message is copied or looked at: it goes out as the
    /// returned head followed by the same parts. A text must be UTF-8, which is the caller's word.
    /// What a message is compressed into is left in `scratch`.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] once the session closes: RFC 6455 §5.5.1 allows no data after a Close.
    pub fn send(
        &mut self,
        kind: MessageKind,
        parts: &[&[u8]],
        scratch: &mut Vec<u8>,
    ) -> Result<Outgoing, SendError> {
        if self.status != Status::Open {
            return Err(SendError::Closed);
        }
        let length = parts.iter().map(|part| part.len()).sum();
        let kind = match kind {
            MessageKind::Text => FrameKind::Text,
            MessageKind::Binary => FrameKind::Binary,
        };
        let DeflateConfig { level, bytes_min, bytes_max } = self.config.deflate;
        if let Some(agreement) = &self.agreement
            && length > 0
            && (bytes_min..=bytes_max).contains(&length)
        {
            let new = || Box::new(Deflater::new(agreement, level));
            let deflater = self.deflater.get_or_insert_with(new);
            deflater.message_into(parts, scratch).ok_or(SendError::Deflate)?;
            // Without context takeover the peer need not see what did not get smaller.
            if scratch.len() < length || agreement.server_context_takeover {
                return Ok(Outgoing {
                    head: FrameHead::new(kind, true, scratch.len()),
                    deflated: true,
                });
            }
        }
        Ok(Outgoing { head: FrameHead::new(kind, false, length), deflated: false })
    }

    /// Starts the closing handshake; does nothing if it has started. A reason above 123 bytes is
    /// cut.
    pub fn close(&mut self, now: Instant, code: CloseCode, reason: &str) {
        if self.status == Status::Open {
            self.transmit.push(FrameKind::Close, &close_payload(code, reason));
            self.enter(now, Status::Closing);
        }
    }

    /// Bytes of heap that the session holds, with an estimate of zlib's state.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let bits = self.agreement.as_ref().map_or(0, |agreement| agreement.server_window_bits);
        let deflater = (200 << 10) + (4usize << bits);
        self.buffer.capacity()
            + self.control.capacity()
            + self.transmit.heap_bytes()
            + self.inflater.as_ref().map_or(0, |_| 48 << 10)
            + self.deflater.as_ref().map_or(0, |_| deflater)
    }

    /// Reads frames until a message or a control frame is whole.
    fn next_whole<'i>(
        &mut self,
        now: Instant,
        input: &mut &'i mut [u8],
    ) -> Result<Step<'i>, Violation> {
        loop {
            let Some(mut frame) = self.frame else {
                let Some(header) = self.next_header(input)? else { return Ok(Step::Dry) };
                self.frame = Some(self.begin(now, &header)?);
                continue;
            };
            let mut take = input.len().min(frame.length - frame.done);
            if take == 0 && frame.done < frame.length {
                return Ok(Step::Dry);
            }
            if let Some(message) = self.message.as_mut().filter(|_| frame.kind.is_data()) {
                // A few bytes at a time: each may become a thousand.
                take = if message.compressed { take.min(WS_INFLATE_PIECE_BYTES) } else { take };
                message.come += take as u64;
            }
            let piece = input.split_off_mut(..take).expect("take is within input");
            unmask(piece, frame.mask, frame.done);
            frame.done += take;
            let ends = frame.done == frame.length;
            self.frame = (!ends).then_some(frame);
            let whole = match frame.kind {
                FrameKind::Close | FrameKind::Ping | FrameKind::Pong => {
                    self.control_piece(frame.kind, piece, ends)
                }
                _ => self.data_piece(piece, ends && frame.is_final)?,
            };
            if let Some(whole) = whole {
                return Ok(Step::Whole(whole));
            }
            if self.inflated >= WS_INFLATE_TURN_BYTES {
                return Ok(Step::Turn);
            }
        }
    }

    /// Parses a header off `input`, keeping its start if its end has not arrived.
    fn next_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, Violation> {
        let deflate = self.agreement.is_some();
        let kept = self.header_len;
        let take = input.len().min(HEADER_BYTES_MAX - kept);
        self.header[kept..kept + take].copy_from_slice(&input[..take]);
        let parsed = frame::parse(&self.header[..kept + take], deflate)?;
        let used = parsed.as_ref().map_or(take, |(_, length)| length - kept);
        input.split_off_mut(..used).expect("used is within input");
        self.header_len = if parsed.is_some() { 0 } else { kept + take };
        Ok(parsed.map(|(frame, _)| frame))
    }

    /// Holds a frame's header against the message in progress and the limits.
    fn begin(&mut self, now: Instant, frame: &Frame) -> Result<Current, Violation> {
        let &Frame { kind, is_final, compressed, length, mask } = frame;
        let kind_of_message = match kind {
            FrameKind::Text => Some(MessageKind::Text),
            FrameKind::Binary => Some(MessageKind::Binary),
            _ => None,
        };
        match (kind_of_message, kind, &mut self.message) {
            (Some(_), _, Some(_)) => return Err(Violation::InterleavedMessage),
            (Some(kind), _, None) => {
                let (since, wire_bytes, come) = (now, 0, 0);
                let message = Message { kind, compressed, fragments: 0, wire_bytes, since, come };
                self.message = Some(message);
            }
            (None, FrameKind::Continuation, None) => return Err(Violation::LoneContinuation),
            (None, ..) => {}
        }
        if let Some(message) = &mut self.message
            && (kind_of_message.is_some() || kind == FrameKind::Continuation)
        {
            message.fragments += usize::from(!is_final);
            if message.fragments > self.config.fragments_max {
                return Err(Violation::TooManyFragments);
            }
            message.wire_bytes = message.wire_bytes.saturating_add(length);
            // Data that does not compress grows by the headers of its stored blocks.
            let max = self.config.message_bytes_max;
            let slack = if message.compressed { max / 64 + 1024 } else { 0 };
            if message.wire_bytes > (max + slack) as u64 {
                return Err(Violation::MessageTooBig);
            }
        }
        let length = usize::try_from(length).map_err(|_| Violation::MessageTooBig)?;
        Ok(Current { kind, is_final, mask, length, done: 0 })
    }

    fn control_piece<'i>(
        &mut self,
        kind: FrameKind,
        piece: &'i mut [u8],
        ends: bool,
    ) -> Option<Whole<'i>> {
        if ends && self.control.is_empty() {
            return Some(Whole { kind, payload: Some(piece) });
        }
        self.control.extend_from_slice(piece);
        ends.then_some(Whole { kind, payload: None })
    }

    fn data_piece<'i>(
        &mut self,
        piece: &'i mut [u8],
        ends: bool,
    ) -> Result<Option<Whole<'i>>, Violation> {
        let message = self.message.expect("a data frame began a message or goes on with one");
        let (kind, is_text) = match message.kind {
            MessageKind::Text => (FrameKind::Text, true),
            MessageKind::Binary => (FrameKind::Binary, false),
        };
        let Self { utf8, buffer, config, inflated, .. } = self;
        let mut check = |bytes: &[u8]| {
            if is_text { utf8.push(bytes).map_err(|_| Violation::InvalidUtf8) } else { Ok(()) }
        };
        let mut payload = None;
        if message.compressed {
            let agreement = self.agreement.as_ref().expect("RSV1 needs an agreement");
            let new = || Box::new(Inflater::new(agreement));
            let inflater = self.inflater.get_or_insert_with(new);
            let before = buffer.len();
            inflater.push(piece, buffer, config.message_bytes_max, &mut check)?;
            *inflated += buffer.len() - before;
            if ends {
                inflater.finish(buffer, config.message_bytes_max, &mut check)?;
            }
        } else {
            check(piece)?;
            if ends && buffer.is_empty() {
                payload = Some(piece);
            } else {
                buffer.extend_from_slice(piece);
            }
        }
        if !ends {
            return Ok(None);
        }
        self.message = None;
        if is_text {
            self.utf8.finish().map_err(|_| Violation::InvalidUtf8)?;
        }
        Ok(Some(Whole { kind, payload }))
    }

    /// Does what a control frame demands of us.
    fn obey(&mut self, now: Instant, whole: &Whole<'_>) -> Result<(), Violation> {
        let payload = whole.payload.as_deref().unwrap_or(&self.control);
        match whole.kind {
            // Nothing of ours follows our Close.
            FrameKind::Ping if self.status == Status::Open => self.transmit.push_pong(payload),
            FrameKind::Close => {
                let (code, _) = parse_close(payload)?;
                if self.status == Status::Open {
                    // RFC 6455 §5.5.1: answer with the code received.
                    let echo = code.map(|code| code.get().to_be_bytes());
                    let echo = echo.as_ref().map_or(&[][..], |code| code);
                    self.transmit.push(FrameKind::Close, echo);
                }
                self.enter(now, Status::Draining);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 6455 §7.1.7: fail the connection.
    fn fail(&mut self, now: Instant, violation: Violation) -> Event<'static> {
        if self.status == Status::Open {
            let payload = close_payload(violation.code(), &violation.to_string());
            self.transmit.push(FrameKind::Close, &payload);
        }
        self.enter(now, Status::Draining);
        self.release();
        Event::Violation(violation)
    }

    fn enter(&mut self, now: Instant, status: Status) {
        self.status = status;
        self.timer = now + self.config.close_timeout;
    }

    fn cut(&mut self, reason: CutReason) {
        if !matches!(self.status, Status::Cut(_)) {
            self.status = Status::Cut(reason);
            self.release();
        }
    }

    fn ping(&mut self, now: Instant) {
        self.silent_pings = if self.heard { 0 } else { self.silent_pings + 1 };
        if self.silent_pings >= self.config.silent_pings_max {
            return self.cut(CutReason::PeerSilent);
        }
        self.heard = false;
        self.timer = now + self.config.ping_interval;
        self.pings = self.pings.wrapping_add(1);
        self.transmit.push(FrameKind::Ping, &self.pings.to_be_bytes());
        self.release_idle();
    }

    /// The delivered payload's borrow has ended.
    fn forget_delivered(&mut self) {
        if std::mem::take(&mut self.delivered) {
            self.control.clear();
            if self.message.is_none() {
                self.buffer.clear();
                self.buffer.shrink_to(KEPT_BYTES_MAX);
            }
        }
    }

    /// Frees what a quiet connection does not need; a ping does so by itself.
    pub fn release_idle(&mut self) {
        self.forget_delivered();
        if self.message.is_none() {
            self.buffer = Vec::new();
            self.inflater.take_if(|_| self.agreement.is_some_and(|a| !a.client_context_takeover));
        }
        if self.control.is_empty() {
            self.control = Vec::new();
        }
        self.deflater.take_if(|_| self.agreement.is_some_and(|a| !a.server_context_takeover));
    }

    /// Frees everything: no message will be read or sent any more.
    fn release(&mut self) {
        self.message = None;
        self.frame = None;
        (self.buffer, self.control) = (Vec::new(), Vec::new());
        (self.inflater, self.deflater) = (None, None);
    }
}
