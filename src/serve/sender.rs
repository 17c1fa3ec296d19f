//! Sends a stream to its client: log, ring, one vectored send for all that is ready.
//!
//! A reader takes events from the log only while its ring has room; the log then knows how far it is
//! behind, and the crawl pauses before anything would have to be dropped.

use super::conn::{Conn, Gone};
use super::reply::NO_SNIFFING;
use super::transport::{Encoder, Transport};
use crate::crawl::node::Node;
use crate::crawl::spare::SendMemory;
use crate::local::Notify;
use crate::observe::metrics::{Counter, EventKind, Resized};
use crate::observe::series::{Endpoint, Key, Measure};
use crate::observe::trace::Mark;
use crate::proto::events::Kind;
use crate::proto::h1::{Answer, AnswerBody};
use crate::stream::log::ReaderId;
use crate::stream::state::State;
use crate::stream::{Patience, ReaderGauge, Stream, Watcher};
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uring::net::PeerState;
use uring::ring::{Frame, PushError, Ring, RingStats};
use uring::{Either, select2};

/// How often a client that will say nothing more, or that sent more than we want to hold, is
/// looked at: readability can't tell any more whether it is still there.
const PEER_CHECK: Duration = Duration::from_millis(100);

/// A place in a stream's log, given back when dropped.
pub struct Reader {
    node: Rc<Node>,
    pub(super) stream: Arc<Stream>,
    pub(super) id: ReaderId,
    watcher: Watcher,
    news: Rc<Notify>,
    gauge: Arc<ReaderGauge>,
}

impl Reader {
    /// Joins a stream behind `after`, or at its very beginning.
    pub fn attach(node: &Rc<Node>, stream: &Arc<Stream>, after: Option<u64>) -> Self {
        Self::attach_with(node, stream, after, Rc::default())
    }

    /// As [`Reader::attach`], with a flag that other readers may share.
    pub fn attach_with(
        node: &Rc<Node>,
        stream: &Arc<Stream>,
        after: Option<u64>,
        news: Rc<Notify>,
    ) -> Self {
        let watcher = node.watch(&news);
        let gauge = Arc::<ReaderGauge>::default();
        let id = stream.attach(after, watcher, &gauge);
        Self { node: Rc::clone(node), stream: Arc::clone(stream), id, watcher, news, gauge }
    }

    /// Shows a ring's state to `GET /streams/{id}`, and what was sent to the flight recorder; `first`
    /// if nothing of the stream was sent on this connection before.
    pub(super) fn publish(&self, stats: &RingStats, sent: usize, first: bool) {
        let gauge = &self.gauge;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        gauge.frames.store(small(stats.frames), Ordering::Relaxed);
        gauge.frames_limit.store(small(stats.frames_limit), Ordering::Relaxed);
        gauge.bytes.store(stats.bytes, Ordering::Relaxed);
        gauge.sends.store(stats.sends, Ordering::Relaxed);
        gauge.slow_sends.store(stats.slow_sends, Ordering::Relaxed);
        gauge.grown.store(stats.grown, Ordering::Relaxed);
        gauge.shrunk.store(stats.shrunk, Ordering::Relaxed);
        let mark = if first { Mark::HeadSent } else { Mark::Flushed };
        self.stream.note(|trace, now| trace.stream(now, mark, sent as u64));
    }

    /// Has the stream's core look whether it may go on, now that something was taken.
    pub(super) fn look(&self) {
        self.node.look_at(self.stream.owner(), self.stream.id());
    }

    /// Takes what there is and waits for more, until the stream has ended and nothing of it runs.
    pub async fn skip_to_end(&self) {
        while self.stream.status().state != State::Closed {
            if self.stream.with_log(|log| log.next(self.id)).is_none() {
                self.news.notified().await;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stream.detach(self.id);
        self.node.unwatch(self.watcher);
        self.node.look_at(self.stream.owner(), self.stream.id());
    }
}

/// How a stream is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The framing.
    pub transport: Transport,
    /// What its times count as.
    pub endpoint: Endpoint,
}

/// What a client is known to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// Connected; readability would be news.
    Quiet,
    /// Readability is no news any more: it has sent its end, or more bytes than we read now.
    Known,
}

/// How often a ring has adapted, as far as it is counted.
#[derive(Debug, Default)]
pub(super) struct Adapted {
    grown: u32,
    shrunk: u32,
}

impl Adapted {
    /// Counts what has not been.
    pub(super) fn count(&mut self, node: &Node, stats: &RingStats) {
        let add = |way, now: u32, before: u32| {
            node.observe.add(Counter::RingsResized(way), u64::from(now - before));
        };
        add(Resized::Grown, stats.grown, std::mem::replace(&mut self.grown, stats.grown));
        add(Resized::Shrunk, stats.shrunk, std::mem::replace(&mut self.shrunk, stats.shrunk));
    }
}

