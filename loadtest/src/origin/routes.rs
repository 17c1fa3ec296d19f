//! Path and query to the steps of an answer: a pure function of seed, request, and how often the
//! same target was asked before.

use crate::http::head::Head;
use crate::http::target::Target;
use crate::num::{round_u64, to_u64};
use crate::origin::Web;
use crate::origin::encode::{Coding, to_charset};
use crate::origin::pages::{self, Kind};
use crate::origin::script::{Reply, Script, Shape, Step, flag, number};
use crate::origin::{faults, files};
use crate::rng::Rng;
use crate::units;
use std::sync::Arc;
use std::time::Duration;

/// A request as the routes need it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The head as it came.
    pub(crate) head: Head,
    /// Its target, decoded.
    pub(crate) target: Target,
    /// How many requests for this very target came before.
    pub(crate) hit: u64,
}

impl Request {
    fn keeps(&self) -> bool {
        // RFC 9112 §9.3
        let old = self.head.start[2] == "HTTP/1.0";
        if old {
            self.head.has_token("connection", "keep-alive")
        } else {
            !self.head.has_token("connection", "close")
        }
    }

    /// The remainder of the path after `prefix`.
    fn rest<'a>(&'a self, prefix: &str) -> Option<&'a str> {
        self.target.path.strip_prefix(prefix)
    }
}

/// Whether building the answer may take long enough to be moved off the I/O thread.
pub(crate) fn is_heavy(request: &Request) -> bool {
    let path = &request.target.path;
    let big = number(&request.target, "size", 0).is_ok_and(|size| size > 256 * 1024);
    big || path.starts_with("/bomb") || path.starts_with("/hostile") || path.starts_with("/files")
}

/// The answer to a request; a wrong query is a 400 that says what was expected.
pub(crate) fn route(web: &Web, request: &Request) -> Script {
    let bodiless = request.head.start[0] == "HEAD";
    let keep = request.keeps();
    let mut rng = Rng::labelled(web.seed, &request.head.start[1]);
    let answer = raw(web, request).unwrap_or_else(|| {
        let shape = Shape::of(&request.target, &mut rng)?;
        let (reply, shape) = reply(web, request, shape)?;
        Ok(decorate(request, reply)?.script(&shape, keep, bodiless))
    });
    answer.unwrap_or_else(|message| {
        let shape = plain_shape();
        Reply::text(400, message).script(&shape, keep, bodiless)
    })
}

/// The shape of an answer that nothing was asked of.
pub(crate) fn plain_shape() -> Shape {
    Shape::of(&Target::default(), &mut Rng::new(0)).expect("an empty query has no wrong value")
}

/// The routes that are not well-formed responses.
fn raw(web: &Web, request: &Request) -> Option<Result<Script, String>> {
    let target = &request.target;
    if let Some(name) = request.rest("/malformed/") {
        return Some(faults::malformed(name));
    }
    Some(match target.path.as_str() {
        "/reset" => faults::breaking(target, "reset"),
        "/stall" => faults::breaking(target, "stall"),
        "/close" => faults::breaking(target, "close"),
        "/endless" => faults::endless(target),
        "/robots.txt" if web.robots() == "reset" => {
            Ok(Script { steps: vec![Step::Reset], keep: false })
        }
        _ => return None,
    })
}

fn reply(web: &Web, request: &Request, mut shape: Shape) -> Result<(Reply, Shape), String> {
    let target = &request.target;
    let path = target.path.as_str();
    let inside =
        path.strip_prefix('/').ok_or_else(|| format!("target `{path}`: expected a path"))?;
    let (section, rest) = inside.split_once('/').unwrap_or((inside, ""));
    let reply = match section {
        "" => {
            let grammar = format!(
                "{}\nmalformed: {}\nhostile: {}\n",
                include_str!("grammar.txt"),
                faults::MALFORMED.join(" "),
                faults::HOSTILE.join(" ")
            );
            let index = pages::index(&grammar, &files::list(web.dir.as_deref()));
            Reply::new(200, "text/html; charset=utf-8", index.into_bytes())
        }
        "page" => page(web, request, index(rest)?)?,
        "drip" => {
            shape.bytes_per_s.get_or_insert(200);
            page(web, request, 0)?
        }
        "lie" => {
            shape.lie = if shape.lie == 0 { 100 } else { shape.lie };
            page(web, request, 0)?
        }
        "bomb" => faults::bomb(target)?,
        "hostile" => faults::hostile(rest, number(target, "size", 1_000_000)?)?,
        "status" => {
            let status: u16 = rest
                .parse()
                .ok()
                .filter(|status| (200..600).contains(status))
                .ok_or_else(|| format!("status `{rest}`: expected 200 to 599"))?;
            Reply { status, ..page(web, request, u64::from(status))? }
        }
        "error" => failing(web, request)?,
        "flaky" => {
            let fail = to_u64(number(target, "fail", 1)?);
            if request.hit < fail { failure(request)? } else { page(web, request, 0)? }
        }
        "redirect" | "loop" => redirect(request, section, rest)?,
        "charset" => charset(request, rest)?,
        "echo" => echo(request),
        "robots.txt" => robots(web, request, &mut shape)?,
        "files" => files::serve(web.dir.as_deref(), rest),
        _ => Reply::text(404, format!("{path}: see / for what exists")),
    };
    Ok((reply, shape))
}

