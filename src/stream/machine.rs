//! A stream's life as a state machine without clock, socket or task.
//!
//! Order of calls: [`Machine::handle_start`] once; then any `handle_*` as things happen, and after
//! each of them [`Machine::poll_dispatch`] and [`Machine::poll_output`] until both have nothing, and
//! [`Machine::poll_timeout`] for when to call [`Machine::handle_timeout`].
//!
//! It promises (API §3): `seq` counts 0, 1, 2, … without holes; each index has exactly one result;
//! `successful + failed + cancelled = total`; the last event is one `summary`.

use super::state::State;
use crate::error::{PageCode, PageError, Stage};
use crate::proto::events::{Counts, Page, PageResult, Stored};
use crate::proto::text::Text;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// In which order results leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each as soon as it is there.
    Completion,
    /// As the URLs were given.
    Input,
}

/// Why a stream ends before its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client said so, or is gone.
    Cancelled,
    /// `deadline_ms` has passed.
    Deadline,
    /// The server is going down.
    Drained,
    /// What was to give it its URLs has failed; the last event is an `error`.
    Failed,
}

impl Ending {
    /// The status in `summary`.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::Cancelled | Self::Drained => "cancelled",
            Self::Deadline => "deadline_exceeded",
            Self::Failed => "failed",
        }
    }

    fn error(self, stage: Stage) -> PageError {
        match self {
            Self::Cancelled => {
                PageError::new(PageCode::Cancelled, stage, "the stream was cancelled")
            }
            Self::Drained => {
                PageError::new(PageCode::Cancelled, stage, "the server is shutting down")
            }
            Self::Failed => {
                PageError::new(PageCode::Cancelled, stage, "the stream's search has failed")
            }
            Self::Deadline => PageError::new(
                PageCode::DeadlineExceeded,
                stage,
                "the stream's deadline_ms passed before this page was done",
            ),
        }
    }
}

/// What a stream is to do, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What to fetch, in the client's order.
    pub urls: Arc<[Text]>,
    /// Fetches at a time, at least 1.
    pub concurrency: u32,
    /// In which order results leave.
    pub order: Order,
    /// Time for the whole stream.
    pub deadline: Duration,
    /// Time between `progress` events; none when zero.
    pub progress: Duration,
    /// Sources of further URLs (a search, sitemaps) that the stream waits for before it may end.
    pub sources: u32,
}

/// A stream takes no more URLs: it has ended, or is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has ended and takes no more URLs")]
pub struct Ended;

/// Something to write or to do.
#[derive(Debug)]
pub enum Output {
    /// Write `metadata`, seq 0.
    Metadata,
    /// Write a `result`.
    Result {
        /// Its place in the stream.
        seq: u64,
        /// The URL's place in the request.
        index: u32,
        /// What became of the URL.
        page: Page,
        /// Totals, this result included.
        counts: Counts,
    },
    /// Write a `search`: what was searched for has been found.
    Search {
        /// Its place in the stream.
        seq: u64,
        /// URLs that came of it.
        found: usize,
    },
    /// Write an `error`, the last event.
    Failure {
        /// Its place in the stream.
        seq: u64,
        /// Final totals.
        counts: Counts,
    },
    /// Write a `progress`, or let a later one stand for it.
    Progress,
    /// End everything that runs for the stream; the results of what runs are still awaited.
    Abort,
    /// Write the `summary`, the last event.
    Summary {
        /// Its place in the stream.
        seq: u64,
        /// Final totals.
        counts: Counts,
        /// From the start to here.
        total: Duration,
        /// To the first result.
        ttfr: Option<Duration>,
        /// Why it ended before its work was done, if it did.
        ending: Option<Ending>,
    },
}

/// The machine; see the module for the order of calls.
#[derive(Debug)]
pub struct Machine {
    plan: Plan,
    /// URLs that came while the stream ran, behind those of the plan.
    added: Vec<Text>,
    state: State,
    started: Instant,
    counts: Counts,
    seq_next: u64,
    /// The first index that was not handed out.
    dispatch_next: u32,
    in_flight: u32,
    /// Sources of URLs that have not come to their end.
    sources: u32,
    /// For [`Order::Input`]: results that wait for an earlier index.
    held: BTreeMap<u32, Page>,
    /// Bytes of those.
    held_bytes: usize,
    /// Results that came, and bytes of the largest.
    came: u32,
    largest: usize,
    order_next: u32,
    ttfr: Option<Duration>,
    ending: Option<Ending>,
    /// When it was ended, if it was.
    ended_at: Instant,
    progress_due: Option<Instant>,
    output: VecDeque<Output>,
}

