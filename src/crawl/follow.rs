//! Follows the links of a stream's pages, and reads its hosts' sitemaps: new URLs join the stream, each
//! with the page or the file that it was found in.

use super::beyond::Beyond;
use super::frontier::Frontier;
use super::live::Live;
use super::node::Node;
use super::request::Robots;
use super::sitemap;
use crate::fetch::decode::Decoder;
use crate::fetch::normal::normal;
use crate::fetch::target::Target;
use crate::fetch::{FetchRequest, Fetched};
use crate::limits::{
    DECODE_TURN_BYTES, SITEMAP_BYTES_MAX, SITEMAP_FILES_MAX, SITEMAP_HERE_BYTES_MAX,
    SITEMAP_HOSTS_MAX, SITEMAP_TIMEOUT,
};
use crate::proto::events::{self, About, PageResult};
use crate::proto::text::Texts;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long links are looked at before others on the core get their turn.
const TURN: Duration = Duration::from_micros(100);
/// Links between two looks at the clock.
const LOOK_EVERY: usize = 16;
/// URLs whose hosts are looked at for sitemaps.
const FIRST_URLS_MAX: u32 = 100;
/// What a gzip file begins with (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

impl Live {
    /// A page has come to its end: the links that are to be followed join the stream before its result
    /// leaves, so that the totals in it are true.
    pub(super) async fn follow(&self, node: &Rc<Node>, index: u32, page: Box<PageResult>) {
        if let Some(beyond) = &self.beyond
            && let Some(frontier) = &beyond.frontier
        {
            // What a page is also known by needs no fetch of its own.
            let about = page.about.as_ref();
            let canonical = about.and_then(|about| about.canonical.as_deref());
            for name in [page.final_url.as_deref(), canonical].into_iter().flatten() {
                frontier.borrow_mut().visited(name);
            }
            let goes_on = frontier.borrow().goes_on(index);
            if let Some(about) = about.filter(|about| goes_on && !about.nofollow) {
                let from = page.final_url.as_deref().unwrap_or(&page.url);
                self.take_links(beyond, frontier, about, (index, from)).await;
            }
        }
        self.machine.borrow_mut().handle_result(Instant::now(), index, page);
        self.pump(node);
    }

    async fn take_links(
        &self,
        beyond: &Beyond,
        frontier: &RefCell<Frontier>,
        about: &Arc<About>,
        (index, from): (u32, &str),
    ) {
        let (mut found, mut turn) = (Texts::default(), Instant::now());
        for (at, link) in about.links.iter().enumerate() {
            if frontier.borrow_mut().offer(link) {
                found.push(link);
            }
            if at % LOOK_EVERY == 0 && turn.elapsed() > TURN {
                uring::yield_now().await;
                turn = Instant::now();
            }
        }
        self.discover(beyond, frontier, found, (Some(index), from));
    }

    /// URLs join the stream.
    fn discover(
        &self,
        beyond: &Beyond,
        frontier: &RefCell<Frontier>,
        found: Texts,
        (on, from): (Option<u32>, &str),
    ) {
        if found.is_empty() {
            return;
        }
        let urls = found.share();
        // A stream that is being ended takes none.
        let Ok(first) = self.machine.borrow_mut().handle_add(&urls) else { return };
        let field = events::discovered_json(from);
        for (index, _) in (first..).zip(urls.iter()) {
            frontier.borrow_mut().found(index, on);
            beyond.put_beside(index, field.clone());
        }
    }

    /// Reads the sitemaps of the hosts that the stream began with, until the stream is being ended.
    pub(super) async fn read_sitemaps(&self, node: &Rc<Node>, beyond: &Beyond) {
        let Some(frontier) = &beyond.frontier else { return };
        let reading = Box::pin(self.read_all_sitemaps(node, beyond, frontier));
        let _ = uring::select2(reading, beyond.ended.notified()).await;
    }