fn index(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    // Any name is a page; a number is its own seed.
    Ok(text.parse().unwrap_or_else(|_| Rng::labelled(0, text).next_u64() >> 1))
}

/// When every page was changed last.
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// A generated page in the coding that was asked for; bodies are kept, since a load test asks for
/// the same ones again.
fn page(web: &Web, request: &Request, n: u64) -> Result<Reply, String> {
    let target = &request.target;
    let kind = Kind::parse(target.get("kind").unwrap_or("article"))?;
    let size = number(target, "size", 20_000)?.min(256 << 20);
    let links = number(target, "links", 20)?;
    let coding = match target.get("encoding") {
        None => Coding::Identity,
        Some("auto") => negotiate(&request.head),
        Some(name) => Coding::parse(name)?,
    };
    let status = number(target, "status", 200)?;
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..1000).contains(status))
        .ok_or_else(|| format!("status {status}: expected 200 to 999"))?;
    let key = format!("{n} {kind:?} {size} {links} {coding:?}");
    let body = web.bodies.get_or_make(&key, || {
        let page = pages::page(web.seed, n, size, kind, links);
        coding.encode(page.as_bytes()).map_err(|error| error.to_string())
    })?;
    let content_type = target.get("type").unwrap_or("text/html; charset=utf-8");
    let mut reply = Reply::new(status, content_type, body).coded(coding);
    if flag(target, "etag") {
        let tag = format!("\"{:x}\"", Rng::labelled(web.seed, &key).next_u64());
        let matches = request.head.field("if-none-match").is_some_and(|given| given.contains(&tag));
        reply = reply.with("ETag", tag).with("Last-Modified", MODIFIED);
        if matches {
            reply.status = 304;
        }
    } else if flag(target, "last_modified") {
        let matches = request.head.field("if-modified-since").is_some_and(|date| date == MODIFIED);
        reply = reply.with("Last-Modified", MODIFIED);
        if matches {
            reply.status = 304;
        }
    }
    Ok(reply)
}

fn negotiate(head: &Head) -> Coding {
    let accepted = head.field("accept-encoding").unwrap_or_default();
    let accepts = |token: &str| {
        accepted.split(',').any(|part| part.split(';').next().is_some_and(|p| p.trim() == token))
    };
    match () {
        () if accepts("br") => Coding::Brotli,
        () if accepts("zstd") => Coding::Zstd,
        () if accepts("gzip") => Coding::Gzip,
        () => Coding::Identity,
    }
}

fn failing(web: &Web, request: &Request) -> Result<Reply, String> {
    let rate = request.target.get("rate").unwrap_or("0.1");
    let rate: f64 = rate.parse().map_err(|_| format!("rate `{rate}`: expected 0 to 1"))?;
    let label = format!("{} {}", request.head.start[1], request.hit);
    if Rng::labelled(web.seed, &label).unit() < rate {
        failure(request)
    } else {
        page(web, request, request.hit)
    }
}

fn failure(request: &Request) -> Result<Reply, String> {
    let status = number(&request.target, "status", 503)?;
    let status = u16::try_from(status).map_err(|_| "status: expected 200 to 599".to_owned())?;
    Ok(Reply::new(
        status,
        "text/html; charset=utf-8",
        format!("<!DOCTYPE html><title>Failure</title><p>Synthetic failure {status}.</p>\n")
            .into_bytes(),
    ))
}

fn redirect(request: &Request, section: &str, rest: &str) -> Result<Reply, String> {
    let target = &request.target;
    let raw = &request.head.start[1];
    let query = raw.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
    let status = number(target, "status", 302)?;
    let status = u16::try_from(status)
        .ok()
        .filter(|status| matches!(status, 300..=399))
        .ok_or_else(|| format!("status {status}: expected 300 to 399"))?;
    let hop = if rest.is_empty() { 1 } else { rest.parse().unwrap_or(1_u64) };
    let location = if section == "loop" {
        let length = to_u64(number(target, "length", 1)?).max(1);
        let at: u64 = rest.parse().unwrap_or(0);
        format!("/loop/{}{query}", (at + 1) % length)
    } else if let Some(to) = target.get("to") {
        to.to_owned()
    } else if hop <= 1 {
        format!("/page/0{}", query.replace(&format!("status={status}"), "status=200"))
    } else {
        format!("/redirect/{}{query}", hop - 1)
    };
    let host = request.head.field("host").unwrap_or("localhost");
    let location = match target.get("form") {
        _ if !location.starts_with('/') => location,
        None | Some("relative") => location,
        Some("absolute") => format!("http://{host}{location}"),
        Some("scheme") => format!("//{host}{location}"),
        Some(other) => {
            return Err(format!("form `{other}`: expected relative, absolute or scheme"));
        }
    };
    Ok(Reply::text(status, format!("to {location}")).with("Location", location))
}

