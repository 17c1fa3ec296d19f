//! Bytes of a page to text.
//!
//! Order: byte order mark; what the page declares (Content-Type, then `<meta>`) where it says
//! something that its bytes don't contradict; UTF-8 when all of it is valid UTF-8; detection. Never
//! fails: what does not decode becomes U+FFFD.

#[path = "charset/prescan.rs"] // named, so that the fuzzer can include this file by path
mod prescan;

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};

pub use prescan::declared_in;

/// Bytes in which a `<meta>` is looked for. The standard asks for 1024 and allows more; many pages
/// put scripts before it.
pub const PRESCAN_BYTES: usize = 8 * 1024;
/// Bytes that the detector looks at.
const DETECT_BYTES_MAX: usize = 256 * 1024;

/// A page's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The text; borrowed when the body was UTF-8 as it stood.
    pub html: Cow<'a, str>,
    /// Name of the encoding it was decoded from.
    pub encoding: &'static str,
    /// Whether the body went on behind the limit.
    pub truncated: bool,
}

/// Decodes the first `bytes_max` bytes of `body`, to at most `bytes_max` bytes of text.
///
/// `label` is the `charset` of the Content-Type; the top-level domain of `url` helps the detection.
#[must_use]
pub fn decode<'a>(body: &'a [u8], label: Option<&str>, url: &str, bytes_max: usize) -> Decoded<'a> {
    let whole = body;
    let body = whole_characters(&body[..body.len().min(bytes_max)], body.len() > bytes_max);
    let (encoding, mark) = choose(body, label, url);
    let (mut html, _) = encoding.decode_without_bom_handling(&body[mark..]);
    let mut truncated = whole.len() > bytes_max;
    if html.len() > bytes_max {
        truncated = true;
        let end = html.floor_char_boundary(bytes_max);
        html = match html {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        };
    }
    Decoded { html, encoding: encoding.name(), truncated }
}

/// `body` without the start of a UTF-8 character that a cut left at its end.
fn whole_characters(body: &[u8], cut: bool) -> &[u8] {
    if !cut {
        return body;
    }
    let tail = body.len().saturating_sub(3);
    for at in (tail..body.len()).rev() {
        let len = match body[at] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if at + len > body.len() { &body[..at] } else { body };
    }
    body
}

/// The encoding, and the length of the byte order mark.
fn choose(body: &[u8], label: Option<&str>, url: &str) -> (&'static Encoding, usize) {
    // WHATWG Encoding §6: a byte order mark wins over everything.
    if let Some(found) = Encoding::for_bom(body) {
        return found;
    }
    let header = label.and_then(|label| Encoding::for_label(label.as_bytes()));
    let meta = declared_in(&body[..body.len().min(PRESCAN_BYTES)]);
    // Encodings in which text may look like valid UTF-8 without being it.
    let looks_ascii =
        |e: &&'static Encoding| **e == *ISO_2022_JP || **e == *UTF_16LE || **e == *UTF_16BE;
    if let Some(declared) = header.or(meta).filter(looks_ascii) {
        return (declared, 0);
    }
    if std::str::from_utf8(body).is_ok() {
        return (UTF_8, 0);
    }
    let other = |e: &&'static Encoding| **e != *UTF_8;
    if let Some(declared) = header.filter(other).or_else(|| meta.filter(other)) {
        return (declared, 0);
    }
    // Declared as UTF-8, but some bytes are not: a few are noise, many are another encoding.
    if (header.is_some() || meta.is_some()) && mostly_utf8(body) {
        return (UTF_8, 0);
    }
    (detect(body, url), 0)
}

/// Whether at least nine of ten sequences beyond ASCII are valid UTF-8.
fn mostly_utf8(body: &[u8]) -> bool {
    let (mut valid, mut broken) = (0_usize, 0_usize);
    for chunk in body.utf8_chunks() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    valid >= broken.saturating_mul(9)
}

fn detect(body: &[u8], url: &str) -> &'static Encoding {
    // The bytes that tell are those beyond ASCII; a long head may have none.
    let from = body.iter().position(|b| !b.is_ascii()).unwrap_or(0).saturating_sub(1024);
    let body = &body[from..];
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(&body[..body.len().min(DETECT_BYTES_MAX)], true);
    detector.guess(top_level_domain(url).map(str::as_bytes), Utf8Detection::Allow)
}

/// The last label of the URL's host, when it is of lower-case letters, as the detector wants it.
fn top_level_domain(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let host = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?.split(':').next()?;
    let last = host.rsplit('.').next()?;
    (!last.is_empty() && last.bytes().all(|b| b.is_ascii_lowercase())).then_some(last)
}

