//! Spans of sampled requests (OpenTelemetry): what a loop writes down and hands over, without waiting,
//! to whoever exports them.
//!
//! A request has one, its stream one below it, and each page that is fetched one below that. Where
//! nothing is exported, nothing is begun.

use super::traceparent::TraceContext;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{self, Receiver, Sender};
use ulid::Ulid;

/// What a span is of; the numbers are OTLP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work of our own.
    Internal = 1,
    /// A client's request.
    Server = 2,
    /// A request of ours.
    Client = 3,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(u64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Names and values, in the words of the semantic conventions where they have any.
pub type Attributes = Vec<(&'static str, Value)>;

/// A part of a span's time: one of a page's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The stage.
    pub name: &'static str,
    /// When it ended, from the span's start on.
    pub ended: Duration,
    /// How long it took.
    pub took: Duration,
}

/// Something that has ended, for a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace, and the span's own id.
    pub context: TraceContext,
    /// The span that it is part of; all zero where it begins a trace.
    pub parent: [u8; 8],
    /// Whether that one is another process'.
    pub parent_is_remote: bool,
    /// What it is of.
    pub kind: Kind,
    /// What it is called.
    pub name: Cow<'static, str>,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What is known of it.
    pub attributes: Attributes,
    /// Its stages.
    pub parts: Vec<Part>,
    /// What went wrong, where something did.
    pub error: Option<Cow<'static, str>>,
}

/// A request that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The trace, and the request's own span.
    pub context: TraceContext,
    /// The client's span; all zero where the trace begins here.
    pub parent: [u8; 8],
}

/// Part of all traces, from 0 to 1, that a server begins by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// Every trace.
    pub const ALL: Self = Self(1.0);

    /// A ratio; `None` for what is none.
    #[must_use]
    pub fn new(part: f64) -> Option<Self> {
        (0.0..=1.0).contains(&part).then_some(Self(part))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether a trace with this id is among them: by its last 53 bits, which are random (W3C Trace
    /// Context Level 2, §3.2.2.5), so that every server with this ratio decides alike.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    fn takes(self, trace_id: u128) -> bool {
        let random = (trace_id & ((1 << 53) - 1)) as f64;
        random < self.0 * (1_u64 << 53) as f64
    }
}

/// How exporting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing is exported.
    Off,
    /// Nothing has been sent yet.
    Waiting,
    /// The collector took what came last.
    Up,
    /// It did not.
    Down,
}

impl Health {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What is exported, each by itself: a collector may take one and not the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Traces, Self::Metrics];

    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// How the messages of one signal go.
#[derive(Debug, Default)]
pub struct Way {
    health: AtomicU8,
    /// Messages that the collector took.
    pub taken: AtomicU64,
    /// Messages that it did not take.
    pub failed: AtomicU64,
}

/// What has been counted of exporting; read by anybody.
#[derive(Debug, Default)]
pub struct Gauges {
    ways: [Way; 2],
    /// Spans that the collector took.
    pub sent: AtomicU64,
    /// Spans for which there was no room.
    pub dropped: AtomicU64,
    /// Spans that the collector refused for good.
    pub refused: AtomicU64,
}

impl Gauges {
    /// What is counted of one signal's messages.
    #[must_use]
    pub const fn way(&self, signal: Signal) -> &Way {
        &self.ways[signal as usize]
    }

