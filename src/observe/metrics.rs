//! What a core counts: plain cells, written by its own thread, copied out when somebody asks.
//!
//! No atomics, no shared cache lines: [`Counters::add`] is a load, an add and a store. A counter is
//! named by the enum [`Counter`], so what is counted and how it is called stand in one table.

use super::series::Endpoint;
use crate::error::{ApiCode, PageCode};
use std::cell::Cell;

/// First digit of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the classes of RFC 9110 §15")]
pub enum StatusClass {
    Informational,
    Successful,
    Redirection,
    ClientError,
    ServerError,
}

impl StatusClass {
    /// Every class, in order.
    pub const ALL: [Self; 5] = [
        Self::Informational,
        Self::Successful,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
    ];

    /// The class of a status that we sent; anything odd is a server error.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Successful,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Successful => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// Declares an enum of labels: variants, `ALL`, `as_str`.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of the declaration.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// Why a connection was closed right after accept.
    Reject {
        /// The core has all the connections that it may have.
        Connections = "connections",
        /// The peer's address has all that it may have.
        PerAddress = "per_address",
        /// The server is draining.
        Draining = "draining",
        /// Memory or descriptors have run out.
        Resources = "resources",
    }
}

labels! {
    /// How a stream ended.
    StreamEnd {
        /// With a `summary`, every URL done.
        Completed = "completed",
        /// By DELETE or the `cancel` operation.
        Cancelled = "cancelled",
        /// Its reader went away and did not come back in time.
        Abandoned = "abandoned",
        /// Its deadline passed.
        Deadline = "deadline",
        /// The server drained.
        Drained = "drained",
        /// An error of ours.
        Error = "error",
    }
}

labels! {
    /// How a connection's ring has adapted to its reader.
    Resized {
        /// It was full, and the reader quick.
        Grown = "grown",
        /// The reader was slow.
        Shrunk = "shrunk",
    }
}

labels! {
    /// How a job ended.
    JobEnd {
        /// Every URL has its result.
        Completed = "completed",
        /// By DELETE.
        Cancelled = "cancelled",
        /// By its deadline or a shutdown.
        Failed = "failed",
    }
}

labels! {
    /// How an attempt to deliver a webhook ended.
    HookEnd {
        /// The receiver has taken it.
        Delivered = "delivered",
        /// It will be tried again.
        Again = "again",
        /// It will not.
        GivenUp = "given_up",
    }
}

labels! {
    /// Types of events (API §3).
    EventKind {
        /// First event of a stream.
        Metadata = "metadata",
        /// One URL's outcome.
        Result = "result",
        /// A search's hits.
        Search = "search",
        /// Events that fell out of the replay window.
        Gap = "gap",
        /// The stream failed.
        Error = "error",
        /// Last event of a stream that did not fail.
        Summary = "summary",
        /// Counts, on a timer.
        Progress = "progress",
        /// A sign of life.
        Heartbeat = "heartbeat",
    }
}

labels! {
    /// Whether an event may be dropped (API §3).
    Durability {
        /// Has a `seq`; never dropped but behind a `gap` that says so, or this counter tells of a bug.
        Durable = "durable",
        /// Progress and heartbeats.
        Ephemeral = "ephemeral",
    }
}

labels! {
    /// Why the egress guard refused a destination.
    Egress {
        /// Its address is not globally routable.
        Special = "special",
        /// Its address holds an IPv4 address that is refused.
        Embedded = "embedded",
        /// `egress.deny` names it.
        Denied = "denied",
        /// Its port is not among `egress.ports`.
        Port = "port",
    }
}

labels! {
    /// Which way a message went.
    Way {
        /// From a client.
        In = "in",
        /// To a client.
        Out = "out",
    }
}

/// How a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEnd {
    /// Fetched and extracted.
    Approved,
    /// From the cache.
    Cached,
    /// With an error.
    Failed(PageCode),
}

impl PageEnd {
    /// The label: `approved`, `cached` or the error's code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Cached => "cached",
            Self::Failed(code) => code.as_str(),
        }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Self::Approved, Self::Cached].into_iter().chain(PageCode::ALL.map(Self::Failed))
    }
}

