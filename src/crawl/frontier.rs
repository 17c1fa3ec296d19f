//! Which of the links that pages show are fetched next: a policy without IO.
//!
//! URLs come in normal form. One is taken once, however often it is seen; not behind `max_pages`, not
//! deeper than `depth`, not outside of what `same_host`, `include` and `exclude` let through, and not
//! where it looks like a trap: a site that never ends has URLs that grow, paths that repeat
//! themselves, or one page under ever new queries.

use super::request::follow::{Follow, Glob};
use crate::limits::{
    FOLLOW_HOST_PAGES_MIN, FOLLOW_QUERIES_PER_PATH_MAX, FOLLOW_QUERY_BYTES_MAX,
    FOLLOW_SEGMENT_REPEATS_MAX, FOLLOW_SEGMENTS_MAX, FOLLOW_URL_BYTES_MAX,
};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// Ends of paths behind which no page is, but a file that has no links.
const FILES: [&str; 34] = [
    "7z", "apk", "avi", "bin", "bmp", "bz2", "css", "dmg", "doc", "docx", "epub", "exe", "gif",
    "gz", "ico", "iso", "jpeg", "jpg", "js", "json", "mov", "mp3", "mp4", "pdf", "png", "ppt",
    "rar", "svg", "tar", "webm", "webp", "woff2", "xls", "zip",
];

/// See the module.
#[derive(Debug)]
pub(super) struct Frontier {
    depth_max: u8,
    pages_max: usize,
    same_host: bool,
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    /// Hashes of the URLs that were taken, or need not be.
    seen: HashSet<u64>,
    /// Queries that were taken for each path, by the path's hash.
    queries: HashMap<u64, usize>,
    /// Pages that were taken of each host, by its hash; `None`: a host that the client named.
    hosts: HashMap<u64, Option<usize>>,
    /// How deep each URL of the stream is, by its index; those that are not here are the client's.
    depths: Vec<u8>,
    taken: usize,
    hasher: RandomState,
}

impl Frontier {
    pub(super) fn new(follow: &Follow, pages_max: usize) -> Self {
        Self {
            depth_max: follow.depth,
            pages_max,
            same_host: follow.same_host,
            include: follow.include.clone(),
            exclude: follow.exclude.clone(),
            seen: HashSet::new(),
            queries: HashMap::new(),
            hosts: HashMap::new(),
            depths: Vec::new(),
            taken: 0,
            hasher: RandomState::new(),
        }
    }

    /// A URL that the client has named, or a search has found: fetched whatever the rules say.
    pub(super) fn start(&mut self, index: u32, url: &str) {
        self.note(index, 0);
        self.visited(url);
        let host = self.hash(host(url));
        self.hosts.insert(host, None);
    }

    /// A URL needs no fetch any more: it is another name of one that was fetched.
    pub(super) fn visited(&mut self, url: &str) {
        self.seen.insert(self.hash(url));
    }

    /// Whether the links of the page at this index are looked at.
    pub(super) fn goes_on(&self, index: u32) -> bool {
        self.depth(index) < self.depth_max && !self.is_full()
    }

    /// Whether the stream has all the pages that it may have.
    pub(super) const fn is_full(&self) -> bool {
        self.taken >= self.pages_max
    }

    /// Whether a link is to be fetched; then it counts as taken.
    pub(super) fn offer(&mut self, url: &str) -> bool {
        if self.is_full() || !self.passes(url) || is_trap(url) {
            return false;
        }
        let number = self.hash(url);
        if self.seen.contains(&number) || !self.has_room(url) {
            return false;
        }
        self.seen.insert(number);
        self.taken += 1;
        true
    }

    /// A link that was taken has its index, found on a page of that index.
    pub(super) fn found(&mut self, index: u32, on: Option<u32>) {
        let depth = on.map_or(0, |on| self.depth(on)).saturating_add(1);
        self.note(index, depth);
    }

    fn note(&mut self, index: u32, depth: u8) {
        let at = index as usize;
        if self.depths.len() <= at {
            self.depths.resize(at + 1, 0);
        }
        self.depths[at] = depth;
        if depth == 0 {
            self.taken += 1;
        }
    }

    fn depth(&self, index: u32) -> u8 {
        self.depths.get(index as usize).copied().unwrap_or(0)
    }

    /// The client's own rules.
    fn passes(&self, url: &str) -> bool {
        if self.same_host && self.hosts.get(&self.hash(host(url))) != Some(&None) {
            return false;
        }
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.fits(url));
        (self.include.is_empty() || fits(&self.include)) && !fits(&self.exclude)
    }

    /// Rooms of host and path, taken where there are some.
    fn has_room(&mut self, url: &str) -> bool {
        if let Some((path, _)) = url.split_once('?') {
            let path = self.hash(path);
            let queries = self.queries.entry(path).or_default();
            if *queries >= FOLLOW_QUERIES_PER_PATH_MAX {
                return false;
            }
            *queries += 1;
        }
        // No host that was only met on the way may take all the pages.
        let most = (self.pages_max / 4).max(FOLLOW_HOST_PAGES_MIN);
        let host = self.hash(host(url));
        match self.hosts.entry(host).or_insert(Some(0)) {
            None => true,
            Some(pages) if *pages >= most => false,
            Some(pages) => {
                *pages += 1;
                true
            }
        }
    }

    fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }
}

