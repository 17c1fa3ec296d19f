//! Every way in which an origin can fail: what it sends, and what must come of it.

use crate::answers::{br, gzip, ok};
use crate::http2_origin::Http2Origin;
use crate::origin::{Origins, Script, Then};
use Expected::{Fails, Page};
use PageCode::*;
use forebay::error::{PageCode, Stage};
use std::sync::LazyLock;
use std::time::Duration;

/// One kind of fetch.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// Time until the fetch's deadline.
    pub(crate) patience: Duration,
    pub(crate) robots: bool,
    /// What it may come to: one, or few where a race decides.
    pub(crate) expected: Vec<Expected>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Page(u16),
    Fails(PageCode, Stage),
}

const PAGE: &[u8] = b"<!doctype html><title>A page</title><p>Its text.";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

pub(crate) static BOMBS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let zeros = vec![b' '; 24 << 20];
    let zstd = zstd::bulk::compress(&zeros, 3).unwrap();
    let coded = |coding: &str, body: &[u8]| {
        ok(&format!("Content-Type: text/html\r\nContent-Encoding: {coding}\r\n"), body)
    };
    [coded("gzip", &gzip(&zeros)), coded("br", &br(&zeros)), coded("zstd", &zstd)]
});

/// What an origin does about a path.
pub(crate) fn script(path: &str) -> Script {
    let name = path.trim_start_matches('/').split('?').next().unwrap_or_default();
    let (bytes, then) = good(name)
        .or_else(|| head(name))
        .or_else(|| body(name))
        .or_else(|| endless(name))
        .unwrap_or_else(|| panic!("no script for {path}"));
    Script { bytes, then }
}

