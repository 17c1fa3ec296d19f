//! What hosts ask for: robots.txt, Crawl-delay, Retry-After, and not too much at once; all of it
//! counted over two cores.

use super::answers::ok;
use super::origin::Origin;
use super::{PAGE, config, loopback, on_core, on_cores, request};
use forebay::error::{PageCode, Stage};
use forebay::fetch::{FetchConfig, FetchRequest, Fetched, Fetcher};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An origin whose `/robots.txt` is this answer and whose other paths are pages; the paths that were
/// asked for.
fn site(robots: impl Into<Vec<u8>>) -> (Origin, Arc<Mutex<Vec<String>>>) {
    let (robots, paths) = (robots.into(), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&paths);
    let origin = Origin::start(move |conn| {
        while let Some(request) = conn.try_request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            seen.lock().unwrap().push(path.clone());
            match path.as_str() {
                "/robots.txt" => conn.send(&robots),
                "/to-private" => {
                    let head = "HTTP/1.1 302 X\r\nLocation: /private\r\nContent-Length: 0\r\n\r\n";
                    conn.send(head.as_bytes());
                }
                _ => conn.send(&ok("", PAGE)),
            }
        }
    });
    (origin, paths)
}

fn polite(url: &str) -> FetchRequest<'_> {
    FetchRequest { robots: true, ..request(url) }
}

/// Fetches with robots.txt respected; the page, or code and stage.
async fn get(fetcher: Rc<Fetcher>, url: String) -> Result<Fetched, (PageCode, Stage, String)> {
    let outcome = fetcher.fetch(&polite(&url)).await;
    outcome.map_err(|f| (f.error.code, f.error.stage, f.error.message))
}

#[test]
fn robots_is_asked_once_by_all_cores_and_obeyed_at_every_hop() {
    let rules = "User-agent: Forebay\nDisallow: /private\nUser-agent: *\nDisallow: /\n";
    let (origin, paths) = site(ok("Content-Type: text/plain\r\n", rules.as_bytes()));
    let urls = ["/a", "/b", "/private", "/to-private", "/c"].map(|path| origin.url(path));
    let main = || {
        let urls = urls.clone();
        move |fetcher: Rc<Fetcher>| async move {
            let tasks = urls.map(|url| uring::spawn(get(Rc::clone(&fetcher), url)));
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(task.await.map(|page| page.status));
            }
            outcomes
        }
    };
    for outcomes in on_cores(config(), loopback, [main(), main()]) {
        let refused = "robots.txt of 127.0.0.1 disallows it".to_owned();
        let refused = Err((PageCode::RobotsDisallowed, Stage::Pace, refused));
        assert_eq!(outcomes, [Ok(200), Ok(200), refused.clone(), refused, Ok(200)]);
    }
    let paths = paths.lock().unwrap();
    let times = |path: &str| paths.iter().filter(|p| *p == path).count();
    assert_eq!((times("/robots.txt"), times("/private"), times("/a")), (1, 0, 2), "{paths:?}");
}

#[test]
fn the_agent_that_is_sent_is_the_agent_that_is_looked_up() {
    let rules = "User-agent: other\nDisallow: /private\n";
    let (origin, _) = site(ok("", rules.as_bytes()));
    let url = origin.url("/private");
    on_core(config(), loopback, |fetcher| async move {
        assert!(fetcher.fetch(&polite(&url)).await.is_ok());
        let other = FetchRequest { user_agent: Some("Other/1.0 (x)"), ..polite(&url) };
        let refused = fetcher.fetch(&other).await.unwrap_err();
        assert_eq!(refused.error.code, PageCode::RobotsDisallowed);
        assert!(fetcher.fetch(&request(&url)).await.is_ok(), "who ignores it is not asked");
    });
}

/// RFC 9309 §2.3.1: what each answer to `/robots.txt` means.
#[test]
fn a_file_that_is_not_there_allows_and_one_that_cannot_be_had_does_not() {
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let rules = b"User-agent: *\nDisallow: /page\n";
    let long = [&rules[..], &b"# filler\n".repeat(100_000)].concat();
    let gzipped = ok("Content-Encoding: gzip\r\n", &super::gzip(&long));
    let moved = b"HTTP/1.1 301 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let round = b"HTTP/1.1 301 X\r\nLocation: /robots.txt\r\nContent-Length: 0\r\n\r\n";
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nUser-agent: *".to_vec();
    use PageCode::*;
    for (name, answer, outcome) in [
        ("rules", ok("Content-Type: image/png\r\n", rules), Err(RobotsDisallowed)),
        ("no file", status("404 Not Found"), Ok(200)),
        ("forbidden", status("403 Forbidden"), Ok(200)),
        ("empty", status("200 OK"), Ok(200)),
        ("in trouble", status("503 Service Unavailable"), Err(RobotsDisallowed)),
        ("too many", status("429 Too Many Requests"), Err(RobotsDisallowed)),
        ("a page", ok("Content-Type: text/html\r\n", PAGE), Ok(200)),
        ("moved", moved.to_vec(), Ok(200)),
        ("round in circles", round.to_vec(), Ok(200)),
        ("too long", ok("", &long), Err(RobotsDisallowed)),
        ("too long in gzip", gzipped, Err(RobotsDisallowed)),
        ("cut short", cut, Err(HttpMalformed)),
        ("no HTTP", b"SSH-2.0-x\r\n\r\n".to_vec(), Err(HttpMalformed)),
        ("leads inside", status("302 X\r\nLocation: http://10.0.0.1/"), Err(RobotsDisallowed)),
    ] {
        let cuts = name == "cut short";
        let origin = Origin::start(move |conn| {
            while let Some(request) = conn.try_request() {
                let robots = request.starts_with("GET /robots.txt ");
                conn.send(if robots { &answer } else { PAGE_ANSWER });
                if robots && cuts {
                    return;
                }
            }
        });
        let url = origin.url("/page");
        let fetched = on_core(config(), loopback, |fetcher| get(fetcher, url));
        let fetched = fetched.map(|page| page.status).map_err(|(code, _, message)| {
            assert!(!message.is_empty());
            code
        });
        assert_eq!(fetched, outcome, "{name}");
    }
}

