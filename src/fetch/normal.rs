//! The normal form of a URL, without a parser where the URL has it already: most URLs do, and a
//! cached page should not cost the allocations of a parse.

use super::target::{Target, TargetError};
use crate::limits::URL_BYTES_MAX;
use std::borrow::Cow;
use std::net::Ipv4Addr;

/// The URL as [`Target::parse`] writes it: what is fetched, and what the cache knows it by.
///
/// # Errors
/// As [`Target::parse`].
pub fn normal(url: &str) -> Result<Cow<'_, str>, TargetError> {
    if is_normal(url) {
        return Ok(Cow::Borrowed(url));
    }
    Target::parse(url).map(|target| Cow::Owned(target.as_str().to_owned()))
}

/// Whether a URL surely is one that [`Target::parse`] takes and leaves as it is. `false` says
/// nothing; a property test holds `true` to the parser.
#[must_use]
pub fn is_normal(url: &str) -> bool {
    let (rest, default_port) = match url.strip_prefix("https://") {
        Some(rest) => (rest, 443),
        None => match url.strip_prefix("http://") {
            Some(rest) => (rest, 80),
            None => return false,
        },
    };
    if url.len() > URL_BYTES_MAX {
        return false;
    }
    let Some(slash) = memchr::memchr(b'/', rest.as_bytes()) else { return false };
    let (authority, path) = rest.split_at(slash);
    let host = match authority.split_once(':') {
        Some((host, port)) if is_port(port, default_port) => host,
        Some(_) => return false,
        None => authority,
    };
    is_host(host) && is_path(path.as_bytes())
}

/// A port in decimal, without leading zeros, and not the one that goes without saying.
fn is_port(text: &str, default: u16) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain && text.parse::<u16>().is_ok_and(|port| port != default)
}

/// Lower-case names without IDNA's prefix, or an IPv4 address in its usual form.
fn is_host(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= 253 && host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.contains("--")
}

/// Path and query of bytes that no parser encodes, decodes or drops, and no segment of dots.
fn is_path(path: &[u8]) -> bool {
    let mut segment_starts = false;
    let mut in_query = false;
    for (at, byte) in path.iter().enumerate() {
        match byte {
            b'?' => in_query = true,
            b'/' if !in_query => {
                segment_starts = true;
                continue;
            }
            b'.' if segment_starts => return false,
            // An encoded dot is a dot to some.
            b'%' if !in_query && path.get(at + 1) == Some(&b'2') => return false,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'(' | b')' | b'*' | b'+' => {}
            b',' | b';' | b'=' | b':' | b'@' | b'%' | b'/' => {}
            _ => return false,
        }
        segment_starts = false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_urls_need_no_parser_and_odd_ones_get_it() {
        for url in [
            "http://127.0.0.1:8098/page/7?size=1500",
            "https://example.com/",
            "https://www.example-shop.co.uk/a/b_c,d;e=1:2@x/~me/(1)!?q=a+b&c=%20d/../e",
        ] {
            assert!(is_normal(url), "{url}");
            assert_eq!(normal(url), Ok(Cow::Borrowed(url)));
        }
        for (url, normal_form) in [
            ("https://Example.com/", "https://example.com/"),
            ("https://example.com", "https://example.com/"),
            ("https://example.com:443/", "https://example.com/"),
            ("https://example.com/a/../b", "https://example.com/b"),
            ("https://example.com/a/%2e%2E/b", "https://example.com/b"),
            ("https://example.com/a#b", "https://example.com/a"),
            ("https://example.com/ä", "https://example.com/%C3%A4"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ] {
            assert!(!is_normal(url), "{url}");
            assert_eq!(normal(url), Ok(Cow::Owned(normal_form.to_owned())));
        }
        assert!(normal("http://user@example.com/").is_err());
        assert!(normal("http://0x7f.1/").is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_for_normal_is_what_the_parser_writes(
            url in "https?://[a-z0-9.:-]{1,20}(/[a-zA-Z0-9%.?&=_~!$'()*+,;:@/^|\\[\\]`{}\"<> -]{0,20}){1,3}",
        ) {
            if is_normal(&url) {
                let parsed = Target::parse(&url).map(|target| target.as_str().to_owned());
                prop_assert_eq!(parsed, Ok(url));
            }
        }

        #[test]
        fn addresses_and_encoded_dots_are_no_exception(
            url in "http://([0-9a-fx]{1,3}\\.){1,4}[0-9a-z]{1,3}(:[0-9]{1,5})?(/[.a%2eE]{0,4}){1,3}(\\?[/.%2e]{0,5})?",
        ) {
            if is_normal(&url) {
                let parsed = Target::parse(&url).map(|target| target.as_str().to_owned());
                prop_assert_eq!(parsed, Ok(url));
            }
        }
    }
}
