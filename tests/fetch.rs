//! Fetches over real sockets on loopback: scripted origins (`std::net`, one thread per connection)
//! that behave well, badly and worse. Bounded: no test waits longer than its own short deadline.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "fetch/answers.rs"]
mod answers;
#[path = "fetch/courtesy.rs"]
mod courtesy;
#[path = "fetch/http2.rs"]
mod http2;
#[path = "fetch/http2_origin.rs"]
mod http2_origin;
#[path = "fetch/origin.rs"]
mod origin;
#[path = "fetch/proxy.rs"]
mod proxy;
#[path = "fetch/trust.rs"]
mod trust;

use answers::{gzip, ok};
use forebay::error::{PageCode, Stage};
use forebay::fetch::resolve::{Question, Resolver, channel};
use forebay::fetch::{FetchConfig, FetchFailure, FetchRequest, FetchShared, Fetched, Fetcher};
use origin::{Conn, Origin};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trust::Trust;

/// Settings under which loopback may be dialled and nothing takes long.
fn config() -> FetchConfig {
    let short = Duration::from_millis(400);
    FetchConfig {
        egress_allow: vec!["127.0.0.1:*".to_owned()],
        dns_timeout: short,
        tls_timeout: Duration::from_secs(5), // a handshake in a debug build is slow
        ttfb_timeout: short,
        body_idle_timeout: short,
        ..FetchConfig::default()
    }
}

/// What the test's own resolver answers: names in `.test`, by the number of times asked.
type Zone = fn(&str, usize) -> Result<Vec<IpAddr>, String>;

fn loopback(name: &str, _asked: usize) -> Result<Vec<IpAddr>, String> {
    match name {
        "nowhere.test" => Err("the name does not exist".to_owned()),
        "silent.test" => Ok(Vec::new()),
        _ => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
    }
}

/// Runs `main` on a core's loop with a fetcher.
fn on_core<F, T>(
    config: FetchConfig,
    zone: Zone,
    main: impl FnOnce(Rc<Fetcher>) -> F + Send + 'static,
) -> T
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    on_cores(config, zone, [main]).remove(0)
}

/// Runs each `main` on a core of its own, with a fetcher of its own: one process, seen by its hosts.
fn on_cores<F, T, M>(config: FetchConfig, zone: Zone, mains: impl IntoIterator<Item = M>) -> Vec<T>
where
    M: FnOnce(Rc<Fetcher>) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (questions, mut asked) = channel(16);
    let control = std::thread::spawn(move || {
        let mut times = std::collections::HashMap::<String, usize>::new();
        while let Some(question) = asked.blocking_recv() {
            let Question { name, .. } = &question;
            let n = times.entry(name.clone()).or_default();
            let outcome = zone(name, *n).map(|found| (found, Duration::ZERO));
            *n += 1;
            question.answer(outcome);
        }
    });
    let shared = FetchShared::new(config).unwrap();
    let driver = uring::probe::choose(uring::Runtime::Auto, &uring::probe::probe()).unwrap().driver;
    let cores: Vec<_> = mains
        .into_iter()
        .enumerate()
        .map(|(index, main)| {
            let (shared, questions) = (Arc::clone(&shared), questions.clone());
            let core = uring::core::CoreConfig::new(index, driver);
            uring::core::spawn(core, move || async move {
                let fetcher = Fetcher::new(shared, Resolver::new(questions));
                main(fetcher).await
            })
            .unwrap()
        })
        .collect();
    drop(questions);
    let outcomes = cores.into_iter().map(|core| core.join().unwrap()).collect();
    control.join().unwrap();
    assert!(shared.under_way() == (0, 0) && shared.is_idle(), "every turn was given back");
    outcomes
}

fn request(url: &str) -> FetchRequest<'_> {
    FetchRequest {
        url,
        deadline: Instant::now() + Duration::from_secs(8),
        max_body_bytes: 2 << 20,
        redirects: 3,
        user_agent: None,
        headers: &[],
        known: None,
        robots: false,
        post: None,
        owner: 1,
    }
}

