//! Origins that lie, stall, break off, or send documents made to hurt.

use crate::http::target::Target;
use crate::num::to_u64;
use crate::origin::encode::Coding;
use crate::origin::pages;
use crate::origin::script::{Reply, Script, Step, number};
use crate::rng::Rng;
use crate::units;
use std::sync::Arc;
use std::time::Duration;

/// Names under `/malformed/`.
pub(crate) const MALFORMED: &[&str] = &[
    "garbage",
    "http09",
    "http2",
    "bad-status",
    "no-reason",
    "bare-lf",
    "bare-cr",
    "obs-fold",
    "space-before-colon",
    "nul-in-value",
    "no-colon",
    "huge-header",
    "many-headers",
    "cl-te",
    "double-cl",
    "same-cl-twice",
    "negative-cl",
    "huge-cl",
    "bad-te",
    "te-gzip",
    "bad-chunk-size",
    "huge-chunk-size",
    "chunk-ext",
    "no-chunk-crlf",
    "no-last-chunk",
    "trailers",
    "bad-gzip",
    "truncated-gzip",
    "wrong-coding",
    "unknown-coding",
    "five-codings",
    "trailing-bytes",
    "truncated-length",
    "truncated-chunked",
    "huge-location",
    "bad-location",
    "no-location",
    "empty",
    "binary-as-html",
    "upgrade",
];

/// Names under `/hostile/`.
pub(crate) const HOSTILE: &[&str] = &[
    "amps",
    "nested",
    "huge",
    "text",
    "attributes",
    "attribute",
    "unclosed",
    "tables",
    "formatting",
    "entities",
    "comments",
    "scripts",
    "nul",
    "utf8",
    "links",
    "select",
    "svg",
    "empty",
    "whitespace",
];

/// `/reset`, `/stall`, `/close`: the answer breaks at a stage.
pub(crate) fn breaking(target: &Target, what: &str) -> Result<Script, String> {
    let at = target.get("at").unwrap_or("head");
    let page = pages::page(0, 0, 20_000, pages::Kind::Article, 10);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    let sent = match at {
        "head" => String::new(),
        "midhead" => head[..40].to_owned(),
        "body" => head + &page[..10_000],
        _ => return Err(format!("at `{at}`: expected head, midhead or body")),
    };
    let mut script = Script::default();
    if !sent.is_empty() {
        script = script.then(Step::Write(sent.into_bytes().into()));
    }
    Ok(match what {
        // A RST may overtake bytes that are still in flight; let them arrive.
        "reset" => script.then(Step::Wait(Duration::from_millis(5))).then(Step::Reset),
        "stall" => {
            let long = target.get("for").map_or(Ok(Duration::from_secs(3600)), units::duration)?;
            script.then(Step::Wait(long))
        }
        _ => script,
    })
}

/// `/endless`: one part of an answer goes on for ever.
pub(crate) fn endless(target: &Target) -> Result<Script, String> {
    let what = target.get("what").unwrap_or("body");
    let text = pages::page(0, 1, 16_384, pages::Kind::Article, 10);
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n";
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    let (start, unit) = match what {
        "body" => (format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), chunk),
        "chunks" => (format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), "1\r\nx\r\n".repeat(512)),
        "close" => (format!("{ok}Connection: close\r\n\r\n"), text),
        "headers" => (ok.to_owned(), "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(64)),
        "interim" => (String::new(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(32)),
        "trailers" => (
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
            "X-Trailer: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(64),
        ),
        _ => {
            return Err(format!(
                "what `{what}`: expected body, chunks, close, headers, interim or trailers"
            ));
        }
    };
    let unit: Arc<[u8]> = unit.into_bytes().into();
    let pause = match target.get("bytes_per_s").map(units::bytes).transpose()? {
        Some(pace) => Duration::from_secs_f64(unit.len() as f64 / pace.max(1) as f64),
        None => Duration::ZERO,
    };
    Ok(Script::raw(start).then(Step::Repeat { unit, times: u64::MAX, pause }))
}

/// `/bomb`: a small body that decodes to `size` bytes of HTML.
pub(crate) fn bomb(target: &Target) -> Result<Reply, String> {
    let coding = Coding::parse(target.get("encoding").unwrap_or("gzip"))?;
    let size = to_u64(number(target, "size", 100_000_000)?).min(4 << 30);
    let unit = vec![b' '; 65_536];
    let body = coding
        .encode_repeated(&unit, (size / 65_536).max(1))
        .map_err(|error| format!("cannot build the bomb: {error}"))?;
    Ok(Reply::new(200, "text/html; charset=utf-8", body).coded(coding))
}

