//! Which pages the local index gets: those that anybody would get, and that may be kept.
//!
//! Not pages that say `noindex`, nor those that were fetched with header fields of the client's (a `Cookie`, an `Authorization`),
//! nor those whose origin keeps them from shared caches, nor those of a request that leaves no trace
//! in the cache either (`bypass`, `read_only`). A page that comes out of the cache is in the index
//! already, for whoever had it fetched.

use super::cached;
use super::mesh::PageJob;
use super::node::Node;
use super::page::Answer;
use super::request::CacheMode;
use crate::proto::events::PageResult;
use crate::search::local::Page;
use std::sync::Arc;

/// Hands a page that was just extracted to the index. Waits for nothing and copies no document.
pub(super) fn offer(node: &Node, job: &PageJob, result: &PageResult, answer: &Answer) {
    let Some(local) = node.shared.search.local() else { return };
    let Some(document) = &result.document else { return };
    let kept = !matches!(job.options.cache_mode, CacheMode::Bypass | CacheMode::ReadOnly);
    let refused = result.about.as_ref().is_some_and(|about| about.noindex);
    let anybodys = job.options.headers.is_empty() && (200..300).contains(&result.status);
    if !kept || refused || !anybodys || cached::freshness(job, answer).never {
        return;
    }
    local.offer(Page {
        url: result.final_url.clone().unwrap_or_else(|| job.url.to_string()),
        owner: Arc::clone(&job.stream.birth.principal),
        document: document.json.clone(),
    });
}