fn good(name: &str) -> Option<(Vec<u8>, Then)> {
    let redirect = |to: &str| {
        format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let long = PAGE.repeat(3000);
    let bytes = match name {
        "page" => ok("Content-Type: text/html\r\n", PAGE),
        "robots.txt" => ok("Content-Type: text/plain\r\n", b"User-agent: *\nDisallow: /private\n"),
        "private" => panic!("robots.txt forbids it"),
        "gzip" => ok("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", &gzip(&long)),
        "br" => ok("Content-Type: text/html\r\nContent-Encoding: br\r\n", &br(&long)),
        "early-hints" => [&b"HTTP/1.1 103 Early Hints\r\n\r\n"[..], &ok("", PAGE)].concat(),
        "charset" => ok("Content-Type: text/html; charset=no-such-thing\r\n", b"<p>\xff\xfe"),
        "missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".to_vec(),
        "busy" => b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
        "bare-lf" => String::from_utf8(ok("Content-Type: text/html\r\n", PAGE))
            .unwrap()
            .replace("\r\n", "\n")
            .into_bytes(),
        "redirect" => redirect("/page"),
        "loop" => redirect("/loop2"),
        "loop2" => redirect("/loop"),
        "chain" => redirect("/chain1"),
        "chain1" => redirect("/chain2"),
        "chain2" => redirect("/chain3"),
        "chain3" => redirect("/chain4"),
        "inside" => redirect("http://169.254.169.254/latest/meta-data/"),
        "to-private-name" => redirect("http://inside.test/"),
        "to-scheme" => redirect("ftp://127.0.0.1/"),
        "to-private-path" => redirect("/private"),
        "huge-location" => redirect(&format!("/{}", "a".repeat(20_000))),
        "two-locations" => redirect("/a\r\nLocation: /b"),
        _ => return None,
    };
    Some((bytes, Then::Go))
}

/// Heads that are none, are late, or break off.
fn head(name: &str) -> Option<(Vec<u8>, Then)> {
    let text = |text: &str| text.as_bytes().to_vec();
    Some(match name {
        "silent" => (Vec::new(), Then::Close),
        "reset" => (Vec::new(), Then::Reset),
        "mute" | "mute-long" => (Vec::new(), Then::Hang),
        "cut-head" => (text("HTTP/1.1 200 OK\r\nA: b"), Then::Close),
        "reset-head" => (text("HTTP/1.1 200 OK\r\nA: b"), Then::Reset),
        "stalled-head" => (text("HTTP/1.1 200 OK\r\nA: b"), Then::Hang),
        "no-http" => (text("SSH-2.0-OpenSSH\r\n"), Then::Hang),
        "http2-preface" => (b"\0\0\x12\x04\0\0\0\0\0".to_vec(), Then::Hang),
        "bad-status" => (text("HTTP/1.1 2x0 OK\r\n\r\n"), Then::Hang),
        "switching" => (text("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), Then::Hang),
        "nul-in-field" => (text("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n"), Then::Hang),
        "no-colon" => (text("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"), Then::Hang),
        "two-lengths" => (text("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx"), Then::Hang),
        "bad-length" => (text("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Then::Hang),
        "bad-coding" => (text("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), Then::Hang),
        "many-fields" => (text(&format!("{OK}{}\r\n", "A: b\r\n".repeat(500))), Then::Hang),
        "pdf" => (text("HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n%PDF"), Then::Hang),
        _ => return None,
    })
}

/// Bodies that lie, break off, or do not decode.
fn body(name: &str) -> Option<(Vec<u8>, Then)> {
    let text = |text: &str| format!("{OK}{text}").into_bytes();
    let coded = |coding: &str, body: &[u8]| {
        ok(&format!("Content-Type: text/html\r\nContent-Encoding: {coding}\r\n"), body)
    };
    Some(match name {
        "short" => (text("Content-Length: 100\r\n\r\nhalf"), Then::Close),
        "reset-body" => (text("Content-Length: 100\r\n\r\nhalf"), Then::Reset),
        "stalled-body" | "stalled-long" => (text("Content-Length: 100\r\n\r\nhalf"), Then::Hang),
        "announced" => (text("Content-Length: 9999999999\r\n\r\n"), Then::Hang),
        "bad-chunk" => (text(&format!("{CHUNKED}zz\r\n")), Then::Hang),
        "huge-chunk" => (text(&format!("{CHUNKED}ffffffffffffffffff\r\n")), Then::Hang),
        "no-chunk-end" => (text(&format!("{CHUNKED}4\r\nhalfXX")), Then::Hang),
        "cut-chunks" => (text(&format!("{CHUNKED}4\r\nhalf\r\n")), Then::Close),
        "long-extension" => (text(&format!("{CHUNKED}4;{}\r\n", "e".repeat(70_000))), Then::Hang),
        "bomb-gzip" => (BOMBS[0].clone(), Then::Close),
        "bomb-br" => (BOMBS[1].clone(), Then::Close),
        "bomb-zstd" => (BOMBS[2].clone(), Then::Close),
        "not-gzip" => (coded("gzip", PAGE), Then::Go),
        "cut-gzip" => (coded("gzip", &gzip(PAGE)[..20]), Then::Go),
        "cut-br" => (coded("br", &br(&PAGE.repeat(9))[..20]), Then::Go),
        "unknown-coding" => (coded("sdch", PAGE), Then::Go),
        "five-codings" => (coded("gzip, gzip, gzip, gzip, gzip", PAGE), Then::Go),
        "binary" => (ok("", b"\x89PNG\r\n\x1a\n\0\0"), Then::Go),
        "feed" => (ok("Content-Type: text/xml\r\n", b"<rss>"), Then::Go),
        _ => return None,
    })
}

/// Parts of an answer that have no end.
fn endless(name: &str) -> Option<(Vec<u8>, Then)> {
    let at_once = Duration::ZERO;
    let (start, unit, pause) = match name {
        "endless-body" => ("\r\n".to_owned(), "text ".repeat(4000), at_once),
        "endless-chunks" => {
            let chunk = format!("40\r\n{}\r\n", "x".repeat(64));
            (CHUNKED.to_owned(), chunk.repeat(300), at_once)
        }
        "endless-trailers" => (format!("{CHUNKED}0\r\n"), "A: b\r\n".repeat(500), at_once),
        "endless-fields" => (String::new(), "A: b\r\n".repeat(500), at_once),
        "drip" => ("\r\n".to_owned(), "x".to_owned(), Duration::from_millis(50)),
        "drip-head" => (String::new(), "x".to_owned(), Duration::from_millis(50)),
        "interim" => {
            let unit = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20).into_bytes();
            return Some((unit.clone(), Then::Repeat(unit, at_once)));
        }
        _ => return None,
    };
    Some((format!("{OK}{start}").into_bytes(), Then::Repeat(unit.into_bytes(), pause)))
}

/// All kinds of fetches.
pub(crate) fn cases(origins: &Origins, http2: &Http2Origin) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &'static str, url: String, expected: &[Expected]| {
        let patience = Duration::from_secs(40);
        let case = Case { name, url, patience, robots: false, expected: expected.to_vec() };
        cases.push(case);
    };
    for (names, expected) in PLAIN {
        for name in *names {
            add(name, format!("http://127.0.0.1:{}/{name}", origins.plain), expected);
        }
    }
    secure(origins, http2, &mut add);
    elsewhere(origins, &mut add);
    hasty(&mut cases, origins, http2);
    polite(&mut cases, origins);
    cases
}

const BAD_HEAD: &[Expected] = &[Fails(HttpMalformed, Stage::Ttfb)];
const BAD_BODY: &[Expected] = &[Fails(HttpMalformed, Stage::Body)];
const BLOCKED: &[Expected] = &[Fails(BlockedEgress, Stage::Dns)];

/// Paths of the plain origin, by what must come of them.
const PLAIN: &[(&[&str], &[Expected])] = &[
    (&["page", "gzip", "br", "early-hints", "charset", "redirect", "bare-lf"], &[Page(200)]),
    (&["missing"], &[Page(404)]),
    (&["busy"], &[Page(503)]),
    (&["silent", "reset"], &[Fails(ConnectFailed, Stage::Ttfb)]),
    (&["mute-long", "stalled-head"], &[Fails(ReadTimeout, Stage::Ttfb)]),
    (&["stalled-long"], &[Fails(ReadTimeout, Stage::Body)]),
    (&["cut-head", "reset-head", "no-http", "http2-preface", "bad-status", "switching"], BAD_HEAD),
    (&["nul-in-field", "no-colon", "two-lengths", "bad-length", "bad-coding"], BAD_HEAD),
    (&["many-fields", "endless-fields", "interim"], BAD_HEAD),
    (&["to-scheme", "huge-location", "two-locations"], BAD_HEAD),
    (&["short", "reset-body", "bad-chunk", "huge-chunk", "no-chunk-end", "cut-chunks"], BAD_BODY),
    (&["long-extension", "endless-trailers"], BAD_BODY),
    (&["bomb-gzip", "bomb-br", "bomb-zstd"], &[Fails(DecodeFailed, Stage::Body)]),
    (&["not-gzip", "cut-gzip", "cut-br"], &[Fails(DecodeFailed, Stage::Body)]),
    (&["unknown-coding", "five-codings"], &[Fails(DecodeFailed, Stage::Body)]),
    (&["announced", "endless-body", "endless-chunks"], &[Fails(BodyTooLarge, Stage::Body)]),
    (&["pdf"], &[Fails(UnsupportedType, Stage::Ttfb)]),
    (&["binary", "feed"], &[Fails(UnsupportedType, Stage::Body)]),
    (&["loop", "chain"], &[Fails(TooManyRedirects, Stage::Ttfb)]),
    (&["inside", "to-private-name"], BLOCKED),
];

/// TLS, good and bad, and HTTP/2.
fn secure(
    origins: &Origins,
    http2: &Http2Origin,
    add: &mut impl FnMut(&'static str, String, &[Expected]),
) {
    let at = |port: u16, path: &str| format!("https://127.0.0.1:{port}/{path}");
    add("tls page", at(origins.tls, "page"), &[Page(200)]);
    add("tls cut body", at(origins.tls, "short"), BAD_BODY);
    add("tls reset", at(origins.tls, "reset"), &[Fails(ConnectFailed, Stage::Ttfb)]);
    for (name, port) in [
        ("expired", origins.expired),
        ("wrong host", origins.wrong_host),
        ("self-signed", origins.self_signed),
        ("old TLS", origins.old_tls),
        ("no TLS", origins.no_tls),
        ("TLS reset", origins.reset_tls),
        ("TLS closed", origins.closed_tls),
    ] {
        add(name, at(port, "page"), &[Fails(TlsFailed, Stage::Tls)]);
    }
    for (name, path, expected) in [
        ("h2 page", "/page", &[Page(200)][..]),
        ("h2 gzip", "/gzip", &[Page(200)]),
        ("h2 redirect", "/redirect", &[Page(200)]),
        ("h2 refused", "/refused", BAD_HEAD),
        ("h2 cut", "/cut", BAD_BODY),
        ("h2 short", "/short", BAD_BODY),
        ("h2 large", "/large", &[Fails(BodyTooLarge, Stage::Body)]),
        ("h2 bomb", "/bomb", &[Fails(DecodeFailed, Stage::Body)]),
        ("h2 pdf", "/pdf", &[Fails(UnsupportedType, Stage::Ttfb)]),
    ] {
        add(name, http2.url(path), expected);
    }
}

/// What never reaches an origin.
fn elsewhere(origins: &Origins, add: &mut impl FnMut(&'static str, String, &[Expected])) {
    let dead = format!("http://127.0.0.1:{}/", origins.dead);
    add("dead", dead, &[Fails(ConnectFailed, Stage::Connect)]);
    for (name, url) in [
        ("private", "http://10.0.0.1/"),
        ("metadata", "http://169.254.169.254/"),
        ("mapped", "http://[::ffff:127.0.0.1]/"),
        ("userinfo", "http://a@127.0.0.1/"),
        ("octal", "http://0177.0.0.1/"),
        ("port", "http://93.184.216.34:22/"),
        ("private name", "http://inside.test/"),
    ] {
        add(name, url.to_owned(), BLOCKED);
    }
    for (name, url) in [("no name", "http://no.test/"), ("no address", "http://empty.test/")] {
        add(name, url.to_owned(), &[Fails(DnsFailed, Stage::Dns)]);
    }
    // The cores ask for themselves: the second one that does is told a private address.
    let rebound = format!("http://rebound.test:{}/page", origins.plain);
    add("rebound", rebound, &[Page(200), Fails(BlockedEgress, Stage::Dns)]);
}

/// Faults that only the deadline of the whole fetch ends.
fn hasty(cases: &mut Vec<Case>, origins: &Origins, http2: &Http2Origin) {
    use Stage::{Body, Connect, Tls, Ttfb};
    let plain = |path: &str| format!("http://127.0.0.1:{}/{path}", origins.plain);
    let mute_tls = format!("https://127.0.0.1:{}/", origins.mute_tls);
    for (name, url, stages) in [
        ("mute", plain("mute"), &[Connect, Ttfb][..]),
        ("stalled", plain("stalled-body"), &[Connect, Ttfb, Body]),
        ("drip", plain("drip"), &[Connect, Ttfb, Body]),
        ("drip head", plain("drip-head"), &[Connect, Ttfb]),
        ("TLS mute", mute_tls, &[Connect, Tls]),
        ("h2 mute", http2.url("/mute"), &[Connect, Tls, Ttfb]),
        ("h2 stalled", http2.url("/stalled"), &[Connect, Tls, Ttfb, Body]),
    ] {
        // Which stage it meets depends on how busy the machine is; which code does not.
        let expected = stages.iter().map(|stage| Fails(UrlTimeout, *stage));
        let patience = Duration::from_millis(400);
        let case = Case { name, url, patience, robots: false, expected: expected.collect() };
        cases.push(case);
    }
}

/// What robots.txt decides.
fn polite(cases: &mut Vec<Case>, origins: &Origins) {
    let refused = Fails(RobotsDisallowed, Stage::Pace);
    for (name, path, expected) in [
        ("polite", "page", Page(200)),
        ("disallowed", "private", refused),
        ("disallowed hop", "to-private-path", refused),
    ] {
        cases.push(Case {
            name,
            url: format!("http://127.0.0.1:{}/{path}", origins.plain),
            patience: Duration::from_secs(40),
            robots: true,
            expected: vec![expected],
        });
    }
}
