//! Pages by way of the cache: found there, waited for, asked about, or fetched and kept.
//!
//! A stream looks first on its own core, without a task or a letter ([`Ask::hit`]); what is not
//! there becomes a page job like any other, and [`run`] makes sure that it is fetched once.

use super::indexing;
use super::mesh::{Message, PageJob};
use super::node::Node;
use super::page::{self, Answer, Work};
use super::request::{CacheMode, FreshnessBy, Options};
use super::second;
use crate::cache::entry::{Entry, Validators};
use crate::cache::flights::{Entered, FlightId, Flights};
use crate::cache::freshness::{Fields, Freshness};
use crate::cache::key::{Key, Keyer};
use crate::cache::{Found, PageCache, Ttls, Wanted, is_of_its_request};
use crate::config::Config;
use crate::error::{PageCode, PageError, Stage};
use crate::fetch::normal::normal;
use crate::local::{Notify, Slot};
use crate::observe::metrics::Counter;
use crate::proto::events::{CacheUse, PageResult, Stored};
use crate::search::Search;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use ulid::Ulid;
use uring::Either;

/// What every key of a page begins with.
const NAMESPACE: &str = "forebay page 1";

/// What all cores share of the cache.
pub struct Pages {
    /// The pages.
    pub cache: PageCache,
    /// Those that are on their way.
    pub flights: Flights,
    /// Hashes what all requests of this server have in common: made once, when the extractor is known.
    keyer: OnceLock<Keyer>,
    /// The same until then.
    early: Keyer,
    user_agent: String,
}

impl Pages {
    /// An empty cache, by the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let ttls = Ttls {
            success: Duration::from_secs(config.cache_ttl_s),
            redirect: Duration::from_secs(config.cache_ttl_redirect_s),
            client_error: Duration::from_secs(config.cache_ttl_4xx_s),
            server_error: Duration::from_secs(config.cache_ttl_5xx_s),
            error: Duration::from_secs(config.cache_ttl_error_s),
        };
        Self {
            cache: PageCache::new(config.cache_bytes_max, ttls),
            flights: Flights::default(),
            keyer: OnceLock::new(),
            early: Keyer::new(NAMESPACE).with("until loaded", Ulid::generate().to_bytes()),
            user_agent: config.user_agent.clone(),
        }
    }

    /// The module that reads all pages from now on, by its SHA-256, and the bytes that it is given of
    /// each: what another module made, before a restart or on another node, is no page of this server.
    pub fn set_extractor(&self, module_sha256: &[u8; 32], html_bytes_max: usize) {
        let keyer = Keyer::new(NAMESPACE)
            .with("module", module_sha256)
            .with("html_bytes_max", (html_bytes_max as u64).to_be_bytes());
        // A process loads one module.
        let _ = self.keyer.set(keyer);
    }

    /// A stream that begins before the module is known finds nothing and leaves nothing to others.
    fn keyer(&self) -> &Keyer {
        self.keyer.get().unwrap_or(&self.early)
    }
}

/// What became of a flight: its page, or nothing, where its leader gave up.
pub type Landing = Option<Arc<Entry>>;

/// Pages of this core that wait for a flight that somebody else leads.
#[derive(Default)]
pub(super) struct Waiting(RefCell<HashMap<FlightId, Vec<Rc<Slot<Landing>>>>>);

impl Waiting {
    /// A flight has landed.
    pub(super) fn land(&self, flight: FlightId, landing: &Landing) {
        let waiting = self.0.borrow_mut().remove(&flight).unwrap_or_default();
        waiting.iter().for_each(|slot| slot.fill(landing.clone()));
    }

    fn add(&self, flight: FlightId) -> Rc<Slot<Landing>> {
        let slot = Rc::<Slot<Landing>>::default();
        self.0.borrow_mut().entry(flight).or_default().push(Rc::clone(&slot));
        slot
    }

    /// Somebody waits no longer.
    fn forget(&self, flight: FlightId, slot: &Rc<Slot<Landing>>) {
        if let Some(waiting) = self.0.borrow_mut().get_mut(&flight) {
            waiting.retain(|other| !Rc::ptr_eq(other, slot));
        }
    }
}

