//! A reader with moods behind a connection's ring, and what it has a right to see.

use forebay::proto::events::{Event, Kind};
use forebay::stream::log::{Log, ReaderId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use uring::Gather;
use uring::ring::{BufferConfig, Frame, PushError, Ring};

/// Small enough that every bound is met.
fn bounds() -> BufferConfig {
    BufferConfig {
        frames_min: 2,
        frames_start: 4,
        frames_max: 16,
        window_sends: 6,
        slow_sends_max: 1,
        bytes_max: 6_000,
        ..BufferConfig::default()
    }
}

/// One client's view over all its connections.
pub(crate) struct Reader {
    connection: Option<Connection>,
    /// The last durable `seq` taken.
    pub(crate) last: Option<u64>,
    /// `seq` of the durable events taken since the last (re-)attachment, in order.
    pub(crate) gaps: u64,
    pub(crate) finished: bool,
    kinds: Vec<Kind>,
    /// Times that a ring of this reader grew, shrank, refused a frame.
    pub(crate) grown: u64,
    pub(crate) shrunk: u64,
    pub(crate) refused: u64,
}

/// What stands between the log and a client: all that is lost when it is cut.
struct Connection {
    id: ReaderId,
    ring: Ring,
    out: Gather,
    /// What the ring had no room for.
    held: Option<Frame>,
    /// Events given to the ring, with the bytes of each that the client doesn't have yet.
    under_way: VecDeque<(Event, usize)>,
}

impl Connection {
    fn new(id: ReaderId) -> Self {
        let ring = Ring::new(bounds()).unwrap();
        Self { id, ring, out: Gather::new(), held: None, under_way: VecDeque::new() }
    }

    fn give(&mut self, event: Event) {
        let frame =
            Frame::new().with(event.head.clone()).with(event.body.clone()).with(event.tail.clone());
        self.under_way.push_back((event, frame.len()));
        assert!(self.held.replace(frame).is_none(), "one frame is held at most");
        self.flush_held();
    }

    /// False while the ring has no room.
    fn flush_held(&mut self) -> bool {
        let Some(frame) = self.held.take() else { return true };
        match self.ring.push(frame) {
            Ok(()) => true,
            Err(PushError::Full(frame)) => {
                self.held = Some(frame);
                false
            }
            Err(PushError::TooLarge(frame)) => panic!("{} bytes fit into no ring", frame.len()),
        }
    }

    /// Up to `most` events from the log, while there is room.
    fn fill(&mut self, log: &mut Log, most: u64) {
        for _ in 0..most {
            if !self.flush_held() || self.ring.above_high() {
                break;
            }
            let taken = log.take_if(self.id, |_| true);
            assert_eq!(taken.dropped.durable, 0, "nothing durable is dropped");
            let Some(event) = taken.event else { break };
            self.give(event);
        }
        let (stats, bounds) = (self.ring.stats(), bounds());
        assert!(stats.bytes <= bounds.bytes_max && stats.frames <= bounds.frames_max, "{stats:?}");
        assert!((bounds.frames_min..=bounds.frames_max).contains(&stats.frames_limit));
    }

    /// One send, of which the kernel takes `bytes` at most; the events whose last byte is there.
    fn send(&mut self, now: Instant, bytes: usize, took: Duration) -> Vec<Event> {
        self.ring.poll_gather(&mut self.out);
        let sent = bytes.min(self.out.len());
        self.out.advance(sent);
        self.ring.handle_sent(now, sent, took);
        let (mut left, mut came) = (sent, Vec::new());
        while let Some((_, missing)) = self.under_way.front_mut() {
            let part = left.min(*missing);
            *missing -= part;
            left -= part;
            if *missing > 0 {
                break;
            }
            came.extend(self.under_way.pop_front().map(|(event, _)| event));
        }
        assert_eq!(left, 0, "no more is sent than was given");
        came
    }
}

impl Reader {
    pub(crate) fn new(log: &mut Log) -> Self {
        let connection = Some(Connection::new(log.attach(None)));
        Self {
            connection,
            last: None,
            gaps: 0,
            finished: false,
            kinds: Vec::new(),
            grown: 0,
            shrunk: 0,
            refused: 0,
        }
    }

    pub(crate) fn attached(&self) -> bool {
        self.connection.is_some()
    }

    /// The connection is cut: what its ring holds never comes.
    pub(crate) fn detach(&mut self, log: &mut Log) {
        if let Some(connection) = self.connection.take() {
            log.detach(connection.id);
            let stats = connection.ring.stats();
            self.grown += u64::from(stats.grown);
            self.shrunk += u64::from(stats.shrunk);
            self.refused += stats.refused;
        }
    }

    /// Comes back behind what it has, or, when `forget` is set, some events before that.
    pub(crate) fn attach(&mut self, log: &mut Log, forget: u64) {
        assert!(self.connection.is_none());
        self.last = self.last.and_then(|last| last.checked_sub(forget));
        self.connection = Some(Connection::new(log.attach(self.last)));
    }

    /// Takes everything that there is.
    pub(crate) fn read_all(&mut self, log: &mut Log, now: Instant) {
        loop {
            let Some(connection) = &mut self.connection else { return };
            connection.fill(log, u64::MAX);
            let came = connection.send(now, usize::MAX, Duration::ZERO);
            if came.is_empty() {
                break;
            }
            came.iter().for_each(|event| self.take(event));
        }
        self.look_for_end(log);
    }

    /// Up to `most` events go into the ring, and `bytes` at most leave it, in a send that took `took`.
    /// Then the reader wants no result for once; whether it was offered one.
    pub(crate) fn read(
        &mut self,
        log: &mut Log,
        now: Instant,
        most: u64,
        (bytes, took): (usize, Duration),
    ) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        connection.fill(log, most);
        let mut offered = false;
        if connection.held.is_none() {
            let other = log.next_if(connection.id, |event| {
                offered = event.kind == Kind::Result;
                !offered
            });
            if let Some(event) = other {
                assert!(event.kind != Kind::Result, "no result comes unwanted");
                assert!(!offered || !event.kind.durable(), "nothing durable passes a result");
                connection.give(event);
            }
        }
        let came = connection.send(now, bytes, took);
        came.iter().for_each(|event| self.take(event));
        self.look_for_end(log);
        offered
    }

    fn look_for_end(&mut self, log: &mut Log) {
        let Some(connection) = &self.connection else { return };
        self.finished = connection.under_way.is_empty() && log.drained(connection.id);
    }

    fn take(&mut self, event: &Event) {
        assert!(!self.finished, "nothing follows the last event");
        self.kinds.push(event.kind);
        if !event.kind.durable() {
            return;
        }
        let expected = self.last.map_or(0, |last| last + 1);
        if event.kind == Kind::Gap {
            assert!(event.seq >= expected, "a gap covers what is missing");
            self.gaps += 1;
        } else {
            assert_eq!(event.seq, expected, "no holes: {:?}", self.kinds);
            assert_eq!(event.kind == Kind::Metadata, event.seq == 0, "metadata is event 0");
        }
        self.last = Some(event.seq);
    }
}
