//! What a stream's life leaves in its flight recorder, in the counters and in the histograms.

use super::super::spans;
use super::Live;
use crate::crawl::node::Node;
use crate::observe::metrics::{Counter, StreamEnd};
use crate::observe::series::{Key, Measure};
use crate::observe::trace::Mark;
use crate::proto::events::{Counts, PageResult, Stored};
use crate::stream::machine::Ending;
use std::time::{Duration, Instant};

impl Live {
    pub(super) fn note(&self, mark: Mark, value: u64) {
        self.stream.note(|trace, now| trace.stream(now, mark, value));
    }

    pub(super) fn note_ending(&self, ending: Option<Ending>) {
        self.ending_since.set(Some(Instant::now()));
        let deadline = ending == Some(Ending::Deadline);
        self.note(if deadline { Mark::Deadline } else { Mark::Cancelled }, 0);
    }

    pub(super) fn note_end(
        &self,
        node: &Node,
        (seq, counts): (u64, &Counts),
        ending: Option<Ending>,
    ) {
        self.note(Mark::Ended, seq);
        let facts = spans::StreamFacts {
            name: self.kind(),
            started: self.started_at,
            request_id: self.request_id.as_str(),
            status: ending.map_or("completed", Ending::status),
            counts,
        };
        spans::stream(node, &self.stream, &facts);
        node.observe.count(Counter::StreamsEnded(match ending {
            None => StreamEnd::Completed,
            Some(Ending::Cancelled) if self.abandoned.get() => StreamEnd::Abandoned,
            Some(Ending::Cancelled) => StreamEnd::Cancelled,
            Some(Ending::Deadline) => StreamEnd::Deadline,
            Some(Ending::Drained) => StreamEnd::Drained,
            Some(Ending::Failed) => StreamEnd::Error,
        }));
    }

    /// Nothing of the stream runs any more: how long did it take to get there?
    pub(super) fn note_quiesced(&self, node: &Node) {
        let Some(since) = self.ending_since.take() else { return };
        let took = since.elapsed();
        node.observe.record(Key::At(self.endpoint, Measure::CancelQuiesce), took);
        self.note(Mark::Quiesced, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// As [`Live::note_page`], of a page that was in the cache.
    pub(super) fn note_cached(&self, seq: u64, index: u32, stored: &Stored) {
        let at = index as usize;
        self.stream.note(|trace, now| {
            trace.url(now, at, Mark::CacheHit, 0);
            if let Some(code) = stored.code() {
                trace.url(now, at, Mark::Failed(code), 0);
            }
            trace.url(now, at, Mark::Result, seq);
        });
    }

    /// What the flight recorder keeps of a page, when its result gets its place.
    pub(super) fn note_page(&self, seq: u64, index: u32, page: &PageResult) {
        let at = index as usize;
        self.stream.note(|trace, now| {
            for (stage, micros) in page.timings.iter().filter(|(_, micros)| *micros > 0) {
                trace.stage(now, at, stage, Duration::from_micros(u64::from(micros)));
            }
            if page.status > 0 {
                trace.url(now, at, Mark::Status, u64::from(page.status));
            }
            if let Some(error) = &page.error {
                trace.url(now, at, Mark::Failed(error.code), 0);
            }
            trace.url(now, at, Mark::Result, seq);
        });
    }

    /// A stream that nobody reads is ended when its resume window is over.
    pub(super) fn note_readers(&self) {
        let readers = self.stream.with_log(|log| log.readers());
        if readers > 0 || self.background.is_some() {
            self.unread_since.set(None);
            return;
        }
        let now = Instant::now();
        let since = self.unread_since.get().unwrap_or(now);
        self.unread_since.set(Some(since));
        if now >= since + self.stream.birth.resume_window {
            let mut machine = self.machine.borrow_mut();
            self.abandoned.set(self.abandoned.get() || machine.ending().is_none());
            machine.handle_end(now, Ending::Cancelled);
        }
    }
}
