//! Whose page a core's extraction lane takes up next, without clock, thread or task.
//!
//! Every client has the same right to the lane's CPU time, and of a client's share every one of its
//! streams; within one stream, first come, first served. What counts is time used, not pages: who
//! brings pages of a second each gets one where others get hundreds.
//!
//! Each party has a clock of its own, which runs on by the time that its pages take; the party whose
//! clock shows the least is next. A clock that was left behind while its party brought nothing is
//! set to the present ([`Order::now`], where the last party stood when it was chosen): nobody saves
//! time up, and whoever is new comes before all that have had their share. A party that leaves is
//! remembered until the present has caught up with it: going and coming back makes nobody new.
//!
//! Order of calls: [`Turns::push`] for each page that comes, [`Turns::pop`] when the lane has room,
//! [`Turns::settle`] when it has told what the page took.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use ulid::Ulid;

/// The least that a page counts for, in microseconds: those that cost nothing take turns, too.
const MICROS_MIN: u64 = 20;

/// What a page is taken to need before its party has shown what its pages take, in microseconds.
const MICROS_GUESS: u64 = 1_000;

/// One of a client's lines of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// The pages of a stream.
    Stream(Ulid),
    /// The pages that come in requests from one address, by whatever number counts as one.
    Address(u128),
}

/// Whose turn a page waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Whose {
    /// The principal.
    pub client: Arc<str>,
    /// Which of its lines.
    pub line: Line,
}

/// A page's turn, to be settled.
#[derive(Debug)]
#[must_use = "a turn that is not settled was had for a guess"]
pub struct Turn {
    whose: Whose,
    /// What was charged beforehand, in microseconds.
    guess: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Turns<J> {
    clients: Order<Arc<str>>,
    lines: HashMap<Arc<str>, Order<Line>>,
    waiting: HashMap<Whose, VecDeque<J>>,
    len: usize,
    /// Turns that are not settled.
    open: usize,
}

impl<J> Default for Turns<J> {
    fn default() -> Self {
        Self {
            clients: Order::default(),
            lines: HashMap::new(),
            waiting: HashMap::new(),
            len: 0,
            open: 0,
        }
    }
}

impl<J> Turns<J> {
    /// A page comes.
    pub fn push(&mut self, whose: &Whose, job: J) {
        self.clients.enter(&whose.client);
        self.lines.entry(Arc::clone(&whose.client)).or_default().enter(&whose.line);
        self.waiting.entry(whose.clone()).or_default().push_back(job);
        self.len += 1;
    }

    /// The next page, where one waits.
    pub fn pop(&mut self) -> Option<(Turn, J)> {
        let client = self.clients.first()?;
        let lines = self.lines.get_mut(&client).expect("who waits has a line");
        let line = lines.first().expect("who waits has a line");
        let whose = Whose { client, line };
        let jobs = self.waiting.get_mut(&whose).expect("a line that waits has a page");
        let job = jobs.pop_front().expect("a line that waits has a page");
        let guess = lines.guess(&whose.line);
        lines.charge(&whose.line, guess);
        self.clients.charge(&whose.client, guess);
        self.len -= 1;
        self.open += 1;
        self.leave_if_done(&whose);
        Some((Turn { whose, guess }, job))
    }

    /// What a page's turn has taken.
    pub fn settle(&mut self, turn: Turn, used: Duration) {
        let Turn { whose, guess } = turn;
        let used = u64::try_from(used.as_micros()).unwrap_or(u64::MAX).max(MICROS_MIN);
        self.clients.settle(&whose.client, guess, used);
        if let Some(lines) = self.lines.get_mut(&whose.client) {
            lines.settle(&whose.line, guess, used);
        }
        self.open -= 1;
        self.forget_if_idle();
    }

    /// Takes back the pages of a line that are meant; how many those were.
    pub fn withdraw(&mut self, whose: &Whose, meant: impl Fn(&J) -> bool) -> usize {
        let Some(jobs) = self.waiting.get_mut(whose) else { return 0 };
        let before = jobs.len();
        jobs.retain(|job| !meant(job));
        let gone = before - jobs.len();
        self.len -= gone;
        self.leave_if_done(whose);
        self.forget_if_idle();
        gone
    }

