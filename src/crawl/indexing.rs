//! Which pages the local index gets: those that anybody would get, and that may be kept.
//!
//! Not pages that say `noindex`, nor those that were fetched with header fields of the client's (a `Cookie`, an `Authorization`),
//! nor those whose origin keeps them from shared caches, nor those of a request that leaves no trace
//! in the cache either (`bypass`, `read_only`).
//!
//! A page is handed over when it was extracted ([`offer`]). One that comes out of the cache may never
//! have been, for whoever gets it now: another key had it fetched, another node, or this one before a
//! restart ([`found`]). The entry knows for whom it was handed over ([`Told`]), so that only the first
//! hit does more than look.
//!
//! [`Told`]: crate::cache::entry::Told

use super::cached;
use super::mesh::PageJob;
use super::node::Node;
use super::page::Answer;
use super::request::{CacheMode, Options};
use crate::cache::entry::Entry;
use crate::proto::events::PageResult;
use crate::search::Search;
use crate::search::local::Page;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// As whom a request's pages are kept in the index; `None` where they are not.
pub(super) fn owner(search: &Search, options: &Options, principal: &str) -> Option<u64> {
    let kept = !matches!(options.cache_mode, CacheMode::Bypass | CacheMode::ReadOnly);
    if search.local().is_none() || !kept || !options.headers.is_empty() {
        return None;
    }
    if !search.by_owner() {
        // Whoever's it is, everybody finds it.
        return Some(1);
    }
    let mut hasher = DefaultHasher::new();
    principal.hash(&mut hasher);
    Some(hasher.finish().max(1))
}

/// Hands a page that was just extracted to the index; whether that is done with. Waits for nothing and
/// copies no document.
pub(super) fn offer(node: &Node, job: &PageJob, result: &PageResult, answer: &Answer) -> bool {
    let search = &node.shared.search;
    let principal = &job.stream.birth.principal;
    let (Some(local), Some(document)) = (search.local(), &result.document) else { return false };
    let refused = result.about.as_ref().is_some_and(|about| about.noindex);
    let anybodys = (200..300).contains(&result.status) && !cached::freshness(job, answer).never;
    if refused || !anybodys || owner(search, &job.options, principal).is_none() {
        return false;
    }
    local.offer(Page {
        url: result.final_url.clone().unwrap_or_else(|| job.url.to_string()),
        owner: Arc::clone(principal),
        document: document.json.clone(),
    })
}

/// An entry was made of a page that [`offer`] has handed over.
pub(super) fn handed_over(node: &Node, job: &PageJob, entry: &Entry) {
    let owner = owner(&node.shared.search, &job.options, &job.stream.birth.principal);
    let _ = owner.is_some_and(|owner| entry.told.claim(owner));
}

/// A page came out of the cache: hands it over, if it never was for this owner.
pub(super) fn found(node: &Node, owner: Option<u64>, principal: &Arc<str>, entry: &Entry) {
    let (Some(owner), Some(local)) = (owner, node.shared.search.local()) else { return };
    if !entry.told.claim(owner) {
        return;
    }
    let (Some(document), Some(url)) = (entry.findable(), entry.final_url()) else { return };
    let page =
        Page { url: url.to_owned(), owner: Arc::clone(principal), document: document.json.clone() };
    if !local.offer(page) {
        entry.told.release(owner);
    }
}