const PAGE_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n<!doctype html><p>x";

#[test]
fn a_slow_robots_does_not_outlive_the_page_and_others_still_get_it() {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.try_request() {
            if request.starts_with("GET /robots.txt ") {
                std::thread::sleep(Duration::from_millis(600));
                conn.send(&ok("", b"User-agent: *\nDisallow: /no"));
            } else {
                conn.send(&ok("", PAGE));
            }
        }
    });
    let (url, forbidden) = (origin.url("/page"), origin.url("/no"));
    let patient = FetchConfig { ttfb_timeout: Duration::from_secs(5), ..config() };
    on_core(patient, loopback, |fetcher| async move {
        let deadline = Instant::now() + Duration::from_millis(100);
        let failed = fetcher.fetch(&FetchRequest { deadline, ..polite(&url) }).await.unwrap_err();
        assert_eq!((failed.error.code, failed.error.stage), (PageCode::UrlTimeout, Stage::Pace));
        let refused = fetcher.fetch(&polite(&forbidden)).await.unwrap_err();
        assert_eq!(refused.error.code, PageCode::RobotsDisallowed, "the first one's look-up");
        assert!(refused.timings.micros(Stage::Pace) > 100_000, "{:?}", refused.timings);
    });
    assert!(origin.connections() <= 2);
}

#[test]
fn crawl_delay_spaces_the_starts_of_all_cores_and_says_so() {
    let starts = Arc::<Mutex<Vec<Instant>>>::default();
    let log = Arc::clone(&starts);
    let origin = Origin::start(move |conn| {
        while let Some(request) = conn.try_request() {
            if request.starts_with("GET /robots.txt ") {
                conn.send(&ok("", b"User-agent: *\nCrawl-delay: 0.3\nDisallow:\n"));
            } else {
                log.lock().unwrap().push(Instant::now());
                conn.send(&ok("", PAGE));
            }
        }
    });
    let url = origin.url("/page");
    let main = || {
        let url = url.clone();
        move |fetcher: Rc<Fetcher>| async move {
            let tasks: Vec<_> =
                (0..3).map(|_| uring::spawn(get(Rc::clone(&fetcher), url.clone()))).collect();
            let mut paces = Vec::new();
            for task in tasks {
                paces.push(task.await.unwrap().timings.micros(Stage::Pace));
            }
            // One that can't wait is told at once, and how long it would have been.
            let deadline = Instant::now() + Duration::from_millis(50);
            let hasty = FetchRequest { deadline, ..polite(&url) };
            (paces, fetcher.fetch(&hasty).await.map(|_| ()).map_err(|f| f.error.code))
        }
    };
    let mut paces = Vec::new();
    for (some, hasty) in on_cores(config(), loopback, [main(), main()]) {
        paces.extend(some);
        assert_eq!(hasty, Err(PageCode::HostThrottled));
    }
    paces.sort_unstable();
    assert!(paces[5] >= 1_400_000, "the last one waited for five: {paces:?}");
    let starts = starts.lock().unwrap();
    assert_eq!(starts.len(), 6);
    for pair in starts.windows(2) {
        // What the origin sees of two starts 300 ms apart shifts by what each takes to arrive.
        assert!(pair[1] - pair[0] >= Duration::from_millis(150), "{:?}", pair[1] - pair[0]);
    }
    assert!(starts[5] - starts[0] >= Duration::from_millis(1_300));
}

/// Fetches from an origin with two cores, by these names; how many requests were under way at most.
fn most_at_once(config: FetchConfig, names: &'static [&'static str]) -> usize {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (here, top) = (Arc::clone(&now), Arc::clone(&most));
    let origin = Origin::start(move |conn| {
        while conn.try_request().is_some() {
            top.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            here.fetch_sub(1, Ordering::SeqCst);
            conn.send(&ok("", PAGE));
        }
    });
    let url = origin.url("/page");
    let main = || {
        let url = url.clone();
        move |fetcher: Rc<Fetcher>| async move {
            let fetch = |url: String| {
                let fetcher = Rc::clone(&fetcher);
                async move { fetcher.fetch(&request(&url)).await }
            };
            let named = |n: usize| url.replace("127.0.0.1", names[n % names.len()]);
            let tasks: Vec<_> = (0..30).map(|n| uring::spawn(fetch(named(n)))).collect();
            for task in tasks {
                assert!(task.await.is_ok());
            }
        }
    };
    on_cores(config, loopback, [main(), main()]);
    most.load(Ordering::SeqCst)
}

