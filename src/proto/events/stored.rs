//! A page that waits in the cache: the JSON of its `result` in ready pieces, shared by every stream
//! that gets it. What differs from stream to stream is written between them.

use super::{
    Counts, Event, Kind, PageResult, answer_bytes, answer_end, answer_facts, result_end,
    result_start, times,
};
use crate::error::PageCode;
use crate::timings::Timings;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// What the cache had to do with a result; the word under `cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheUse {
    /// The page was there, or was just being fetched for somebody else.
    Hit,
    /// It was not there.
    Miss,
    /// It was there, but too old or not to be vouched for; it has been fetched anew.
    Stale,
    /// It was there, and the origin said that it still holds.
    Revalidated,
    /// The cache was not asked.
    Bypass,
}

impl CacheUse {
    /// Every one, in the order of the declaration.
    pub const ALL: [Self; 5] =
        [Self::Hit, Self::Miss, Self::Stale, Self::Revalidated, Self::Bypass];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
        }
    }

    /// Whether the document is one that was there before.
    #[must_use]
    pub const fn from_cache(self) -> bool {
        matches!(self, Self::Hit | Self::Revalidated)
    }
}

/// What became of one URL, by where it comes from.
#[derive(Debug, Clone)]
pub enum Page {
    /// Worked on for this stream.
    Fetched(Box<PageResult>),
    /// Found in the cache.
    Cached(Arc<Stored>),
}

impl Page {
    /// The error's code, where there is no document.
    #[must_use]
    pub fn code(&self) -> Option<PageCode> {
        match self {
            Self::Fetched(page) => page.error.as_ref().map(|error| error.code),
            Self::Cached(stored) => stored.code,
        }
    }

    /// Bytes of memory that it takes, about, while it waits. Those of a cached page count, too: the cache
    /// may forget it meanwhile.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let more = match self {
            Self::Fetched(page) => {
                let final_url = page.final_url.as_ref().map_or(0, String::len);
                let document = page.document.as_ref().map_or(0, |document| document.json.len());
                page.url.len() + final_url + document
            }
            Self::Cached(stored) => stored.len(),
        };
        size_of::<PageResult>() + more
    }

    /// Whether it was in the cache.
    #[must_use]
    pub fn from_cache(&self) -> bool {
        match self {
            Self::Fetched(page) => page.cache.from_cache(),
            Self::Cached(_) => true,
        }
    }
}

/// A cached page's pieces.
#[derive(Debug, Clone)]
pub struct Stored {
    /// From `final_url` to `quality_score`.
    facts: Bytes,
    /// `bytes`, and the name of the document.
    bytes: Bytes,
    /// The document, or `null`.
    document: Bytes,
    /// From `error` to the end of the result.
    end: Bytes,
    code: Option<PageCode>,
}

impl Stored {
    /// The pieces of a page, as a hit shows it.
    #[must_use]
    pub fn new(page: &PageResult) -> Self {
        let mut out = BytesMut::with_capacity(512);
        answer_facts(&mut out, page, CacheUse::Hit);
        let facts = out.split().freeze();
        answer_bytes(&mut out, page);
        let bytes = out.split().freeze();
        answer_end(&mut out, page);
        Self {
            facts,
            bytes,
            document: page.document_json(),
            end: out.split().freeze(),
            code: page.error.as_ref().map(|error| error.code),
        }
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.facts.len() + self.bytes.len() + self.document.len() + self.end.len()
    }

    /// Never: a page has facts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The error's code, where there is no document.
    #[must_use]
    pub const fn code(&self) -> Option<PageCode> {
        self.code
    }
}

/// Writes the `result` of a cached page, as [`super::result`] would: nothing is allocated beyond
/// the growth of `out`, and the document's bytes are the cache's own.
pub fn cached(
    out: &mut BytesMut,
    seq: u64,
    (index, url): (u32, &str),
    stored: &Stored,
    timings: &Timings,
    counts: &Counts,
) -> Event {
    result_start(out, seq, index, url);
    out.put_slice(&stored.facts);
    times(out, timings);
    out.put_slice(&stored.bytes);
    let head = out.split().freeze();
    out.put_slice(&stored.end);
    result_end(out, counts);
    Event {
        kind: Kind::Result,
        seq,
        head,
        body: stored.document.clone(),
        tail: out.split().freeze(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, result};
    use super::*;
    use crate::error::{PageError, Stage};
    use std::time::Duration;

    fn text(event: &Event) -> Vec<u8> {
        [&event.head[..], &event.body, &event.tail].concat()
    }

    #[test]
    fn a_stored_page_reads_like_the_same_page_written_in_full() {
        let failure = PageError::new(PageCode::DnsFailed, Stage::Dns, "no \"such\" host");
        let failed = PageResult {
            cache: CacheUse::Hit,
            cache_key: 7,
            ..PageResult::failed("http://a.test/".into(), failure)
        };
        let good = PageResult {
            final_url: Some("http://b.test/\"".to_owned()),
            status: 404,
            wire_bytes: 12,
            body_bytes: 34,
            document: Some(Document {
                json: Bytes::from_static(b"{\"a\":1}"),
                quality: Bytes::from_static(b"0.5"),
            }),
            error: None,
            ..failed.clone()
        };
        let counts = Counts { total: 9, successful: 3, from_cache: 2, ..Counts::default() };
        let mut timings = Timings::default();
        timings.add(Stage::Queue, Duration::from_micros(2345));
        for page in [failed, good] {
            let page = PageResult { timings, ..page };
            let out = &mut BytesMut::new();
            let full = result(out, 4, 2, &page, &counts);
            let stored = Stored::new(&page);
            let quick = cached(out, 4, (2, &page.url), &stored, &timings, &counts);
            assert_eq!(text(&quick), text(&full));
            assert_eq!(Page::Cached(Arc::new(stored)).code(), page.error.map(|error| error.code));
        }
    }
}