    /// What came of a message.
    pub fn note(&self, signal: Signal, taken: bool) {
        let way = self.way(signal);
        let (health, count) = if taken { (1, &way.taken) } else { (2, &way.failed) };
        way.health.store(health, Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where the loops hand over their spans.
#[derive(Debug, Default)]
pub struct Spans {
    to: Option<(Sender<Span>, f64)>,
    /// How exporting goes.
    pub gauges: Gauges,
}

impl Spans {
    /// A queue for that many spans.
    #[must_use]
    pub fn open(ratio: Ratio, queue: usize) -> (Self, Receiver<Span>) {
        let (to, from) = mpsc::channel(queue);
        (Self { to: Some((to, ratio.0)), gauges: Gauges::default() }, from)
    }

    /// Whether anything is exported.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// How exporting goes: down where one signal is.
    #[must_use]
    pub fn health(&self) -> Health {
        let all = Signal::ALL.map(|signal| self.health_of(signal));
        let worst = [Health::Off, Health::Down, Health::Up];
        worst.into_iter().find(|health| all.contains(health)).unwrap_or(Health::Waiting)
    }

    /// How the export of one signal goes.
    #[must_use]
    pub fn health_of(&self, signal: Signal) -> Health {
        match (&self.to, self.gauges.way(signal).health.load(Ordering::Relaxed)) {
            (None, _) => Health::Off,
            (_, 0) => Health::Waiting,
            (_, 1) => Health::Up,
            _ => Health::Down,
        }
    }

    /// A request comes: `None` if it is not to be recorded. The client's word counts where it gives
    /// one, the ratio for the others.
    #[must_use]
    pub fn begin(&self, client: Option<&TraceContext>) -> Option<Begun> {
        let ratio = Ratio(self.to.as_ref()?.1);
        // Ids that nobody has to guess: 80 random bits each.
        let [first, second] = [Ulid::generate().random(), Ulid::generate().random()];
        let span_id = u64::try_from(first >> 16).unwrap_or(1);
        match client {
            Some(client) => client
                .sampled
                .then(|| Begun { context: client.child(span_id), parent: client.parent_id }),
            None => {
                let trace_id = first << 64 ^ second;
                let context = TraceContext::root(trace_id, span_id, true);
                ratio.takes(trace_id).then_some(Begun { context, parent: [0; 8] })
            }
        }
    }

    /// Hands a span over. One for which there is no room is dropped and counted.
    pub fn send(&self, span: Span) {
        let Some((to, _)) = &self.to else { return };
        if to.try_send(span).is_err() {
            self.gauges.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn ratio(part: f64) -> Ratio {
        Ratio::new(part).unwrap()
    }

    #[test]
    fn the_clients_word_counts_and_then_the_ratio() {
        let client = TraceContext::root(7, 9, true);
        let (none, _from) = Spans::open(ratio(0.0), 1);
        let begun = none.begin(Some(&client)).unwrap();
        assert_eq!((begun.context.trace_id, begun.parent), (client.trace_id, client.parent_id));
        assert_ne!(begun.context.parent_id, client.parent_id);
        assert_eq!(none.begin(None), None);
        let (all, _from) = Spans::open(Ratio::ALL, 1);
        assert_eq!(all.begin(Some(&TraceContext { sampled: false, ..client })), None);
        let (one, other) = (all.begin(None).unwrap(), all.begin(None).unwrap());
        assert_ne!(one.context.trace_id, other.context.trace_id);
        assert!(one.context.sampled && one.parent == [0; 8]);
        assert_eq!(Spans::default().begin(Some(&client)), None, "off is off");
        let (half, _from) = Spans::open(ratio(0.5), 1);
        let taken = (0..2000).filter(|_| half.begin(None).is_some()).count();
        assert!((800..1200).contains(&taken), "{taken}");
    }

    #[test]
    fn what_has_no_room_is_counted_and_nobody_waits() {
        let (spans, mut from) = Spans::open(Ratio::ALL, 2);
        let span = Span {
            context: TraceContext::root(1, 2, true),
            parent: [0; 8],
            parent_is_remote: false,
            kind: Kind::Server,
            name: "a".into(),
            started: SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            parts: Vec::new(),
            error: None,
        };
        (0..5).for_each(|_| spans.send(span.clone()));
        assert_eq!(spans.gauges.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(from.try_recv().unwrap(), span);
        assert_eq!(spans.health(), Health::Waiting);
        spans.gauges.note(Signal::Traces, true);
        assert_eq!(spans.health(), Health::Up);
        spans.gauges.note(Signal::Metrics, false);
        assert_eq!(spans.health(), Health::Down);
        assert_eq!(spans.health_of(Signal::Traces), Health::Up, "one does not speak for the other");
        assert_eq!(Spans::default().health(), Health::Off);
    }

    #[test]
    fn a_ratio_is_a_part_of_all() {
        assert_eq!([1.1, -0.1, f64::NAN].map(Ratio::new), [None; 3]);
        assert!(Ratio::ALL.takes(u128::MAX) && !ratio(0.0).takes(0));
        assert!(ratio(0.5).takes(1) && !ratio(0.5).takes(1 << 52));
    }
}
