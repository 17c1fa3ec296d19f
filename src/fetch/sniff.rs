//! Which bodies are pages: by the `Content-Type`, and where it does not decide, by the first bytes.
//!
//! - `text/html`, `application/xhtml+xml` and `text/plain` are read.
//! - `text/xml` and `application/xml` are read where the first bytes are an HTML document's (XHTML
//!   sent by its other name); a feed or another vocabulary has no page to extract.
//! - Without a type, the first bytes decide: HTML, or text without binary bytes.
//! - Anything else is `unsupported_type`, before its body is read.

/// Bytes that are enough to decide by (a bound, as in WHATWG MIME Sniffing §5.2).
pub const SNIFF_BYTES: usize = 1445;

/// What a `Content-Type` says about the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// A page.
    Accept,
    /// A page if it starts as HTML does.
    IfHtml,
    /// A page if it is text.
    IfText,
    /// No page.
    Refuse,
}

/// A `Content-Type` in its parts (RFC 9110 §8.3.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentType {
    /// `type/subtype`, lower case; empty if there is none.
    pub essence: String,
    /// The `charset` parameter as it was written, without quotes.
    pub charset: Option<String>,
}

impl ContentType {
    /// Reads a field value; what is malformed is left out.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let mut parts = text.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches(['"', '\'']).trim();
            let good = name.trim().eq_ignore_ascii_case("charset")
                && (1..=40).contains(&value.len())
                && value.is_ascii();
            good.then(|| value.to_owned())
        });
        // A value such as `html` or `a/b/c` is no type: the body decides.
        let valid = essence.split('/').count() == 2 && essence.len() <= 127;
        Self { essence: if valid { essence } else { String::new() }, charset }
    }

    /// Whether a body of this type is read.
    #[must_use]
    pub fn gate(&self) -> Gate {
        match self.essence.as_str() {
            "text/html" | "application/xhtml+xml" | "text/plain" => Gate::Accept,
            "text/xml" | "application/xml" => Gate::IfHtml,
            "" => Gate::IfText,
            _ => Gate::Refuse,
        }
    }
}

/// The type that the first bytes of a body show: `text/html`, `text/plain`, or `None` for binary.
#[must_use]
pub fn sniff(start: &[u8]) -> Option<&'static str> {
    let start = &start[..start.len().min(SNIFF_BYTES)];
    if looks_like_html(start) {
        return Some("text/html");
    }
    if start.starts_with(&[0xfe, 0xff]) || start.starts_with(&[0xff, 0xfe]) {
        return Some("text/plain"); // a UTF-16 byte order mark; the zero bytes are its own
    }
    // MIME Sniffing §3: the binary data bytes.
    let binary = |b: &u8| matches!(b, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    (!start.iter().any(binary)).then_some("text/plain")
}

/// MIME Sniffing §7.1: white space, then a tag that HTML documents start with; an XML declaration
/// may come before.
#[must_use]
pub fn looks_like_html(start: &[u8]) -> bool {
    const TAGS: [&[u8]; 18] = [
        b"!doctype html",
        b"html",
        b"head",
        b"script",
        b"iframe",
        b"h1",
        b"div",
        b"font",
        b"table",
        b"a",
        b"style",
        b"title",
        b"b",
        b"body",
        b"br",
        b"p",
        b"meta",
        b"article",
    ];
    let mut rest = trim(start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start));
    if let Some(declaration) = rest.strip_prefix(b"<?xml") {
        let end = memchr::memmem::find(declaration, b"?>").map_or(declaration.len(), |at| at + 2);
        rest = trim(&declaration[end..]);
    }
    while let Some(comment) = rest.strip_prefix(b"<!--") {
        let Some(end) = memchr::memmem::find(comment, b"-->") else { return true };
        rest = trim(&comment[end + 3..]);
    }
    let Some(tag) = rest.strip_prefix(b"<") else { return false };
    TAGS.iter().any(|name| {
        tag.len() > name.len()
            && tag[..name.len()].eq_ignore_ascii_case(name)
            && matches!(tag[name.len()], b' ' | b'>' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'/')
    })
}

fn trim(bytes: &[u8]) -> &[u8] {
    let at = bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(bytes.len());
    &bytes[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_leniently() {
        for (value, essence, charset) in [
            ("text/html", "text/html", None),
            ("Text/HTML; Charset=UTF-8", "text/html", Some("UTF-8")),
            ("text/html;charset=\"iso-8859-1\"", "text/html", Some("iso-8859-1")),
            ("text/html; boundary=x; charset=koi8-r; charset=utf-8", "text/html", Some("koi8-r")),
            ("text/html; charset=", "text/html", None),
            ("", "", None),
            ("html", "", None),
            ("; charset=utf-8", "", Some("utf-8")),
            ("a/b/c", "", None),
        ] {
            let read = ContentType::parse(value.as_bytes());
            assert_eq!((read.essence.as_str(), read.charset.as_deref()), (essence, charset));
        }
    }

    #[test]
    fn the_gate_by_type() {
        for (value, gate) in [
            ("text/html; charset=x", Gate::Accept),
            ("application/xhtml+xml", Gate::Accept),
            ("text/plain", Gate::Accept),
            ("application/xml", Gate::IfHtml),
            ("", Gate::IfText),
            ("application/json", Gate::Refuse),
            ("application/pdf", Gate::Refuse),
            ("image/svg+xml", Gate::Refuse),
            ("application/octet-stream", Gate::Refuse),
            ("application/rss+xml", Gate::Refuse),
        ] {
            assert_eq!(ContentType::parse(value.as_bytes()).gate(), gate, "{value}");
        }
    }

    #[test]
    fn first_bytes_decide_where_the_type_does_not() {
        let html: [&[u8]; 8] = [
            b"<!DOCTYPE html><p>",
            b" \r\n<HtMl lang=en>",
            b"\xef\xbb\xbf<html>",
            b"<!-- a --><body>",
            b"<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC",
            b"<p>x",
            b"<!-- open",
            b"<a href=x>",
        ];
        for start in html {
            assert_eq!(sniff(start), Some("text/html"), "{}", start.escape_ascii());
        }
        let text: [&[u8]; 5] = [b"", b"hello", b"<rss version=2>", b"{\"a\":1}", b"\xff\xfeh\0i\0"];
        for start in text {
            assert_eq!(sniff(start), Some("text/plain"), "{}", start.escape_ascii());
        }
        let binary: [&[u8]; 3] = [b"\x89PNG\r\n\x1a\n\0", b"PK\x03\x04", b"\0"];
        for start in binary {
            assert_eq!(sniff(start), None, "{}", start.escape_ascii());
        }
        assert!(!looks_like_html(b"<abbr>"), "a longer name is another tag");
    }
}
