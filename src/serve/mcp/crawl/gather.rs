//! What the events of a stream come to for a model: a block of text for each page, and all of it once
//! more as JSON.

use super::super::call::{Asked, content, text_block};
use super::super::rpc;
use crate::config::Config;
use crate::crawl::request::CrawlRequest;
use crate::limits::MCP_ANSWER_BYTES_MAX;
use crate::proto::events::{Event, Kind};
use crate::proto::json;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use std::fmt::Write as _;

/// Stands where a text was cut off; JSON already.
const CUT: &[u8] = b"\\n\\n[cut off: the answer is full; ask for fewer pages]";

/// What is needed of a result beside its document.
#[derive(Debug, Deserialize)]
struct Seen {
    index: usize,
    result: SeenResult,
    progress: SeenProgress,
    search: Option<SeenHit>,
}

#[derive(Debug, Deserialize)]
struct SeenResult {
    url: String,
    status: u16,
    gate_decision: String,
    error: Option<SeenError>,
}

#[derive(Debug, Deserialize)]
struct SeenError {
    code: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct SeenProgress {
    completed: u64,
    total: u64,
}

/// What a search knew of the page.
#[derive(Debug, Deserialize)]
struct SeenHit {
    title: String,
    snippet: String,
}

/// What is needed of a `search` event.
#[derive(Debug, Deserialize)]
struct SeenSearch {
    urls_found: u64,
    provider: String,
}

/// What is needed of an `error` event.
#[derive(Debug, Deserialize)]
struct SeenFailure {
    error: SeenError,
}

/// One page of the answer.
#[derive(Debug, Default)]
struct Told {
    /// A block of content.
    block: Bytes,
    /// The event without its document.
    event: Bytes,
}

/// How far the stream has come.
#[derive(Debug)]
pub(super) struct Step {
    completed: u64,
    total: u64,
    message: String,
}

impl Step {
    /// The notification for who asked for them with this token.
    pub(super) fn notification(&self, token: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":");
        out.put_slice(token.as_bytes());
        json::integers(&mut out, &[("progress", self.completed), ("total", self.total)]);
        out.put_slice(b",\"message\":");
        json::string(&mut out, &self.message);
        out.put_slice(b"}}");
        out.freeze()
    }
}

/// What has come so far.
#[derive(Debug)]
pub(super) struct Gathered {
    pages: Vec<Told>,
    bytes: usize,
    good: usize,
    /// Whether the URLs come from a search; then its event, once it is there.
    search: Option<Bytes>,
    /// Why the stream was given up, where it was.
    failure: Option<SeenError>,
    last: Bytes,
}

impl Gathered {
    /// Room for the pages of a request.
    pub(super) fn new(request: &CrawlRequest, config: &Config) -> Self {
        let null = Bytes::from_static(b"null");
        let mut pages = Vec::new();
        pages.resize_with(request.urls_max(config), Told::default);
        let search = request.search.as_ref().map(|_| null.clone());
        Self { pages, bytes: 0, good: 0, search, failure: None, last: null }
    }

    /// Takes an event; what there is to tell of it while the others are awaited.
    pub(super) fn add(&mut self, event: &Event) -> Option<Step> {
        match event.kind {
            Kind::Result => return self.add_page(event),
            Kind::Search => return self.add_search(event),
            Kind::Summary => self.last = whole(event),
            Kind::Error => {
                self.last = whole(event);
                let read = simd_json::serde::from_slice(&mut self.last.to_vec());
                self.failure = read.ok().map(|seen: SeenFailure| seen.error);
            }
            _ => {}
        }
        None
    }

    fn add_search(&mut self, event: &Event) -> Option<Step> {
        let told = whole(event);
        let seen: SeenSearch = simd_json::serde::from_slice(&mut told.to_vec()).ok()?;
        self.search = Some(told);
        let message = format!("{} hits from {}", seen.urls_found, seen.provider);
        Some(Step { completed: 0, total: seen.urls_found, message })
    }

    fn add_page(&mut self, event: &Event) -> Option<Step> {
        let bare = [&event.head[..], b"null", &event.tail].concat();
        let seen: Seen = simd_json::serde::from_slice(&mut bare.clone()).ok()?;
        let found = content(&event.body).filter(|_| seen.result.error.is_none());
        let room = MCP_ANSWER_BYTES_MAX.saturating_sub(self.bytes);
        let (text, cut) = fitting(found.unwrap_or_default(), room);
        let mut block = BytesMut::with_capacity(256 + text.len());
        text_block(&mut block, &heading(&seen, found.is_some()), text, if cut { CUT } else { b"" });
        self.bytes += block.len();
        self.good += usize::from(seen.result.error.is_none());
        *self.pages.get_mut(seen.index)? = Told { block: block.freeze(), event: bare.into() };
        let SeenProgress { completed, total } = seen.progress;
        Some(Step { completed, total, message: seen.result.url })
    }

