//! A reader with moods, and what it has a right to see.

use forebay::proto::events::{Event, Kind};
use forebay::stream::log::{Log, ReaderId};

/// One client's view over all its connections.
pub(crate) struct Reader {
    id: Option<ReaderId>,
    /// The last durable `seq` taken.
    pub(crate) last: Option<u64>,
    /// `seq` of the durable events taken since the last (re-)attachment, in order.
    pub(crate) gaps: u64,
    pub(crate) finished: bool,
    kinds: Vec<Kind>,
}

impl Reader {
    pub(crate) fn new(log: &mut Log) -> Self {
        let id = Some(log.attach(None));
        Self { id, last: None, gaps: 0, finished: false, kinds: Vec::new() }
    }

    pub(crate) fn attached(&self) -> bool {
        self.id.is_some()
    }

    pub(crate) fn detach(&mut self, log: &mut Log) {
        if let Some(id) = self.id.take() {
            log.detach(id);
        }
    }

    /// Comes back behind what it has, or, when `forget` is set, some events before that.
    pub(crate) fn attach(&mut self, log: &mut Log, forget: u64) {
        assert!(self.id.is_none());
        self.last = self.last.and_then(|last| last.checked_sub(forget));
        self.id = Some(log.attach(self.last));
    }

    /// Takes up to `most` events and checks each against what came before. Then it wants no result
    /// for once; whether it was offered one.
    pub(crate) fn read(&mut self, log: &mut Log, most: u64) -> bool {
        let Some(id) = self.id else { return false };
        for _ in 0..most {
            let Some(event) = log.next(id) else { break };
            self.take(&event);
        }
        let mut offered = false;
        let other = log.next_if(id, |event| {
            offered = event.kind == Kind::Result;
            !offered
        });
        if let Some(event) = other {
            assert!(event.kind != Kind::Result, "no result comes unwanted");
            assert!(!offered || !event.kind.durable(), "nothing durable passes a result");
            self.take(&event);
        }
        self.finished = log.drained(id);
        offered
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