#[test]
fn no_more_at_once_than_the_setting_says_over_all_cores() {
    let narrow = FetchConfig { host_concurrency: 3, ..config() };
    assert_eq!(most_at_once(narrow, &["127.0.0.1"]), 3);
}

#[test]
fn many_names_of_one_address_are_one_address() {
    let names = &["127.0.0.1", "a.test", "b.test", "c.test", "d.test", "e.test"];
    let narrow = FetchConfig { host_concurrency: 3, address_concurrency: 4, ..config() };
    assert_eq!(most_at_once(narrow, names), 4);
    let wide = FetchConfig { host_concurrency: 3, ..config() };
    assert!(most_at_once(wide, names) > 4);
}

#[test]
fn all_requests_of_the_process_are_bounded_and_who_waits_says_so() {
    let names = &["127.0.0.1", "a.test", "b.test", "c.test", "d.test", "e.test"];
    let narrow = FetchConfig { concurrency_max: 2, ..config() };
    assert_eq!(most_at_once(narrow, names), 2);
    let mute = Origin::start(|conn| {
        conn.request();
        conn.wait_for_close();
    });
    let (url, other) = (mute.url("/"), mute.url("/").replace("127.0.0.1", "a.test"));
    let patient =
        FetchConfig { concurrency_max: 1, ttfb_timeout: Duration::from_secs(60), ..config() };
    on_core(patient, loopback, |fetcher| async move {
        let first = request(&url);
        let deadline = Instant::now() + Duration::from_millis(200);
        let second = FetchRequest { deadline, ..request(&other) };
        let both = uring::select2(
            Box::pin(fetcher.fetch(&first)),
            Box::pin(async {
                uring::time::sleep(Duration::from_millis(50)).await;
                fetcher.fetch(&second).await
            }),
        );
        let uring::Either::Right(waited) = both.await else { panic!("the first has no answer") };
        assert_eq!(waited.unwrap_err().error.stage, Stage::Pace);
    });
}

#[test]
fn whoever_leaves_gives_up_its_turn() {
    let mute = Origin::start(|conn| {
        conn.request();
        conn.wait_for_close();
    });
    let url = mute.url("/page");
    let narrow =
        FetchConfig { host_concurrency: 1, ttfb_timeout: Duration::from_secs(60), ..config() };
    on_core(narrow, loopback, |fetcher| async move {
        for _ in 0..10 {
            let (first, second) = (request(&url), request(&url));
            let pause = uring::time::sleep(Duration::from_millis(20));
            let both =
                uring::select2(Box::pin(fetcher.fetch(&first)), Box::pin(fetcher.fetch(&second)));
            let outcome = uring::select2(pause, both).await;
            assert!(matches!(outcome, uring::Either::Left(())));
        }
        let deadline = Instant::now() + Duration::from_millis(200);
        let failed = fetcher.fetch(&FetchRequest { deadline, ..request(&url) }).await.unwrap_err();
        assert_eq!(failed.error.stage, Stage::Ttfb, "its turn came");
    });
}

#[test]
fn retry_after_holds_the_host_back_for_everyone() {
    for (line, after, held) in [
        ("429 Too Many Requests", "1", true),
        ("503 Service Unavailable", "1", true),
        ("503 Service Unavailable", "soon", false),
        ("500 Internal Server Error", "1", false),
    ] {
        let first = AtomicUsize::new(0);
        let answer =
            format!("HTTP/1.1 {line}\r\nRetry-After: {after}\r\nContent-Length: 4\r\n\r\nbusy");
        let origin = Origin::start(move |conn| {
            while conn.try_request().is_some() {
                let once = first.fetch_add(1, Ordering::SeqCst) == 0;
                conn.send(&if once { answer.clone().into_bytes() } else { ok("", PAGE) });
            }
        });
        let url = origin.url("/page");
        on_core(config(), loopback, move |fetcher| async move {
            let busy = fetcher.fetch(&request(&url)).await.unwrap();
            assert_eq!(busy.retry_after.as_deref(), Some(after));
            let deadline = Instant::now() + Duration::from_millis(300);
            let hasty = fetcher.fetch(&FetchRequest { deadline, ..request(&url) }).await;
            let hasty = hasty.map(|page| page.status).map_err(|f| (f.error.code, f.error.stage));
            let throttled = Err((PageCode::HostThrottled, Stage::Pace));
            assert_eq!(hasty, if held { throttled } else { Ok(200) }, "{line}, {after}");
            let patient = fetcher.fetch(&request(&url)).await.unwrap();
            assert_eq!(patient.status, 200);
            assert_eq!(patient.timings.micros(Stage::Pace) > 300_000, held, "{line}, {after}");
        });
    }
}