    /// Pages that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a page of this line waits.
    #[must_use]
    pub fn has(&self, whose: &Whose) -> bool {
        self.waiting.contains_key(whose)
    }

    fn leave_if_done(&mut self, whose: &Whose) {
        if self.waiting.get(whose).is_none_or(|jobs| !jobs.is_empty()) {
            return;
        }
        self.waiting.remove(whose);
        let lines = self.lines.get_mut(&whose.client).expect("who waited has a line");
        lines.leave(&whose.line);
        lines.forget();
        if lines.ready.is_empty() {
            self.clients.leave(&whose.client);
        }
        for forgotten in self.clients.forget() {
            self.lines.remove(&forgotten);
        }
    }

    /// Where nobody waits for anybody, there is nothing to be remembered.
    fn forget_if_idle(&mut self) {
        if self.len == 0 && self.open == 0 {
            *self = Self::default();
        }
    }
}

/// One party's clock.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// Microseconds that it has had.
    at: u64,
    /// Its place among those whose clocks show the same: who was served last is last.
    since: u64,
    /// Whether something of it waits.
    ready: bool,
    /// Turns of it that are not settled.
    open: u32,
    /// What its last page took, in microseconds; 0 before the first.
    last: u64,
}

/// Parties by their clocks.
#[derive(Debug)]
struct Order<K> {
    clocks: HashMap<K, Clock>,
    /// Those of which something waits.
    ready: BTreeSet<(u64, u64, K)>,
    /// Those of which nothing waits and no turn is open, by their clocks.
    resting: BTreeSet<(u64, K)>,
    now: u64,
    served: u64,
}

impl<K> Default for Order<K> {
    fn default() -> Self {
        Self {
            clocks: HashMap::new(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            now: 0,
            served: 0,
        }
    }
}

impl<K: Clone + Ord + Hash> Order<K> {
    /// Something of `key` waits.
    fn enter(&mut self, key: &K) {
        let (now, served) = (self.now, self.served + 1);
        self.change(key, |clock| {
            if !clock.ready {
                *clock = Clock { ready: true, at: clock.at.max(now), since: served, ..*clock };
            }
        });
        self.served = served;
    }

    /// Nothing of `key` waits any more.
    fn leave(&mut self, key: &K) {
        self.change(key, |clock| clock.ready = false);
    }

    /// Whose turn it is; the present is where that party stands.
    fn first(&mut self) -> Option<K> {
        let (at, _, key) = self.ready.first()?;
        self.now = self.now.max(*at);
        Some(key.clone())
    }

    /// What the next page of `key` is taken to need.
    fn guess(&self, key: &K) -> u64 {
        match self.clocks.get(key).map_or(0, |clock| clock.last) {
            0 => MICROS_GUESS,
            last => last,
        }
    }

    /// `key` has its turn.
    fn charge(&mut self, key: &K, micros: u64) {
        self.served += 1;
        let served = self.served;
        self.change(key, |clock| {
            clock.at = clock.at.saturating_add(micros);
            clock.since = served;
            clock.open += 1;
        });
    }

    /// `used` takes the place of what was charged before.
    fn settle(&mut self, key: &K, guess: u64, used: u64) {
        self.change(key, |clock| {
            clock.at = clock.at.saturating_sub(guess).saturating_add(used);
            clock.open -= 1;
            clock.last = used;
        });
    }

    fn change(&mut self, key: &K, change: impl FnOnce(&mut Clock)) {
        let clock = self.clocks.entry(key.clone()).or_default();
        let before = *clock;
        change(clock);
        let after = *clock;
        if before.ready {
            self.ready.remove(&(before.at, before.since, key.clone()));
        } else if before.open == 0 {
            self.resting.remove(&(before.at, key.clone()));
        }
        if after.ready {
            self.ready.insert((after.at, after.since, key.clone()));
        } else if after.open == 0 {
            self.resting.insert((after.at, key.clone()));
        }
    }

    /// Forgets who rests and has nothing left to wait for; who that is.
    fn forget(&mut self) -> Vec<K> {
        let mut gone = Vec::new();
        while let Some((at, _)) = self.resting.first()
            && *at <= self.now
            && let Some((_, key)) = self.resting.pop_first()
        {
            self.clocks.remove(&key);
            gone.push(key);
        }
        gone
    }
}

#[cfg(test)]
mod tests;
