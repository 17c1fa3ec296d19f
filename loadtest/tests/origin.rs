//! The synthetic origin over real sockets, read by a plain blocking client.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use forebay_loadtest::origin::{Origin, OriginConfig};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

fn origin() -> Origin {
    Origin::start(OriginConfig { robots: "private".to_owned(), ..OriginConfig::default() }).unwrap()
}

/// Everything that the origin sends for one request, until it closes, and how that ended.
fn ask(origin: &Origin, target: &str) -> (Vec<u8>, Result<usize, std::io::Error>) {
    let mut stream = TcpStream::connect(origin.addr()).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes, end)
}

fn text(origin: &Origin, target: &str) -> String {
    String::from_utf8_lossy(&ask(origin, target).0).into_owned()
}

fn body(origin: &Origin, target: &str) -> Vec<u8> {
    let (bytes, _) = ask(origin, target);
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    bytes[at + 4..].to_vec()
}

fn stats(origin: &Origin, target: &str) -> Value {
    serde_json::from_slice(&body(origin, target)).unwrap()
}

#[test]
fn a_page_is_exact_and_the_same_each_time() {
    let origin = origin();
    let first = body(&origin, "/page/7?size=12345");
    assert_eq!(first.len(), 12_345);
    assert_eq!(first, body(&origin, "/page/7?size=12345"));
    assert_ne!(first, body(&origin, "/page/8?size=12345"));
    let gzip = body(&origin, "/page/7?size=12345&encoding=gzip");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, first);
    let chunked = text(&origin, "/page/7?size=100&framing=chunked&chunk=60");
    assert!(chunked.contains("\r\n\r\n3c\r\n") && chunked.ends_with("\r\n0\r\n\r\n"), "{chunked}");
}

#[test]
fn statuses_redirects_robots_and_charsets_answer_as_asked() {
    let origin = origin();
    let busy = text(&origin, "/status/429?retry_after=7&header=X-Limit:1");
    assert!(busy.starts_with("HTTP/1.1 429 ") && busy.contains("Retry-After: 7\r\n"), "{busy}");
    assert!(busy.contains("X-Limit: 1\r\n"), "{busy}");
    assert!(text(&origin, "/redirect/3?size=9").contains("Location: /redirect/2?size=9\r\n"));
    assert!(text(&origin, "/redirect/1").contains("Location: /page/0\r\n"));
    assert!(text(&origin, "/loop/1?length=3").contains("Location: /loop/2?length=3\r\n"));
    assert!(text(&origin, "/robots.txt").contains("Disallow: /private/"));
    text(&origin, "/_set?robots=500");
    assert!(text(&origin, "/robots.txt").starts_with("HTTP/1.1 500 "));
    let koi8 = ask(&origin, "/charset/koi8-r?declare=header").0;
    assert!(String::from_utf8_lossy(&koi8).contains("charset=koi8-r"));
    assert!(koi8.windows(3).any(|w| w == [0xee, 0xc1, 0xd0]), "koi8-r for the word's start");
    let wrong = text(&origin, "/page/1?framing=sideways");
    assert!(wrong.starts_with("HTTP/1.1 400 ") && wrong.contains("expected length"), "{wrong}");
    for odd in ["?x=1", "*", "é/x", "%C3%A9"] {
        assert!(text(&origin, odd).starts_with("HTTP/1.1 400 "), "{odd}");
    }
    let flaky: Vec<bool> =
        (0..3).map(|_| text(&origin, "/flaky?fail=2").starts_with("HTTP/1.1 503")).collect();
    assert_eq!(flaky, [true, true, false]);
}

#[test]
fn faults_happen_on_the_wire() {
    let origin = origin();
    let (bytes, end) = ask(&origin, "/reset?at=body");
    assert!(end.is_err(), "a RST, after {} bytes", bytes.len());
    let lie = text(&origin, "/lie?by=+100&size=1000");
    assert!(lie.contains("Content-Length: 1100\r\n"), "{lie}");
    assert!(text(&origin, "/lie?by=-10&size=1000").contains("Content-Length: 990\r\n"));
    assert!(body(&origin, "/page/1?size=1000&cut=300").len() == 300);
    assert!(body(&origin, "/bomb?size=1m").len() < 3000);
    assert!(text(&origin, "/malformed/obs-fold").contains("\r\n  folded"));
    assert!(body(&origin, "/hostile/nested?size=5000").len() > 5000);
}

#[test]
fn a_client_that_leaves_is_counted_and_its_answer_ends() {
    let origin = origin();
    let mut stream = TcpStream::connect(origin.addr()).unwrap();
    stream.write_all(b"GET /page/1?latency=1h HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let waiting = stats(&origin, "/_wait?in_flight=1");
    assert_eq!((&waiting["in_flight"], &waiting["aborted"]), (&1.into(), &0.into()));
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);
    let after = stats(&origin, "/_wait?in_flight=0&aborted=1");
    assert_eq!((&after["in_flight"], &after["aborted"]), (&0.into(), &1.into()));
    let seen = stats(&origin, "/_stats?path=/page/1");
    assert_eq!(seen["paths"]["/page/1?latency=1h"]["hits"], 1);
    assert_eq!(stats(&origin, "/_requests?path=/page")[0]["fields"][0][0], "host");
    assert_eq!(stats(&origin, "/_reset")["requests"], 0);
}

#[test]
fn an_endless_body_ends_with_its_client() {
    let origin = origin();
    let mut stream = TcpStream::connect(origin.addr()).unwrap();
    stream.write_all(b"GET /endless?what=body HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut some = vec![0; 200_000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    let after = stats(&origin, "/_wait?aborted=1&in_flight=0");
    assert_eq!(after["aborted"], 1);
}