/// Entry for the fuzzer, and for a test over the same inputs: a label, a NUL, and a page. Whatever the
/// bytes, the text is within the limit, and valid UTF-8 stays what it is.
pub fn fuzz(data: &[u8]) {
    let at = data.iter().position(|b| *b == 0).unwrap_or(0);
    let (label, body) = (std::str::from_utf8(&data[..at]).ok(), &data[at..]);
    for bytes_max in [0, 1, 7, body.len(), usize::MAX] {
        let decoded = decode(body, label, "https://a.test/b", bytes_max);
        assert!(decoded.html.len() <= bytes_max, "{} of {bytes_max}", decoded.html.len());
        assert!(decoded.truncated || bytes_max >= body.len());
    }
    let whole = decode(body, None, "", usize::MAX);
    if whole.encoding == "UTF-8" && Encoding::for_bom(body).is_none() {
        assert_eq!(whole.html, String::from_utf8_lossy(body));
    }
    let declared = declared_in(body);
    assert!(
        declared.is_none_or(|encoding| Encoding::for_label(encoding.name().as_bytes()).is_some())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes(label in "([a-z0-9-]{0,12}\0)?", mut body: Vec<u8>, meta in "<meta [a-z=\"; -]{0,40}charset=[a-z0-9-]{1,12}>") {
            let mut page = label.into_bytes();
            page.append(&mut body);
            fuzz(&page);
            page.extend_from_slice(meta.as_bytes());
            fuzz(&page);
        }
    }

    const URL: &str = "https://example.com/";

    fn text(body: &[u8], label: Option<&str>) -> (String, &'static str) {
        let decoded = decode(body, label, URL, 1 << 20);
        (decoded.html.into_owned(), decoded.encoding)
    }

    #[test]
    fn who_wins() {
        let utf8 = "grün".as_bytes();
        let latin = b"gr\xfcn";
        assert_eq!(text(utf8, None), ("grün".into(), "UTF-8"));
        assert_eq!(
            text(utf8, Some("iso-8859-1")),
            ("grün".into(), "UTF-8"),
            "valid UTF-8 is UTF-8"
        );
        assert_eq!(text(latin, Some("ISO-8859-1")), ("grün".into(), "windows-1252"));
        assert_eq!(text(b"\xef\xbb\xbfgr\xc3\xbcn", Some("latin1")), ("grün".into(), "UTF-8"));
        assert_eq!(text(b"\xff\xfea\0", None), ("a".into(), "UTF-16LE"));
        let meta = b"<meta charset=koi8-r>\xf0\xf2";
        assert_eq!(text(meta, None).1, "KOI8-R");
        assert_eq!(
            text(meta, Some("windows-1251")).1,
            "windows-1251",
            "the header before the meta"
        );
        assert_eq!(text(meta, Some("utf-8")).1, "KOI8-R", "unless the bytes contradict it");
        assert_eq!(text(b"\x1b$B?e\x1b(B", Some("iso-2022-jp")), ("水".into(), "ISO-2022-JP"));
    }

    #[test]
    fn a_few_bad_bytes_do_not_change_the_encoding() {
        let mut page = "<p>grün, süß, schön, Käse, Öl, Äpfel".repeat(4).into_bytes();
        page.extend_from_slice(b"\xff and so on");
        let (text, encoding) = text(&page, Some("utf-8"));
        assert_eq!(encoding, "UTF-8");
        assert!(text.contains("süß") && text.contains('\u{fffd}'));
    }

    #[test]
    fn detection_without_any_declaration() {
        let russian = encoding_rs::WINDOWS_1251.encode("Вода течёт под мостом и не кончается").0;
        assert_eq!(text(&russian, None).1, "windows-1251");
        let wrong = encoding_rs::SHIFT_JIS.encode("水曜日はお休みです。また来週お越しください。").0;
        assert_eq!(text(&wrong, Some("utf-8")).1, "Shift_JIS", "declared as what it is not");
        assert_eq!(text(&wrong, Some("no-such-charset")).1, "Shift_JIS");
    }

    #[test]
    fn a_cut_falls_between_characters() {
        for max in 0..12 {
            let decoded = decode("aé水😀b".as_bytes(), None, URL, max);
            assert!("aé水😀b".starts_with(&*decoded.html), "{max}: {}", decoded.html);
            assert_eq!(decoded.encoding, "UTF-8", "{max}");
            assert_eq!(decoded.truncated, max < 11, "{max}");
            assert!(matches!(decoded.html, Cow::Borrowed(_)));
        }
        let wide = decode(b"\xe9\xe9\xe9\xe9", Some("latin1"), URL, 5);
        assert_eq!((&*wide.html, wide.truncated), ("éé", true));
    }

    #[test]
    fn domains() {
        assert_eq!(top_level_domain("http://u@a.b.jp:80/x.ru"), Some("jp"));
        assert_eq!(top_level_domain("http://1.2.3.4/"), None);
        assert_eq!(top_level_domain("x"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            label in "[a-z0-9-]{0,12}",
            max in 0..400_usize,
        ) {
            let decoded = decode(&body, Some(&label), URL, max);
            assert!(decoded.html.len() <= max);
        }
    }
}