fn charset(request: &Request, label: &str) -> Result<Reply, String> {
    let target = &request.target;
    let size = number(target, "size", 4000)?;
    let declare = target.get("declare").unwrap_or("both");
    let (header, meta) = match declare {
        "both" => (Some(label), Some(label)),
        "header" => (Some(label), None),
        "meta" => (None, Some(label)),
        "none" | "bom" => (None, None),
        "wrong" => (Some("us-ascii"), Some("utf-8")),
        _ => {
            return Err(format!(
                "declare `{declare}`: expected both, header, meta, bom, none or wrong"
            ));
        }
    };
    let text = pages::charset_page(label, meta, size);
    let text = if declare == "bom" { format!("\u{feff}{text}") } else { text };
    let body = to_charset(label, &text)?;
    let content_type =
        header.map_or("text/html".to_owned(), |name| format!("text/html; charset={name}"));
    Ok(Reply::new(200, &content_type, body))
}

fn echo(request: &Request) -> Reply {
    let mut out = request.head.start.join(" ");
    for (name, value) in &request.head.fields {
        out.push_str(&format!("\n{name}: {value}"));
    }
    Reply::text(200, out)
}

fn robots(web: &Web, request: &Request, shape: &mut Shape) -> Result<Reply, String> {
    let mode = web.robots();
    if let Some(path) = request.target.get("disallow") {
        let delay =
            request.target.get("delay").map_or(String::new(), |d| format!("Crawl-delay: {d}\n"));
        return Ok(Reply::text(200, format!("User-agent: *\nDisallow: {path}\n{delay}")));
    }
    let text = match mode.as_str() {
        "allow" => "User-agent: *\nAllow: /".to_owned(),
        "deny" => "User-agent: *\nDisallow: /".to_owned(),
        "private" => "User-agent: *\nAllow: /\nDisallow: /page/13\nDisallow: /private/".to_owned(),
        "404" => return Ok(Reply::text(404, "no robots.txt here")),
        "500" => return Ok(Reply::text(500, "robots.txt is broken")),
        "slow" => {
            shape.head_wait = Duration::from_secs(3600);
            String::new()
        }
        "huge" => format!("User-agent: *\n{}", "Disallow: /private/filler\n".repeat(40_000)),
        other => match other.strip_prefix("crawl-delay:") {
            Some(delay) => format!("User-agent: *\nCrawl-delay: {delay}\nAllow: /"),
            None => return Err(format!("robots mode `{other}`")),
        },
    };
    Ok(Reply::text(200, text))
}

/// The query pairs that any well-formed response obeys.
fn decorate(request: &Request, mut reply: Reply) -> Result<Reply, String> {
    for (name, value) in &request.target.query {
        match name.as_str() {
            "header" => {
                let (field, value) = value
                    .split_once(':')
                    .ok_or_else(|| format!("header `{value}`: expected Name:value"))?;
                reply = reply.with(field, value.trim());
            }
            "retry_after" => reply = reply.with("Retry-After", value),
            _ => {}
        }
    }
    Ok(reply)
}

/// Whether a mode of `/robots.txt` exists.
pub(crate) fn robots_mode(text: &str) -> Result<String, String> {
    let known = ["allow", "deny", "private", "404", "500", "slow", "huge", "reset"];
    let delay = text.strip_prefix("crawl-delay:").is_some_and(|n| n.parse::<f64>().is_ok());
    if delay || known.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("robots `{text}`: expected {} or crawl-delay:SECONDS", known.join(", ")))
    }
}

/// A timeout from the query, bounded to a minute.
pub(crate) fn timeout(target: &Target) -> Result<Duration, String> {
    let wanted = target.get("timeout").map_or(Ok(Duration::from_secs(5)), units::duration)?;
    Ok(wanted.min(Duration::from_secs(60)))
}

/// Bytes that a pace allows per tick of 20 ms, at least one.
pub(crate) fn paced(bytes: Arc<[u8]>, bytes_per_s: u64) -> (Arc<[u8]>, usize, Duration) {
    let pace = bytes_per_s.max(1);
    let per_tick = (pace / 50).max(1);
    let tick = Duration::from_micros(round_u64(per_tick as f64 * 1e6 / pace as f64));
    (bytes, crate::num::to_usize(per_tick), tick)
}
