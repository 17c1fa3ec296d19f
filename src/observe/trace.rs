//! The flight recorder of one stream: what happened to which URL, with µs times.
//!
//! A ring of 16-byte records, allocated once; when it is full the oldest go, and their number is
//! kept. `GET /streams/{id}/trace` shows it.

use crate::error::{PageCode, Stage};
use crate::limits::TRACE_RECORDS_MAX;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// What a record tells. The comment says what its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The stream was admitted; value: URLs.
    Started,
    /// Head and first event went to the kernel; value: bytes.
    HeadSent,
    /// URLs were added to a running stream; value: how many.
    Added,
    /// A URL got a place among the concurrent fetches.
    UrlStarted,
    /// A stage ended; value: µs that it took.
    Stage(Stage),
    /// The origin's status; value: the status.
    Status,
    /// A redirect is followed; value: number of the hop.
    Redirect,
    /// A fetch is tried again; value: number of the attempt.
    Retry,
    /// The page came from the cache.
    CacheHit,
    /// The URL's result is in the log; value: its `seq`.
    Result,
    /// The URL failed with this code.
    Failed(PageCode),
    /// Frames went to the kernel; value: bytes.
    Flushed,
    /// Above the high watermark, fetching stopped; value: bytes that wait.
    Paused,
    /// Below the low watermark, fetching goes on; value: bytes that wait.
    Resumed,
    /// A reader attached; value: the `seq` after which it reads.
    Attached,
    /// A reader went away; value: the last `seq` that was sent to it.
    Detached,
    /// Events fell out of the replay window; value: how many.
    Gap,
    /// The stream's deadline passed.
    Deadline,
    /// A cancel began.
    Cancelled,
    /// Nothing of the stream is left running; value: µs since the cancel began.
    Quiesced,
    /// The last event is in the log; value: its `seq`.
    Ended,
}

impl Mark {
    /// The mark's name in JSON; stages and failures have their own names beside it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::HeadSent => "head_sent",
            Self::Added => "added",
            Self::UrlStarted => "url_started",
            Self::Stage(_) => "stage",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::Retry => "retry",
            Self::CacheHit => "cache_hit",
            Self::Result => "result",
            Self::Failed(_) => "failed",
            Self::Flushed => "flushed",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Attached => "attached",
            Self::Detached => "detached",
            Self::Gap => "gap",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Quiesced => "quiesced",
            Self::Ended => "ended",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// µs since the stream began.
    pub at_us: u64,
    /// What [`Mark`] says; saturated.
    pub value: u32,
    /// Index of the URL, or [`Record::NO_URL`].
    url: u16,
    /// What happened.
    pub mark: Mark,
}

impl Record {
    const NO_URL: u16 = u16::MAX;

    /// Index of the URL that it is about; `None`: about the stream.
    #[must_use]
    pub fn url(&self) -> Option<u16> {
        (self.url != Self::NO_URL).then_some(self.url)
    }
}

const _: () = assert!(size_of::<Record>() == 16, "a flight record is 16 bytes");

/// The last things that happened to one stream.
#[derive(Debug)]
pub struct FlightRecorder {
    began: Instant,
    records: Vec<Record>,
    capacity: usize,
    /// Where the oldest record lies once the ring is full.
    oldest: usize,
    dropped: u64,
}

impl FlightRecorder {
    /// A recorder for that many URLs: 16 records each and 64 for the stream, at most
    /// [`TRACE_RECORDS_MAX`]. Allocates once, here.
    #[must_use]
    pub fn new(began: Instant, urls: usize) -> Self {
        Self::with_capacity(began, urls.saturating_mul(16).saturating_add(64))
    }

    /// A recorder of exactly that many records (1 to [`TRACE_RECORDS_MAX`]).
    #[must_use]
    pub fn with_capacity(began: Instant, records: usize) -> Self {
        let capacity = records.clamp(1, TRACE_RECORDS_MAX);
        Self { began, records: Vec::with_capacity(capacity), capacity, oldest: 0, dropped: 0 }
    }

    /// Notes what happened to the stream.
    pub fn stream(&mut self, now: Instant, mark: Mark, value: u64) {
        self.push(now, Record::NO_URL, mark, value);
    }

    /// Notes what happened to the URL of that index.
    pub fn url(&mut self, now: Instant, index: usize, mark: Mark, value: u64) {
        self.push(now, u16::try_from(index).unwrap_or(Record::NO_URL), mark, value);
    }