struct Sending<'a> {
    conn: &'a mut Conn,
    reader: &'a Reader,
    manner: Manner,
    patience: Patience,
    encoder: Encoder,
    ring: Ring,
    /// What did not fit into the ring.
    held: VecDeque<Frame>,
    /// Whether the memory to send with is lent out: there is nothing to say.
    resting: bool,
    adapted: Adapted,
    /// Whether everything that there will ever be is in the ring.
    complete: bool,
    peer: Peer,
    /// Since when the ring has been above its high watermark.
    pressed_since: Option<Instant>,
    heartbeat_at: Instant,
    marks: Marks,
}

/// Which firsts have been put into the ring, and were measured.
#[derive(Debug, Default)]
struct Marks {
    first_sent: bool,
    result_ready: bool,
    result_sent: bool,
    event_ready: bool,
    last_event: Option<Instant>,
}

/// Answers with a stream, to its end.
///
/// # Errors
/// The client is gone, or was cut off; the stream goes on for its resume window.
pub async fn send(conn: &mut Conn, reader: &Reader, manner: Manner) -> Result<(), Gone> {
    let stream = &reader.stream;
    let id = conn.request_id.clone();
    let mut fields: Vec<(&str, &[u8])> = vec![
        ("Content-Type", manner.transport.content_type().as_bytes()),
        ("Cache-Control", b"no-cache, no-transform"),
        ("X-Accel-Buffering", b"no"),
        NO_SNIFFING,
        ("X-Stream-ID", stream.id_text.as_bytes()),
    ];
    if let Some(id) = &id {
        fields.push(("X-Request-ID", id.as_str().as_bytes()));
    }
    let (answer, head) = conn.start_answer(200, AnswerBody::Stream, &fields)?;
    let mut sending = Sending::new(conn, reader, manner, answer)?;
    // The head goes out in the same send as the first events.
    sending.rise();
    sending.held.push_back(Frame::new().with(head));
    let outcome = sending.run().await;
    let conn = sending.conn;
    outcome?;
    conn.finish_answer().await
}

impl<'a> Sending<'a> {
    fn new(
        conn: &'a mut Conn,
        reader: &'a Reader,
        manner: Manner,
        answer: Answer,
    ) -> Result<Self, Gone> {
        let config = &conn.node.shared.config;
        let heartbeat_at = Instant::now() + Duration::from_millis(config.heartbeat_ms);
        let ring = Ring::new(conn.node.shared.config.ring()).map_err(|bug| {
            tracing::error!("a ring was not made: {bug}");
            Gone
        })?;
        let encoder = Encoder::new(manner.transport, reader.stream.id(), answer.is_chunked());
        Ok(Self {
            encoder,
            conn,
            reader,
            manner,
            patience: reader.stream.birth.patience,
            ring,
            held: VecDeque::new(),
            resting: true,
            adapted: Adapted::default(),
            complete: false,
            peer: Peer::Quiet,
            pressed_since: None,
            heartbeat_at,
            marks: Marks::default(),
        })
    }

    async fn run(&mut self) -> Result<(), Gone> {
        let preamble = self.conn.node.with_frames(|out| self.encoder.preamble(out));
        self.held.extend(preamble);
        // One wait for all rounds: to cancel one and to begin another costs a round in the kernel
        // and an allocation each time.
        let socket = self.conn.socket.clone();
        let mut readable = pin!(socket.readable());
        loop {
            if !self.conn.key_stands() {
                // Who has lost the right to ask has lost the right to the answer.
                return self.cut();
            }
            self.rise();
            let now = Instant::now();
            let owed = self.conn.visit.overdrawn(now);
            match owed {
                None => self.fill(),
                // What is in the log waits there until there are bytes for it, and its crawl with it.
                Some(_) => {
                    self.flush_held();
                }
            }
            self.ring.poll_gather(&mut self.conn.out);
            if !self.conn.out.is_empty() {
                self.send_once().await?;
            } else {
                self.rest();
                if self.complete {
                    return Ok(());
                }
                self.wait(readable.as_mut(), owed.map(|owed| now + owed)).await?;
            }
        }
    }

    /// Gets memory to send with.
    fn rise(&mut self) {
        if std::mem::take(&mut self.resting) {
            let SendMemory { ring, held } = self.conn.node.lend();
            self.ring.equip(ring);
            self.held = held;
            self.conn.rest();
            self.conn.out = self.conn.node.lend_queue();
        }
    }

    /// Lends the memory to others while there is nothing to send.
    fn rest(&mut self) {
        if !self.resting && self.held.is_empty() && self.ring.is_empty() {
            self.resting = true;
            let held = std::mem::take(&mut self.held);
            self.conn.node.take_back(SendMemory { ring: self.ring.lend(), held });
            self.conn.rest();
        }
    }

    /// Takes events from the log while the ring has room.
    fn fill(&mut self) {
        let mut taken = false;
        while self.flush_held() && !self.complete && !self.ring.above_high() {
            let (id, stream) = (self.reader.id, &self.reader.stream);
            let (event, over) = stream.with_log(|log| (log.next(id), log.drained(id)));
            if let Some(event) = event {
                taken = true;
                self.mark(event.kind);
                let node = &self.conn.node;
                node.with_frames(|out| self.encoder.event(out, &event, &mut self.held));
                if !over {
                    continue;
                }
            }
            if over {
                self.held.extend(self.encoder.end());
                self.complete = true;
                self.flush_held();
            }
            break;
        }
        if taken && self.reader.stream.paused() {
            let stream = &self.reader.stream;
            self.reader.node.look_at(stream.owner(), stream.id());
        }
    }

