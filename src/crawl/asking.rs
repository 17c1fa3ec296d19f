//! Asks for the hits of a search: the local index at once, a provider on the network page by page.

use super::node::Node;
use crate::fetch::normal::normal;
use crate::fetch::{FetchRequest, pacing};
use crate::limits::SEARCH_ANSWER_BYTES_MAX;
use crate::proto::text::Text;
use crate::search::answer::Answer;
use crate::search::local::Question;
use crate::search::{Hit, Query, SearchError};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A hit to be crawled: its URL in normal form, its place in the provider's order, itself.
pub(super) type Ranked = (Text, u64, Hit);

/// Hits of all pages of an answer. Those whose URLs are the same in normal form are one, the first;
/// those that can't be fetched go.
struct Merged {
    hits: Vec<Ranked>,
    seen: HashSet<String>,
    /// Hits that have come, merged or not.
    come: u64,
    limit: usize,
}

impl Merged {
    fn new(limit: usize) -> Self {
        Self { hits: Vec::new(), seen: HashSet::new(), come: 0, limit }
    }

    /// Takes a page in, as far as there is room; whether it brought anything.
    fn add(&mut self, page: Vec<Hit>) -> bool {
        let before = self.hits.len();
        for hit in page {
            self.come += 1;
            let Ok(url) = normal(&hit.url) else { continue };
            if !self.is_full() && self.seen.insert(url.clone().into_owned()) {
                let url = Text::from(url.into_owned());
                self.hits.push((url, self.come, hit));
            }
        }
        self.hits.len() > before
    }

    fn is_full(&self) -> bool {
        self.hits.len() >= self.limit
    }
}

/// The hits of a search that was admitted. What comes of each question is noted, so that a provider
/// that fails is left alone.
pub(super) async fn ask(
    node: &Rc<Node>,
    query: &Query,
    owner: &Arc<str>,
) -> Result<Vec<Ranked>, SearchError> {
    let search = &node.shared.search;
    let deadline = Instant::now() + search.timeout();
    let mut merged = Merged::new(query.limit);
    if search.local().is_some() {
        merged.add(ask_index(node, query, owner, deadline).await?);
        return Ok(merged.hits);
    }
    for page in 0..search.pages_max(query) {
        // The first was admitted before the answer to the client began.
        if page > 0 && search.admit(query, Instant::now()).is_err() {
            break;
        }
        let asked = ask_provider(node, query, page, deadline).await;
        let now = Instant::now();
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) if page == 0 => {
                search.note(now, Err(&error));
                return Err(error);
            }
            Err(error) => {
                // A page that our own time has cut off says nothing about the provider.
                let late = now >= deadline;
                search.note(now, Err(if late { &SearchError::Cancelled } else { &error }));
                tracing::debug!(provider = search.provider(), page, "{error}");
                break;
            }
        };
        search.note(now, Ok(()));
        if !merged.add(answer.hits) || merged.is_full() || !answer.more {
            break;
        }
    }
    Ok(merged.hits)
}

async fn ask_index(
    node: &Rc<Node>,
    query: &Query,
    owner: &Arc<str>,
    deadline: Instant,
) -> Result<Vec<Hit>, SearchError> {
    let search = &node.shared.search;
    let local = search.local().ok_or(SearchError::Off)?;
    let (to, mut from) = uring::mailbox::channel(1);
    let owner = search.by_owner().then(|| Arc::clone(owner));
    local.ask(Question { query: query.clone(), owner, deadline, to })?;
    match uring::time::timeout_at(deadline, from.recv()).await {
        Ok(answer) => answer.unwrap_or(Err(SearchError::Busy)),
        Err(_) => Err(SearchError::Busy),
    }
}

async fn ask_provider(
    node: &Rc<Node>,
    query: &Query,
    page: usize,
    deadline: Instant,
) -> Result<Answer, SearchError> {
    let search = &node.shared.search;
    let call = search.call(query, page);
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
            let after = fetched.retry_after.take();
            let after = after.and_then(|text| pacing::retry_after(&text, unix_secs()));
            search.read(fetched.status, after, &mut fetched.body)
        }
        Err(failure) => Err(SearchError::Unreachable(failure.error.message)),
    }
}

fn unix_secs() -> u64 {
    let unix: Duration =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    unix.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(urls: &[&str]) -> Vec<Hit> {
        let hit = |url: &&str| Hit {
            url: (*url).to_owned(),
            title: (*url).to_owned(),
            snippet: String::new(),
        };
        urls.iter().map(hit).collect()
    }

    fn told(merged: &Merged) -> Vec<(&str, u64)> {
        merged.hits.iter().map(|(url, rank, _)| (&**url, *rank)).collect()
    }

    #[test]
    fn hits_that_answer_twice_are_one_with_the_better_rank() {
        let mut merged = Merged::new(10);
        let page = [
            "http://a.test/x#one",
            "http://A.test:80/x",
            "http://user@b.test/",
            "http://a.test/x?",
            "http://a.test/x#two",
        ];
        assert!(merged.add(hits(&page)));
        assert_eq!(told(&merged), [("http://a.test/x", 1), ("http://a.test/x?", 4)]);
    }

    #[test]
    fn pages_are_one_list_up_to_the_limit() {
        let mut merged = Merged::new(3);
        assert!(merged.add(hits(&["http://a.test/1", "http://a.test/2"])));
        assert!(!merged.add(hits(&["http://a.test/2", "http://a.test/1#x"])), "nothing new");
        assert!(!merged.is_full());
        assert!(merged.add(hits(&["http://a.test/1", "http://a.test/3", "http://a.test/4"])));
        let found = [("http://a.test/1", 1), ("http://a.test/2", 2), ("http://a.test/3", 6)];
        assert_eq!(told(&merged), found);
        assert!(merged.is_full());
    }
}