/// A stream's way to ask the cache.
pub(super) struct Ask {
    keyer: Keyer,
    mode: CacheMode,
    wanted: Wanted,
    /// As whom its pages are kept in the index, where they are.
    owner: Option<u64>,
}

impl Ask {
    /// Hashes the options of a request, all that change what comes out.
    pub(super) fn new(pages: &Pages, options: &Options) -> Self {
        let guest = page::lane_options(options);
        let user_agent = options.user_agent.as_ref().unwrap_or(&pages.user_agent);
        let mut keyer = pages
            .keyer()
            .clone()
            .with("extract", guest.lines())
            .with("max_body_bytes", options.max_body_bytes.to_be_bytes())
            .with("redirects", options.redirects.to_be_bytes())
            .with("robots", [options.robots as u8])
            .with("user_agent", user_agent);
        let mut headers: Vec<(String, &str)> = options
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), &**value))
            .collect();
        headers.sort();
        for (name, value) in headers {
            keyer = keyer.with(&name, value);
        }
        Self { keyer, mode: options.cache_mode, wanted: wanted(options), owner: None }
    }

    /// The same, for a stream whose pages go into the index.
    pub(super) fn indexing(self, search: &Search, options: &Options, principal: &str) -> Self {
        Self { owner: indexing::owner(search, options, principal), ..self }
    }

    /// The key of a URL, which has been checked.
    pub(super) fn key(&self, url: &str) -> Key {
        match normal(url) {
            Ok(normal) => self.keyer.key(&normal),
            Err(_) => self.keyer.key(url),
        }
    }

    /// A page that can be used as it is. No lane, no task, no letter, and no memory once the index has
    /// it for this principal.
    pub(super) fn hit(&self, node: &Node, key: Key, principal: &Arc<str>) -> Option<Arc<Stored>> {
        if !matches!(self.mode, CacheMode::ReadThrough | CacheMode::ReadOnly) {
            return None;
        }
        match node.shared.pages.cache.look(key, &self.wanted, Instant::now()) {
            Found::Fresh(entry) => {
                node.observe.count(Counter::CacheHits);
                indexing::found(node, self.owner, principal, &entry);
                Some(Arc::clone(&entry.stored))
            }
            Found::Stale(_) | Found::Nothing => None,
        }
    }
}

/// Works on a page until it is done or told to end: from the cache, from a flight, or by fetching it.
pub(super) async fn run(node: &Rc<Node>, job: &PageJob, abort: &Notify) -> PageResult {
    let until = Instant::now() + Duration::from_millis(job.options.timeout_ms);
    let until = until.min(job.deadline);
    let (mode, wanted) = (job.options.cache_mode, wanted(&job.options));
    let pages = &node.shared.pages;
    if matches!(mode, CacheMode::Bypass | CacheMode::WriteOnly) || pages.cache.is_off() {
        return alone(node, job, abort, until).await;
    }
    loop {
        let known = match pages.cache.look(job.key, &wanted, Instant::now()) {
            Found::Fresh(entry) if mode != CacheMode::Revalidate => return hit(node, job, &entry),
            Found::Fresh(entry) | Found::Stale(entry) => Some(entry),
            Found::Nothing => None,
        };
        match pages.flights.enter(job.key, node.index) {
            Entered::Leads(flight) => {
                let lead = Lead { node, key: job.key, flight };
                // Another flight may have landed since we looked.
                let again = pages.cache.look(job.key, &wanted, Instant::now());
                if let (Found::Fresh(entry), false) = (again, mode == CacheMode::Revalidate) {
                    lead.land(&Some(Arc::clone(&entry)));
                    return hit(node, job, &entry);
                }
                let known = match beyond(node, job, &wanted, until, known).await {
                    Ok(entry) => {
                        lead.land(&Some(Arc::clone(&entry)));
                        return hit(node, job, &entry);
                    }
                    Err(beyond) => beyond,
                };
                let work = page::run(node, job, abort, until, known.entry.as_deref()).await;
                return conclude(job, work, known, lead);
            }
            Entered::Joined(flight) => match wait(node, flight, until, abort).await {
                // A page that its origin keeps from others is fetched for each who goes by its word.
                Ok(Some(entry)) if wanted.by_origin && entry.freshness.never => {
                    return alone(node, job, abort, until).await;
                }
                Ok(Some(entry)) => {
                    node.observe.count(Counter::CacheJoins);
                    if mode != CacheMode::ReadOnly
                        && matches!(pages.cache.look(job.key, &wanted, entry.since), Found::Nothing)
                    {
                        pages.cache.store(job.key, &entry);
                    }
                    return hit(node, job, &entry);
                }
                Ok(None) => {}
                Err(error) => return page::unfinished(job, error),
            },
        }
    }
}

