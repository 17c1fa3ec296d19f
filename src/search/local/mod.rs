//! The local index: full text of the pages that this server has extracted, in memory or on disk.
//!
//! Loops hand pages over and never wait: a bounded queue, dropped and counted where it is full. One
//! thread writes the index, another answers questions; both at the lowest priority, beside the
//! extraction lanes. A page is found after the next commit, a second later at most while pages come.
//!
//! A page takes the place of the one of the same URL that the same key has fetched. When the index is
//! near its bound the oldest pages go. While segments are merged, what is merged is there twice; the
//! writer's own buffers (15 MB) come on top.

mod ask;
mod index;
mod ledger;
mod snippet;
mod words;

use super::{Hit, Query, SearchError};
use crate::limits::{
    INDEX_DOCUMENT_BYTES_MAX, INDEX_QUESTIONS_MAX, INDEX_QUEUE_BYTES_MAX, INDEX_QUEUE_MAX,
};
use bytes::Bytes;
use index::Writer;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use uring::lane::{Class, Lane, LaneConfig, Submitter};
use uring::mailbox::Sender;

/// Whether there is an index in the folder that can be used, or one could be made there.
///
/// # Errors
/// Why not.
pub fn check(folder: &Path) -> Result<(), String> {
    index::check(folder)
}

/// One page to be found.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it was found, after redirects, in normal form.
    pub url: String,
    /// Who had it fetched.
    pub owner: Arc<str>,
    /// The document's JSON, shared with everybody who has it.
    pub document: Bytes,
}

/// One question to the index.
pub struct Question {
    /// What is asked.
    pub query: Query,
    /// Whose pages are looked at; everybody's where nobody is named.
    pub owner: Option<Arc<str>>,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// Where the hits go.
    pub to: Sender<Result<Vec<Hit>, SearchError>>,
}

/// What the writer is told.
enum Job {
    Page(Page),
    /// Make what has come findable.
    Commit,
}

/// What is known of the index from outside.
#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicU64,
    /// Something has come that can't be found yet.
    dirty: AtomicBool,
    broken: AtomicBool,
    pages: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    evicted: AtomicU64,
}

/// The index right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalStats {
    /// Pages that can be found, and those that are about to.
    pub pages: u64,
    /// Bytes of the index.
    pub bytes: u64,
    /// Bytes that it may have.
    pub bytes_max: u64,
    /// Pages that came faster than they could be indexed.
    pub dropped: u64,
    /// Pages that went to make room.
    pub evicted: u64,
}

/// See the module.
pub struct Local {
    pages: Submitter<Job>,
    questions: Submitter<Question>,
    lanes: Mutex<Option<(Lane<Job>, Lane<Question>)>>,
    shared: Arc<Shared>,
    bytes_max: u64,
}

impl Local {
    /// Opens or makes an index: in a folder, or in memory where none is named.
    ///
    /// # Errors
    /// Why it can't be opened, in a sentence.
    pub fn start(folder: Option<&Path>, bytes_max: u64) -> Result<Self, String> {
        let shared = Arc::<Shared>::default();
        let opened = index::open(folder).map_err(|error| match folder {
            Some(folder) => format!("the search index in {}: {error}", folder.display()),
            None => format!("the search index: {error}"),
        })?;
        let searching = ask::Asker::new(&opened);
        let mut writer = Writer::new(opened, bytes_max, Arc::clone(&shared))?;
        let lane = |name: &str| LaneConfig { cpu: None, class: Class::Nice19, name: name.into() };
        let thread = |error: std::io::Error| format!("can't start a thread: {error}");
        let pages = Lane::start(lane("index"), INDEX_QUEUE_MAX, move || {
            move |job| match job {
                Job::Page(page) => writer.add(&page),
                Job::Commit => writer.commit(),
            }
        })
        .map_err(thread)?;
        let questions = Lane::start(lane("search"), INDEX_QUESTIONS_MAX, move || {
            move |question| searching.answer(&question)
        })
        .map_err(thread)?;
        Ok(Self {
            pages: pages.submitter(),
            questions: questions.submitter(),
            lanes: Mutex::new(Some((pages, questions))),
            shared,
            bytes_max,
        })
    }

    /// Hands a page over; it is dropped and counted where the queue is full. `false` then: it may be
    /// offered again. One that is too large never gets in.
    pub fn offer(&self, page: Page) -> bool {
        let bytes = page.document.len() as u64;
        let shared = &self.shared;
        if bytes > INDEX_DOCUMENT_BYTES_MAX {
            return true;
        }
        let room = shared.queued_bytes.load(Ordering::Relaxed) + bytes <= INDEX_QUEUE_BYTES_MAX;
        // Counted before the writer can take it off again.
        shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = room && self.pages.try_submit(Job::Page(page)).is_ok();
        if !taken {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Asks a question; the hits come by its sender.
    ///
    /// # Errors
    /// `Busy`, `Broken`.
    pub fn ask(&self, question: Question) -> Result<(), SearchError> {
        self.check()?;
        self.questions.try_submit(question).map_err(|_| SearchError::Busy)
    }

    /// Whether the index works.
    ///
    /// # Errors
    /// `Broken`.
    pub fn check(&self) -> Result<(), SearchError> {
        let broken = self.shared.broken.load(Ordering::Relaxed);
        if broken { Err(SearchError::Broken) } else { Ok(()) }
    }

    /// To be called about once a second: what has come since is committed.
    pub fn tick(&self) {
        if self.shared.dirty.load(Ordering::Relaxed) {
            // A full queue has commits of its own.
            let _ = self.pages.try_submit(Job::Commit);
        }
    }

    /// The index right now.
    #[must_use]
    pub fn stats(&self) -> LocalStats {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        LocalStats {
            pages: read(&self.shared.pages),
            bytes: read(&self.shared.bytes),
            bytes_max: self.bytes_max,
            dropped: read(&self.shared.dropped),
            evicted: read(&self.shared.evicted),
        }
    }

    /// Writes what has come and ends both threads. Blocks.
    pub fn stop(&self) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((pages, questions)) = lanes {
            questions.stop_now();
            let _ = pages.try_submit(Job::Commit);
            pages.stop();
        }
    }
}

#[cfg(test)]
mod tests;
