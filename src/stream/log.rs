//! The log of a stream's durable events: written once, read by any number of readers, each at its
//! own position, bounded in bytes.
//!
//! An event leaves the log only when every attached reader has taken it and the log is over its
//! limit. A slow reader therefore never loses an event: [`Log::behind`] rises instead, and the crawl
//! pauses. A reader that attaches at a position that is gone is told so by a `gap`.

use crate::proto::events::{self, Event};
use bytes::BytesMut;
use std::collections::VecDeque;

/// Names one reader of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderId(u32);

/// How many events a reader was not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// For which a newer one stood, or which the end came before.
    pub ephemeral: u64,
    /// That no `gap` stood for: a bug of ours.
    pub durable: u64,
}

/// What of a log there is for a reader.
#[derive(Debug)]
pub struct Taken {
    /// The next event.
    pub event: Option<Event>,
    /// Whether there will be no other.
    pub over: bool,
    /// What it was not given since it was last told so.
    pub dropped: Dropped,
}

#[derive(Debug)]
struct Reader {
    id: ReaderId,
    /// The next event that it has not taken.
    seq_next: u64,
    /// Bytes of the log that it has taken, counted from the log's first event ever.
    offset: u64,
    /// The last ephemeral event that it has taken.
    ephemeral: u64,
    /// The `seq` that it has to see next.
    expected: u64,
    dropped: Dropped,
}

/// See the module. Sequence numbers start at 0 and have no holes.
#[derive(Debug)]
pub struct Log {
    events: VecDeque<Event>,
    /// `seq` of the first event in `events`, or of the next one when it is empty.
    first_seq: u64,
    /// Bytes ever dropped from the front.
    first_offset: u64,
    /// Bytes in `events`.
    bytes: usize,
    bytes_max: usize,
    readers: Vec<Reader>,
    next_reader: u32,
    /// How far anybody has read: where backpressure is counted from while nobody is attached.
    read_offset: u64,
    /// The newest `progress` or `heartbeat`, and how many there were.
    ephemeral: Option<Event>,
    ephemerals: u64,
    ended: bool,
}

