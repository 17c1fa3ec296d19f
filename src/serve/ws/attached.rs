//! One stream on a socket: its place in the log, its credit and its turn.

use super::super::access::peer::Noted;
use super::super::sender::{Reader, event_kind};
use super::super::slow;
use crate::crawl::node::Node;
use crate::observe::metrics::Counter;
use crate::observe::series::{Endpoint, Key, Measure};
use crate::proto::events::{Event, Kind};
use crate::proto::json;
use crate::stream::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use std::rc::Rc;
use std::time::Instant;
use uring::ring::RingStats;

/// Bytes that a stream may send before it is its neighbour's turn.
const QUANTUM_BYTES: i64 = 16 * 1024;

/// How many more results a client wants of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Credit(Option<u64>);

impl Credit {
    /// Adds to the credit; before the first time there is no limit.
    pub(super) fn grant(&mut self, n: u32) {
        self.0 = Some(self.0.unwrap_or(0).saturating_add(u64::from(n)));
    }

    /// No limit any more.
    pub(super) const fn lift(&mut self) {
        self.0 = None;
    }

    /// Results that may still go out; `None` for any number.
    pub(super) const fn left(self) -> Option<u64> {
        self.0
    }

    fn spend(&mut self) {
        self.0 = self.0.map(|left| left.saturating_sub(1));
    }

    fn is_out(self) -> bool {
        self.0 == Some(0)
    }
}

/// See the module.
pub(super) struct Attached {
    /// The client's name for it.
    pub(super) id: Box<str>,
    /// `{"id":"…",`: what stands in front of an event instead of its `{`.
    pub(super) prefix: Bytes,
    pub(super) marks: Marks,
    /// The op that it is sent for, for the audit log.
    pub(super) noted: Option<Noted>,
    /// Bytes of its events so far.
    pub(super) bytes: u64,
    /// The last durable event that was taken for this socket.
    pub(super) taken_seq: Option<u64>,
    credit: Credit,
    reader: Reader,
    /// Whether the stream knows that this reader wants no results.
    starving: bool,
    /// Bytes that may be sent in this turn; deficit round robin (Shreedhar and Varghese, 1995).
    allowance: i64,
    /// Whether anything was taken since [`Attached::tell_taken`].
    taken: bool,
}

/// What of a log there is for a reader.
pub(super) enum Next {
    /// An event; `last` if nothing follows.
    Event { event: Event, last: bool },
    /// Nothing now.
    Nothing,
    /// It is another stream's turn.
    Turn,
}

impl Attached {
    /// A stream that an op of `since` began or took up again.
    pub(super) fn new(id: String, reader: Reader, endpoint: Endpoint, since: Instant) -> Self {
        let mut prefix = BytesMut::with_capacity(id.len() + 16);
        prefix.put_slice(b"{\"id\":");
        json::string(&mut prefix, &id);
        prefix.put_u8(b',');
        Self {
            id: id.into(),
            prefix: prefix.freeze(),
            marks: Marks::new(endpoint, since),
            noted: None,
            bytes: 0,
            taken_seq: None,
            credit: Credit::default(),
            reader,
            starving: false,
            allowance: QUANTUM_BYTES,
            taken: false,
        }
    }

    /// The stream itself.
    pub(super) fn stream(&self) -> &Stream {
        &self.reader.stream
    }

    pub(super) const fn credit(&self) -> Credit {
        self.credit
    }

    /// Changes the credit; the crawl pauses without any, and goes on with some.
    pub(super) fn set_credit(&mut self, node: &Rc<Node>, change: impl FnOnce(&mut Credit)) {
        change(&mut self.credit);
        self.tell_starving(node);
    }