    /// The answer to the call. It is an error where nothing came of it; a search that finds nothing
    /// has done its work.
    pub(super) fn answer(&self, asked: &Asked) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes + 1024);
        let empty = self.pages.iter().all(|told| told.event.is_empty());
        let failed = match &self.search {
            Some(_) => self.failure.is_some() || self.good == 0 && !empty,
            None => self.good == 0,
        };
        rpc::begin(&mut out, &asked.id);
        out.put_slice(b"{\"content\":[");
        list(&mut out, self.pages.iter().map(|told| &told.block));
        let said = match &self.failure {
            Some(error) => Some(format!("{}: {}", error.code, error.message)),
            None if empty && self.search.is_some() => Some("The search found nothing.".to_owned()),
            None => None,
        };
        if let Some(said) = said {
            if !empty {
                out.put_u8(b',');
            }
            text_block(&mut out, &said, b"", b"");
        }
        out.put_slice(b"],\"structuredContent\":{");
        if let Some(search) = &self.search {
            out.put_slice(b"\"search\":");
            out.put_slice(search);
            out.put_u8(b',');
        }
        out.put_slice(b"\"results\":[");
        list(&mut out, self.pages.iter().map(|told| &told.event));
        out.put_slice(if self.failure.is_some() { b"],\"error\":" } else { b"],\"summary\":" });
        out.put_slice(&self.last);
        out.put_slice(b"},\"isError\":");
        json::boolean(&mut out, failed);
        rpc::end(&mut out, false, asked.modern);
        out.freeze()
    }
}

/// What stands before a page's content, or in its place: where it is, what a search says of it, what
/// went wrong.
fn heading(seen: &Seen, has_content: bool) -> String {
    let result = &seen.result;
    let mut out = format!("{}\n\n", result.url);
    let hit = seen.search.as_ref().filter(|_| !has_content);
    for text in hit.into_iter().flat_map(|hit| [&hit.title, &hit.snippet]) {
        if !text.is_empty() {
            out.push_str(text);
            out.push_str("\n\n");
        }
    }
    let told = match &result.error {
        Some(error) => write!(out, "{}: {}", error.code, error.message),
        None if has_content || result.gate_decision == "skipped" => Ok(()),
        None => write!(out, "status {}, no content", result.status),
    };
    told.expect("writing to a String does not fail");
    out
}

fn whole(event: &Event) -> Bytes {
    [&event.head[..], &event.body, &event.tail].concat().into()
}

/// As much of an escaped text as there is room for, and whether something is cut off: at a space,
/// which is never within an escape or a character.
fn fitting(text: &[u8], room: usize) -> (&[u8], bool) {
    if text.len() <= room {
        return (text, false);
    }
    let end = memchr::memrchr(b' ', &text[..room]).unwrap_or_default();
    (&text[..end], true)
}

