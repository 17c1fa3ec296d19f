//! One stream, its pages, its readers and its clock.

use super::reader::Reader;
use bytes::{Bytes, BytesMut};
use forebay::error::{PageCode, PageError, Stage};
use forebay::proto::events::{self, Counts, Document, Event, Page, PageResult, Stored};
use forebay::proto::text::Text;
use forebay::stream::log::Log;
use forebay::stream::machine::{Ending, Machine, Order, Output, Plan};
use forebay::stream::state::State;
use forebay::timings::Timings;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood 2014): one number decides a whole run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a run met on its way.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    paused: u64,
    gaps: u64,
    reattached: u64,
    cancelled: u64,
    deadline: u64,
    completed: u64,
    acked: u64,
    added: u64,
    add_refused: u64,
    starved: u64,
    cached: u64,
    found: u64,
    failed: u64,
    rings_grown: u64,
    rings_shrunk: u64,
    rings_full: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, run: &Self) {
        self.paused += run.paused;
        self.gaps += run.gaps;
        self.reattached += run.reattached;
        self.cancelled += run.cancelled;
        self.deadline += run.deadline;
        self.completed += run.completed;
        self.acked += run.acked;
        self.added += run.added;
        self.add_refused += run.add_refused;
        self.starved += run.starved;
        self.cached += run.cached;
        self.found += run.found;
        self.failed += run.failed;
        self.rings_grown += run.rings_grown;
        self.rings_shrunk += run.rings_shrunk;
        self.rings_full += run.rings_full;
    }

    pub(crate) fn covers_everything(&self) -> bool {
        let all = [self.paused, self.gaps, self.reattached, self.cancelled, self.deadline];
        let ops = [self.acked, self.added, self.add_refused, self.starved, self.cached];
        let searches = [self.found, self.failed];
        let rings = [self.rings_grown, self.rings_shrunk, self.rings_full];
        let rare = searches.iter().chain(&rings);
        all.iter().chain(&ops).chain(rare).all(|count| *count > 0) && self.completed > 0
    }
}

pub(crate) struct World {
    random: Random,
    verbose: bool,
    now: Instant,
    machine: Machine,
    log: Log,
    log_bytes_max: usize,
    document_bytes_max: u64,
    concurrency: u32,
    urls: Vec<Text>,
    in_flight: Vec<u32>,
    aborted: bool,
    /// A search that is to give the stream its URLs is under way.
    searching: bool,
    readers: Vec<Reader>,
    results: Vec<u32>,
    last: Option<(Counts, &'static str)>,
    seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut random = Random(seed);
        let searching = random.chance(20);
        let total = if searching { 0 } else { [1, 2, 10, 60][random.below(4) as usize] };
        let urls: Vec<Text> = (0..total).map(url).collect();
        let concurrency = 1 + random.below(8) as u32;
        let plan = Plan {
            urls: urls.as_slice().into(),
            concurrency,
            order: if random.chance(50) { Order::Input } else { Order::Completion },
            deadline: Duration::from_millis(50 + random.below(5000)),
            progress: Duration::from_millis(random.below(3) * 40),
            sources: u32::from(searching),
        };
        let now = Instant::now();
        let mut log = Log::new(8_000);
        let readers = (0..1 + random.below(3)).map(|_| Reader::new(&mut log)).collect();
        Self {
            machine: Machine::new(plan, now),
            log,
            log_bytes_max: 8_000,
            document_bytes_max: 1 + random.below(2_000),
            concurrency,
            urls,
            in_flight: Vec::new(),
            aborted: false,
            searching,
            readers,
            results: Vec::new(),
            last: None,
            seen: Seen::default(),
            random,
            verbose,
            now,
        }
    }

    /// Runs the stream to its end and its readers to theirs.
    pub(crate) fn run(mut self) -> Seen {
        self.machine.handle_start(self.now);
        self.settle();
        let mut steps = 0;
        while self.machine.state() != State::Closed {
            steps += 1;
            assert!(steps < 100_000, "the stream never ends");
            self.step(steps > 2_000);
            self.settle();
        }
        self.finish();
        self.seen
    }

    /// One thing happens; `fair` leaves out whatever can hold the stream up.
    fn step(&mut self, fair: bool) {
        if self.searching && (fair || self.random.chance(10)) {
            self.end_search();
            return;
        }
        let dice = self.random.below(100);
        match dice {
            0..40 => self.end_page(),
            40..70 => self.read(fair),
            70..80 => self.pass_time(),
            80..88 => self.leave_or_come_back(fair),
            88..92 => self.ack(),
            92 if self.random.chance(20) => self.end(),
            93..95 if !fair => self.add(),
            _ => self.end_page(),
        }
        if fair {
            self.read(true);
            self.end_page();
        }
    }