    /// Moves what was held back into the ring; `false` while it has no room.
    fn flush_held(&mut self) -> bool {
        while let Some(frame) = self.held.pop_front() {
            if let Err(PushError::Full(frame) | PushError::TooLarge(frame)) = self.ring.push(frame)
            {
                self.held.push_front(frame);
                return false;
            }
        }
        true
    }

    async fn send_once(&mut self) -> Result<(), Gone> {
        let begun = Instant::now();
        let sending = self.conn.socket.send(&mut self.conn.out);
        let deadline = begun + self.patience.stall;
        let sent = match self.conn.alarm.timeout_at(deadline, sending).await {
            Ok(sent) => sent?,
            Err(_) => return self.cut(),
        };
        let now = Instant::now();
        self.conn.count_sent(sent);
        self.ring.handle_sent(now, sent, now - begun);
        let stats = self.ring.stats();
        self.adapted.count(&self.conn.node, &stats);
        self.reader.publish(&stats, sent, !self.marks.first_sent);
        if !self.marks.first_sent {
            self.conn.note_first_byte(begun, now);
        }
        self.measure(now);
        self.heartbeat_at = now + Duration::from_millis(self.conn.node.shared.config.heartbeat_ms);
        if !self.ring.above_high() {
            self.pressed_since = None;
            return Ok(());
        }
        let since = *self.pressed_since.get_or_insert(now);
        if self.patience.cut_slow && now >= since + self.patience.stall {
            return self.cut();
        }
        Ok(())
    }

    /// Cuts off a client that takes nothing: what is queued in the kernel goes, too.
    fn cut(&self) -> Result<(), Gone> {
        let _ = self.conn.socket.set_linger_zero();
        Err(Gone)
    }

    /// Waits for news, for the time of a heartbeat, until `paid`, or for the client to leave.
    async fn wait(
        &mut self,
        readable: Pin<&mut impl Future<Output = io::Result<()>>>,
        paid: Option<Instant>,
    ) -> Result<(), Gone> {
        let news = self.reader.news.notified();
        let soonest = paid.map_or(self.heartbeat_at, |paid| paid.min(self.heartbeat_at));
        let until = match self.peer {
            Peer::Quiet => soonest,
            Peer::Known => soonest.min(Instant::now() + PEER_CHECK),
        };
        let quiet = uring::time::sleep_until(until);
        let woken = match self.peer {
            Peer::Quiet => {
                let readable = select2(quiet, readable);
                match select2(news, readable).await {
                    Either::Left(()) => return Ok(()),
                    Either::Right(Either::Left(())) => false,
                    Either::Right(Either::Right(readable)) => {
                        readable?;
                        true
                    }
                }
            }
            Peer::Known => match select2(news, quiet).await {
                Either::Left(()) => return Ok(()),
                Either::Right(()) => false,
            },
        };
        if self.conn.socket.peer_state() == PeerState::Gone {
            return Err(Gone);
        }
        if woken {
            self.peer = Peer::Known;
        }
        // A client that has closed answers the next bytes with a reset; one that has only finished
        // sending takes them.
        if woken || Instant::now() >= self.heartbeat_at {
            self.rise();
            let frame = self.conn.node.with_frames(|out| self.encoder.keep_alive(out));
            self.held.push_back(frame);
        }
        Ok(())
    }

    fn mark(&mut self, kind: Kind) {
        self.marks.event_ready = true;
        self.marks.result_ready |= kind == Kind::Result;
        let node = &self.conn.node;
        node.observe.count(Counter::Events(event_kind(kind)));
    }

    /// Records what the last send was the first of.
    fn measure(&mut self, now: Instant) {
        let (marks, observe) = (&mut self.marks, &self.conn.node.observe);
        let since = now.saturating_duration_since(self.conn.since);
        let key = |measure| Key::At(self.manner.endpoint, measure);
        if !std::mem::replace(&mut marks.first_sent, true) {
            observe.record(key(Measure::Ttfb), since);
        }
        if marks.result_ready && !std::mem::replace(&mut marks.result_sent, true) {
            observe.record(key(Measure::Ttfr), since);
        }
        if std::mem::take(&mut marks.event_ready)
            && let Some(last) = marks.last_event.replace(now)
        {
            observe.record(key(Measure::Gap), now.saturating_duration_since(last));
        }
        if self.complete && self.ring.is_empty() {
            observe.record(key(Measure::Whole), since);
        }
    }
}

pub(super) fn event_kind(kind: Kind) -> EventKind {
    match kind {
        Kind::Metadata => EventKind::Metadata,
        Kind::Search => EventKind::Search,
        Kind::Result => EventKind::Result,
        Kind::Gap => EventKind::Gap,
        Kind::Error => EventKind::Error,
        Kind::Summary => EventKind::Summary,
        Kind::Progress => EventKind::Progress,
        Kind::Heartbeat => EventKind::Heartbeat,
    }
}