impl Log {
    /// An empty log that keeps `bytes_max` bytes of events for replay.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self::with_events(VecDeque::new(), bytes_max)
    }

    /// As [`Log::new`], with room for so many events from the start.
    #[must_use]
    pub fn with_capacity(events: usize, bytes_max: usize) -> Self {
        Self::with_events(VecDeque::with_capacity(events), bytes_max)
    }

    /// As [`Log::new`], of a stream whose events before `first_seq` are elsewhere.
    #[must_use]
    pub fn starting_at(first_seq: u64, bytes_max: usize) -> Self {
        Self { first_seq, ..Self::new(bytes_max) }
    }

    const fn with_events(events: VecDeque<Event>, bytes_max: usize) -> Self {
        Self {
            events,
            first_seq: 0,
            first_offset: 0,
            bytes: 0,
            bytes_max,
            readers: Vec::new(),
            next_reader: 0,
            read_offset: 0,
            ephemeral: None,
            ephemerals: 0,
            ended: false,
        }
    }

    /// Writes an event. A durable one has the next `seq`; an ephemeral one replaces the last.
    /// Answers by how many bytes the log has grown, net of what it could drop.
    pub fn append(&mut self, event: Event) -> isize {
        if !event.kind.durable() {
            self.ephemerals += 1;
            self.ephemeral = Some(event);
            return 0;
        }
        debug_assert_eq!(event.seq, self.next_seq(), "no holes");
        debug_assert!(!self.ended, "nothing follows the last event");
        self.ended = event.kind.last();
        let added = event.len();
        self.bytes += added;
        self.events.push_back(event);
        added.cast_signed() - self.trim().cast_signed()
    }

    /// A reader joins behind `after`, or at the very beginning.
    pub fn attach(&mut self, after: Option<u64>) -> ReaderId {
        let id = ReaderId(self.next_reader);
        self.next_reader = self.next_reader.wrapping_add(1);
        let seq_next = after.map_or(0, |seq| seq.saturating_add(1)).min(self.next_seq());
        let offset = self.offset_of(seq_next);
        self.readers.push(Reader {
            id,
            seq_next,
            offset,
            ephemeral: self.ephemerals,
            expected: seq_next,
            dropped: Dropped::default(),
        });
        id
    }

    /// Where a reader goes on that has everything up to `seq`, if it is to come to the end: behind that,
    /// but before the last event of a log that has it, and never beyond what there is.
    #[must_use]
    pub fn resumed(&self, seq: u64) -> Option<u64> {
        let last = self.next_seq().checked_sub(if self.ended { 2 } else { 1 })?;
        Some(seq.min(last))
    }

    /// A reader leaves; what it had not taken stays for the next one.
    pub fn detach(&mut self, id: ReaderId) {
        self.readers.retain(|reader| reader.id != id);
    }

    /// The next event for a reader; durable ones first. A `gap` stands for what is gone.
    pub fn next(&mut self, id: ReaderId) -> Option<Event> {
        self.next_if(id, |_| true)
    }

    /// As [`Log::next_if`], with what a reader has to know and to count beside it.
    pub fn take_if(&mut self, id: ReaderId, wanted: impl FnOnce(&Event) -> bool) -> Taken {
        let event = self.next_if(id, wanted);
        let reader = self.readers.iter_mut().find(|reader| reader.id == id);
        let dropped = reader.map(|reader| std::mem::take(&mut reader.dropped));
        Taken { event, over: self.drained(id), dropped: dropped.unwrap_or_default() }
    }

    /// As [`Log::next`], but a durable event that is not `wanted` stays, and with it all behind it;
    /// ephemeral ones pass it.
    pub fn next_if(&mut self, id: ReaderId, wanted: impl FnOnce(&Event) -> bool) -> Option<Event> {
        let next_seq = self.next_seq();
        let reader = self.readers.iter_mut().find(|reader| reader.id == id)?;
        if reader.seq_next < self.first_seq {
            let gap = events::gap(&mut BytesMut::new(), reader.seq_next, self.first_seq - 1);
            reader.seq_next = self.first_seq;
            reader.offset = self.first_offset;
            reader.expected = self.first_seq;
            return Some(gap);
        }
        if reader.seq_next < next_seq {
            let at = usize::try_from(reader.seq_next - self.first_seq).ok()?;
            let event = self.events.get(at)?;
            if wanted(event) {
                let event = event.clone();
                reader.seq_next += 1;
                reader.offset += event.len() as u64;
                reader.dropped.durable += event.seq.saturating_sub(reader.expected);
                reader.expected = event.seq + 1;
                if event.kind.last() {
                    reader.dropped.ephemeral += self.ephemerals - reader.ephemeral;
                }
                self.read_offset = self.read_offset.max(reader.offset);
                return Some(event);
            }
        }
        if reader.ephemeral < self.ephemerals && !self.ended {
            reader.dropped.ephemeral += self.ephemerals - reader.ephemeral - 1;
            reader.ephemeral = self.ephemerals;
            return self.ephemeral.clone();
        }
        None
    }

    /// Copies of the events from `seq` on, or from the first that is held: so many, and so many bytes,
    /// but one at least. Nobody becomes a reader by it.
    #[must_use]
    pub fn peek(&self, seq: u64, events_max: usize, bytes_max: usize) -> Vec<Event> {
        let skip = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        let mut room = bytes_max;
        let mut out = Vec::new();
        for event in self.events.iter().skip(skip).take(events_max) {
            if !out.is_empty() && event.len() > room {
                break;
            }
            room = room.saturating_sub(event.len());
            out.push(event.clone());
        }
        out
    }

    /// Goes on at `seq`: what is before it is gone for every reader. Answers how many bytes became
    /// free. Does nothing where the log is that far already.
    pub fn skip_to(&mut self, seq: u64) -> usize {
        if seq <= self.next_seq() {
            return 0;
        }
        let mut freed = 0;
        while !self.events.is_empty() {
            freed += self.drop_first();
        }
        self.first_seq = seq;
        freed
    }

    /// Drops everything but the last event, unless somebody reads. Answers how many bytes became free.
    pub fn forget(&mut self) -> usize {
        let mut freed = 0;
        while self.readers.is_empty() && self.events.len() > 1 {
            freed += self.drop_first();
        }
        freed
    }

    /// `seq` of the next event for a reader.
    #[must_use]
    pub fn position(&self, id: ReaderId) -> Option<u64> {
        self.readers.iter().find(|reader| reader.id == id).map(|reader| reader.seq_next)
    }

    /// `seq` of the oldest event that is still held.
    #[must_use]
    pub const fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Whether a reader has taken everything that there will ever be.
    #[must_use]
    pub fn drained(&self, id: ReaderId) -> bool {
        let at_end = |reader: &Reader| reader.seq_next >= self.next_seq();
        self.ended && self.readers.iter().find(|reader| reader.id == id).is_none_or(at_end)
    }

    /// Frees the replay window up to and including `seq`, as far as every reader has taken it.
    /// Answers how many bytes became free.
    pub fn ack(&mut self, seq: u64) -> usize {
        let taken = self.taken_offset();
        let mut freed = 0;
        while let Some(event) = self.events.front()
            && event.seq <= seq
            && self.first_offset + event.len() as u64 <= taken
        {
            freed += self.drop_first();
        }
        freed
    }

    /// Bytes that the slowest reader has not taken, or that nobody has while nobody is attached.
    #[must_use]
    pub fn behind(&self) -> usize {
        let written = self.first_offset + self.bytes as u64;
        usize::try_from(written.saturating_sub(self.taken_offset())).unwrap_or(usize::MAX)
    }

    /// Bytes held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the last event is written.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Readers attached.
    #[must_use]
    pub const fn readers(&self) -> usize {
        self.readers.len()
    }

    /// `seq` that the next durable event will have.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64
    }

    fn offset_of(&self, seq: u64) -> u64 {
        let before = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        let bytes: usize = self.events.iter().take(before).map(Event::len).sum();
        self.first_offset + bytes as u64
    }

    /// Up to where every reader has taken the log; where the furthest was, once all have left.
    fn taken_offset(&self) -> u64 {
        let slowest = self.readers.iter().map(|reader| reader.offset).min();
        slowest.unwrap_or(self.read_offset)
    }

    fn trim(&mut self) -> usize {
        let taken = self.taken_offset();
        let mut freed = 0;
        while self.bytes > self.bytes_max
            && let Some(event) = self.events.front()
            && self.first_offset + event.len() as u64 <= taken
        {
            freed += self.drop_first();
        }
        freed
    }

    fn drop_first(&mut self) -> usize {
        let Some(event) = self.events.pop_front() else { return 0 };
        self.first_seq += 1;
        self.first_offset += event.len() as u64;
        self.bytes -= event.len();
        event.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::events::{Counts, Summary};

    fn summary(seq: u64) -> Event {
        let facts =
            Summary { counts: Counts::default(), total_ms: 1, ttfr_ms: None, status: "completed" };
        events::summary(&mut BytesMut::new(), seq, &facts)
    }

    /// A durable event that is not the last one.
    fn event(seq: u64) -> Event {
        Event { kind: events::Kind::Result, ..summary(seq) }
    }

    fn seqs(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn to_peek_is_not_to_read() {
        let mut log = Log::new(1 << 20);
        for seq in 0..5 {
            log.append(event(seq));
        }
        let one = event(0).len();
        assert_eq!(seqs(&log.peek(1, 2, usize::MAX)), [1, 2]);
        assert_eq!(seqs(&log.peek(0, 9, one * 2)), [0, 1]);
        assert_eq!(seqs(&log.peek(3, 9, 0)), [3], "one at least");
        assert!(log.peek(5, 9, usize::MAX).is_empty());
        assert_eq!(log.behind(), one * 5, "nobody has read it");
    }

    #[test]
    fn who_resumes_comes_to_the_end_whatever_it_says_that_it_has() {
        let mut log = Log::new(1 << 20);
        assert_eq!(log.resumed(7), None, "nothing is there yet");
        log.append(event(0));
        log.append(event(1));
        assert_eq!([log.resumed(0), log.resumed(1), log.resumed(u64::MAX)], [0, 1, 1].map(Some));
        let early = log.resumed(u64::MAX);
        log.append(summary(2));
        for after in [early, log.resumed(1), log.resumed(2), log.resumed(u64::MAX)] {
            let reader = log.attach(after);
            assert_eq!(log.next(reader).map(|event| event.seq), Some(2));
            assert!(log.next(reader).is_none() && log.drained(reader));
        }
    }

    #[test]
    fn what_a_reader_is_not_given_is_counted() {
        let mut log = Log::new(1);
        let dropped = |log: &mut Log, id| log.take_if(id, |_| true).dropped;
        let progress = || events::heartbeat(&mut BytesMut::new(), std::time::UNIX_EPOCH);
        let (quick, slow) = (log.attach(None), log.attach(None));
        log.append(event(0));
        for _ in 0..3 {
            log.append(progress());
        }
        assert_eq!(dropped(&mut log, quick), Dropped::default(), "the first event");
        assert_eq!(dropped(&mut log, quick), Dropped { ephemeral: 2, durable: 0 });
        assert_eq!(dropped(&mut log, quick), Dropped::default(), "told once");
        log.append(summary(1));
        assert_eq!(dropped(&mut log, slow), Dropped::default());
        let last = log.take_if(slow, |_| true);
        assert!(last.over && last.dropped == Dropped { ephemeral: 3, durable: 0 }, "{last:?}");
    }

    #[test]
    fn a_hole_without_a_gap_is_counted_and_one_with_a_gap_is_none() {
        let mut log = Log::new(1);
        let reader = log.attach(None);
        for seq in 0..3 {
            log.append(event(seq));
        }
        while log.next(reader).is_some() {}
        log.append(event(3));
        let late = log.attach(None);
        let gap = log.take_if(late, |_| true);
        assert_eq!(gap.event.map(|event| event.kind), Some(events::Kind::Gap));
        assert_eq!(log.take_if(late, |_| true).dropped, Dropped::default());
        // What no caller may do: the log has room for what comes next only.
        log.events.push_back(event(6));
        assert_eq!(log.take_if(late, |_| true).dropped, Dropped { ephemeral: 0, durable: 2 });
        log.events.push_back(event(7));
        assert_eq!(log.take_if(late, |_| true).dropped, Dropped::default());
    }

    #[test]
    fn a_forgotten_log_has_its_end_left_and_one_that_is_read_everything() {
        let mut log = Log::new(1 << 20);
        let one = event(0).len();
        for seq in 0..3 {
            log.append(event(seq));
        }
        let reader = log.attach(None);
        assert_eq!(log.forget(), 0);
        log.detach(reader);
        assert_eq!(log.forget(), one * 2);
        assert_eq!((seqs(&log.peek(0, 9, usize::MAX)), log.bytes()), (vec![2], one));
        let late = log.attach(None);
        let gap = log.next(late).map(|event| (event.kind, event.seq));
        assert_eq!(gap, Some((events::Kind::Gap, 1)));
    }

    #[test]
    fn what_is_skipped_is_a_gap_for_readers() {
        let mut log = Log::new(1 << 20);
        let reader = log.attach(None);
        log.append(event(0));
        assert_eq!(log.skip_to(1), 0, "it is there already");
        assert_eq!(log.skip_to(4), event(0).len());
        log.append(event(4));
        let gap = log.next(reader).map(|event| (event.kind, event.seq));
        assert_eq!(gap, Some((events::Kind::Gap, 3)));
        assert_eq!(log.next(reader).map(|event| event.seq), Some(4));
        assert!(log.next(reader).is_none());
        assert_eq!(log.behind(), 0);
    }
}
