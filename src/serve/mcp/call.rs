//! `tools/call`: which tool, with what right, and how its result is written.

use super::super::access::keys::Scope;
use super::super::conn::{Conn, Gone};
use super::super::handle;
use super::super::reply::{JSON, Reply};
use super::rpc::{self, Id, Message, Wrong, quoted, scalar};
use super::{crawl, refuse};
use crate::crawl::request::deepsearch::parse_deepsearch;
use crate::crawl::request::{self, CrawlRequest, ExtractBody, parse_crawl};
use crate::error::{ApiCode, ApiError};
use crate::limits::READ_TWICE_HERE_BYTES_MAX;
use bytes::{BufMut, Bytes, BytesMut};
use simd_json::OwnedValue;
use simd_json::prelude::{ValueObjectAccess as _, ValueObjectAccessAsScalar as _, Writable as _};
use std::sync::Arc;
use std::time::Duration;

/// How a call came.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: Id,
    /// Whether it speaks the newer revision.
    pub(super) modern: bool,
    /// Whether the client takes Server-Sent Events.
    pub(super) events: bool,
}

/// Runs a tool and answers with its result.
pub(super) async fn run(conn: &mut Conn, asked: Asked, message: Message) -> Result<(), Gone> {
    let Message { params, bytes, .. } = message;
    let name = params.get_str("name").unwrap_or_default();
    // A search asks for the scope of `POST /deepsearch`, which is a crawl's.
    let scope = match name {
        "crawl" | "search" => Scope::Crawl,
        "extract" => Scope::Extract,
        other => {
            let name: String = other.chars().take(64).collect();
            let wrong = Wrong::params(format!("no tool is named {}", quoted(&name)));
            let wrong = Wrong { status: if asked.modern { 400 } else { 200 }, ..wrong };
            return refuse(conn, Some(&asked.id), &wrong).await;
        }
    };
    if conn.visit.key().is_some_and(|key| !key.has(scope)) {
        let message = format!("this key lacks the scope {}", scope.as_str());
        return conn.refuse(&ApiError::new(ApiCode::Forbidden, message)).await;
    }
    let token = params.get("_meta").and_then(|meta| meta.get("progressToken")).and_then(scalar);
    if conn.access.pressed() {
        let error = ApiError::new(ApiCode::Overloaded, "the server is short of memory");
        return failed(conn, &asked, &error.retry_after(Duration::from_secs(1))).await;
    }
    let token = token.filter(|_| asked.events);
    let parse = match name {
        "extract" => None,
        "search" => Some(parse_deepsearch as crawl::Parse),
        _ => Some(parse_crawl as crawl::Parse),
    };
    let (node, shared) = (conn.node.clone(), Arc::clone(&conn.node.shared));
    let read = move || {
        let mut arguments = arguments_of(&params);
        match parse {
            Some(parse) => crawl::read(&shared.config, parse, &mut arguments).map(Read::Crawl),
            None => request::parse_extract(&mut arguments).map(Box::new).map(Read::Extract),
        }
    };
    let reading = node.shared.reading.read(bytes, READ_TWICE_HERE_BYTES_MAX, read);
    let body = match reading.await.flatten() {
        Ok(Read::Crawl(request)) => return crawl::run(conn, &asked, token, request).await,
        Ok(Read::Extract(body)) => body,
        Err(error) => return failed(conn, &asked, &error).await,
    };
    let page = handle::Given {
        html: body.html.into_bytes(),
        charset: Some("utf-8".to_owned()),
        url: body.url,
        options: body.options,
    };
    match handle::extract_page(conn, page).await {
        Ok(done) => {
            let document = done.document;
            let mut out = BytesMut::with_capacity(document.len() + 1024);
            rpc::begin(&mut out, &asked.id);
            out.put_slice(b"{\"content\":[");
            text_block(&mut out, "", content(&document).unwrap_or_default(), b"");
            out.put_slice(b"],\"structuredContent\":{\"quality_score\":");
            out.put_slice(done.quality.as_bytes());
            out.put_slice(b"},\"isError\":false");
            rpc::end(&mut out, false, asked.modern);
            conn.reply(Reply::new(200, JSON, out.freeze())).await
        }
        Err(error) => failed(conn, &asked, &error).await,
    }
}

/// A tool's arguments, read.
enum Read {
    Crawl(CrawlRequest),
    Extract(Box<ExtractBody>),
}