/// What other nodes know of a page that is not fresh here: one that will do, or else the best that
/// there is, and perhaps the duty to fetch it for all of them.
async fn beyond(
    node: &Rc<Node>,
    job: &PageJob,
    wanted: &Wanted,
    until: Instant,
    known: Option<Arc<Entry>>,
) -> Result<Arc<Entry>, second::Found> {
    let mode = job.options.cache_mode;
    let revalidates = mode == CacheMode::Revalidate;
    if !node.shared.cluster.answers() || revalidates && known.is_some() {
        return Err(second::Found { entry: known, ..second::Found::default() });
    }
    let lead = mode == CacheMode::ReadThrough;
    let mut found = second::look(node, job, wanted, until, lead).await;
    if let Some(entry) = &found.entry {
        if mode != CacheMode::ReadOnly {
            node.shared.pages.cache.store(job.key, entry);
        }
        // One that came while we waited is new, as if we had fetched it.
        if !revalidates && (found.newer || entry.is_fresh(wanted, Instant::now())) {
            return Ok(Arc::clone(entry));
        }
    }
    let newer = |entry: &Arc<Entry>| known.as_ref().is_none_or(|known| known.since < entry.since);
    if !found.entry.as_ref().is_some_and(newer) {
        found.entry = known;
    }
    Err(found)
}

/// Fetches a page for this request alone.
async fn alone(node: &Rc<Node>, job: &PageJob, abort: &Notify, until: Instant) -> PageResult {
    let Work { mut result, answer } = page::run(node, job, abort, until, None).await;
    let asked = !matches!(job.options.cache_mode, CacheMode::Bypass | CacheMode::WriteOnly);
    result.cache = if asked { CacheUse::Miss } else { CacheUse::Bypass };
    if job.options.cache_mode == CacheMode::WriteOnly
        && let Some(entry) = entry_of(node, job, &mut result, answer)
    {
        keep(node, job, &entry, None);
    }
    result
}

/// Waits for somebody else's flight. An error: the page's time is up, or nobody wants it any more.
async fn wait(
    node: &Rc<Node>,
    flight: FlightId,
    until: Instant,
    abort: &Notify,
) -> Result<Landing, PageError> {
    let slot = node.waiting.add(flight);
    let landing = uring::time::timeout_at(until, slot.take());
    let waited = uring::select2(landing, abort.notified()).await;
    node.waiting.forget(flight, &slot);
    match waited {
        Either::Left(Ok(landing)) => Ok(landing),
        Either::Left(Err(_)) => {
            let message = "the page was being fetched for another request when its time was up";
            Err(PageError::new(PageCode::UrlTimeout, Stage::Queue, message))
        }
        Either::Right(()) => Err(page::ended(Stage::Queue)),
    }
}

