#![allow(clippy::unwrap_used, reason = "a test may panic")]
use super::entry::{Told, Validators};
use super::freshness::Freshness;
use super::key::Keyer;
use super::*;
use crate::error::{PageError, Stage};
use crate::proto::events::{CacheUse, Document, PageResult};
use bytes::Bytes;

const HOUR: Duration = Duration::from_secs(3600);

fn ttls() -> Ttls {
    let seconds = Duration::from_secs;
    Ttls {
        success: seconds(100),
        redirect: seconds(50),
        client_error: seconds(40),
        server_error: seconds(30),
        error: seconds(20),
    }
}

fn key(url: &str) -> Key {
    Keyer::new("test").key(url)
}

fn page(bytes: usize) -> PageResult {
    let failure = PageError::new(PageCode::Cancelled, Stage::Queue, "");
    let json = Bytes::from(vec![b'x'; bytes]);
    let document = Document { json, quality: Bytes::from_static(b"1.0") };
    PageResult {
        final_url: Some("http://a.test/".to_owned()),
        status: 200,
        document: Some(document),
        error: None,
        ..PageResult::failed("http://a.test/".into(), failure)
    }
}

fn entry(bytes: usize, ttl: Duration, freshness: Freshness, since: Instant) -> Arc<Entry> {
    Arc::new(Entry::new(&page(bytes), Validators::default(), freshness, ttl, since))
}

fn wanted(max_age: Duration, by_origin: bool) -> Wanted {
    Wanted { max_age, by_origin }
}

fn is_fresh(found: &Found) -> bool {
    matches!(found, Found::Fresh(_))
}

#[test]
fn each_kind_of_answer_has_its_time() {
    let of = |status, redirected, code| ttls().of(status, redirected, code).as_secs();
    assert_eq!(of(200, false, None), 100);
    assert_eq!(of(200, true, None), 50, "where a redirect leads to may change");
    assert_eq!(of(304, false, None), 50);
    assert_eq!(of(302, false, Some(PageCode::TooManyRedirects)), 50);
    assert_eq!(of(404, false, None), 40);
    assert_eq!(of(404, true, None), 40);
    assert_eq!(of(503, false, None), 30);
    assert_eq!(of(0, false, Some(PageCode::DnsFailed)), 20);
    assert_eq!(of(200, false, Some(PageCode::ExtractTimeout)), 20);
    for code in [
        PageCode::UrlTimeout,
        PageCode::DeadlineExceeded,
        PageCode::Cancelled,
        PageCode::BlockedEgress,
        PageCode::RobotsDisallowed,
        PageCode::HostThrottled,
    ] {
        assert_eq!(of(200, false, Some(code)), 0, "{code:?} says nothing about the page");
    }
}

#[test]
fn a_page_is_fresh_within_the_shortest_of_all_limits() {
    let cache = PageCache::new(1 << 20, ttls());
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    let freshness = Freshness { lifetime: Some(Duration::from_secs(10)), ..Freshness::default() };
    cache.store(key("a"), &entry(10, Duration::from_secs(100), freshness, now));
    let look = |wanted: Wanted, at| cache.look(key("a"), &wanted, at);
    assert!(is_fresh(&look(wanted(HOUR, false), later(99))));
    assert!(matches!(look(wanted(HOUR, false), later(100)), Found::Stale(_)), "its kind's time");
    assert!(!is_fresh(&look(wanted(Duration::from_secs(5), false), later(5))), "max_age_s");
    assert!(!is_fresh(&look(wanted(Duration::ZERO, false), now)), "0 is never fresh");
    assert!(is_fresh(&look(wanted(HOUR, true), later(9))));
    assert!(!is_fresh(&look(wanted(HOUR, true), later(10))), "its origin's word");
    assert!(matches!(cache.look(key("b"), &wanted(HOUR, false), now), Found::Nothing));
}

#[test]
fn everybody_reads_the_same_bytes() {
    let cache = PageCache::new(1 << 20, ttls());
    let now = Instant::now();
    let given = entry(1000, HOUR, Freshness::default(), now);
    cache.store(key("a"), &given);
    let Found::Fresh(found) = cache.look(key("a"), &wanted(HOUR, false), now) else {
        panic!("kept")
    };
    let first = found.page("http://a.test/1".into(), CacheUse::Hit);
    let again = given.page("http://a.test/2".into(), CacheUse::Revalidated);
    let place = |page: &PageResult| page.document.as_ref().unwrap().json.as_ptr();
    assert_eq!(place(&first), place(&again));
    assert_eq!((&*first.url, first.cache), ("http://a.test/1", CacheUse::Hit));
}