fn list<'a>(out: &mut BytesMut, parts: impl Iterator<Item = &'a Bytes>) {
    for (at, part) in parts.filter(|part| !part.is_empty()).enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::crawl::request::deepsearch::parse_deepsearch;
    use crate::crawl::request::parse_crawl;
    use crate::error::{ApiCode, PageCode, PageError, Stage};
    use crate::proto::events::{
        Counts, Document, Failure, PageResult, SearchFacts, error, hit_json, result, search,
    };
    use serde_json::Value;

    fn asked() -> Asked {
        Asked { id: rpc::Id::number(7), modern: false, events: false }
    }

    fn gathered(searches: bool) -> Gathered {
        let config = Config::default();
        let request = match searches {
            true => parse_deepsearch(&mut br#"{"query":"weirs","limit":3}"#.to_vec(), &config),
            false => parse_crawl(&mut br#"{"urls":["http://a.test/"]}"#.to_vec(), &config),
        };
        Gathered::new(&request.unwrap(), &config)
    }

    fn answer(gathered: &Gathered) -> Value {
        let read: Value = serde_json::from_slice(&gathered.answer(&asked())).unwrap();
        assert_eq!(read["id"], 7);
        read["result"].clone()
    }

    fn page(index: u32, document: Option<&'static str>, beside: bool) -> Event {
        let out = &mut BytesMut::new();
        let failed = PageError::new(PageCode::DnsFailed, Stage::Dns, "no such name");
        let url = format!("http://a.test/{index}");
        let page = match document {
            Some(json) => PageResult {
                status: 200,
                error: None,
                document: Some(Document { json: json.into(), quality: "0.5".into() }),
                ..PageResult::failed(url.as_str().into(), failed)
            },
            None => PageResult::failed(url.as_str().into(), failed),
        };
        let counts = Counts { total: 3, successful: u64::from(index) + 1, ..Counts::default() };
        let event = result(out, 2, index, &page, &counts);
        if beside { event.with(out, &hit_json(1, "Old \"weirs\"", "By the river")) } else { event }
    }

    #[test]
    fn a_search_gives_its_hits_in_their_order_and_says_what_it_found() {
        let mut all = gathered(true);
        let facts =
            SearchFacts { query: "weirs", urls_found: 3, search_time_ms: 1, provider: "local" };
        let step = all.add(&search(&mut BytesMut::new(), 1, &facts)).unwrap();
        assert_eq!((step.completed, step.total, &*step.message), (0, 3, "3 hits from local"));
        let told: Value = serde_json::from_slice(&step.notification("\"t\"")).unwrap();
        assert_eq!(told["params"]["progressToken"], "t");
        for event in [page(2, None, true), page(0, Some(r##"{"markdown":"# Weir"}"##), true)] {
            assert!(all.add(&event).is_some());
        }
        let told = answer(&all);
        assert_eq!(told["isError"], false);
        let text = |at: usize| told["content"][at]["text"].as_str().unwrap();
        assert_eq!(text(0), "http://a.test/0\n\n# Weir");
        let failed = "http://a.test/2\n\nOld \"weirs\"\n\nBy the river\n\ndns_failed: no such name";
        assert_eq!(text(1), failed);
        let structured = &told["structuredContent"];
        assert_eq!(structured["search"]["provider"], "local");
        assert_eq!(structured["results"][1]["search"]["title"], "Old \"weirs\"");
        assert_eq!(structured["results"][0]["index"], 0);
    }

    #[test]
    fn a_search_that_fails_is_an_error_and_one_that_finds_nothing_is_not() {
        let mut none = gathered(true);
        let facts =
            SearchFacts { query: "weirs", urls_found: 0, search_time_ms: 1, provider: "local" };
        none.add(&search(&mut BytesMut::new(), 1, &facts));
        let told = answer(&none);
        assert_eq!(
            (&told["isError"], told["content"].as_array().unwrap().len()),
            (&false.into(), 1)
        );
        let mut lost = gathered(true);
        let failure = Failure::new(ApiCode::SearchUnavailable, "the provider answers status 500");
        lost.add(&error(&mut BytesMut::new(), 1, &failure, &Counts::default()));
        let told = answer(&lost);
        assert_eq!(told["isError"], true);
        let text = "search_unavailable: the provider answers status 500";
        assert_eq!(told["content"][0]["text"], text);
        assert_eq!(told["structuredContent"]["error"]["error"]["code"], "search_unavailable");
        let mut all_failed = gathered(true);
        all_failed.add(&page(0, None, true));
        assert_eq!(answer(&all_failed)["isError"], true);
    }

    #[test]
    fn a_crawl_has_no_search_and_fails_with_its_last_page() {
        let mut one = gathered(false);
        assert_eq!(answer(&one)["isError"], true);
        one.add(&page(0, Some(r##"{"markdown":"# Weir"}"##), false));
        let told = answer(&one);
        assert_eq!(told["isError"], false);
        assert!(told["structuredContent"].get("search").is_none());
        assert!(one.add(&page(9, None, false)).is_none(), "no more pages than were asked for");
    }

    #[test]
    fn a_text_is_cut_where_json_may_end() {
        let text = "a \"quoted\" \u{1} \u{e9}\\ text".repeat(9);
        let escaped = serde_json::to_string(&text).unwrap();
        let escaped = &escaped.as_bytes()[1..escaped.len() - 1];
        for room in 0..=escaped.len() {
            let (fits, cut) = fitting(escaped, room);
            assert!(fits.len() <= room && cut == (room < escaped.len()));
            let mut block = BytesMut::new();
            text_block(&mut block, "", fits, if cut { CUT } else { b"" });
            let read: Value = serde_json::from_slice(&block).unwrap();
            let read = read["text"].as_str().unwrap();
            assert!(text.starts_with(read.split("\n\n[cut off").next().unwrap()));
        }
    }
}
