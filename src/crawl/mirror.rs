//! Streams of other nodes: a copy of a stream's log here, for as long as somebody reads it.
//!
//! A copy is a [`Stream`] like any other, so every transport reads it as it reads our own. One task fills
//! it from Redis, no further ahead than its readers have room, and tells the node that crawls how far
//! they are: there a reader in their place holds the crawl back, and keeps the stream from being taken
//! for abandoned. When the node that crawls is dead, the log is ended with an `error` event, once for
//! all who read it anywhere.

use super::node::Node;
use crate::cluster::{Link, Trouble};
use crate::error::{ApiCode, ApiError};
use crate::extract::json;
use crate::local::Notify;
use crate::proto::events::{self, Counts};
use crate::stream::log::ReaderId;
use crate::stream::remote::{self, Batch, Facts, Read};
use crate::stream::state::State;
use crate::stream::{Birth, ReaderGauge, Status, Stream, Watcher};
use bytes::BytesMut;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;

/// How long a look-up of a stream may take.
const OPEN_PATIENCE: Duration = Duration::from_millis(500);
/// How long each read of it may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between reads that find nothing new: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// How often the node that crawls is told how far the readers are, and looked after.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// For how long the other node's readers count as there without a word of them.
const READERS_LAST: Duration = Duration::from_secs(5);
/// How often letters from other nodes are taken.
const LETTERS_EVERY: Duration = Duration::from_millis(250);
/// How long a copy without readers is kept filled.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// How long a reader waits for an event that it has: longer than it takes to miss a node.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(20);
/// How long a node has to be missed before its streams are ended.
const MISSED_MAX: Duration = Duration::from_secs(4);

impl Node {
    /// As [`Node::find_stream`], on whichever node of those that share a Redis.
    ///
    /// # Errors
    /// As there.
    pub async fn find_anywhere(
        self: &Rc<Self>,
        id: Ulid,
        principal: &str,
    ) -> Result<Arc<Stream>, ApiError> {
        let error = match self.find_stream(id, principal) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if !self.shared.cluster.answers() || self.shared.registry.find(id).is_some() {
            return Err(error);
        }
        open(self, id, principal).await.ok_or(error)
    }
}

/// Finds a stream that another node crawls, or crawled, and begins to copy it.
async fn open(node: &Rc<Node>, id: Ulid, principal: &str) -> Option<Arc<Stream>> {
    let cluster = &node.shared.cluster;
    let read = cluster.ask(OPEN_PATIENCE, move |link| remote::read(link, id, 0, check)).await;
    let read = read.ok().flatten().filter(|read| read.facts.principal == principal)?;
    // Somebody here may have begun the same meanwhile; and one of our own that is no longer here is over.
    if let Some(known) = node.shared.registry.find(id) {
        return (&*known.birth.principal == principal).then_some(known);
    }
    if read.facts.home == cluster.node_id() {
        return None;
    }
    let facts = &read.facts;
    let birth = Birth {
        id,
        owner: node.index,
        principal: facts.principal.as_str().into(),
        idempotency_key: None,
        replay_bytes_max: facts.replay_bytes_max.min(node.shared.config.replay_bytes_max),
        resume_window: facts.window,
        patience: facts.patience,
        began: Instant::now(),
        urls: 0,
        home: Some(facts.home),
    };
    let stream = Stream::new(birth, Arc::clone(&node.shared.totals));
    let mut copy = Copy { node: Rc::clone(node), stream: Arc::clone(&stream), next: 0 };
    copy.take(read);
    let known = node.shared.registry.insert(Arc::clone(&stream));
    if !Arc::ptr_eq(&known, &stream) {
        // Another core was quicker in this very moment.
        return (&*known.birth.principal == principal).then_some(known);
    }
    drop(uring::spawn(async move { copy.follow().await }));
    Some(stream)
}

/// Waits until a copy has come to the event that a client has already: its node may have written it
/// just now, or may have died before it did; then the copy ends, which takes up to [`CATCH_UP_MAX`].
pub async fn catch_up(stream: &Stream, after: Option<u64>, patience: Duration) {
    let (Some(after), Some(_)) = (after, stream.birth.home) else { return };
    let until = Instant::now() + patience;
    let missing = || stream.with_log(|log| !log.ended() && log.next_seq() <= after);
    while missing() && Instant::now() < until {
        uring::time::sleep(PAUSES.0).await;
    }
}