/// A tool's arguments as JSON again, for the reader of the route that does the same.
fn arguments_of(params: &OwnedValue) -> Vec<u8> {
    params.get("arguments").map_or_else(|| "{}".to_owned(), |value| value.encode()).into_bytes()
}

/// A tool that could not do its work says so in its result, where the model reads it.
pub(super) async fn failed(conn: &mut Conn, asked: &Asked, error: &ApiError) -> Result<(), Gone> {
    conn.reply(Reply::new(200, JSON, failure(asked, error))).await
}

/// The answer of a tool that could not do its work.
pub(super) fn failure(asked: &Asked, error: &ApiError) -> Bytes {
    let mut text = format!("{}: {}", error.code.as_str(), error.message);
    for detail in &error.details {
        text.push_str(&format!("; {}: expected {}", detail.field, detail.expected));
    }
    if let Some(after) = error.retry_after {
        text.push_str(&format!("; try again in {} s", after.as_secs().max(1)));
    }
    let fields = format!(
        "{{\"content\":[{{\"type\":\"text\",\"text\":{}}}],\"isError\":true",
        quoted(&text)
    );
    rpc::result(&asked.id, &fields, asked.modern)
}

/// A block of text: `before` as it is, the others are JSON already.
pub(super) fn text_block(out: &mut BytesMut, before: &str, escaped: &[u8], after: &[u8]) {
    out.put_slice(b"{\"type\":\"text\",\"text\":");
    crate::proto::json::string(out, before);
    // The closing quote moves behind what follows.
    out.truncate(out.len() - 1);
    out.put_slice(escaped);
    out.put_slice(after);
    out.put_slice(b"\"}");
}

/// The content of a document, as the escaped text that stands in its JSON: Markdown, else the plain
/// text. Its bytes are taken as they are, since they are to stand in JSON again. Only the document's
/// own fields count: each of its links has a `text`, too.
pub(super) fn content(document: &[u8]) -> Option<&[u8]> {
    let (mut at, mut depth) = (0, 0_usize);
    let (mut name, mut text): (&[u8], _) = (b"", None);
    while let Some(mark) = document[at..].iter().position(|byte| b"\"{}[]".contains(byte)) {
        at += mark + 1;
        match document[at - 1] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {
                let string = &document[at..string_end(document, at)?];
                at += string.len() + 1;
                let rest = document[at..].trim_ascii_start();
                match name {
                    _ if depth != 1 => {}
                    _ if rest.first() == Some(&b':') => name = string,
                    b"markdown" => return Some(string),
                    b"text" => text = Some(string),
                    _ => {}
                }
            }
        }
    }
    text
}

/// Where the string ends that begins there: at its quote.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn content_is_found_whatever_stands_around_it() {
        let document = |markdown: Option<&str>, text: Option<&str>| {
            serde_json::json!({
                "description": "a \",\"markdown\":\"b\\", "markdown": markdown, "text": text,
                "title": "\"text\":\"", "word_count": 1
            })
            .to_string()
        };
        for told in ["plain", "with \"quotes\" and \\", "", "line\nline", "\u{1}\u{2028}é"] {
            for (markdown, text) in
                [(Some(told), None), (None, Some(told)), (Some(told), Some("x"))]
            {
                let json = document(markdown, text);
                let found = content(json.as_bytes()).unwrap();
                let mut out = BytesMut::new();
                text_block(&mut out, "a\"b ", found, b"");
                let block: serde_json::Value = serde_json::from_slice(&out).unwrap();
                assert_eq!(block["text"], format!("a\"b {told}"));
            }
        }
        assert_eq!(content(document(None, None).as_bytes()), None);
        let links = r#"[{"href":"http://a.test/","text":"a link"},{"markdown":"x","text":""}]"#;
        for document in [
            format!(r#"{{"markdown":null,"text":null,"links":{links},"word_count":1}}"#),
            format!(r#"{{"links":{links},"meta":{{"text":"b"}}}}"#),
        ] {
            assert_eq!(content(document.as_bytes()), None);
        }
        let behind = format!(r#"{{"links":{links},"text" : "own"}}"#);
        assert_eq!(content(behind.as_bytes()), Some(&b"own"[..]));
        assert_eq!(content(b"{\"markdown\":\"never ends\\"), None);
    }
}