    fn end_page(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = self.random.below(self.in_flight.len() as u64) as usize;
        let index = self.in_flight.swap_remove(at);
        let url = self.machine.url(index).clone();
        assert_eq!(url, self.urls[index as usize]);
        let page = if self.aborted {
            PageResult::failed(url, PageError::new(PageCode::Cancelled, Stage::Body, "ended"))
        } else if self.random.chance(30) {
            PageResult::failed(url, PageError::new(PageCode::DnsFailed, Stage::Dns, "no such host"))
        } else {
            let size = self.random.below(self.document_bytes_max) as usize;
            let json = Bytes::from(format!("\"{}\"", "x".repeat(size)));
            let document = Document { json, quality: Bytes::from_static(b"1.0") };
            let dummy = PageError::new(PageCode::Cancelled, Stage::Queue, "");
            PageResult { document: Some(document), error: None, ..PageResult::failed(url, dummy) }
        };
        self.trace(&format!("page {index} ends"));
        self.machine.handle_result(self.now, index, Box::new(page));
    }

    /// A page that is in the cache ends in the moment in which it begins.
    fn find_cached(&mut self, index: u32) {
        let dummy = PageError::new(PageCode::DnsFailed, Stage::Dns, "no such host");
        let page = PageResult::failed(self.urls[index as usize].clone(), dummy);
        self.trace(&format!("page {index} is cached"));
        self.machine.handle_cached(self.now, index, Arc::new(Stored::new(&page)));
        self.seen.cached += 1;
        while let Some(output) = self.machine.poll_output() {
            self.write(output);
        }
    }