impl Machine {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(plan: Plan, now: Instant) -> Self {
        let counts = Counts { total: plan.urls.len() as u64, ..Counts::default() };
        Self {
            added: Vec::new(),
            state: State::Initializing,
            started: now,
            counts,
            seq_next: 0,
            dispatch_next: 0,
            in_flight: 0,
            sources: plan.sources,
            held: BTreeMap::new(),
            held_bytes: 0,
            came: 0,
            largest: 0,
            order_next: 0,
            ttfr: None,
            ending: None,
            ended_at: now,
            progress_due: (!plan.progress.is_zero()).then(|| now + plan.progress),
            output: VecDeque::new(),
            plan,
        }
    }

    /// Begins: `metadata` is the first output.
    pub fn handle_start(&mut self, now: Instant) {
        self.go(State::Active);
        self.seq_next = 1;
        self.output.push_back(Output::Metadata);
        self.finish_when_done(now);
    }

    /// A URL that [`Machine::poll_dispatch`] handed out has come to its end.
    pub fn handle_result(&mut self, now: Instant, index: u32, mut page: Box<PageResult>) {
        debug_assert!(index < self.dispatch_next && self.in_flight > 0, "handed out before");
        self.in_flight -= 1;
        if let (Some(ending), Some(error)) = (self.ending, &page.error)
            && error.code == PageCode::Cancelled
        {
            page.error = Some(ending.error(error.stage));
        }
        self.deliver(now, index, Page::Fetched(page));
        self.finish_when_done(now);
    }

    /// A URL that [`Machine::poll_dispatch`] handed out was found in the cache.
    pub fn handle_cached(&mut self, now: Instant, index: u32, page: Arc<Stored>) {
        debug_assert!(index < self.dispatch_next && self.in_flight > 0, "handed out before");
        self.in_flight -= 1;
        self.deliver(now, index, Page::Cached(page));
        self.finish_when_done(now);
    }

    /// The search has come to an answer: what it found is announced and becomes the stream's URLs. Answers
    /// the first one's index; `None` where the stream is being ended and wants none.
    pub fn handle_found(&mut self, urls: &[Text]) -> Option<u32> {
        if self.ending.is_some() {
            return None;
        }
        let seq = self.take_seq();
        self.output.push_back(Output::Search { seq, found: urls.len() });
        self.handle_add(urls).ok()
    }

    /// A source of URLs has come to its end, whatever it gave.
    pub fn handle_source_end(&mut self, now: Instant) {
        debug_assert!(self.sources > 0, "each source ends once");
        self.sources -= 1;
        self.finish_when_done(now);
    }

    /// More URLs, behind all others: the total grows. Answers the first one's index.
    ///
    /// # Errors
    /// [`Ended`], and nothing is added.
    pub fn handle_add(&mut self, urls: &[Text]) -> Result<u32, Ended> {
        if self.ending.is_some() || !matches!(self.state, State::Active | State::Flushing) {
            return Err(Ended);
        }
        let first = self.total();
        self.added.extend_from_slice(urls);
        self.counts.total += urls.len() as u64;
        Ok(first)
    }

    /// Readers fell behind (`true`) or have caught up (`false`).
    pub fn handle_watermark(&mut self, behind: bool) {
        match (self.state, behind) {
            (State::Active, true) => self.go(State::Flushing),
            (State::Flushing, false) => self.go(State::Active),
            _ => {}
        }
    }

    /// Ends the stream early: what runs is aborted, what never ran gets its result as fast as
    /// [`Machine::poll_output`] is asked for it.
    pub fn handle_end(&mut self, now: Instant, ending: Ending) {
        if self.ending.is_some() || matches!(self.state, State::Closing | State::Closed) {
            return;
        }
        self.ending = Some(ending);
        self.ended_at = now;
        self.output.push_back(Output::Abort);
        self.go(State::Closing);
        self.finish_when_done(now);
    }