/// The leader's page is done: keeps it, tells who waits, and makes the result.
fn conclude(job: &PageJob, work: Work, known: second::Found, lead: Lead<'_>) -> PageResult {
    let node = lead.node;
    let second::Found { entry: known, lease, .. } = known;
    let Work { mut result, answer } = work;
    if let (Some(known), Some(answer)) = (&known, &answer)
        && answer.not_modified
    {
        let now = Instant::now();
        let entry = known.refreshed(answer.validators(), freshness(job, answer), now);
        let entry = Arc::new(entry);
        keep(node, job, &entry, lease);
        lead.land(&Some(Arc::clone(&entry)));
        node.observe.count(Counter::CacheRevalidated);
        index(node, job, &entry);
        let page = entry.page(job.url.clone(), CacheUse::Revalidated);
        return PageResult { timings: result.timings, ready: result.ready, ..page };
    }
    result.cache = if known.is_some() { CacheUse::Stale } else { CacheUse::Miss };
    let stale = Counter::CacheStale;
    node.observe.count(if known.is_some() { stale } else { Counter::CacheMisses });
    // Where there is nothing to share, the lead goes to one of those who wait.
    if let Some(entry) = entry_of(node, job, &mut result, answer) {
        if known.is_none_or(|known| !known.outlives(&entry, entry.since)) {
            keep(node, job, &entry, lease);
        }
        lead.land(&Some(entry));
    }
    result
}

/// What a finished page is to others; `None` where it says nothing to them.
fn entry_of(
    node: &Node,
    job: &PageJob,
    result: &mut PageResult,
    answer: Option<Answer>,
) -> Option<Arc<Entry>> {
    let code = result.error.as_ref().map(|error| error.code);
    if code.is_some_and(is_of_its_request) {
        return None;
    }
    result.cache_key = job.key.number();
    let answer = answer.unwrap_or_default();
    let ttls = node.shared.pages.cache.ttls();
    let ttl = ttls.of(result.status, answer.redirected, code);
    let freshness = freshness(job, &answer);
    let entry = Entry::new(result, answer.validators(), freshness, ttl, Instant::now());
    if answer.indexed {
        indexing::handed_over(node, job, &entry);
    }
    Some(Arc::new(entry))
}

/// Writes a page to the cache, if the request lets us, and sends it to other nodes; whoever does not get
/// it may fetch it then.
fn keep(node: &Node, job: &PageJob, entry: &Arc<Entry>, lease: Option<second::Lease>) {
    let refused = job.options.freshness == FreshnessBy::Http && entry.freshness.never;
    if job.options.cache_mode == CacheMode::ReadOnly || refused {
        return;
    }
    node.shared.pages.cache.store(job.key, entry);
    second::store(node, job.key, entry, lease);
}

/// A page of the cache's for a request that may be the first of its key's.
fn index(node: &Node, job: &PageJob, entry: &Entry) {
    let principal = &job.stream.birth.principal;
    let owner = indexing::owner(&node.shared.search, &job.options, principal);
    indexing::found(node, owner, principal, entry);
}

fn hit(node: &Node, job: &PageJob, entry: &Entry) -> PageResult {
    node.observe.count(Counter::CacheHits);
    index(node, job, entry);
    let mut page = entry.page(job.url.clone(), CacheUse::Hit);
    page.timings.add(Stage::Queue, job.since.elapsed());
    page.ready = Some(Instant::now());
    page
}

fn wanted(options: &Options) -> Wanted {
    Wanted {
        max_age: Duration::from_secs(options.max_age_s),
        by_origin: options.freshness == FreshnessBy::Http,
    }
}

pub(super) fn freshness(job: &PageJob, answer: &Answer) -> Freshness {
    let caching = &answer.caching;
    let fields = Fields {
        cache_control: &caching.cache_control,
        vary: &caching.vary,
        expires: caching.expires.as_deref(),
        date: caching.date.as_deref(),
        age: caching.age.as_deref(),
    };
    let secret = |(name, _): &(String, String)| name.eq_ignore_ascii_case("authorization");
    let with_credentials = job.options.headers.iter().any(secret);
    Freshness::read(&fields, SystemTime::now(), answer.took, with_credentials)
}

impl Answer {
    fn validators(&self) -> Validators {
        Validators { etag: self.etag.clone(), last_modified: self.last_modified.clone() }
    }
}

/// The duty to end a flight. Dropped, it hands the flight to those who wait.
struct Lead<'a> {
    node: &'a Rc<Node>,
    key: Key,
    flight: FlightId,
}