    /// Notes the end of a stage of a URL.
    pub fn stage(&mut self, now: Instant, index: usize, stage: Stage, spent: Duration) {
        self.url(now, index, Mark::Stage(stage), super::hist::micros(spent));
    }

    /// The records, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        let (newer, older) = self.records.split_at(self.oldest);
        older.iter().chain(newer)
    }

    /// Records that had to make room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
    }

    /// `GET /streams/{id}/trace`. The id is ours (a ULID), so it needs no escapes.
    #[must_use]
    pub fn to_json(&self, stream_id: &str) -> String {
        debug_assert!(stream_id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let mut out = String::with_capacity(96 + self.records.len() * 64);
        let dropped = self.dropped;
        let head = format_args!("{{\"stream_id\":\"{stream_id}\",\"dropped\":{dropped}");
        out.write_fmt(head).expect("writing to a String does not fail");
        out.push_str(",\"records\":[");
        let mut number = itoa::Buffer::new();
        for (place, record) in self.iter().enumerate() {
            out.push_str(if place == 0 { "{\"at_us\":" } else { ",{\"at_us\":" });
            out.push_str(number.format(record.at_us));
            if let Some(url) = record.url() {
                out.push_str(",\"index\":");
                out.push_str(number.format(url));
            }
            out.push_str(",\"mark\":\"");
            out.push_str(record.mark.as_str());
            match record.mark {
                Mark::Stage(stage) => {
                    out.push_str("\",\"stage\":\"");
                    out.push_str(stage.as_str());
                }
                Mark::Failed(code) => {
                    out.push_str("\",\"code\":\"");
                    out.push_str(code.as_str());
                }
                _ => {}
            }
            out.push_str("\",\"value\":");
            out.push_str(number.format(record.value));
            out.push('}');
        }
        out.push_str("]}");
        out
    }

    fn push(&mut self, now: Instant, url: u16, mark: Mark, value: u64) {
        let at_us = super::hist::micros(now.saturating_duration_since(self.began));
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        let record = Record { at_us, value, url, mark };
        if self.records.len() < self.capacity {
            return self.records.push(record);
        }
        self.records[self.oldest] = record;
        self.oldest = (self.oldest + 1) % self.capacity;
        self.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_tells_the_story() {
        let began = Instant::now();
        let mut flight = FlightRecorder::new(began, 2);
        let at = |us| began + Duration::from_micros(us);
        flight.stream(at(0), Mark::Started, 2);
        flight.stage(at(900), 1, Stage::Dns, Duration::from_micros(850));
        flight.url(at(950), 1, Mark::Failed(PageCode::ConnectFailed), 0);
        flight.stream(at(1000), Mark::Ended, u64::MAX);
        let json: serde_json::Value = serde_json::from_str(&flight.to_json("01J9")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"stream_id": "01J9", "dropped": 0, "records": [
                {"at_us": 0, "mark": "started", "value": 2},
                {"at_us": 900, "index": 1, "mark": "stage", "stage": "dns", "value": 850},
                {"at_us": 950, "index": 1, "mark": "failed", "code": "connect_failed", "value": 0},
                {"at_us": 1000, "mark": "ended", "value": u32::MAX},
            ]})
        );
    }

    #[test]
    fn memory_is_bounded_whatever_the_stream() {
        for urls in [0, 1, 100, usize::MAX] {
            let flight = FlightRecorder::new(Instant::now(), urls);
            assert!(flight.memory_bytes() <= TRACE_RECORDS_MAX * 16);
        }
    }

    proptest! {
        #[test]
        fn the_last_records_are_kept_in_order(capacity in 1usize..20, total in 0usize..60) {
            let began = Instant::now();
            let mut flight = FlightRecorder::with_capacity(began, capacity);
            let memory = flight.memory_bytes();
            for index in 0..total {
                flight.url(began, index, Mark::Result, 0);
            }
            let kept: Vec<_> = flight.iter().map(|r| usize::from(r.url().unwrap())).collect();
            prop_assert_eq!(kept, (total.saturating_sub(capacity)..total).collect::<Vec<_>>());
            prop_assert_eq!(flight.dropped(), total.saturating_sub(capacity) as u64);
            prop_assert_eq!(flight.memory_bytes(), memory);
        }
    }
}