    /// Time has passed: the deadline, or the next `progress`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ending.is_none() && now >= self.started + self.plan.deadline {
            self.handle_end(now, Ending::Deadline);
        }
        if let Some(due) = self.progress_due
            && now >= due
            && self.state != State::Closed
        {
            // From now, not from `due`: a late tick must not be followed by a burst of them.
            self.progress_due = Some(now + self.plan.progress);
            self.output.push_back(Output::Progress);
        }
    }

    /// The next URL to fetch, while there is one and it may start.
    pub fn poll_dispatch(&mut self) -> Option<u32> {
        let next = self.next_dispatch()?;
        self.in_flight += 1;
        self.dispatch_next += 1;
        Some(next)
    }

    /// What [`Machine::poll_dispatch`] would answer.
    #[must_use]
    pub fn next_dispatch(&self) -> Option<u32> {
        let open = self.state == State::Active
            && self.in_flight < self.plan.concurrency
            && self.dispatch_next < self.total();
        open.then_some(self.dispatch_next)
    }

    /// What to write or do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        while self.output.is_empty()
            && let Some(ending) = self.ending
            && self.dispatch_next < self.total()
        {
            let index = self.dispatch_next;
            self.dispatch_next += 1;
            let url = self.url(index).clone();
            let page = PageResult::failed(url, ending.error(Stage::Queue));
            self.deliver(self.ended_at, index, Page::Fetched(Box::new(page)));
            self.finish_when_done(self.ended_at);
        }
        self.output.pop_front()
    }

    /// Whether everything is written that there will ever be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Closed && self.output.is_empty()
    }

    /// When to call [`Machine::handle_timeout`]; never once the stream is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return None;
        }
        let deadline = self.ending.is_none().then(|| self.started + self.plan.deadline);
        [deadline, self.progress_due].into_iter().flatten().min()
    }

    /// What stands at an index that [`Machine::poll_dispatch`] handed out.
    ///
    /// # Panics
    /// For an index beyond the total.
    #[must_use]
    pub fn url(&self, index: u32) -> &Text {
        let at = index as usize;
        self.plan.urls.get(at).unwrap_or_else(|| &self.added[at - self.plan.urls.len()])
    }

    /// Where the stream stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why the stream is being ended before its work is done, if it is.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Totals so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Fetches under way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes of results that wait for an earlier index. They are in nobody's log yet; the index that
    /// they wait for is under way, because URLs are handed out in their order.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Results that came, in whichever order, and the bytes of the largest.
    #[must_use]
    pub const fn came(&self) -> (u32, usize) {
        (self.came, self.largest)
    }

    /// When the stream began.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// When the stream must be over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.started + self.plan.deadline
    }

    /// A URL that is being worked on, for `progress`.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        let last = self.dispatch_next.checked_sub(1).filter(|_| self.in_flight > 0)?;
        Some(self.url(last))
    }

    fn total(&self) -> u32 {
        let total = self.plan.urls.len() + self.added.len();
        u32::try_from(total).expect("URLs of a stream are limited")
    }

    fn deliver(&mut self, now: Instant, index: u32, page: Page) {
        self.came += 1;
        self.largest = self.largest.max(page.bytes());
        if self.plan.order == Order::Completion {
            self.emit(now, index, page);
            return;
        }
        if index == self.order_next {
            self.emit(now, index, page);
            self.order_next += 1;
        } else {
            self.held_bytes += page.bytes();
            self.held.insert(index, page);
        }
        while let Some(page) = self.held.remove(&self.order_next) {
            self.held_bytes -= page.bytes();
            self.emit(now, self.order_next, page);
            self.order_next += 1;
        }
    }

    fn emit(&mut self, now: Instant, index: u32, page: Page) {
        match page.code() {
            None => self.counts.successful += 1,
            Some(PageCode::Cancelled) => self.counts.cancelled += 1,
            Some(_) => self.counts.failed += 1,
        }
        self.counts.from_cache += u64::from(page.from_cache());
        self.ttfr.get_or_insert_with(|| now.saturating_duration_since(self.started));
        let seq = self.take_seq();
        self.output.push_back(Output::Result { seq, index, page, counts: self.counts });
    }

    fn finish_when_done(&mut self, now: Instant) {
        if self.counts.completed() < self.counts.total || self.in_flight > 0 || self.sources > 0 {
            return;
        }
        if self.state != State::Closing {
            self.go(State::Closing);
        }
        self.go(State::Closed);
        let seq = self.take_seq();
        if self.ending == Some(Ending::Failed) {
            self.output.push_back(Output::Failure { seq, counts: self.counts });
            return;
        }
        self.output.push_back(Output::Summary {
            seq,
            counts: self.counts,
            total: now.saturating_duration_since(self.started),
            ttfr: self.ttfr,
            ending: self.ending,
        });
    }

    const fn take_seq(&mut self) -> u64 {
        self.seq_next += 1;
        self.seq_next - 1
    }

    fn go(&mut self, to: State) {
        self.state = self.state.to(to).expect("the machine only makes moves of the diagram");
    }
}
