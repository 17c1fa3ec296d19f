//! Header fields as a table of offsets that is used again for every head of a connection.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::limits::{REQUEST_FIELDS_MAX, RESPONSE_FIELDS_MAX};

/// Headers that are parsed on a small stack frame; nearly every head has fewer.
const FIELDS_COMMON: usize = 32;
const FIELDS_MAX: usize =
    if REQUEST_FIELDS_MAX > RESPONSE_FIELDS_MAX { REQUEST_FIELDS_MAX } else { RESPONSE_FIELDS_MAX };

/// A range of a head; heads are far shorter than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(range: Range<usize>) -> Self {
        let narrow = |at: usize| u32::try_from(at).expect("a head's length is limited");
        Self { start: narrow(range.start), end: narrow(range.end) }
    }

    pub(super) fn of<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        &buf[self.start as usize..self.end as usize]
    }

    pub(super) fn end(&self) -> usize {
        self.end as usize
    }
}

/// Where one field's name and value lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldSpan {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// The fields of one head, in the order of arrival.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'b> {
    buf: &'b [u8],
    spans: &'b [FieldSpan],
}

impl<'b> Fields<'b> {
    pub(super) fn new(buf: &'b [u8], spans: &'b [FieldSpan]) -> Self {
        Self { buf, spans }
    }

    pub(super) fn buffer(&self) -> &'b [u8] {
        self.buf
    }

    /// How many field lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Name (a token, so ASCII) and value (without white space around it) of each field line.
    pub fn iter(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + Clone + use<'b> {
        let buf = self.buf;
        self.spans.iter().map(move |span| (span.name.of(buf), span.value.of(buf)))
    }

    /// The first value of that name; names don't mind case (RFC 9110 §5.1).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The first value of that name, if it is UTF-8.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&'b str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Every value of that name, in the order of arrival.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
        self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// Whether a list field such as `Connection` has that member, whatever its case.
    #[must_use]
    pub fn list_has(&self, name: &str, member: &str) -> bool {
        self.all(name)
            .flat_map(list_members)
            .any(|found| found.eq_ignore_ascii_case(member.as_bytes()))
    }
}

/// Members of a comma-separated list without the white space around them and without empty ones
/// (RFC 9110 §5.6.1). For lists of tokens: it does not know quoted strings.
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows).filter(|member| !member.is_empty())
}

/// Without optional white space at both ends (RFC 9110 §5.6.3).
pub(super) fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Parses the field lines `buf[range]`, whose last line is the empty one, into `spans`.
pub(super) fn parse_fields(
    buf: &[u8],
    range: Range<usize>,
    spans: &mut Vec<FieldSpan>,
) -> Result<(), httparse::Error> {
    let lines = &buf[range];
    spans.clear();
    let mut few = [httparse::EMPTY_HEADER; FIELDS_COMMON];
    match httparse::parse_headers(lines, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = [httparse::EMPTY_HEADER; FIELDS_MAX];
            record(buf, httparse::parse_headers(lines, &mut many)?, spans)
        }
        parsed => record(buf, parsed?, spans),
    }
}

/// Parses a whole response head `buf[..len]` into `spans`; gives the minor version and the status.
pub(super) fn parse_response(
    buf: &[u8],
    range: Range<usize>,
    spans: &mut Vec<FieldSpan>,
) -> Result<(u8, u16), httparse::Error> {
    let mut headers = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut config = httparse::ParserConfig::default();
    // RFC 9112 §5.1: space before the colon is the server's fault; its meaning is not in doubt.
    config.allow_spaces_after_header_name_in_responses(true);
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        config.parse_response_with_uninit_headers(&mut response, &buf[range], &mut headers)?;
    spans.clear();
    for header in response.headers.iter() {
        push(buf, header, spans);
    }
    match (parsed, response.version, response.code) {
        (httparse::Status::Complete(_), Some(version), Some(code)) => Ok((version, code)),
        _ => Err(httparse::Error::Status),
    }
}

fn record(
    buf: &[u8],
    parsed: httparse::Status<(usize, &[httparse::Header<'_>])>,
    spans: &mut Vec<FieldSpan>,
) -> Result<(), httparse::Error> {
    let httparse::Status::Complete((_, headers)) = parsed else {
        return Err(httparse::Error::HeaderName);
    };
    for header in headers {
        push(buf, header, spans);
    }
    Ok(())
}

fn push(buf: &[u8], header: &httparse::Header<'_>, spans: &mut Vec<FieldSpan>) {
    // Both are slices of `buf`, so the difference of the addresses is an offset into it.
    let span = |part: &[u8]| {
        let start = part.as_ptr().addr().wrapping_sub(buf.as_ptr().addr());
        Span::new(start..start + part.len())
    };
    // The parser has trimmed it; an empty one may lie anywhere.
    let value = if header.value.is_empty() { Span::default() } else { span(header.value) };
    spans.push(FieldSpan { name: span(header.name.as_bytes()), value });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_and_trimmed() {
        let members: Vec<_> = list_members(b" a ,, b\t,c").collect();
        assert_eq!(members, [b"a".as_slice(), b"b", b"c"]);
        assert_eq!(list_members(b" , ").count(), 0);
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let buf = b"xxHost: a\r\nAccept:  b, C \r\naccept:\r\n\r\n";
        let mut spans = Vec::new();
        assert_eq!(parse_fields(buf, 2..buf.len(), &mut spans), Ok(()));
        let fields = Fields::new(buf, &spans);
        assert_eq!(fields.get("hOST"), Some(b"a".as_slice()));
        assert_eq!(fields.all("accept").collect::<Vec<_>>(), [b"b, C".as_slice(), b""]);
        assert!(fields.list_has("Accept", "c"));
        assert!(!fields.list_has("Accept", "d"));
        assert_eq!(fields.len(), 3);
    }
}
