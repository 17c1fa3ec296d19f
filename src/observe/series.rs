//! Which latencies are told apart: [`Key`] = endpoint and transport × measure, or a page's stage.

use crate::error::Stage;

/// A route with the transport of its answer; one row of latencies and request counts each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `GET /livez`, the cheapest answer there is: the floor of all the others.
    Livez,
    /// `GET /readyz` and `GET /healthz`.
    Health,
    /// `POST /extract`.
    Extract,
    /// `POST /crawl`, one JSON answer.
    Crawl,
    /// `POST /crawl/stream` answered with NDJSON.
    CrawlNdjson,
    /// `/crawl/sse`, and `/crawl/stream` answered with SSE.
    CrawlSse,
    /// A crawl over `GET /crawl/ws`.
    CrawlWs,
    /// `POST /deepsearch`, one JSON answer.
    Deepsearch,
    /// `POST /deepsearch/stream` answered with NDJSON.
    DeepsearchNdjson,
    /// `/deepsearch/sse`, and `/deepsearch/stream` answered with SSE.
    DeepsearchSse,
    /// A deepsearch over `GET /crawl/ws`.
    DeepsearchWs,
    /// `GET /streams/{id}/events` answered with NDJSON.
    EventsNdjson,
    /// `GET /streams/{id}/events` answered with SSE.
    EventsSse,
    /// The other routes under `/streams/{id}`: state, cancel, trace.
    Streams,
    /// `GET /metrics` and `GET /latency`.
    Metrics,
    /// Everything else: console, `OPTIONS`, refused requests.
    Other,
}

impl Endpoint {
    /// Every endpoint, in the order of the declaration.
    pub const ALL: [Self; 16] = [
        Self::Livez,
        Self::Health,
        Self::Extract,
        Self::Crawl,
        Self::CrawlNdjson,
        Self::CrawlSse,
        Self::CrawlWs,
        Self::Deepsearch,
        Self::DeepsearchNdjson,
        Self::DeepsearchSse,
        Self::DeepsearchWs,
        Self::EventsNdjson,
        Self::EventsSse,
        Self::Streams,
        Self::Metrics,
        Self::Other,
    ];

    /// The route's name in labels and series names.
    #[must_use]
    pub const fn route(self) -> &'static str {
        self.parts().0
    }

    /// How the answer travels: `json`, `ndjson`, `sse`, `ws`, or `http` for what is no crawl.
    #[must_use]
    pub const fn transport(self) -> &'static str {
        self.parts().1
    }

    const fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Livez => ("livez", "http"),
            Self::Health => ("health", "http"),
            Self::Extract => ("extract", "json"),
            Self::Crawl => ("crawl", "json"),
            Self::CrawlNdjson => ("crawl", "ndjson"),
            Self::CrawlSse => ("crawl", "sse"),
            Self::CrawlWs => ("crawl", "ws"),
            Self::Deepsearch => ("deepsearch", "json"),
            Self::DeepsearchNdjson => ("deepsearch", "ndjson"),
            Self::DeepsearchSse => ("deepsearch", "sse"),
            Self::DeepsearchWs => ("deepsearch", "ws"),
            Self::EventsNdjson => ("events", "ndjson"),
            Self::EventsSse => ("events", "sse"),
            Self::Streams => ("streams", "json"),
            Self::Metrics => ("metrics", "http"),
            Self::Other => ("other", "http"),
        }
    }
}

/// What is measured at an endpoint. Times start at the earliest moment that the server can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// From accept (a connection's first request) or from a readable socket (each later one) to
    /// the parsed request head.
    AcceptToParse,
    /// From that same start to the first byte handed to the kernel: time to first byte.
    Ttfb,
    /// From that same start to the first `result` event handed to the kernel.
    Ttfr,
    /// Between two successive events of one stream, as handed to the kernel.
    Gap,
    /// From that same start to the last byte handed to the kernel.
    Whole,
    /// From the cause of a cancel (DELETE, disconnect, deadline, drain) to the moment when
    /// nothing of the stream is left running.
    CancelQuiesce,
}

impl Measure {
    /// Every measure, in the order in which a stream passes them.
    pub const ALL: [Self; 6] =
        [Self::AcceptToParse, Self::Ttfb, Self::Ttfr, Self::Gap, Self::Whole, Self::CancelQuiesce];

    /// The measure's name in series names and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AcceptToParse => "accept_to_parse",
            Self::Ttfb => "ttfb",
            Self::Ttfr => "ttfr",
            Self::Gap => "gap",
            Self::Whole => "whole",
            Self::CancelQuiesce => "cancel_quiesce",
        }
    }
}

/// One latency series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// A measure at an endpoint; named `route.transport.measure`, as in `crawl.ndjson.ttfb`.
    At(Endpoint, Measure),
    /// A stage of a page, over all endpoints; named `page.stage`, as in `page.dns`.
    Page(Stage),
}

impl Key {
    /// How many series there can be.
    pub const COUNT: usize = Endpoint::ALL.len() * Measure::ALL.len() + Stage::ALL.len();

    /// The series' place in a table of [`Key::COUNT`] slots.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::At(endpoint, measure) => {
                endpoint as usize * Measure::ALL.len() + measure as usize
            }
            Self::Page(stage) => Endpoint::ALL.len() * Measure::ALL.len() + stage as usize,
        }
    }

    /// Every series, in the order of [`Key::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        let at =
            Endpoint::ALL.into_iter().flat_map(|e| Measure::ALL.into_iter().map(move |m| (e, m)));
        at.map(|(e, m)| Self::At(e, m)).chain(Stage::ALL.into_iter().map(Self::Page))
    }

    /// The series' name: no spaces and no commas, so that it is a valid hlog tag.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::At(endpoint, measure) => {
                format!("{}.{}.{}", endpoint.route(), endpoint.transport(), measure.as_str())
            }
            Self::Page(stage) => format!("page.{}", stage.as_str()),
        }
    }

    /// The series of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|key| key.name() == name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn each_key_has_its_own_slot_and_name() {
        let keys: Vec<_> = Key::all().collect();
        assert_eq!(keys.len(), Key::COUNT);
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(key.index(), place);
            assert_eq!(Key::from_name(&key.name()), Some(*key));
        }
        assert_eq!(Key::from_name("crawl.ndjson"), None);
    }
}