    fn read(&mut self, all: bool) {
        let at = self.random.below(self.readers.len() as u64) as usize;
        let most = self.random.below(12);
        let bytes = [0, 1, 100, 2_000, 20_000][self.random.below(5) as usize];
        let took = Duration::from_millis(if self.random.chance(15) { 150 } else { 1 });
        for (index, reader) in self.readers.iter_mut().enumerate() {
            if all {
                reader.read_all(&mut self.log, self.now);
            } else if index == at {
                let offered = reader.read(&mut self.log, self.now, most, (bytes, took));
                self.seen.starved += u64::from(offered);
            }
        }
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_millis(self.random.below(60));
        if self.machine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.trace("timeout");
            self.machine.handle_timeout(self.now);
        }
    }

    fn leave_or_come_back(&mut self, fair: bool) {
        let at = self.random.below(self.readers.len() as u64) as usize;
        let reader = &mut self.readers[at];
        if reader.attached() && !fair {
            reader.detach(&mut self.log);
        } else if !reader.attached() {
            let forget = self.random.below(3) * self.random.below(20);
            reader.attach(&mut self.log, forget);
            self.seen.reattached += 1;
        }
    }

    fn ack(&mut self) {
        let seq = self.random.below(20);
        let freed = self.log.ack(seq);
        self.seen.acked += u64::from(freed > 0);
    }

    /// More URLs, before the end or, sometimes, behind it.
    fn add(&mut self) {
        let more: Vec<Text> =
            (0..1 + self.random.below(5)).map(|at| url(self.urls.len() as u64 + at)).collect();
        self.trace(&format!("add {}", more.len()));
        let runs = matches!(self.machine.state(), State::Active | State::Flushing);
        match self.machine.handle_add(&more) {
            Ok(first) => {
                assert!(runs && !self.aborted, "nothing is added to a stream that ends");
                assert_eq!(first as usize, self.urls.len(), "behind all others");
                self.urls.extend(more);
                self.seen.added += 1;
            }
            Err(_) => {
                assert!(!runs, "a running stream takes more");
                self.seen.add_refused += 1;
            }
        }
        assert_eq!(self.machine.counts().total, self.urls.len() as u64);
    }

    /// The search finds some URLs, or none, or fails.
    fn end_search(&mut self) {
        self.searching = false;
        if self.random.chance(30) {
            self.trace("the search fails");
            self.machine.handle_end(self.now, Ending::Failed);
        } else {
            let count = self.random.below(12);
            let first = self.urls.len() as u64;
            let urls: Vec<Text> = (first..first + count).map(url).collect();
            self.trace(&format!("the search finds {count}"));
            match self.machine.handle_found(&urls) {
                Some(at) => {
                    assert!(!self.aborted, "nothing is found for a stream that ends");
                    assert_eq!(u64::from(at), first, "behind all others");
                    self.urls.extend(urls);
                    self.seen.found += 1;
                }
                None => assert!(self.machine.ending().is_some(), "a running stream takes its hits"),
            }
        }
        assert!(self.last.is_none(), "a stream waits for its search");
        self.machine.handle_source_end(self.now);
    }

    fn end(&mut self) {
        let ending = if self.random.chance(50) { Ending::Cancelled } else { Ending::Drained };
        self.trace(&format!("{ending:?}"));
        self.machine.handle_end(self.now, ending);
    }

    /// What the driver does after every event: write, pause or go on, hand out work.
    fn settle(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.trace(&format!("{output:?}"));
            self.write(output);
        }
        loop {
            let behind = self.log.behind() + self.machine.held_bytes() >= self.log_bytes_max / 2;
            if behind && self.machine.state() == State::Active {
                self.seen.paused += 1;
            }
            self.machine.handle_watermark(behind);
            let Some(index) = self.machine.poll_dispatch() else { break };
            assert!(!self.aborted, "nothing begins after the end");
            if self.random.chance(20) {
                self.find_cached(index);
            } else {
                self.in_flight.push(index);
            }
        }
        assert!(self.in_flight.len() <= self.concurrency as usize);
        assert_eq!(self.in_flight.len(), self.machine.in_flight() as usize);
        self.check_bytes();
    }

    /// The window, what was in flight when the crawl paused, and the small results of an early end.
    fn check_bytes(&self) {
        let head = 700;
        let late = (u64::from(self.concurrency) + 1) * (self.document_bytes_max + head);
        let small = self.urls.len() as u64 * head;
        let most = self.log_bytes_max as u64 + late + small;
        assert!((self.log.bytes() as u64) < most, "{} bytes, {most} at most", self.log.bytes());
        // What waits for an earlier index pauses the crawl as what waits for readers does, so it never
        // is more than half the window, what was under way, and a page or two from the cache.
        let (held, page) = (self.machine.held_bytes() as u64, self.document_bytes_max + head);
        let most = self.log_bytes_max as u64 / 2 + (u64::from(self.concurrency) + 2) * page;
        assert!(held <= most || self.aborted, "{held} bytes held, {most} at most");
    }

    fn write(&mut self, output: Output) {
        let out = &mut BytesMut::new();
        let event: Event = match output {
            Output::Metadata => events::metadata(
                out,
                &events::Metadata {
                    stream_id: "s",
                    total_urls: self.urls.len(),
                    stream_type: "crawl",
                    request_id: "r",
                    at: UNIX_EPOCH,
                    resume_window_s: 0,
                    replay_bytes_max: self.log_bytes_max,
                    deadline_ms: 0,
                    warnings: &[],
                },
            ),
            Output::Result { seq, index, page, counts } => {
                self.results.push(index);
                match page {
                    Page::Fetched(page) => events::result(out, seq, index, &page, &counts),
                    Page::Cached(stored) => {
                        let place = (index, &*self.urls[index as usize]);
                        events::cached(out, seq, place, &stored, &Timings::default(), &counts)
                    }
                }
            }
            Output::Search { seq, found } => {
                let facts = events::SearchFacts {
                    query: "q",
                    urls_found: found,
                    search_time_ms: 1,
                    provider: "p",
                };
                events::search(out, seq, &facts)
            }
            Output::Failure { seq, counts } => {
                assert!(self.last.replace((counts, "failed")).is_none(), "one last event");
                let facts = events::Failure {
                    code: "search_unavailable",
                    status: 503,
                    message: "m",
                    retry_after_ms: Some(1),
                };
                events::error(out, seq, &facts, &counts)
            }
            Output::Progress => events::heartbeat(out, UNIX_EPOCH),
            Output::Abort => {
                self.aborted = true;
                return;
            }
            Output::Summary { seq, counts, ending, .. } => {
                let status = ending.map_or("completed", Ending::status);
                assert!(self.last.replace((counts, status)).is_none(), "one summary");
                let facts = events::Summary { counts, total_ms: 0, ttfr_ms: None, status };
                events::summary(out, seq, &facts)
            }
        };
        self.log.append(event);
    }

    fn finish(&mut self) {
        assert!(self.machine.handle_add(&[url(0)]).is_err(), "a closed stream takes no more");
        assert!(self.in_flight.is_empty(), "everything has come to its end");
        let (counts, status) = self.last.expect("a closed stream has its summary");
        assert_eq!(counts.completed(), counts.total);
        match status {
            "completed" => self.seen.completed += 1,
            "cancelled" => self.seen.cancelled += 1,
            "deadline_exceeded" => self.seen.deadline += 1,
            "failed" => self.seen.failed += 1,
            other => panic!("unknown status {other}"),
        }
        let mut indexes = self.results.clone();
        indexes.sort_unstable();
        let wanted: Vec<u32> = (0..self.urls.len() as u32).collect();
        assert_eq!(indexes, wanted, "one result for each index");
        let end = self.log.next_seq() - 1;
        for reader in &mut self.readers {
            if !reader.attached() {
                reader.attach(&mut self.log, 0);
            }
            reader.read_all(&mut self.log, self.now);
            assert!(reader.finished, "a reader that reads comes to the end");
            assert_eq!(reader.last, Some(end));
            reader.detach(&mut self.log);
            self.seen.gaps += reader.gaps;
            self.seen.rings_grown += reader.grown;
            self.seen.rings_shrunk += reader.shrunk;
            self.seen.rings_full += reader.refused;
        }
    }

    fn trace(&self, what: &str) {
        if self.verbose {
            println!("{:?} {what}", self.machine.state());
        }
    }
}

fn url(at: u64) -> Text {
    format!("https://example.com/{at}").into()
}