impl Lead<'_> {
    /// Tells every core that waits.
    fn land(&self, landing: &Landing) {
        let node = self.node;
        for core in node.shared.pages.flights.land(self.key, self.flight) {
            if core == node.index {
                node.waiting.land(self.flight, landing);
            } else {
                let message = Message::Landed { flight: self.flight, landing: landing.clone() };
                node.post_soon(core, message);
            }
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // After a landing there is no such flight any more, and nobody to tell.
        self.land(&None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Extractor, Format, OrderName, Robots};
    use super::*;
    use proptest::prelude::*;

    fn formats() -> impl Strategy<Value = Vec<Format>> {
        let all = [Format::Markdown, Format::Text, Format::Links];
        proptest::collection::vec(proptest::sample::select(all.to_vec()), 1..3)
    }

    fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
        let map = proptest::collection::btree_map("[abAB]{1,2}", "[ab]{0,2}", 0..3);
        map.prop_map(|map| map.into_iter().collect())
    }

    prop_compose! {
        /// What changes the output, each out of few values, and some of what does not.
        fn options()(
            formats in formats(),
            headers in headers(),
            full: bool,
            small: bool,
            redirects in 4_u32..6,
            user_agent in proptest::option::of("[ab]"),
            ignore: bool,
            other in 1_u64..4,
        ) -> Options {
            Options {
                formats,
                headers,
                extractor: if full { Extractor::Full } else { Extractor::Article },
                max_body_bytes: if small { 1000 } else { 2000 },
                redirects,
                user_agent,
                robots: if ignore { Robots::Ignore } else { Robots::Respect },
                max_age_s: other,
                timeout_ms: other,
                deadline_ms: other,
                concurrency: 2,
                order: (other == 1).then_some(OrderName::Input),
                ..Options::default()
            }
        }
    }

    /// The slow, obvious twin of a key.
    fn what_counts(options: &Options) -> impl PartialEq + use<> {
        let has = |format| options.formats.contains(&format);
        let formats = [has(Format::Markdown), has(Format::Text), has(Format::Links)];
        let lower = |(name, value): &(String, String)| (name.to_lowercase(), value.clone());
        let mut headers: Vec<_> = options.headers.iter().map(lower).collect();
        headers.sort();
        let how = (options.extractor, options.max_body_bytes, options.redirects, options.robots);
        (formats, headers, how, options.user_agent.clone())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn pages_share_a_key_where_everything_that_counts_is_equal(
            one in options(),
            other in options(),
            headers_only: bool,
        ) {
            // Two lists of options at random seldom meet: let them differ in one thing, too.
            let other = match headers_only {
                true => Options { headers: other.headers, ..one.clone() },
                false => other,
            };
            let pages = Pages::new(&Config::default());
            let key = |options: &Options| Ask::new(&pages, options).key("https://a.example/");
            prop_assert_eq!(key(&one) == key(&other), what_counts(&one) == what_counts(&other));
        }
    }

    #[test]
    fn pages_of_another_module_or_another_cut_are_others() {
        let options = Options::default();
        let key = |module: Option<(u8, usize)>| {
            let pages = Pages::new(&Config::default());
            if let Some((module, html_bytes_max)) = module {
                pages.set_extractor(&[module; 32], html_bytes_max);
            }
            Ask::new(&pages, &options).key("https://a.example/")
        };
        assert_eq!(key(Some((1, 2000))), key(Some((1, 2000))), "on every node alike");
        assert_ne!(key(Some((1, 2000))), key(Some((2, 2000))));
        assert_ne!(key(Some((1, 2000))), key(Some((1, 3000))));
        assert_ne!(key(None), key(None), "whatever is to read it");
    }

    #[test]
    fn the_agent_by_name_is_the_agent_by_default_and_urls_count_in_normal_form() {
        let pages = Pages::new(&Config::default());
        let named =
            Options { user_agent: Some(Config::default().user_agent), ..Options::default() };
        let key = |options: &Options, url| Ask::new(&pages, options).key(url);
        let default = Options::default();
        assert_eq!(key(&named, "http://a.example/"), key(&default, "http://A.example:80#b"));
        assert_ne!(key(&default, "http://a.example/"), key(&default, "https://a.example/"));
        assert_ne!(key(&default, "http://a.example/"), key(&default, "http://a.example/?"));
    }
}
