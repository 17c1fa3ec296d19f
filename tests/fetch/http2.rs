//! HTTP/2: pages, faults, connections that end, fetches that are dropped.

use super::http2_origin::{HTTP2_PAGE as PAGE, Http2Origin};
use super::trust::Trust;
use super::{config, loopback, on_core, request};
use forebay::error::{PageCode, Stage};
use forebay::fetch::pool::PoolLimits;
use forebay::fetch::{FetchConfig, FetchRequest, Fetcher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn trusting(trust: &Trust) -> FetchConfig {
    FetchConfig { tls_ca_files: vec![trust.ca_file()], ..config() }
}

async fn settle(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "it never came to that");
        uring::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn pages_share_one_connection_and_come_back_whole() {
    let trust = Trust::new();
    let origin = Http2Origin::start(&trust);
    let url = |path| origin.url(path);
    let urls = ["/page", "/long", "/gzip", "/redirect", "/page", "/long"].map(url);
    let first = url("/page");
    on_core(trusting(&trust), loopback, |fetcher| async move {
        assert_eq!(fetcher.fetch(&request(&first)).await.unwrap().body, PAGE);
        let fetch = |url: String| {
            let fetcher = Rc::clone(&fetcher);
            uring::spawn(async move { fetcher.fetch(&request(&url)).await })
        };
        let tasks = urls.map(fetch);
        for task in tasks {
            let page = task.await.unwrap();
            assert!(page.body == PAGE || page.body == PAGE.repeat(8000));
            assert_eq!((page.status, page.content_type.as_str()), (200, "text/html"));
            assert!(page.wire_bytes > 0);
        }
        let stats = fetcher.stats();
        assert_eq!((stats.opened.get(), stats.reused.get()), (1, 7));
        assert_eq!(fetcher.idle_connections(), 1);
    });
    assert_eq!(origin.seen.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn http2_is_a_setting_and_the_fallback_is_http1() {
    let trust = Trust::new();
    let origin = Http2Origin::start(&trust);
    let url = origin.url("/page");
    let old = FetchConfig { http2: false, ..trusting(&trust) };
    let page = on_core(old, loopback, |fetcher| async move { fetcher.fetch(&request(&url)).await });
    assert_eq!(page.unwrap().body, b"old");
}

#[test]
fn every_fault_has_its_code_and_costs_its_stream_only() {
    use PageCode::*;
    let trust = Trust::new();
    let origin = Http2Origin::start(&trust);
    let cases = [
        ("/refused", HttpMalformed, Stage::Ttfb),
        ("/mute", ReadTimeout, Stage::Ttfb),
        ("/fields", HttpMalformed, Stage::Ttfb),
        ("/huge-fields", HttpMalformed, Stage::Ttfb),
        ("/pdf", UnsupportedType, Stage::Ttfb),
        ("/stalled", ReadTimeout, Stage::Body),
        ("/cut", HttpMalformed, Stage::Body),
        ("/short", HttpMalformed, Stage::Body),
        ("/announced", BodyTooLarge, Stage::Body),
        ("/large", BodyTooLarge, Stage::Body),
        ("/bomb", DecodeFailed, Stage::Body),
    ];
    let urls = cases.map(|(path, ..)| origin.url(path));
    let good = origin.url("/page");
    let outcomes = on_core(trusting(&trust), loopback, |fetcher| async move {
        let mut outcomes = Vec::new();
        for url in urls {
            assert!(fetcher.fetch(&request(&good)).await.is_ok(), "before {url}");
            let failed = fetcher.fetch(&request(&url)).await.expect_err(&url);
            outcomes.push((failed.error.code, failed.error.stage, failed.error.message));
        }
        outcomes
    });
    for ((path, code, stage), outcome) in cases.into_iter().zip(outcomes) {
        assert_eq!((outcome.0, outcome.1), (code, stage), "{path}: {}", outcome.2);
    }
}

#[test]
fn a_connection_that_ends_is_replaced() {
    let trust = Trust::new();
    let origin = Http2Origin::start(&trust);
    let urls = ["/page", "/goaway", "/page", "/gone", "/page", "/abrupt", "/page"];
    let urls = urls.map(|path| origin.url(path));
    on_core(trusting(&trust), loopback, |fetcher| async move {
        for url in urls {
            let outcome = fetcher.fetch(&request(&url)).await;
            if url.ends_with("/gone") || url.ends_with("/abrupt") {
                let failed = outcome.unwrap_err().error;
                assert_eq!(failed.stage, Stage::Ttfb, "{failed:?}");
                let codes = [PageCode::ConnectFailed, PageCode::HttpMalformed];
                assert!(codes.contains(&failed.code), "{failed:?}");
            } else {
                assert_eq!(outcome.unwrap_or_else(|e| panic!("{url}: {e:?}")).body, PAGE);
            }
        }
    });
}

/// A fetch that is dropped resets its stream, and the connection goes on; one that carries nothing
/// is closed when its time is over, by nobody's request.
#[test]
fn what_is_dropped_is_reset_and_what_is_idle_is_closed() {
    let trust = Trust::new();
    let origin = Http2Origin::start(&trust);
    let short = PoolLimits { per_origin: 4, total: 4, idle: Duration::from_millis(400) };
    let config =
        FetchConfig { pool: short, ttfb_timeout: Duration::from_secs(30), ..trusting(&trust) };
    let (mute, page, seen) = (origin.url("/mute"), origin.url("/page"), Arc::clone(&origin.seen));
    on_core(config, loopback, |fetcher: Rc<Fetcher>| async move {
        assert!(fetcher.fetch(&request(&page)).await.is_ok());
        let tasks_before = uring::stats().tasks_live;
        for _ in 0..10 {
            let request: FetchRequest<'_> = request(&mute);
            let fetch = Box::pin(fetcher.fetch(&request));
            let dropped =
                uring::select2(uring::time::sleep(Duration::from_millis(15)), fetch).await;
            assert!(matches!(dropped, uring::Either::Left(())));
        }
        settle(|| seen.resets.load(Ordering::SeqCst) >= 10).await;
        assert!(fetcher.fetch(&request(&page)).await.is_ok());
        assert_eq!(seen.connections.load(Ordering::SeqCst), 1, "one for all");
        assert!(uring::stats().tasks_live <= tasks_before);
        settle(|| seen.ended.load(Ordering::SeqCst) == 1).await;
        settle(|| uring::stats().tasks_live < tasks_before).await;
        assert_eq!(fetcher.idle_connections(), 0);
    });
}
