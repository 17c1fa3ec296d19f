//! What a stream does beyond fetching a list: the search that gives it its URLs, and the links and
//! sitemaps that give it more.

use super::frontier::Frontier;
use super::live::Live;
use super::node::Node;
use super::request::deepsearch::Searched;
use super::request::follow::Follow;
use crate::error::ApiCode;
use crate::fetch::normal::normal;
use crate::fetch::{FetchRequest, pacing};
use crate::limits::SEARCH_ANSWER_BYTES_MAX;
use crate::local::Notify;
use crate::proto::events::{self, Counts, Event, Failure, SearchFacts};
use crate::proto::text::Text;
use crate::search::local::Question;
use crate::search::{Hit, Query, SearchError};
use crate::stream::machine::Ending;
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
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
        let after = error.retry_after().as_millis();
        let code = ApiCode::SearchUnavailable;
        let facts = Failure {
            code: code.as_str(),
            status: code.status(),
            message: &error.to_string(),
            retry_after_ms: u64::try_from(after).unwrap_or(u64::MAX),
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
            Either::Right(()) => Err(SearchError::Cancelled),
        };
        let now = Instant::now();
        node.shared.search.note(now, outcome.as_ref().map(drop));
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

    fn take_hits(&self, beyond: &Beyond, hits: Vec<Hit>) {
        let merged = merge(hits);
        let urls: Vec<Text> = merged.iter().map(|(url, ..)| url.clone()).collect();
        let Some(first) = self.machine.borrow_mut().handle_found(&urls) else { return };
        beyond.start(first, &urls);
        for (index, (_, rank, hit)) in (first..).zip(merged) {
            beyond.put_beside(index, events::hit_json(rank, &hit.title, &hit.snippet));
        }
    }
}

/// Hits whose URLs are the same in normal form are one, the first; those that can't be fetched go.
fn merge(hits: Vec<Hit>) -> Vec<(Text, u64, Hit)> {
    let mut seen = HashSet::new();
    let fetchable = (1..).zip(hits).filter_map(|(rank, hit)| {
        let url = normal(&hit.url).ok()?.into_owned();
        seen.insert(url.clone()).then(|| (Text::from(url), rank, hit))
    });
    fetchable.collect()
}

async fn ask(node: &Rc<Node>, query: &Query, owner: &Arc<str>) -> Result<Vec<Hit>, SearchError> {
    let search = &node.shared.search;
    let deadline = Instant::now() + search.timeout();
    if let Some(local) = search.local() {
        let (to, mut from) = uring::mailbox::channel(1);
        let owner = search.by_owner().then(|| Arc::clone(owner));
        local.ask(Question { query: query.clone(), owner, deadline, to })?;
        return match uring::time::timeout_at(deadline, from.recv()).await {
            Ok(answer) => answer.unwrap_or(Err(SearchError::Busy)),
            Err(_) => Err(SearchError::Busy),
        };
    }
    let call = search.call(query);
    let request = FetchRequest {
        url: &call.url,
        deadline,
        max_body_bytes: SEARCH_ANSWER_BYTES_MAX,
        redirects: 0,
        user_agent: None,
        headers: &call.headers,
        known: None,
        robots: false,
        post: call.body.as_deref(),
        owner: 0,
    };
    match node.fetcher.call(&request).await {
        Ok(mut fetched) => {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let after = fetched.retry_after.take();
            let after = after.and_then(|text| pacing::retry_after(&text, unix.as_secs()));
            search.read(fetched.status, after, &mut fetched.body, query.limit)
        }
        Err(failure) => Err(SearchError::Unreachable(failure.error.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_that_answer_twice_are_one_with_the_better_rank() {
        let hit =
            |url: &str| Hit { url: url.to_owned(), title: url.to_owned(), snippet: String::new() };
        let urls = [
            "http://a.test/x#one",
            "http://A.test:80/x",
            "http://user@b.test/",
            "http://a.test/x?",
            "http://a.test/x#two",
        ];
        let merged = merge(urls.iter().map(|url| hit(url)).collect());
        let told: Vec<_> = merged.iter().map(|(url, rank, _)| (&**url, *rank)).collect();
        assert_eq!(told, [("http://a.test/x", 1), ("http://a.test/x?", 4)]);
    }
}