/// `/hostile/{name}`: a document that costs far more than its bytes.
pub(crate) fn hostile(name: &str, size: usize) -> Result<Reply, String> {
    let fill = |unit: &str| unit.repeat(size / unit.len() + 1).into_bytes();
    let wrap = |inner: Vec<u8>| {
        let mut out = b"<!DOCTYPE html><html><head><title>Hostile</title></head><body>".to_vec();
        out.extend_from_slice(&inner);
        out
    };
    let body = match name {
        "amps" => wrap(fill("&")),
        "nested" => wrap(fill("<div>")),
        "huge" => pages::page(0, 7, size, pages::Kind::Article, 1000).into_bytes(),
        "text" => wrap(fill("word ")),
        "attributes" => {
            let mut inner = b"<p ".to_vec();
            for n in 0..size / 12 {
                inner.extend_from_slice(format!("a{n}=\"{n}\" ").as_bytes());
            }
            inner.extend_from_slice(b">text</p>");
            wrap(inner)
        }
        "attribute" => {
            let mut inner = b"<p title=\"".to_vec();
            inner.extend_from_slice(&fill("x"));
            inner.extend_from_slice(b"\">text</p>");
            wrap(inner)
        }
        "unclosed" => wrap(fill("<b><i><u><a href=x><p>")),
        "tables" => wrap(fill("<table><tr><td>")),
        "formatting" => wrap(fill("<font color=red><b><p>x")),
        "entities" => wrap(fill("&notit;&CounterClockwiseContourIntegral;&#x1F600;")),
        "comments" => wrap(fill("<!-- <p> -->")),
        "scripts" => wrap(fill("<script>var a='</p>';</script>")),
        "nul" => wrap(fill("a\0b ")),
        "utf8" => {
            let unit = [0xff, 0xfe, 0xc0, 0x80, 0xed, 0xa0, 0x80, b' ', 0xf4, 0x90, 0x80, 0x80];
            wrap(unit.repeat(size / unit.len() + 1))
        }
        "links" => wrap(fill("<a href=\"/page/1?x=1&y=2\">x</a> ")),
        "select" => wrap(fill("<select><option><optgroup>")),
        "svg" => wrap(fill("<svg><foreignObject><math><mi>")),
        "empty" => Vec::new(),
        "whitespace" => wrap(fill(" \n\t")),
        _ => return Err(format!("hostile `{name}`: expected one of {}", HOSTILE.join(", "))),
    };
    Ok(Reply::new(200, "text/html; charset=utf-8", body))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
const PAGE: &str = "<!DOCTYPE html><title>Malformed</title><p>A page in a broken wrapper.</p>";

/// `/malformed/{name}`: the bytes of a response that breaks a rule.
pub(crate) fn malformed(name: &str) -> Result<Script, String> {
    if let Some(text) = bad_head(name).or_else(|| bad_framing(name)).or_else(|| bad_content(name)) {
        return Ok(Script::raw(text));
    }
    match name {
        "garbage" => Ok(Script::raw(noise(1, 512))),
        "http2" => Ok(Script::raw(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec())),
        "truncated-gzip" => truncated_gzip(),
        "binary-as-html" => {
            let mut out = format!("{OK}Content-Length: 65536\r\n\r\n").into_bytes();
            out.extend(noise(2, 8192));
            Ok(Script::raw(out))
        }
        _ => Err(format!("malformed `{name}`: expected one of {}", MALFORMED.join(", "))),
    }
}

fn noise(seed: u64, words: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..words).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

fn with_length(fields: &str) -> String {
    format!("{OK}{fields}Content-Length: {}\r\n\r\n{PAGE}", PAGE.len())
}

/// Heads that break RFC 9112 §2 to §5.
fn bad_head(name: &str) -> Option<String> {
    let len = PAGE.len();
    Some(match name {
        "http09" => PAGE.to_owned(),
        "bad-status" => format!("HTTP/1.1 2x0 OK\r\nContent-Length: {len}\r\n\r\n{PAGE}"),
        "no-reason" => format!(
            "HTTP/1.1 200\r\nContent-Type: text/html\r\nContent-Length: {len}\r\n\r\n{PAGE}"
        ),
        "bare-lf" => with_length("").replace("\r\n", "\n"),
        "bare-cr" => with_length("X-A: a\rX-B: b\r\n"),
        "obs-fold" => with_length("X-A: a\r\n  folded\r\n"),
        "space-before-colon" => with_length("X-A : a\r\n"),
        "nul-in-value" => with_length("X-A: a\0b\r\n"),
        "no-colon" => with_length("X-A a\r\n"),
        "huge-header" => with_length(&format!("X-A: {}\r\n", "a".repeat(1 << 20))),
        "many-headers" => with_length(&"X-A: a\r\n".repeat(10_000)),
        "huge-location" => format!(
            "HTTP/1.1 302 Found\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n",
            "a".repeat(100_000)
        ),
        "bad-location" => {
            "HTTP/1.1 302 Found\r\nLocation: http://[::bad\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
        "no-location" => "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "empty" => String::new(),
        "upgrade" => {
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
                .to_owned()
        }
        _ => return None,
    })
}

/// Framing that breaks RFC 9112 §6 and §7.
fn bad_framing(name: &str) -> Option<String> {
    let len = PAGE.len();
    let with_chunks = |chunks: &str| format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    Some(match name {
        "cl-te" => format!(
            "{OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{PAGE}\r\n0\r\n\r\n"
        ),
        "double-cl" => with_length("Content-Length: 1\r\n"),
        "same-cl-twice" => with_length(&format!("Content-Length: {len}\r\n")),
        "negative-cl" => format!("{OK}Content-Length: -5\r\n\r\n{PAGE}"),
        "huge-cl" => format!("{OK}Content-Length: 99999999999999999999999\r\n\r\n{PAGE}"),
        "bad-te" => format!("{OK}Transfer-Encoding: sausage\r\n\r\n{PAGE}"),
        "te-gzip" => format!("{OK}Transfer-Encoding: chunked, gzip\r\n\r\n{PAGE}"),
        "bad-chunk-size" => with_chunks(&format!("zz\r\n{PAGE}\r\n0\r\n\r\n")),
        "huge-chunk-size" => with_chunks(&format!("ffffffffffffffffff\r\n{PAGE}\r\n0\r\n\r\n")),
        "chunk-ext" => {
            with_chunks(&format!("{len:x};{}\r\n{PAGE}\r\n0\r\n\r\n", "e".repeat(100_000)))
        }
        "no-chunk-crlf" => with_chunks(&format!("{len:x}\r\n{PAGE}0\r\n\r\n")),
        "no-last-chunk" | "truncated-chunked" => with_chunks(&format!("{len:x}\r\n{PAGE}\r\n")),
        "trailers" => {
            with_chunks(&format!("{len:x}\r\n{PAGE}\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"))
        }
        "trailing-bytes" => with_length("") + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "truncated-length" => format!("{OK}Content-Length: {}\r\n\r\n{PAGE}", len * 2),
        _ => return None,
    })
}

/// Codings that don't decode.
fn bad_content(name: &str) -> Option<String> {
    Some(match name {
        "bad-gzip" | "wrong-coding" => with_length("Content-Encoding: gzip\r\n"),
        "unknown-coding" => with_length("Content-Encoding: sausage\r\n"),
        "five-codings" => with_length("Content-Encoding: gzip, gzip, gzip, gzip, gzip\r\n"),
        _ => return None,
    })
}

fn truncated_gzip() -> Result<Script, String> {
    let page = pages::page(0, 3, 20_000, pages::Kind::Article, 5);
    let wire = Coding::Gzip.encode(page.as_bytes()).map_err(|error| error.to_string())?;
    let half = &wire[..wire.len() / 2];
    let mut out = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        half.len()
    )
    .into_bytes();
    out.extend_from_slice(half);
    Ok(Script::raw(out))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn every_listed_name_exists_and_no_other() {
        for name in MALFORMED {
            assert!(malformed(name).is_ok(), "{name}");
        }
        for name in HOSTILE {
            assert!(hostile(name, 1000).is_ok(), "{name}");
        }
        assert!(malformed("x").is_err() && hostile("x", 9).unwrap_err().contains("amps"));
    }

    #[test]
    fn a_bomb_is_small_until_it_decodes() {
        let target = Target::parse("/bomb?encoding=zstd&size=10m");
        let bomb = bomb(&target).unwrap();
        assert!(bomb.body.len() < 20_000, "{}", bomb.body.len());
        assert!(zstd::stream::decode_all(&bomb.body[..]).unwrap().len() > 9_000_000);
    }
}
