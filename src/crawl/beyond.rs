//! What a stream does beyond fetching a list: the search that gives it its URLs, and the links and
//! sitemaps that give it more.

use super::asking::{Ranked, ask};
use super::frontier::Frontier;
use super::live::Live;
use super::node::Node;
use super::request::deepsearch::Searched;
use super::request::follow::Follow;
use crate::fetch::normal::normal;
use crate::local::Notify;
use crate::proto::events::{self, Counts, Event, Failure, SearchFacts};
use crate::proto::text::Text;
use crate::search::SearchError;
use crate::stream::machine::Ending;
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use uring::Either;

/// See the module. Plain crawls have none.
pub(super) struct Beyond {
    searched: Option<Box<Searched>>,
    /// Which links are followed, where any are.
    pub(super) frontier: Option<RefCell<Frontier>>,
    sitemap: bool,
    /// Fields beside the results, by index.
    beside: RefCell<Vec<Bytes>>,
    /// From the question to the answer.
    took: Cell<Duration>,
    failure: RefCell<Option<SearchError>>,
    /// The stream is being ended.
    pub(super) ended: Notify,
}

impl Beyond {
    pub(super) fn new(
        searched: Option<Box<Searched>>,
        follow: Option<&Follow>,
        urls_max: usize,
    ) -> Option<Box<Self>> {
        if searched.is_none() && follow.is_none() {
            return None;
        }
        let frontier = |follow: &Follow| Frontier::new(follow, follow.pages_max(urls_max));
        Some(Box::new(Self {
            searched,
            frontier: follow.map(frontier).map(RefCell::new),
            sitemap: follow.is_some_and(|follow| follow.sitemap),
            beside: RefCell::default(),
            took: Cell::default(),
            failure: RefCell::default(),
            ended: Notify::default(),
        }))
    }

    /// Whether a search is to find the stream's URLs.
    pub(super) const fn searches(&self) -> bool {
        self.searched.is_some()
    }

    /// Whether something runs that may give the stream URLs, beside its pages.
    pub(super) const fn has_sources(&self) -> bool {
        self.searched.is_some() || self.sitemap
    }

    /// Whether URLs get their results without being fetched.
    pub(super) fn lists_only(&self) -> bool {
        self.searched.as_ref().is_some_and(|searched| !searched.include_content)
    }

    /// URLs that the client or a search has named, from this index on.
    pub(super) fn start(&self, first: u32, urls: &[Text]) {
        let Some(frontier) = &self.frontier else { return };
        let mut frontier = frontier.borrow_mut();
        for (index, url) in (first..).zip(urls) {
            if let Ok(url) = normal(url) {
                frontier.start(index, &url);
            }
        }
    }

    /// The stream is being ended: so is what runs here.
    pub(super) fn end(&self) {
        self.ended.notify();
    }

    /// A result with the fields that its index has beside it.
    pub(super) fn complete(&self, out: &mut BytesMut, index: u32, event: Event) -> Event {
        match self.beside.borrow().get(index as usize).filter(|field| !field.is_empty()) {
            Some(field) => event.with(out, field),
            None => event,
        }
    }

    /// Writes the `search` event.
    pub(super) fn write_search(
        &self,
        node: &Node,
        out: &mut BytesMut,
        seq: u64,
        found: usize,
    ) -> Event {
        let facts = SearchFacts {
            query: self.searched.as_ref().map_or("", |searched| &searched.query.text),
            urls_found: found,
            search_time_ms: u64::try_from(self.took.get().as_millis()).unwrap_or(u64::MAX),
            provider: node.shared.search.provider(),
        };
        events::search(out, seq, &facts)
    }

    /// Writes the `error` event of a stream whose search has failed.
    pub(super) fn write_failure(&self, out: &mut BytesMut, seq: u64, counts: &Counts) -> Event {
        let failure = self.failure.borrow();
        let error = failure.as_ref().unwrap_or(&SearchError::Cancelled);
        let after = u64::try_from(error.retry_after().as_millis()).unwrap_or(u64::MAX);
        let code = error.code();
        let facts = Failure {
            code: code.as_str(),
            status: code.status(),
            message: &error.to_string(),
            retry_after_ms: code.retryable().then_some(after),
        };
        events::error(out, seq, &facts, counts)
    }

    /// Keeps a field for an index.
    pub(super) fn put_beside(&self, index: u32, field: Bytes) {
        let mut beside = self.beside.borrow_mut();
        let at = index as usize;
        if beside.len() <= at {
            beside.resize(at + 1, Bytes::new());
        }
        beside[at] = field;
    }
}

impl Live {
    /// Gives the stream the URLs of its search and of sitemaps, or its error.
    pub(super) async fn run_sources(&self, node: &Rc<Node>) {
        let Some(beyond) = &self.beyond else { return };
        if let Some(searched) = &beyond.searched {
            self.search(node, beyond, searched).await;
            self.pump(node);
        }
        if beyond.sitemap && self.machine.borrow().ending().is_none() {
            self.read_sitemaps(node, beyond).await;
        }
        self.machine.borrow_mut().handle_source_end(Instant::now());
        self.pump(node);
    }

    async fn search(&self, node: &Rc<Node>, beyond: &Beyond, searched: &Searched) {
        let began = Instant::now();
        let owner = &self.stream.birth.principal;
        let asking = Box::pin(ask(node, &searched.query, owner));
        let outcome = match uring::select2(asking, beyond.ended.notified()).await {
            Either::Left(outcome) => outcome,
            Either::Right(()) => {
                node.shared.search.note(Instant::now(), Err(&SearchError::Cancelled));
                Err(SearchError::Cancelled)
            }
        };
        let now = Instant::now();
        beyond.took.set(now - began);
        match outcome {
            Ok(hits) => self.take_hits(beyond, hits),
            Err(error) => {
                if error != SearchError::Cancelled {
                    tracing::warn!(provider = node.shared.search.provider(), "{error}");
                }
                beyond.failure.replace(Some(error));
                self.machine.borrow_mut().handle_end(now, Ending::Failed);
            }
        }
    }

    fn take_hits(&self, beyond: &Beyond, hits: Vec<Ranked>) {
        let urls: Vec<Text> = hits.iter().map(|(url, ..)| url.clone()).collect();
        let Some(first) = self.machine.borrow_mut().handle_found(&urls) else { return };
        beyond.start(first, &urls);
        for (index, (_, rank, hit)) in (first..).zip(hits) {
            beyond.put_beside(index, events::hit_json(rank, &hit.title, &hit.snippet));
        }
    }
}