/// Something that a core counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Requests answered, by endpoint and class of the status.
    Requests(Endpoint, StatusClass),
    /// Refusals before a stream starts, by code.
    ApiErrors(ApiCode),
    /// Connections accepted and served.
    ConnectionsAccepted,
    /// Of those, connections closed; accepted − closed are open.
    ConnectionsClosed,
    /// Connections closed right after accept.
    ConnectionsRejected(Reject),
    /// Bytes read from clients.
    BytesIn,
    /// Bytes written to clients.
    BytesOut,
    /// Streams started; less all that ended, the active ones.
    StreamsStarted,
    /// Streams ended.
    StreamsEnded(StreamEnd),
    /// Streams that a reader attached to again.
    StreamsResumed,
    /// Times that a stream stopped fetching because its reader is slow.
    StreamsPaused,
    /// Times that a connection's ring has adapted to its reader.
    RingsResized(Resized),
    /// Events put into a log or sent.
    Events(EventKind),
    /// Events dropped or coalesced to relieve a slow reader.
    MessagesDropped(Durability),
    /// Pages done.
    Pages(PageEnd),
    /// Connections opened to origins.
    FetchOpened,
    /// Fetches that reused a connection.
    FetchReused,
    /// Body bytes from origins, as on the wire.
    FetchBytesIn,
    /// Destinations that the egress guard refused.
    EgressRefused(Egress),
    /// Cached pages found.
    CacheHits,
    /// Cached pages not found.
    CacheMisses,
    /// Cached pages that were too old and fetched anew.
    CacheStale,
    /// Cached pages that their origin vouched for.
    CacheRevalidated,
    /// Of the hits, pages that were being fetched for another request.
    CacheJoins,
    /// TTFBs above the warning threshold.
    TtfbSlow,
    /// Connections that became WebSockets.
    WsOpened,
    /// Of those, the ones that have ended.
    WsClosed,
    /// WebSocket messages; control frames are none.
    WsMessages(Way),
    /// Messages to clients that went out compressed.
    WsDeflated,
    /// Audit lines dropped, because they came faster than they could be written.
    AuditDropped,
    /// Jobs that were begun here.
    JobsStarted,
    /// Jobs that ended here.
    JobsEnded(JobEnd),
    /// URLs of jobs that were taken over from a node that said nothing any more.
    JobsTakenOver,
    /// Attempts to deliver a webhook.
    Webhooks(HookEnd),
}

const REQUESTS: usize = 0;
const API_ERRORS: usize = REQUESTS + Endpoint::ALL.len() * StatusClass::ALL.len();
const REJECTED: usize = API_ERRORS + ApiCode::ALL.len();
const ENDED: usize = REJECTED + Reject::ALL.len();
const EVENTS: usize = ENDED + StreamEnd::ALL.len();
const DROPPED: usize = EVENTS + EventKind::ALL.len();
const PAGES: usize = DROPPED + Durability::ALL.len();
const SINGLE: usize = PAGES + PageCode::ALL.len() + 2;

impl Counter {
    /// How many counters there are.
    pub const COUNT: usize = SINGLE + 32 + Egress::ALL.len();

    /// The counter's place in a table of [`Counter::COUNT`] slots.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Requests(endpoint, class) => {
                REQUESTS + endpoint as usize * StatusClass::ALL.len() + class as usize
            }
            Self::ApiErrors(code) => API_ERRORS + code as usize,
            Self::ConnectionsRejected(reason) => REJECTED + reason as usize,
            Self::StreamsEnded(end) => ENDED + end as usize,
            Self::Events(kind) => EVENTS + kind as usize,
            Self::MessagesDropped(durability) => DROPPED + durability as usize,
            Self::Pages(PageEnd::Approved) => PAGES,
            Self::Pages(PageEnd::Cached) => PAGES + 1,
            Self::Pages(PageEnd::Failed(code)) => PAGES + 2 + code as usize,
            Self::ConnectionsAccepted => SINGLE,
            Self::ConnectionsClosed => SINGLE + 1,
            Self::BytesIn => SINGLE + 2,
            Self::BytesOut => SINGLE + 3,
            Self::StreamsStarted => SINGLE + 4,
            Self::StreamsResumed => SINGLE + 5,
            Self::StreamsPaused => SINGLE + 6,
            Self::FetchOpened => SINGLE + 7,
            Self::FetchReused => SINGLE + 8,
            Self::FetchBytesIn => SINGLE + 9,
            Self::CacheHits => SINGLE + 10,
            Self::CacheMisses => SINGLE + 11,
            Self::TtfbSlow => SINGLE + 12,
            Self::WsOpened => SINGLE + 13,
            Self::WsClosed => SINGLE + 14,
            Self::WsMessages(way) => SINGLE + 15 + way as usize,
            Self::WsDeflated => SINGLE + 17,
            Self::CacheStale => SINGLE + 18,
            Self::CacheRevalidated => SINGLE + 19,
            Self::CacheJoins => SINGLE + 20,
            Self::AuditDropped => SINGLE + 21,
            Self::JobsStarted => SINGLE + 22,
            Self::JobsEnded(end) => SINGLE + 23 + end as usize,
            Self::JobsTakenOver => SINGLE + 26,
            Self::Webhooks(end) => SINGLE + 27 + end as usize,
            Self::RingsResized(way) => SINGLE + 30 + way as usize,
            Self::EgressRefused(why) => SINGLE + 32 + why as usize,
        }
    }
}

