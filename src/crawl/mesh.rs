//! What cores, lanes and the control thread say to each other: one bounded mailbox per core.

use super::cached::Landing;
use super::live::AddError;
use super::request::Options;
use crate::cache::flights::FlightId;
use crate::cache::key::Key;
use crate::error::{PageCode, PageError, Stage};
use crate::extract::Extracted;
use crate::observe::core_snapshot::CoreSnapshot;
use crate::observe::hist::Scope;
use crate::proto::events::{About, PageResult};
use crate::proto::text::Text;
use crate::stream::Stream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;
use uring::mailbox::Sender;

/// Letters that may wait for one core: pages handed to it, results of its streams' pages, wake-ups.
pub const LETTERS_MAX: usize = 4096;

/// One URL to fetch and extract, on whichever core.
#[derive(Debug)]
pub struct PageJob {
    /// For whom.
    pub stream: Arc<Stream>,
    /// What.
    pub url: Text,
    /// What the cache knows it by, with its options.
    pub key: Key,
    /// Its place in the request.
    pub index: u32,
    /// How.
    pub options: Arc<Options>,
    /// When the stream began: waiting from then on counts as `queue`.
    pub since: Instant,
    /// When the whole stream must be over.
    pub deadline: Instant,
}

/// A fetched page for a lane.
pub struct LaneJob {
    /// The body, after its content codings.
    pub body: Vec<u8>,
    /// The charset that the answer's head names.
    pub charset: Option<String>,
    /// Base of the document's links.
    pub url: String,
    /// What the document is to hold.
    pub options: crate::extract::Options,
    /// For whom; nothing is extracted any more once it is aborted.
    pub stream: Option<Arc<Stream>>,
    /// When nobody wants the document any more.
    pub deadline: Instant,
    /// When it began to wait for the lane.
    pub submitted: Instant,
}

impl LaneJob {
    /// The answer to a page that the lane has not taken up.
    #[must_use]
    pub fn refuse(&self, code: PageCode, message: &str) -> LaneReply {
        LaneReply {
            outcome: Err(PageError::new(code, Stage::ExtractWait, message)),
            about: None,
            waited: self.submitted.elapsed(),
            took: Duration::ZERO,
            used: Duration::ZERO,
        }
    }
}

/// What a lane made of a page.
#[derive(Debug)]
pub struct LaneReply {
    /// The document, or why there is none.
    pub outcome: Result<Extracted, PageError>,
    /// What the page tells crawlers, where it was asked and tells something.
    pub about: Option<Arc<About>>,
    /// From submission to the lane's taking it up.
    pub waited: Duration,
    /// From there to the end.
    pub took: Duration,
    /// CPU time of that.
    pub used: Duration,
}

/// A letter to a core.
pub enum Message {
    /// Fetch this page and answer with [`Message::Done`].
    Page(Box<PageJob>),
    /// A page of a stream that this core owns has come to its end.
    Done {
        /// Of which stream.
        stream: Ulid,
        /// The URL's place in the request.
        index: u32,
        /// What became of it.
        page: Box<PageResult>,
    },
    /// A page that somebody here waits for has been fetched, or not, by another core.
    Landed {
        /// Which flight.
        flight: FlightId,
        /// What became of it.
        landing: Landing,
    },
    /// This core's lane has finished a page.
    Extracted {
        /// Who waits for it.
        ticket: usize,
        /// What came of it.
        reply: Box<LaneReply>,
    },
    /// End every page of a stream that runs here.
    Abort {
        /// Of which stream.
        stream: Ulid,
    },
    /// End a stream that this core owns: its client wants no more of it.
    Cancel {
        /// Which stream.
        stream: Ulid,
    },
    /// More URLs for a stream that this core owns.
    Add {
        /// Which stream.
        stream: Ulid,
        /// What to fetch.
        urls: Box<[Text]>,
        /// Where the answer goes: as of `Live::add`.
        to: Sender<Result<(u32, u64), AddError>>,
    },
    /// Readers of a stream that this core owns have caught up, come or gone.
    Look {
        /// Which stream.
        stream: Ulid,
    },
    /// A reader on this core has something to read.
    Wake {
        /// What the core knows it by.
        token: usize,
    },
    /// The streams' buffers are full: forget finished ones that nobody reads.
    MakeRoom,
    /// Report this core's statistics.
    Report {
        /// Which times.
        scope: Scope,
        /// Where to.
        to: ReportTo,
    },
    /// Take no new work; end when the streams are done, or at the given time.
    Drain {
        /// When what still runs is ended.
        until: Instant,
    },
}

/// Where a core's report goes.
#[derive(Clone)]
pub enum ReportTo {
    /// To a core.
    Core(Sender<Box<CoreSnapshot>>),
    /// To a thread without a loop.
    Thread(std::sync::mpsc::Sender<Box<CoreSnapshot>>),
}

impl ReportTo {
    /// Sends a report; who has stopped waiting gets none.
    pub fn send(&self, report: CoreSnapshot) {
        let report = Box::new(report);
        match self {
            Self::Core(core) => drop(core.try_send(report)),
            Self::Thread(thread) => drop(thread.send(report)),
        }
    }
}