/// Host and port of a URL in normal form.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// Whether a URL looks like one of an endless site, or like a file.
fn is_trap(url: &str) -> bool {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    if url.len() > FOLLOW_URL_BYTES_MAX || query.len() > FOLLOW_QUERY_BYTES_MAX {
        return true;
    }
    let Some(path) = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')) else {
        return false;
    };
    let segments: Vec<&str> = path.1.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.len() > FOLLOW_SEGMENTS_MAX {
        return true;
    }
    let repeats = |segment: &&str| {
        segments.iter().filter(|other| *other == segment).count() > FOLLOW_SEGMENT_REPEATS_MAX
    };
    let end = segments.last().and_then(|last| last.rsplit_once('.')).map(|(_, end)| end);
    let is_file = |end: &str| FILES.iter().any(|file| file.eq_ignore_ascii_case(end));
    segments.iter().any(repeats) || end.is_some_and(is_file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn follow(depth: u8) -> Follow {
        Follow { depth, ..Follow::default() }
    }

    fn frontier(follow: &Follow, pages_max: usize) -> Frontier {
        let mut frontier = Frontier::new(follow, pages_max);
        frontier.start(0, "http://a.test/");
        frontier
    }

    #[test]
    fn each_url_is_taken_once_and_only_on_the_hosts_that_were_named() {
        let mut frontier = frontier(&follow(2), 10);
        assert!(!frontier.offer("http://a.test/"), "it was the client's");
        assert!(frontier.offer("http://a.test/x") && !frontier.offer("http://a.test/x"));
        assert!(frontier.offer("https://a.test/x"), "another scheme is another page");
        assert!(!frontier.offer("http://b.test/") && !frontier.offer("http://a.test:81/"));
        frontier.visited("http://a.test/y");
        assert!(!frontier.offer("http://a.test/y"));
        let mut anywhere = Frontier::new(&Follow { same_host: false, ..follow(1) }, 10);
        anywhere.start(0, "http://a.test/");
        assert!(anywhere.offer("http://b.test/"));
    }

    #[test]
    fn depth_counts_from_the_page_where_a_link_was_found() {
        let mut frontier = frontier(&follow(2), 10);
        assert!(frontier.goes_on(0));
        frontier.found(1, Some(0));
        assert!(frontier.goes_on(1));
        frontier.found(2, Some(1));
        assert!(!frontier.goes_on(2));
        frontier.found(3, None);
        assert!(frontier.goes_on(3), "a sitemap's URLs are as deep as a start page's links");
    }

    #[test]
    fn rules_of_the_client() {
        let globs = |all: &[&str]| all.iter().map(|glob| Glob::new(glob)).collect();
        let rules = Follow {
            include: globs(&["/docs/*", "http://a.test/blog/*.html"]),
            exclude: globs(&["*print*"]),
            ..follow(3)
        };
        let mut frontier = frontier(&rules, 100);
        for (url, taken) in [
            ("http://a.test/docs/", true),
            ("http://a.test/docs/a?b", true),
            ("http://a.test/docs/a?print=1", false),
            ("http://a.test/blog/x.html", true),
            ("http://a.test/blog/x.html?y", false),
            ("http://a.test/other", false),
        ] {
            assert_eq!(frontier.offer(url), taken, "{url}");
        }
    }

    #[test]
    fn traps_are_not_entered() {
        let long = format!("http://a.test/{}", "x".repeat(FOLLOW_URL_BYTES_MAX));
        let deep = format!("http://a.test{}", "/x1/y1".repeat(1 + FOLLOW_SEGMENTS_MAX));
        let query = format!("http://a.test/?{}", "a=b&".repeat(FOLLOW_QUERY_BYTES_MAX / 4 + 1));
        for url in [&*long, &deep, &query, "http://a.test/a/b/a/b/a/b", "http://a.test/x.PDF"] {
            assert!(is_trap(url), "{url}");
        }
        assert!(!is_trap("http://a.test/2024/05/05/a.b-c/page.html?q=x.pdf"));
        let mut calendar = frontier(&follow(9), 10_000);
        let days = (0..1000).filter(|day| calendar.offer(&format!("http://a.test/cal?day={day}")));
        assert_eq!(days.count(), FOLLOW_QUERIES_PER_PATH_MAX);
        let mut wide = Frontier::new(&Follow { same_host: false, ..follow(9) }, 100);
        wide.start(0, "http://a.test/");
        let farm = (0..1000).filter(|page| wide.offer(&format!("http://farm.test/{page}")));
        assert_eq!(farm.count(), 25);
        assert!(wide.offer("http://other.test/"));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_is_offered(
            urls in proptest::collection::vec("http://[ab]\\.test/[a-c/?=]{0,8}", 0..200),
            pages_max in 1_usize..20,
        ) {
            let mut frontier = Frontier::new(&Follow { same_host: false, ..follow(1) }, pages_max);
            frontier.start(0, "http://a.test/");
            let mut taken: Vec<_> = urls.iter().filter(|url| frontier.offer(url)).collect();
            prop_assert!(taken.len() < pages_max);
            let count = taken.len();
            taken.sort();
            taken.dedup();
            prop_assert_eq!(taken.len(), count);
        }
    }
}