/// Ends a stream of another node.
pub(super) fn cancel(node: &Node, home: Ulid, stream: Ulid) {
    // Who waits for its end sees whether it comes.
    let _ = node.shared.cluster.tell(PATIENCE, move |link| async move {
        let _ = link.post(home, &format!("cancel {stream}")).await;
    });
}

struct Copy {
    node: Rc<Node>,
    stream: Arc<Stream>,
    /// `seq` of the next event to come.
    next: u64,
}

impl Copy {
    /// Fills the copy until it has its last event, or nobody reads it.
    async fn follow(mut self) {
        let (mut pause, mut told_at) = (PAUSES.0, None::<Instant>);
        let mut read_at = Instant::now();
        let mut missed_since = None::<Instant>;
        while !self.stream.with_log(|log| log.ended()) {
            let now = Instant::now();
            let (readers, behind) = self.stream.with_log(|log| (log.readers(), log.behind()));
            if readers > 0 {
                read_at = now;
            } else if read_at.elapsed() > UNREAD_MAX {
                let registry = &self.node.shared.registry;
                registry.remove_one(&self.stream);
                if Arc::strong_count(&self.stream) == 1 {
                    return;
                }
                // Somebody found it just before, and is about to read.
                let _ = registry.insert(Arc::clone(&self.stream));
                read_at = now;
            }
            let tell = told_at.is_none_or(|at| now >= at + TELL_EVERY);
            if tell {
                told_at = Some(now);
            }
            let full = behind > self.stream.birth.replay_bytes_max / 2;
            if full && !tell {
                uring::time::sleep(PAUSES.1).await;
                continue;
            }
            let before = self.next;
            let alive = self.read(tell, full, missed_since).await;
            match alive {
                Some(true) => missed_since = None,
                Some(false) => drop(missed_since.get_or_insert(now)),
                None => {}
            }
            pause = if self.next > before { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            if self.next == before {
                uring::time::sleep(pause).await;
            }
        }
        // Kept like a stream of our own, so that who is cut off now may come back.
        self.node.keep_until_expired(&self.stream);
    }

    /// Reads what is new, tells the other node of our readers, and asks whether it lives, if `tell`.
    async fn read(&mut self, tell: bool, full: bool, missed: Option<Instant>) -> Option<bool> {
        let (id, next) = (self.stream.id(), self.next);
        let home = self.stream.birth.home.unwrap_or_default();
        let slowest = self.stream.attached().iter().map(|reader| reader.seq_next).min();
        let letter = slowest.map(|seq| format!("read {id} {seq}")).filter(|_| tell);
        let dead = missed.is_some_and(|since| since.elapsed() > MISSED_MAX);
        let work = move |link: Link| async move {
            if let Some(letter) = letter {
                link.post(home, &letter).await?;
            }
            let alive = if tell { Some(link.is_alive(home).await?) } else { None };
            let mut read = remote::read(link.clone(), id, next, check).await?;
            if let Some(found) = &read
                && dead
                && alive == Some(false)
                && !found.ended
            {
                bury(&link, id, found).await?;
                read = remote::read(link, id, next, check).await?;
            }
            Ok((alive, read))
        };
        let answer = self.node.shared.cluster.ask(PATIENCE, work).await;
        match answer {
            Ok((alive, Some(read))) => {
                if !full {
                    self.take(read);
                }
                alive
            }
            Ok((_, None)) => {
                // Its time is over, or Redis has lost it: nothing more will come.
                self.end("the stream's log is gone");
                None
            }
            Err(Trouble::Garbage) => {
                self.end("the stream's log can't be read");
                None
            }
            Err(_) => None,
        }
    }

    fn take(&mut self, read: Read) {
        let mut woken = Vec::new();
        for event in read.events {
            if event.seq > self.next {
                self.stream.skip_to(event.seq);
            }
            if event.seq >= self.next && !self.stream.with_log(|log| log.ended()) {
                self.next = event.seq + 1;
                self.stream.append(event, &mut woken);
            }
        }
        let ended = self.stream.with_log(|log| log.ended());
        let state = if ended { State::Closed } else { read.facts.state };
        let Facts { counts, in_flight, .. } = read.facts;
        self.stream.set_status(Status { state, counts, in_flight }, &mut woken);
        self.node.wake(&mut woken);
    }

    /// Ends the copy alone.
    fn end(&mut self, why: &str) {
        let mut status = self.stream.status();
        let event = lost(self.next, why, &status.counts);
        let mut woken = Vec::new();
        self.stream.append(event, &mut woken);
        status.state = State::Closed;
        self.stream.set_status(status, &mut woken);
        self.node.wake(&mut woken);
    }
}

/// Ends a log whose node is dead.
async fn bury(link: &Link, id: Ulid, found: &Read) -> Result<(), Trouble> {
    let mut facts = found.facts.clone();
    let done = facts.counts.completed();
    if done != found.results {
        // The node died between an event and its counts.
        facts.counts.failed += found.results.saturating_sub(done);
    }
    facts.state = State::Closed;
    facts.in_flight = 0;
    let event = lost(found.next, "the node that crawled has died", &facts.counts);
    let first_seq = found.next;
    let batch = Batch { id, facts, first_seq, oldest: false, events: vec![event] };
    remote::append(link.clone(), batch).await.map(drop)
}

fn lost(seq: u64, why: &str, counts: &Counts) -> events::Event {
    let failure = events::Failure::new(ApiCode::InternalError, why);
    events::error(&mut BytesMut::new(), seq, &failure, counts)
}

fn check(bytes: &[u8]) -> bool {
    json::value(bytes).is_ok() && !bytes.contains(&b'\n')
}

/// Readers on other nodes of a stream that is ours: one here stands for them all.
struct Absent {
    stream: Arc<Stream>,
    reader: ReaderId,
    watcher: Watcher,
    heard_at: Instant,
}

/// Takes letters of other nodes and does what they say, for as long as the process runs. One core does
/// it for all.
pub(super) async fn obey(node: &Rc<Node>) {
    let mut readers: HashMap<Ulid, Absent> = HashMap::new();
    let home = node.shared.cluster.node_id();
    loop {
        uring::time::sleep(LETTERS_EVERY).await;
        let taken =
            node.shared.cluster.ask(PATIENCE, move |link| async move { link.take(home).await });
        for letter in taken.await.unwrap_or_default() {
            let mut words = letter.split(' ');
            let order = words.next().unwrap_or_default();
            let id = words.next().and_then(|id| Ulid::from_string(id).ok());
            let stream = id.and_then(|id| node.shared.registry.find(id));
            let Some(stream) = stream.filter(|stream| stream.birth.home.is_none()) else {
                continue;
            };
            match (order, words.next().and_then(|seq| seq.parse().ok())) {
                ("cancel", None) => node.cancel(&stream),
                ("read", Some(seq)) => stand_in(node, &mut readers, stream, seq),
                _ => {}
            }
        }
        let gone = |absent: &Absent| absent.heard_at.elapsed() > READERS_LAST;
        let left: Vec<Ulid> = readers.iter().filter(|(_, a)| gone(a)).map(|(id, _)| *id).collect();
        for absent in left.iter().filter_map(|id| readers.remove(id)) {
            absent.stream.detach(absent.reader);
            node.unwatch(absent.watcher);
            node.look_at(absent.stream.owner(), absent.stream.id());
        }
    }
}

fn stand_in(
    node: &Rc<Node>,
    readers: &mut HashMap<Ulid, Absent>,
    stream: Arc<Stream>,
    seq_next: u64,
) {
    let absent = readers.entry(stream.id()).or_insert_with(|| {
        let watcher = node.watch(&Rc::<Notify>::default());
        let gauge = Arc::<ReaderGauge>::default();
        let reader = stream.attach(seq_next.checked_sub(1), watcher, &gauge);
        Absent { stream: Arc::clone(&stream), reader, watcher, heard_at: Instant::now() }
    });
    absent.heard_at = Instant::now();
    let reader = absent.reader;
    stream.with_log(|log| while log.next_if(reader, |event| event.seq < seq_next).is_some() {});
    node.look_at(stream.owner(), stream.id());
}