/// One fetch of one URL under [`config`].
fn fetch(url: &str) -> Result<Fetched, FetchFailure> {
    let url = url.to_owned();
    on_core(config(), loopback, |fetcher| async move { fetcher.fetch(&request(&url)).await })
}

/// Code and stage of a fetch that must fail.
fn failure(url: &str) -> (PageCode, Stage, String) {
    let failure = fetch(url).expect_err("this fetch must fail");
    (failure.error.code, failure.error.stage, failure.error.message)
}

/// An origin that gives each connection these bytes as its answer to one request, then closes.
fn answering(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes = bytes.into();
    Origin::start(move |conn| {
        conn.request();
        conn.send(&bytes);
    })
}

const PAGE: &[u8] = b"<!doctype html><title>A page</title><p>Its text.";

#[test]
fn a_page_comes_back_with_all_that_is_known_of_it() {
    let origin = Origin::start(|conn| {
        let request = conn.request();
        assert!(request.starts_with("GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        assert!(request.contains("\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"), "{request}");
        assert!(request.contains("\r\nUser-Agent: Forebay/"), "{request}");
        conn.send(&ok("Content-Type: Text/HTML; charset=koi8-r\r\nETag: \"x\"\r\n", PAGE));
    });
    let page = fetch(&origin.url("/a?b#c")).unwrap();
    assert_eq!((page.status, page.body.as_slice()), (200, PAGE));
    assert_eq!(
        (page.content_type.as_str(), page.charset.as_deref()),
        ("text/html", Some("koi8-r"))
    );
    assert_eq!(page.etag.as_deref(), Some("\"x\""));
    assert_eq!(page.final_url, origin.url("/a?b"));
    assert!(page.wire_bytes > PAGE.len() as u64);
    assert!(page.timings.micros(Stage::Ttfb) > 0);
}

#[test]
fn bodies_by_every_framing_and_coding() {
    let chunks = |fields: &str, body: &[u8], bytes: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{fields}\r\n");
        let mut out = head.into_bytes();
        for piece in body.chunks(bytes) {
            out.extend(format!("{:x}\r\n", piece.len()).bytes());
            out.extend([piece, b"\r\n"].concat());
        }
        [&out[..], b"0\r\n\r\n"].concat()
    };
    let chunked = |body: &[u8]| chunks("", body, 7);
    let long = PAGE.repeat(5000);
    let answers = [
        chunks("Content-Encoding: gzip\r\n", &gzip(&long), 1),
        chunks(
            "Content-Encoding: zstd, gzip\r\n",
            &gzip(&zstd::bulk::compress(PAGE, 3).unwrap()),
            1,
        ),
        ok("", PAGE),
        chunked(PAGE),
        chunked(&long),
        [b"HTTP/1.0 200 OK\r\n\r\n", PAGE].concat(),
        ok("Content-Encoding: gzip\r\n", &gzip(PAGE)),
        ok("Content-Encoding: gzip\r\n", &gzip(&long)),
        ok("Content-Encoding: zstd\r\n", &zstd::bulk::compress(&long, 3).unwrap()),
        ok("Content-Encoding: br\r\n", &answers::br(&long)),
        ok("Content-Encoding: br, gzip\r\n", &gzip(&answers::br(PAGE))),
        [&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"[..], &ok("", PAGE)].concat(),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        let origin = answering(answer);
        let page = fetch(&origin.url("/")).unwrap_or_else(|e| panic!("{at}: {e:?}"));
        assert!(page.body == PAGE || page.body == long, "{at}");
        assert_eq!(page.content_type, "text/html", "sniffed");
    }
}

#[test]
fn of_a_long_body_the_beginning_is_kept_and_all_of_it_counted() {
    let long = PAGE.repeat(5000);
    let kept = 100_000;
    for answer in [ok("", &long), ok("Content-Encoding: gzip\r\n", &gzip(&long))] {
        let origin = answering(answer);
        let url = origin.url("/");
        let narrow = FetchConfig { page_bytes_kept: kept, ..config() };
        let page = on_core(narrow, loopback, |fetcher| async move {
            let page = fetcher.fetch(&request(&url)).await.unwrap();
            assert_eq!(fetcher.stats().body_bytes.get(), page.body_bytes);
            page
        });
        assert!(page.body == long[..kept], "{} bytes", page.body.len());
        assert_eq!(page.body_bytes, long.len() as u64);
        let whole = fetch(&origin.url("/")).unwrap();
        assert!(whole.body == long && whole.body_bytes == long.len() as u64);
    }
}

#[test]
fn broken_and_hostile_answers_end_with_the_right_code() {
    use PageCode::*;
    let zeros = vec![0_u8; 1 << 20];
    let bomb = gzip(&zeros.repeat(16));
    let endless_head = [&b"HTTP/1.1 200 OK\r\n"[..], &b"A: b\r\n".repeat(20_000)].concat();
    let cases: Vec<(&str, Vec<u8>, PageCode, Stage)> = vec![
        ("nothing", vec![], ConnectFailed, Stage::Ttfb),
        ("no HTTP", b"SSH-2.0-x\r\n".to_vec(), HttpMalformed, Stage::Ttfb),
        ("cut head", b"HTTP/1.1 200 OK\r\nA: b".to_vec(), HttpMalformed, Stage::Ttfb),
        ("endless head", endless_head, HttpMalformed, Stage::Ttfb),
        ("1xx storm", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(99), HttpMalformed, Stage::Ttfb),
        ("101", b"HTTP/1.1 101 X\r\n\r\n".to_vec(), HttpMalformed, Stage::Ttfb),
        ("lengths", ok("Content-Length: 1\r\n", PAGE), HttpMalformed, Stage::Ttfb),
        ("cut body", ok("", PAGE)[..60].to_vec(), HttpMalformed, Stage::Body),
        (
            "bad chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
            HttpMalformed,
            Stage::Body,
        ),
        (
            "cut chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
            HttpMalformed,
            Stage::Body,
        ),
        (
            "said too large",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n".to_vec(),
            BodyTooLarge,
            Stage::Body,
        ),
        (
            "is too large",
            [b"HTTP/1.1 200 OK\r\n\r\n", &b"text ".repeat(600_000)[..]].concat(),
            BodyTooLarge,
            Stage::Body,
        ),
        (
            "bomb",
            ok("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", &bomb),
            DecodeFailed,
            Stage::Body,
        ),
        ("not gzip", ok("Content-Encoding: gzip\r\n", PAGE), DecodeFailed, Stage::Body),
        (
            "cut gzip",
            ok("Content-Encoding: gzip\r\n", &gzip(PAGE)[..20]),
            DecodeFailed,
            Stage::Body,
        ),
        ("coding", ok("Content-Encoding: sdch\r\n", PAGE), DecodeFailed, Stage::Body),
        ("type", ok("Content-Type: application/pdf\r\n", b"%PDF"), UnsupportedType, Stage::Ttfb),
        ("binary", ok("", b"\x89PNG\0\0"), UnsupportedType, Stage::Body),
        ("feed", ok("Content-Type: text/xml\r\n", b"<rss>"), UnsupportedType, Stage::Body),
        (
            "downgrade",
            b"HTTP/1.1 302 X\r\nLocation: ftp://a.test/\r\n\r\n".to_vec(),
            HttpMalformed,
            Stage::Ttfb,
        ),
    ];
    for (name, answer, code, stage) in cases {
        let origin = answering(answer);
        let failed = failure(&origin.url("/"));
        assert_eq!((failed.0, failed.1), (code, stage), "{name}: {}", failed.2);
    }
}

#[test]
fn an_origins_error_is_no_error() {
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\ngone";
    let page = fetch(&answering(*answer).url("/")).unwrap();
    assert_eq!((page.status, page.body.as_slice()), (404, &b"gone"[..]));
    assert_eq!(page.retry_after.as_deref(), Some("7"));
    let json = b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let page = fetch(&answering(*json).url("/")).unwrap();
    assert_eq!((page.status, page.body.len()), (500, 0));
    let empty = fetch(&answering(*b"HTTP/1.1 204 No Content\r\n\r\n").url("/")).unwrap();
    assert_eq!((empty.status, empty.body.len()), (204, 0));
}

#[test]
fn slow_origins_meet_the_deadline_of_their_stage() {
    let mute = Origin::start(|conn| {
        conn.request();
        conn.wait_for_close();
    });
    let (code, stage, _) = failure(&mute.url("/"));
    assert_eq!((code, stage), (PageCode::ReadTimeout, Stage::Ttfb));

    let stalled = Origin::start(|conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        conn.wait_for_close();
    });
    let (code, stage, _) = failure(&stalled.url("/"));
    assert_eq!((code, stage), (PageCode::ReadTimeout, Stage::Body));

    // A drip that never stalls for long enough: the whole fetch's deadline ends it.
    let drip = Origin::start(|conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\n\r\n");
        while conn.try_send(b"x") {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let url = drip.url("/");
    let failed = on_core(config(), loopback, |fetcher| async move {
        let deadline = Instant::now() + Duration::from_millis(700);
        fetcher.fetch(&FetchRequest { deadline, ..request(&url) }).await.unwrap_err()
    });
    assert_eq!((failed.error.code, failed.error.stage), (PageCode::UrlTimeout, Stage::Body));
    assert_eq!(failed.status, 200, "what was known is kept");
}

#[test]
fn redirects_are_followed_to_their_limit_and_no_loop() {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.try_request() {
            let path = request.split(' ').nth(1).unwrap();
            let to = match path {
                "/loop" => "/loop2".to_owned(),
                "/loop2" => "/loop".to_owned(),
                "/evil" => "http://169.254.169.254/latest/meta-data/".to_owned(),
                "/port" => "http://127.0.0.2:22/".to_owned(),
                path => match path[1..].parse::<u32>() {
                    Ok(0) | Err(_) => {
                        conn.send(&ok("", PAGE));
                        continue;
                    }
                    Ok(n) => format!("/{}", n - 1),
                },
            };
            conn.send(
                format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
            );
        }
    });
    let page = fetch(&origin.url("/3")).unwrap();
    assert_eq!((page.final_url, page.redirects), (origin.url("/0"), 3));
    assert_eq!(origin.connections(), 1, "every hop on one connection");
    assert_eq!(failure(&origin.url("/4")).0, PageCode::TooManyRedirects);
    assert_eq!(failure(&origin.url("/loop")).0, PageCode::TooManyRedirects);
    let (code, stage, message) = failure(&origin.url("/evil"));
    assert_eq!((code, stage), (PageCode::BlockedEgress, Stage::Dns));
    assert_eq!(message, "169.254.169.254 is not globally routable (cloud metadata, RFC 3927)");
    assert_eq!(failure(&origin.url("/port")).0, PageCode::BlockedEgress);
}

#[test]
fn the_guard_speaks_before_anything_is_sent() {
    let origin = answering(ok("", PAGE));
    for url in [
        origin.url("/").replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        origin.url("/").replace("127.0.0.1", "0.0.0.0"),
        "http://10.0.0.1/".to_owned(),
        "http://user@127.0.0.1/".to_owned(),
        "http://0x7f.1/".to_owned(),
    ] {
        assert_eq!(failure(&url).0, PageCode::BlockedEgress, "{url}");
    }
    // A name is judged by its addresses, not by a rule for another name.
    let url = origin.url("/").replace("127.0.0.1", "rebound.test");
    let closed = FetchConfig {
        egress_allow: vec!["other.test:*".into()],
        egress_ports: vec![origin.port()],
        ..config()
    };
    let refused = on_core(closed, loopback, |fetcher| async move {
        let failed = fetcher.fetch(&request(&url)).await.unwrap_err();
        assert_eq!(fetcher.stats().refused.get(), 1);
        failed.error
    });
    assert_eq!(refused.code, PageCode::BlockedEgress);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn names_are_resolved_once_and_a_rebound_one_is_checked_again() {
    // First an address that is allowed, then one that is not.
    fn rebinding(_: &str, asked: usize) -> Result<Vec<IpAddr>, String> {
        Ok(vec![
            if asked == 0 { Ipv4Addr::new(127, 0, 0, 1) } else { Ipv4Addr::new(10, 0, 0, 1) }
                .into(),
        ])
    }
    let origin = Origin::start(|conn| {
        while conn.try_request().is_some() {
            conn.send(&ok("", PAGE));
        }
    });
    let url = origin.url("/").replace("127.0.0.1", "a.test");
    on_core(config(), rebinding, |fetcher| async move {
        let (again, its_url) = (Rc::clone(&fetcher), url.clone());
        let second = uring::spawn(async move { again.fetch(&request(&its_url)).await.is_ok() });
        assert!(fetcher.fetch(&request(&url)).await.is_ok());
        assert!(second.await, "it shares the first one's look-up");
        assert_eq!(fetcher.idle_connections(), 2);
        uring::time::sleep(Duration::from_millis(1100)).await; // the shortest TTL
        let failed = fetcher.fetch(&request(&url)).await.unwrap_err();
        assert_eq!(failed.error.code, PageCode::BlockedEgress, "not even by the pooled connection");
    });
    for (host, code) in
        [("nowhere.test", PageCode::DnsFailed), ("silent.test", PageCode::DnsFailed)]
    {
        let failed = failure(&origin.url("/").replace("127.0.0.1", host));
        assert_eq!((failed.0, failed.1), (code, Stage::Dns));
    }
}

#[test]
fn connections_are_used_again_and_a_stale_one_is_replaced_once() {
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    // Every connection answers one request, and closes on the second without a word.
    let origin = Origin::start(move |conn: &mut Conn| {
        conn.request();
        counter.fetch_add(1, Ordering::SeqCst);
        conn.send(&ok("", PAGE));
        conn.try_request();
    });
    let url = origin.url("/");
    on_core(config(), loopback, |fetcher| async move {
        for _ in 0..3 {
            assert_eq!(fetcher.fetch(&request(&url)).await.unwrap().body, PAGE);
        }
        let stats = fetcher.stats();
        assert_eq!((stats.opened.get(), stats.reused.get(), stats.retried.get()), (3, 2, 2));
    });
    assert_eq!(served.load(Ordering::SeqCst), 3);

    // A fresh connection that closes silently is not tried again.
    let silent = Origin::start(|conn| {
        conn.request();
    });
    assert_eq!(failure(&silent.url("/")).0, PageCode::ConnectFailed);
    assert_eq!(silent.connections(), 1);

    // One that closed while idle is seen before it is used; bytes that nobody asked for spoil one.
    for answer in [ok("", PAGE), [&ok("", PAGE)[..], b"HTTP/1.1 200 OK\r\n\r\n"].concat()] {
        let closing = answering(answer);
        let url = closing.url("/");
        on_core(config(), loopback, |fetcher| async move {
            for _ in 0..2 {
                assert!(fetcher.fetch(&request(&url)).await.is_ok());
                uring::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!((fetcher.stats().reused.get(), fetcher.stats().retried.get()), (0, 0));
        });
    }
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_origin() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let other = Origin::start(move |conn| {
        *log.lock().unwrap() = conn.request();
        conn.send(&ok("", PAGE));
    });
    let to = other.url("/");
    let origin = Origin::start(move |conn| {
        assert!(conn.request().contains("\r\nCookie: a=b\r\n"));
        conn.send(format!("HTTP/1.1 307 X\r\nLocation: {to}\r\n\r\n").as_bytes());
    });
    let url = origin.url("/");
    on_core(config(), loopback, |fetcher| async move {
        let headers = [("Cookie", "a=b"), ("X-Mine", "1"), ("Accept", "text/html")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = FetchRequest { headers: &headers, ..request(&url) };
        fetcher.fetch(&request).await.unwrap();
    });
    let seen = seen.lock().unwrap();
    assert!(!seen.contains("Cookie") && seen.contains("\r\nX-Mine: 1\r\n"), "{seen}");
    assert_eq!(seen.matches("Accept: ").count(), 1, "the client's replaces ours: {seen}");
}

#[test]
fn tls_is_checked_and_its_failures_are_told_apart() {
    let trust = Trust::new();
    let mut config = config();
    config.tls_ca_files = vec![trust.ca_file()];
    for (certificate, outcome) in [
        (trust.good("127.0.0.1"), Ok(())),
        (trust.expired("127.0.0.1"), Err("the certificate has expired")),
        (trust.good("other.test"), Err("the certificate is for another host")),
        (Trust::self_signed("127.0.0.1"), Err("the certificate's issuer is not trusted")),
    ] {
        let origin = Origin::start_tls(certificate, |conn| {
            if conn.try_request().is_some() {
                conn.send(&ok("", PAGE));
            }
        });
        let url = origin.url("/");
        let fetched = on_core(config.clone(), loopback, |fetcher| async move {
            fetcher.fetch(&request(&url)).await.map(|page| assert_eq!(page.body, PAGE))
        });
        match (fetched, outcome) {
            (Ok(()), Ok(())) => {}
            (Err(failed), Err(reason)) => {
                assert_eq!(failed.error.code, PageCode::TlsFailed);
                assert_eq!(
                    (failed.error.stage, failed.error.message.as_str()),
                    (Stage::Tls, reason)
                );
            }
            (fetched, expected) => panic!("{fetched:?}, expected {expected:?}"),
        }
    }
    let plain = Origin::start(|conn| {
        conn.touch();
        conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        conn.wait_for_close();
    });
    let (code, stage, message) = failure(&plain.url("/").replace("http:", "https:"));
    assert_eq!((code, stage), (PageCode::TlsFailed, Stage::Tls), "{message}");
    assert_eq!(message, "the origin does not speak TLS on this port");

    let mute = Origin::start(Conn::wait_for_close);
    let url = mute.url("/").replace("http:", "https:");
    let hasty = FetchConfig { tls_timeout: Duration::from_millis(300), ..config };
    let failed = on_core(hasty, loopback, |fetcher| async move {
        fetcher.fetch(&request(&url)).await.unwrap_err().error
    });
    assert_eq!((failed.code, failed.stage), (PageCode::ConnectTimeout, Stage::Tls));
}

#[test]
fn resets_are_told_by_their_stage() {
    let at_once = Origin::start(Conn::touch);
    let (code, stage, _) = failure(&at_once.url("/"));
    assert_eq!((code, stage), (PageCode::ConnectFailed, Stage::Ttfb));
    assert_eq!(at_once.connections(), 1, "a fresh connection is not tried again");
    let in_body = Origin::start(|conn| {
        conn.touch();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        std::thread::sleep(Duration::from_millis(100));
    });
    let (code, stage, message) = failure(&in_body.url("/"));
    assert_eq!((code, stage), (PageCode::HttpMalformed, Stage::Body), "{message}");
}

#[test]
fn nobody_listening_is_connect_failed() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, stage, _) = failure(&format!("http://127.0.0.1:{port}/"));
    assert_eq!((code, stage), (PageCode::ConnectFailed, Stage::Connect));
}

#[test]
fn a_dropped_fetch_closes_its_connection() {
    let origin = Origin::start(|conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        conn.wait_for_close();
        conn.ended();
    });
    let url = origin.url("/");
    on_core(config(), loopback, |fetcher| async move {
        for _ in 0..20 {
            let pause = uring::time::sleep(Duration::from_millis(20));
            let request = request(&url);
            let fetch = std::pin::pin!(fetcher.fetch(&request));
            let outcome = uring::select2(pause, fetch).await;
            assert!(matches!(outcome, uring::Either::Left(())));
        }
        assert_eq!(fetcher.stats().dropped.get(), 20);
        assert_eq!(fetcher.idle_connections(), 0);
    });
    origin.wait_ended(20);
}