#[test]
fn a_page_that_still_holds_is_new_again_and_the_same() {
    let now = Instant::now();
    let tag = |tag: &str| Validators { etag: Some(tag.to_owned()), last_modified: None };
    let old = Entry::new(&page(10), tag("\"1\""), Freshness::default(), HOUR, now);
    assert!(old.can_be_vouched_for());
    let later = now + 2 * HOUR;
    let fresh = |entry: &Entry| entry.is_fresh(&wanted(2 * HOUR, false), later);
    assert!(!fresh(&old));
    let new = old.refreshed(Validators::default(), Freshness::default(), later);
    assert!(fresh(&new));
    assert_eq!(new.validators, old.validators);
    assert!(Arc::ptr_eq(&new.stored, &old.stored));
    assert_eq!(old.refreshed(tag("\"2\""), Freshness::default(), later).validators, tag("\"2\""));
}

#[test]
fn a_failure_does_not_push_out_a_page_in_its_time() {
    let now = Instant::now();
    let of = |page: &PageResult| {
        Entry::new(page, Validators::default(), Freshness::default(), HOUR, now)
    };
    let good = of(&page(10));
    let failed = of(&PageResult { status: 503, ..page(10) });
    let error = PageError::new(PageCode::ConnectFailed, Stage::Connect, "");
    let broken = of(&PageResult { error: Some(error), ..page(10) });
    let gone = of(&PageResult { status: 404, ..page(10) });
    assert!(good.outlives(&failed, now) && good.outlives(&broken, now));
    assert!(!good.outlives(&failed, now + HOUR), "its time is over");
    assert!(!good.outlives(&gone, now), "that is an answer");
    assert!(!good.outlives(&good, now) && !failed.outlives(&broken, now));
}

#[test]
fn its_bytes_are_bounded_and_what_goes_is_counted() {
    let cache = PageCache::new(1 << 20, ttls());
    let now = Instant::now();
    for n in 0..1000 {
        cache.store(key(&n.to_string()), &entry(10_000, HOUR, Freshness::default(), now));
        let stats = cache.stats();
        assert!(stats.bytes <= stats.bytes_max, "{stats:?}");
    }
    let stats = cache.stats();
    assert!(stats.entries > 50, "{stats:?}");
    assert_eq!(stats.entries + stats.evictions, 1000);
    // One that is larger than a shard is not kept, and pushes nobody out.
    cache.store(key("large"), &entry(1 << 20, HOUR, Freshness::default(), now));
    assert!(matches!(cache.look(key("large"), &wanted(HOUR, false), now), Found::Nothing));
    assert_eq!(cache.stats().entries, stats.entries);
}

#[test]
fn what_has_no_time_is_not_kept_and_a_cache_of_nothing_keeps_nothing() {
    let now = Instant::now();
    for (bytes_max, ttl) in [(1 << 20, Duration::ZERO), (0, HOUR)] {
        let cache = PageCache::new(bytes_max, ttls());
        cache.store(key("a"), &entry(10, ttl, Freshness::default(), now));
        assert!(matches!(cache.look(key("a"), &wanted(HOUR, false), now), Found::Nothing));
        assert_eq!(cache.stats().entries, 0);
    }
}

#[test]
fn each_owner_is_told_once() {
    let told = Told::default();
    assert!(told.claim(1) && !told.claim(1));
    assert!(told.claim(2) && !told.claim(1) && !told.claim(2));
    told.release(2);
    assert!(!told.claim(1) && told.claim(2) && !told.claim(2));
    for owner in 3..1000 {
        assert!(told.claim(owner) && !told.claim(owner));
    }
    assert!(told.claim(1), "the oldest of many are told again");
    let page =
        Entry::new(&page(1), Validators::default(), Freshness::default(), HOUR, Instant::now());
    assert!(page.told.claim(7));
    let again = page.refreshed(Validators::default(), Freshness::default(), Instant::now());
    assert!(!again.told.claim(7), "a page that still holds is the same page");
}
