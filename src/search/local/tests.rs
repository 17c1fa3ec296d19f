#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn page(url: &str, owner: &str, title: &str, text: &str) -> Page {
    let document = serde_json::json!({ "title": title, "text": text, "markdown": null });
    Page { url: url.to_owned(), owner: owner.into(), document: document.to_string().into() }
}

fn query(text: &str) -> Query {
    Query { text: text.to_owned(), limit: 10, country: None, locale: None }
}

/// Asks until the pages that were offered are committed.
fn ask(local: &Local, text: &str, owner: Option<&str>) -> Vec<Hit> {
    ask_for(local, query(text), owner).unwrap()
}

fn ask_for(local: &Local, query: Query, owner: Option<&str>) -> Result<Vec<Hit>, SearchError> {
    let (to, mut from) = uring::mailbox::channel(1);
    let deadline = Instant::now() + Duration::from_secs(30);
    let owner = owner.map(Arc::from);
    local.ask(Question { query, owner, deadline, to })?;
    loop {
        if let Some(hits) = from.try_recv() {
            return hits;
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until all that was offered can be found. Jobs are taken in order by one thread: when the
/// second commit has been taken, the first is done.
fn settle(local: &Local) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait = || {
        assert!(Instant::now() < deadline, "the index does not settle");
        std::thread::sleep(Duration::from_millis(1));
    };
    for _ in 0..2 {
        while local.pages.try_submit(Job::Commit).is_err() {
            wait();
        }
    }
    while local.pages.stats().queued > 0 {
        wait();
    }
}

fn urls(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.url.as_str()).collect()
}

#[test]
fn pages_are_found_titles_first_and_the_same_url_once() {
    let local = Local::start(None, 64 << 20).unwrap();
    let filler = "and the river runs on by the meadow. ".repeat(30);
    local.offer(page(
        "http://a.test/1",
        "",
        "Rivers",
        &format!("{filler} A weir is mentioned once. {filler}"),
    ));
    local.offer(page(
        "http://a.test/2",
        "",
        "The old weir",
        &format!("{filler} It holds water back."),
    ));
    local.offer(page("http://a.test/3", "", "Bread", "Nothing about water."));
    local.offer(page("http://a.test/3", "", "Bread", "Flour and salt, baked."));
    settle(&local);
    let hits = ask(&local, "weir", None);
    assert_eq!(urls(&hits), ["http://a.test/2", "http://a.test/1"]);
    assert!(hits[1].snippet.contains("A weir is mentioned once."), "{}", hits[1].snippet);
    assert_eq!(urls(&ask(&local, "flour", None)), ["http://a.test/3"]);
    assert_eq!(urls(&ask(&local, "nothing", None)), [""; 0], "it was replaced");
    assert_eq!(local.stats().pages, 3);
    local.stop();
    assert_eq!(local.ask_twice(), Err(SearchError::Busy), "a stopped index takes no questions");
}

impl Local {
    fn ask_twice(&self) -> Result<(), SearchError> {
        let (to, _from) = uring::mailbox::channel(1);
        self.ask(Question { query: query("x"), owner: None, deadline: Instant::now(), to })
    }
}

#[test]
fn the_better_page_comes_first() {
    let local = Local::start(None, 64 << 20).unwrap();
    let filler = "the river runs on by the meadow and the mill. ".repeat(40);
    let pages = [
        ("both", "Rivers", format!("{filler} The sluice of the weir. {filler}")),
        ("one", "Rivers", format!("{filler} A weir. {filler}")),
        ("often", "Rivers", format!("{filler} A weir by a weir by a weir. {filler}")),
        ("short", "Rivers", "A lock.".to_owned()),
        ("long", "Rivers", format!("{filler} A lock. {filler}")),
        ("title", "The ferry", filler.clone()),
        ("text", "Rivers", format!("{filler} The ferry. {filler}")),
    ];
    for (name, title, text) in &pages {
        local.offer(page(&format!("http://a.test/{name}"), "", title, text));
    }
    // Words that every page has say nothing.
    for n in 0..20 {
        local.offer(page(&format!("http://a.test/river{n}"), "", "Rivers", &filler));
    }
    settle(&local);
    let first = |query, count| -> Vec<String> {
        let hits = ask(&local, query, None);
        let name = |hit: &Hit| hit.url.trim_start_matches("http://a.test/").to_owned();
        hits.iter().take(count).map(name).collect()
    };
    assert_eq!(first("weir sluice", 1), ["both"], "more of the words");
    assert_eq!(first("weir", 2)[0], "often", "more often");
    assert_eq!(first("lock", 2), ["short", "long"], "more of the text");
    assert_eq!(first("ferry", 2), ["title", "text"], "in the title");
    assert_eq!(first("the ferry, the river", 2), ["title", "text"], "the rare word counts");
    assert_eq!(first("Ferries", 9), [""; 0], "no stemming: nothing is an answer");
    local.stop();
}

#[test]
fn an_owner_sees_its_own_pages_only() {
    let local = Local::start(None, 64 << 20).unwrap();
    local.offer(page("http://a.test/", "ann", "Ann", "the weir"));
    local.offer(page("http://a.test/", "bob", "Bob", "the weir"));
    settle(&local);
    let titles = |owner| {
        let mut hits: Vec<_> =
            ask(&local, "weir", owner).into_iter().map(|hit| hit.title).collect();
        hits.sort();
        hits
    };
    assert_eq!(titles(Some("ann")), ["Ann"]);
    assert_eq!(titles(Some("eve")), [""; 0]);
    assert_eq!(titles(None), ["Ann", "Bob"]);
}

#[test]
fn an_index_on_disk_is_there_again_and_is_nobody_elses() {
    let folder = std::env::temp_dir().join(format!("forebay-index-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let local = Local::start(Some(&folder), 64 << 20).unwrap();
    local.offer(page("http://a.test/", "", "A weir", "text"));
    settle(&local);
    let second = Local::start(Some(&folder), 64 << 20);
    assert!(second.is_err(), "two processes can't write one index");
    local.stop();
    drop(local);
    let local = Local::start(Some(&folder), 64 << 20).unwrap();
    assert_eq!(local.stats().pages, 1);
    assert_eq!(urls(&ask(&local, "weir", None)), ["http://a.test/"]);
    local.stop();
    drop(local);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_full_index_lets_the_oldest_go() {
    let bytes_max = 300_000;
    let local = Local::start(None, bytes_max).unwrap();
    for n in 0..400_u32 {
        // Words that are all different compress badly.
        let text: String = (0..300).map(|at| format!("w{} ", u64::from(n) * 7919 + at)).collect();
        local.offer(page(&format!("http://a.test/{n}"), "", &format!("page number{n}"), &text));
        if n % 20 == 19 {
            settle(&local);
            // A merge that is under way has its segments twice; then the index comes back on its own.
            let deadline = Instant::now() + Duration::from_secs(60);
            while local.stats().bytes > bytes_max {
                let stats = local.stats();
                assert!(stats.bytes <= 2 * bytes_max, "{stats:?} after {n}");
                assert!(Instant::now() < deadline, "{stats:?} after {n}");
                settle(&local);
            }
        }
    }
    let stats = local.stats();
    assert!(stats.evicted > 0 && stats.pages < 400, "{stats:?}");
    assert_eq!(urls(&ask(&local, "number399", None)), ["http://a.test/399"]);
    assert_eq!(urls(&ask(&local, "number0", None)), [""; 0]);
}

#[test]
fn what_comes_too_fast_is_dropped_and_counted() {
    let local = Local::start(None, 64 << 20).unwrap();
    let large = "word ".repeat(500_000);
    for n in 0..100 {
        local.offer(page(&format!("http://a.test/{n}"), "", "Large", &large));
    }
    let stats = local.stats();
    assert!(stats.dropped > 0, "{stats:?}");
    settle(&local);
    assert_eq!(local.stats().pages + local.stats().dropped, 100);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_query_fails(text in ".{0,200}", syntax in "[\"()*~^:+\\-\\\\ANDORnot ]{0,60}") {
        thread_local! {
            static LOCAL: Local = {
                let local = Local::start(None, 64 << 20).unwrap();
                local.offer(page("http://a.test/", "", "AND or not", "some (text): with +words*"));
                settle(&local);
                local
            };
        }
        LOCAL.with(|local| {
            for text in [text, syntax] {
                prop_assert!(ask_for(local, query(&text), None).is_ok(), "{text}");
            }
            Ok(())
        })?;
    }
}
