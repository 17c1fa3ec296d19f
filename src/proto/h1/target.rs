//! Request targets (RFC 9112 §3.2) and hosts (RFC 9112 §3.2, RFC 3986 §3.2).

use super::fields::Span;
use super::{Method, Reject};
use crate::limits::{HOST_BYTES_MAX, REQUEST_TARGET_BYTES_MAX};

/// The form of a request's target (RFC 9112 §3.2). The authority form belongs to `CONNECT`, which
/// is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, with `OPTIONS` only.
    Asterisk,
}

/// Where the parts of a target lie in the buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Option<Span>,
}

impl Target {
    /// Parses a target that starts at `offset` of its buffer.
    pub(super) fn parse(target: &[u8], offset: usize, method: Method) -> Result<Self, Reject> {
        if target.len() > REQUEST_TARGET_BYTES_MAX {
            return Err(Reject::TargetTooLong);
        }
        if memchr::memchr(b'#', target).is_some() {
            return Err(Reject::TargetFragment);
        }
        if target == b"*" && method == Method::Options {
            let path = Span::new(offset..offset + 1);
            return Ok(Self { form: TargetForm::Asterisk, path, query: None, authority: None });
        }
        if target.starts_with(b"/") {
            return Self::with_path(target, 0, offset, TargetForm::Origin, None);
        }
        let scheme_len = [b"http://".as_slice(), b"https://"]
            .into_iter()
            .find(|s| target.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s)))
            .ok_or(Reject::BadTarget)?
            .len();
        let rest = &target[scheme_len..];
        let authority_len = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
        if !is_host_and_port(&rest[..authority_len]) {
            return Err(Reject::BadTarget);
        }
        let path_at = scheme_len + authority_len;
        let authority = Span::new(offset + scheme_len..offset + path_at);
        Self::with_path(target, path_at, offset, TargetForm::Absolute, Some(authority))
    }

    fn with_path(
        target: &[u8],
        path_at: usize,
        offset: usize,
        form: TargetForm,
        authority: Option<Span>,
    ) -> Result<Self, Reject> {
        let part = &target[path_at..];
        let path_len = memchr::memchr(b'?', part).unwrap_or(part.len());
        let path_ok = part[..path_len].iter().all(|&b| is_target_byte(b) && b != b'\\');
        if !path_ok || !part[path_len..].iter().all(|&b| is_target_byte(b)) {
            return Err(Reject::BadTarget);
        }
        let at = offset + path_at;
        let query = (path_len < part.len()).then(|| Span::new(at + path_len + 1..at + part.len()));
        Ok(Self { form, path: Span::new(at..at + path_len), query, authority })
    }
}

/// Visible ASCII without what every URL writer must escape. Stricter than browsers are on paper,
/// looser than RFC 3986: they send `|`, `[`, `{` and their like in queries unescaped.
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>')
}

/// Whether it is `uri-host [ ":" port ]` with a host that is not empty (RFC 9110 §4.2.1). Names
/// take letters, digits, `-._~` and percent-encoding, not the `sub-delims` that RFC 3986 has too:
/// no host on the web has a comma or a quote, and parsers disagree about them.
pub(super) fn is_host_and_port(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(close) = memchr::memchr(b']', rest) else { return false };
            let literal = std::str::from_utf8(&rest[..close]).unwrap_or_default();
            if literal.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match &rest[close + 1..] {
                [] => return true,
                [b':', port @ ..] => return is_port(port),
                _ => return false,
            }
        }
        _ => match memchr::memchr(b':', value) {
            Some(colon) => (&value[..colon], &value[colon + 1..]),
            None => (value, [].as_slice()),
        },
    };
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && is_name(host) && is_port(port)
}

fn is_name(host: &[u8]) -> bool {
    let mut bytes = host.iter();
    while let Some(&byte) = bytes.next() {
        let ok = match byte {
            b'%' => {
                bytes.next().is_some_and(u8::is_ascii_hexdigit)
                    && bytes.next().is_some_and(u8::is_ascii_hexdigit)
            }
            b'-' | b'.' | b'_' | b'~' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !ok {
            return false;
        }
    }
    true
}

/// RFC 3986 §3.2.3 allows an empty port.
fn is_port(port: &[u8]) -> bool {
    port.is_empty()
        || (port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && std::str::from_utf8(port).is_ok_and(|p| p.parse::<u16>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "a",
            "a.example",
            "a.example:80",
            "a:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "xn--bcher-kva.example",
            "a_b",
            "%41",
            "a:65535",
        ] {
            assert!(is_host_and_port(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "a:80:80",
            "a:65536",
            "a:x",
            "a:-1",
            "[::1",
            "[::1]x",
            "[zz]",
            "[]",
            "::1",
            "a\u{e9}",
            "%4",
            "%zz",
            "a:000080",
            "http://a",
            "a?b",
            "[fe80::1%25eth0]",
        ] {
            assert!(!is_host_and_port(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host_and_port(&[b'a'; HOST_BYTES_MAX + 1]));
    }

    #[test]
    fn absolute_targets_are_taken_apart() {
        let buf = b"GET HTTP://a.example:81?x=/y HTTP/1.1";
        let target = Target::parse(&buf[4..28], 4, Method::Get).ok();
        let target = target.filter(|t| t.form == TargetForm::Absolute);
        assert_eq!(target.map(|t| t.path.of(buf)), Some(b"".as_slice()));
        assert_eq!(target.and_then(|t| t.query).map(|q| q.of(buf)), Some(b"x=/y".as_slice()));
        let authority = target.and_then(|t| t.authority).map(|a| a.of(buf));
        assert_eq!(authority, Some(b"a.example:81".as_slice()));
    }
}
