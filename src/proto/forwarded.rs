//! Who a request comes from, as the proxies on its way say: `X-Forwarded-For`, and `Forwarded`
//! (RFC 7239).
//!
//! Each proxy appends, so only the right end of the list is worth anything: it was written by the
//! proxy that spoke to us. The list is walked from there to the left for as long as what stands in
//! it is itself a proxy that the operator named; the first other address is the client's. Whatever
//! a client put in front of it is never looked at.

use crate::limits::FORWARDED_HOPS_MAX;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which field the operator's proxies write. Only that one is read: a proxy that writes the one
/// passes the other on as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedField {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The client's address: `peer`, unless that is a trusted proxy that tells of another one.
///
/// `values` are the lines of the field, in the order of arrival. At an element that names no
/// address (`unknown`, `_hidden`, nonsense) the walk ends, and the proxy that wrote it stands for
/// its client.
pub fn client<'a>(
    peer: IpAddr,
    field: ForwardedField,
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer.to_canonical();
    let mut hops = 0;
    for value in values.rev() {
        let elements = match field {
            ForwardedField::XForwardedFor => Some(value.split(|&byte| byte == b',').collect()),
            ForwardedField::Forwarded => elements(value),
        };
        // A line that can't be read tells nothing, and nothing to the left of it can be placed.
        let Some(elements) = elements else { return client };
        for element in elements.into_iter().rev() {
            hops += 1;
            if hops > FORWARDED_HOPS_MAX || !trusted(client) {
                return client;
            }
            let told = match field {
                ForwardedField::XForwardedFor => address(element.trim_ascii()),
                ForwardedField::Forwarded => for_address(element),
            };
            let Some(told) = told else { return client };
            client = told;
        }
    }
    client
}

/// Elements of a `Forwarded` line; commas within quoted strings separate nothing. `None` where a
/// quote does not end.
fn elements(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, &byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                found.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&value[start..]);
    (!quoted).then_some(found)
}

/// The address of an element's one `for` parameter (RFC 7239 §4, §6).
fn for_address(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    // A semicolon within quotes belongs to a value that is no address; the cut then fails below.
    for pair in element.split(|&byte| byte == b';') {
        let Some(equals) = memchr::memchr(b'=', pair) else { continue };
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"for") {
            // RFC 7239 §4: each parameter occurs at most once.
            if found.is_some() {
                return None;
            }
            let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            found = Some(address(inner.unwrap_or(value))?);
        }
    }
    found
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| bracketed().map(IpAddr::V6))
        .map(|address| address.to_canonical())
}

/// For fuzzers and tests: nothing that stands left of an untrusted address changes the answer.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let other = IpAddr::from([198, 51, 100, 9]);
    let trusted = |address: IpAddr| matches!(address, IpAddr::V4(four) if four.octets()[0] == 10);
    for (field, last) in [
        (ForwardedField::XForwardedFor, &b"198.51.100.9"[..]),
        (ForwardedField::Forwarded, b"for=198.51.100.9"),
    ] {
        let _ = client(proxy, field, [data].into_iter(), trusted);
        assert_eq!(client(other, field, [data].into_iter(), trusted), other, "not trusted");
        assert_eq!(client(proxy, field, [data, last].into_iter(), trusted), other, "appended");
        let quotes = data.iter().filter(|&&byte| byte == b'"' || byte == b'\\').count();
        if quotes == 0 || field == ForwardedField::XForwardedFor {
            let line = [data, b", ", last].concat();
            assert_eq!(client(proxy, field, [&line[..]].into_iter(), trusted), other, "in line");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::ForwardedField::{Forwarded, XForwardedFor};
    use super::*;
    use proptest::prelude::*;

    fn seen(field: ForwardedField, peer: &str, lines: &[&str]) -> String {
        let trusted =
            |address: IpAddr| ["10.0.0.1", "10.0.0.2", "fd00::1"].contains(&&*address.to_string());
        let values = lines.iter().map(|line| line.as_bytes());
        client(peer.parse().unwrap(), field, values, trusted).to_string()
    }

    #[test]
    fn a_stranger_is_who_it_is_whatever_it_says() {
        assert_eq!(seen(XForwardedFor, "198.51.100.7", &["1.2.3.4"]), "198.51.100.7");
        assert_eq!(seen(Forwarded, "198.51.100.7", &["for=1.2.3.4"]), "198.51.100.7");
        assert_eq!(seen(XForwardedFor, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_right_end_counts() {
        for (lines, client) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["1.1.1.1, 192.0.2.1"], "192.0.2.1"),
            (&["1.1.1.1", "192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (&["1.1.1.1, 192.0.2.1,10.0.0.2", "10.0.0.1"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]:80"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["1.1.1.1, unknown"], "10.0.0.1"),
            (&["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["1.1.1.1,"], "10.0.0.1"),
            (&["10.0.0.2"], "10.0.0.2"),
        ] {
            assert_eq!(seen(XForwardedFor, "10.0.0.1", lines), client, "{lines:?}");
        }
        assert_eq!(seen(XForwardedFor, "::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        for (lines, client) in [
            (&["for=192.0.2.1;proto=http;by=203.0.113.43"][..], "192.0.2.1"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["by=a ; FOR = \"192.0.2.1:1\""], "192.0.2.1"),
            (&["for=1.1.1.1, for=192.0.2.1, for=10.0.0.2"], "192.0.2.1"),
            (&["for=_hidden, for=_SEVKISEK"], "10.0.0.1"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=192.0.2.1;for=1.1.1.1"], "10.0.0.1"),
            (&["for=\"1.1.1.1, for=192.0.2.1"], "10.0.0.1"),
            (&["for=\"x, for=1.1.1.1\", for=192.0.2.1"], "192.0.2.1"),
            (&["for=\"1.1.1.1\\\"\""], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
        ] {
            assert_eq!(seen(Forwarded, "10.0.0.1", lines), client, "{lines:?}");
        }
    }

    #[test]
    fn a_list_of_proxies_without_end_is_cut() {
        let list = vec!["10.0.0.2"; 10_000].join(",");
        let line = format!("1.1.1.1,{list}");
        assert_eq!(seen(XForwardedFor, "10.0.0.1", &[&line]), "10.0.0.2");
    }

    proptest! {
        #[test]
        fn what_stands_left_of_a_stranger_changes_nothing(
            data in prop::collection::vec(any::<u8>(), 0..100), text in "[for=\";,0-9.: ]{0,60}",
        ) {
            fuzz(&data);
            fuzz(text.as_bytes());
        }
    }
}