/// One core's counters; thread-confined.
#[derive(Debug)]
pub struct Counters([Cell<u64>; Counter::COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { Cell::new(0) }; Counter::COUNT])
    }
}

impl Counters {
    /// Counts one.
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `more`.
    pub fn add(&self, counter: Counter, more: u64) {
        let cell = &self.0[counter.index()];
        cell.set(cell.get().wrapping_add(more));
    }

    /// A copy that may leave the thread.
    #[must_use]
    pub fn values(&self) -> CounterValues {
        CounterValues(self.0.iter().map(Cell::get).collect())
    }
}

/// Counters of one core, or the sum of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterValues(Box<[u64]>);

impl Default for CounterValues {
    fn default() -> Self {
        Self(vec![0; Counter::COUNT].into())
    }
}

impl CounterValues {
    /// One counter.
    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.0[counter.index()]
    }

    /// Adds another core's.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.wrapping_add(*more);
        }
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        let accepted = self.value(Counter::ConnectionsAccepted);
        accepted.saturating_sub(self.value(Counter::ConnectionsClosed))
    }

    /// Streams that are active.
    #[must_use]
    pub fn streams_active(&self) -> u64 {
        let ended = StreamEnd::ALL.map(|end| self.value(Counter::StreamsEnded(end)));
        self.value(Counter::StreamsStarted).saturating_sub(ended.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every counter there is.
    fn all() -> Vec<Counter> {
        let mut all = Vec::new();
        for endpoint in Endpoint::ALL {
            all.extend(StatusClass::ALL.map(|class| Counter::Requests(endpoint, class)));
        }
        all.extend(ApiCode::ALL.map(Counter::ApiErrors));
        all.extend(Reject::ALL.map(Counter::ConnectionsRejected));
        all.extend(StreamEnd::ALL.map(Counter::StreamsEnded));
        all.extend(EventKind::ALL.map(Counter::Events));
        all.extend(Durability::ALL.map(Counter::MessagesDropped));
        all.extend(PageEnd::all().map(Counter::Pages));
        all.extend([
            Counter::ConnectionsAccepted,
            Counter::ConnectionsClosed,
            Counter::BytesIn,
            Counter::BytesOut,
            Counter::StreamsStarted,
            Counter::StreamsResumed,
            Counter::StreamsPaused,
            Counter::FetchOpened,
            Counter::FetchReused,
            Counter::FetchBytesIn,
            Counter::CacheHits,
            Counter::CacheMisses,
            Counter::TtfbSlow,
            Counter::WsOpened,
            Counter::WsClosed,
        ]);
        all.extend(Way::ALL.map(Counter::WsMessages));
        all.extend([
            Counter::WsDeflated,
            Counter::CacheStale,
            Counter::CacheRevalidated,
            Counter::CacheJoins,
            Counter::AuditDropped,
            Counter::JobsStarted,
        ]);
        all.extend(JobEnd::ALL.map(Counter::JobsEnded));
        all.push(Counter::JobsTakenOver);
        all.extend(HookEnd::ALL.map(Counter::Webhooks));
        all.extend(Resized::ALL.map(Counter::RingsResized));
        all.extend(Egress::ALL.map(Counter::EgressRefused));
        all
    }

    #[test]
    fn each_counter_has_its_own_slot() {
        let places: Vec<_> = all().into_iter().map(Counter::index).collect();
        assert_eq!(places, (0..Counter::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn cores_add_up() {
        let (left, right) = (Counters::default(), Counters::default());
        for counter in all() {
            left.inc(counter);
            right.add(counter, 10);
        }
        let mut sum = left.values();
        sum.merge(&right.values());
        assert!(all().into_iter().all(|counter| sum.value(counter) == 11));
        assert_eq!(sum.connections_open(), 0);
    }

    #[test]
    fn what_is_open_is_what_began_less_what_ended() {
        let counters = Counters::default();
        counters.add(Counter::StreamsStarted, 5);
        counters.inc(Counter::StreamsEnded(StreamEnd::Completed));
        counters.inc(Counter::StreamsEnded(StreamEnd::Abandoned));
        counters.add(Counter::ConnectionsAccepted, 3);
        counters.inc(Counter::ConnectionsClosed);
        let values = counters.values();
        assert_eq!((values.streams_active(), values.connections_open()), (3, 2));
    }

    #[test]
    fn a_status_has_its_class() {
        let classes = [101, 204, 304, 429, 503, 0].map(|status| StatusClass::of(status).as_str());
        assert_eq!(classes, ["1xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
    }
}