    /// The next event, if it is this stream's turn.
    pub(super) fn next(&mut self, node: &Rc<Node>) -> Next {
        if self.allowance <= 0 {
            self.allowance += QUANTUM_BYTES;
            return Next::Turn;
        }
        let starved = self.credit.is_out();
        let (event, last) = self.reader.take_if(|event| !starved || event.kind != Kind::Result);
        let Some(event) = event else {
            // Who has nothing to say neither saves up nor owes.
            self.allowance = QUANTUM_BYTES;
            return Next::Nothing;
        };
        self.allowance -= i64::try_from(event.len()).unwrap_or(i64::MAX);
        self.bytes += (self.prefix.len() + event.len()) as u64 - 1;
        self.taken = true;
        if event.kind.durable() {
            self.taken_seq = Some(event.seq);
        }
        if event.kind == Kind::Result {
            self.credit.spend();
            self.tell_starving(node);
        }
        self.marks.note(event.kind);
        node.observe.count(Counter::Events(event_kind(event.kind)));
        Next::Event { event, last }
    }

    /// Shows the state of the socket's ring to `GET /streams/{id}`, and what was sent to the stream's
    /// flight recorder.
    pub(super) fn publish(&self, stats: &RingStats, sent: usize) {
        if self.marks.event_ready {
            self.reader.publish(stats, sent, !self.marks.first_sent);
        }
    }

    /// Tells a crawl that waits for its readers that one has caught up.
    pub(super) fn tell_taken(&mut self, node: &Rc<Node>) {
        if std::mem::take(&mut self.taken) && self.stream().paused() {
            node.look_at(self.stream().owner(), self.stream().id());
        }
    }

    fn tell_starving(&mut self, node: &Rc<Node>) {
        let starving = self.credit.is_out();
        if starving != self.starving {
            self.starving = starving;
            self.stream().starve(starving);
            node.look_at(self.stream().owner(), self.stream().id());
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The reader's own end has the crawl look at it again.
        if self.starving {
            self.stream().starve(false);
        }
    }
}

/// Which firsts of a stream were put into the ring, and were measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    endpoint: Endpoint,
    /// When the op came.
    since: Instant,
    last_event: Option<Instant>,
    first_sent: bool,
    result_ready: bool,
    result_sent: bool,
    event_ready: bool,
}

impl Marks {
    const fn new(endpoint: Endpoint, since: Instant) -> Self {
        Self {
            endpoint,
            since,
            last_event: None,
            first_sent: false,
            result_ready: false,
            result_sent: false,
            event_ready: false,
        }
    }

    fn note(&mut self, kind: Kind) {
        self.event_ready = true;
        self.result_ready |= kind == Kind::Result;
    }

    /// Records what a send was the first of.
    pub(super) fn measure(&mut self, node: &Node, now: Instant, over: bool) {
        if !std::mem::take(&mut self.event_ready) {
            return;
        }
        let (since, observe) = (now.saturating_duration_since(self.since), &node.observe);
        let key = |measure| Key::At(self.endpoint, measure);
        if !std::mem::replace(&mut self.first_sent, true) {
            slow::note_stream(node, self.endpoint, self.since, now);
            observe.record(key(Measure::Ttfb), since);
        }
        if self.result_ready && !std::mem::replace(&mut self.result_sent, true) {
            observe.record(key(Measure::Ttfr), since);
        }
        if let Some(last) = self.last_event.replace(now) {
            observe.record(key(Measure::Gap), now.saturating_duration_since(last));
        }
        if over {
            observe.record(key(Measure::Whole), since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_unlimited_until_it_is_used_and_then_counts() {
        let mut credit = Credit::default();
        credit.spend();
        assert_eq!((credit.left(), credit.is_out()), (None, false));
        credit.grant(0);
        assert!(credit.is_out());
        credit.grant(2);
        credit.grant(1);
        credit.spend();
        assert_eq!((credit.left(), credit.is_out()), (Some(2), false));
        credit.spend();
        credit.spend();
        credit.spend();
        assert!(credit.is_out());
        credit.lift();
        assert_eq!(credit.left(), None);
    }
}