    async fn read_all_sitemaps(
        &self,
        node: &Rc<Node>,
        beyond: &Beyond,
        frontier: &RefCell<Frontier>,
    ) {
        for host in self.first_hosts() {
            let mut files: VecDeque<String> =
                node.fetcher.sitemaps(&host, self.stream.number()).await.into();
            let mut read = HashSet::new();
            while let Some(file) = files.pop_front()
                && read.len() < SITEMAP_FILES_MAX
                && !frontier.borrow().is_full()
                && self.machine.borrow().ending().is_none()
            {
                if read.insert(file.clone()) {
                    self.read_sitemap(node, beyond, frontier, &file, &mut files).await;
                    self.pump(node);
                }
            }
        }
    }

    /// A URL of each of the hosts that the stream began with.
    fn first_hosts(&self) -> Vec<String> {
        let machine = self.machine.borrow();
        let mut seen = HashSet::new();
        let count = u32::try_from(machine.counts().total).unwrap_or(0).min(FIRST_URLS_MAX);
        let urls = (0..count).map(|at| machine.url(at));
        let targets = urls.filter_map(|url| Target::parse(url).ok());
        let firsts = targets.filter(|target| seen.insert(target.origin().clone()));
        firsts.take(SITEMAP_HOSTS_MAX).map(|target| target.as_str().to_owned()).collect()
    }

    async fn read_sitemap(
        &self,
        node: &Rc<Node>,
        beyond: &Beyond,
        frontier: &RefCell<Frontier>,
        file: &str,
        files: &mut VecDeque<String>,
    ) {
        let Some(body) = self.fetch_sitemap(node, file).await else { return };
        let (bytes, read) = (body.len(), move || sitemap::read(&body));
        let reading = node.shared.reading.read(bytes, SITEMAP_HERE_BYTES_MAX, read);
        let Ok(named) = reading.await else { return };
        let room = SITEMAP_FILES_MAX.saturating_sub(files.len());
        files.extend(named.sitemaps.into_iter().take(room));
        let (mut found, mut turn) = (Texts::default(), Instant::now());
        for (at, url) in named.pages.iter().enumerate() {
            if let Ok(url) = normal(url)
                && frontier.borrow_mut().offer(&url)
            {
                found.push(&url);
            }
            if at % LOOK_EVERY == 0 && turn.elapsed() > TURN {
                self.discover(beyond, frontier, std::mem::take(&mut found), (None, file));
                if frontier.borrow().is_full() {
                    return;
                }
                uring::yield_now().await;
                turn = Instant::now();
            }
        }
        self.discover(beyond, frontier, found, (None, file));
    }

    /// A sitemap's bytes; `None` where there is none.
    async fn fetch_sitemap(&self, node: &Rc<Node>, url: &str) -> Option<Vec<u8>> {
        let request = FetchRequest {
            url,
            deadline: Instant::now() + SITEMAP_TIMEOUT,
            max_body_bytes: SITEMAP_BYTES_MAX,
            redirects: self.options.redirects,
            user_agent: self.options.user_agent.as_deref(),
            headers: &self.options.headers,
            known: None,
            robots: self.options.robots == Robots::Respect,
            post: None,
            owner: self.stream.number(),
        };
        let fetched = node.fetcher.fetch_file(&request).await.ok()?;
        let Fetched { status: 200..300, body, .. } = fetched else { return None };
        if body.starts_with(&GZIP) { unpack(&body).await } else { Some(body) }
    }
}

/// Undoes the compression of a file that is compressed by itself, a turn at a time.
async fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let (mut decoder, mut body) = (Decoder::new("gzip", SITEMAP_BYTES_MAX).ok()?, Vec::new());
    loop {
        let progress = decoder.handle_input(packed, &mut body, DECODE_TURN_BYTES).ok()?;
        packed = &packed[progress.consumed..];
        if progress.drained {
            break;
        }
        uring::yield_now().await;
    }
    decoder.handle_end().ok()?;
    Some(body)
}
