//! The PROXY protocol, versions 1 and 2: how a proxy that passes bytes on says whose they are.
//!
//! A receiver must never guess whether a header is there (specification §2): it is read where the
//! operator said so, from proxies that the operator named, and nowhere else.

use crate::limits::PROXY_HEADER_BYTES_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a version 2 header begins with (specification §2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its CRLF included (specification §2.1).
const LINE_BYTES_MAX: usize = 107;
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Bytes that the header takes; the client's own follow.
    pub len: usize,
    /// The client; `None` where the proxy speaks for itself (health checks) or can't tell.
    pub source: Option<SocketAddr>,
}

/// Bytes that are no PROXY header, or one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY protocol header")]
pub struct BadProxyHeader;

/// Reads the header at the front of all bytes that have come so far; `None`: more are needed.
///
/// The answer does not depend on how the bytes were cut.
///
/// # Errors
/// As soon as the bytes can't become a header of at most [`PROXY_HEADER_BYTES_MAX`] bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_line(bytes),
        Some(_) => parse_binary(bytes),
    }
}

// Specification §2.1: PROXY SP protocol SP source SP destination SP port SP port CRLF
fn parse_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let known = bytes.len().min(6);
    if bytes[..known] != b"PROXY "[..known] {
        return Err(BadProxyHeader);
    }
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < LINE_BYTES_MAX { Ok(None) } else { Err(BadProxyHeader) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(BadProxyHeader)?;
    let line = std::str::from_utf8(line).map_err(|_| BadProxyHeader)?;
    let mut words = line.split(' ').skip(1);
    let len = end + 1;
    let source = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(line_source::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(line_source::<Ipv6Addr>(words)?),
        _ => return Err(BadProxyHeader),
    };
    Ok(Some(ProxyHeader { len, source }))
}

fn line_source<'a, A>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, BadProxyHeader>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut next = || words.next().ok_or(BadProxyHeader);
    let (source, destination, from, to) = (next()?, next()?, next()?, next()?);
    let address = |text: &str| text.parse::<A>().map_err(|_| BadProxyHeader);
    let (source, _) = (address(source)?, address(destination)?);
    let (port, _) = (port(from)?, port(to)?);
    if words.next().is_some() {
        return Err(BadProxyHeader);
    }
    Ok(SocketAddr::new(source.into(), port))
}

/// Decimal without sign or leading zeros.
fn port(text: &str) -> Result<u16, BadProxyHeader> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(BadProxyHeader);
    }
    text.parse().map_err(|_| BadProxyHeader)
}

// Specification §2.2
fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(BadProxyHeader);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 15, fixed[13]);
    if version != 2 || command > 1 {
        return Err(BadProxyHeader);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > PROXY_HEADER_BYTES_MAX {
        return Err(BadProxyHeader);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let source = match (command, family) {
        // LOCAL: the proxy speaks for itself, whatever the rest says.
        (0, _) => None,
        (1, 0x11) => Some(binary_source::<4>(body, 8)?),
        (1, 0x21) => Some(binary_source::<16>(body, 32)?),
        // Unspecified, datagram and UNIX families name nobody that speaks TCP to us.
        (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Err(BadProxyHeader),
    };
    Ok(Some(ProxyHeader { len: FIXED_BYTES + length, source }))
}

/// The source address and port of a body whose two addresses take `ports_at` bytes; what follows
/// the ports are extensions (TLV), which nobody here needs.
fn binary_source<const N: usize>(body: &[u8], ports_at: usize) -> Result<SocketAddr, BadProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let source = body.first_chunk::<N>().ok_or(BadProxyHeader)?;
    let ports = body.get(ports_at..ports_at + 4).ok_or(BadProxyHeader)?;
    Ok(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([ports[0], ports[1]])))
}

/// For fuzzers and tests: any bytes give the same answer however they are cut, within the limits.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let whole = parse(data);
    for cut in 0..data.len() {
        match parse(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(header)) => {
                assert!(header.len <= cut, "a header of bytes that have not come");
                assert_eq!(whole, Ok(Some(header)), "cut at {cut}");
            }
            Err(bad) => assert_eq!(whole, Err(bad), "cut at {cut}"),
        }
    }
    if let Ok(Some(header)) = whole {
        assert!(header.len <= PROXY_HEADER_BYTES_MAX);
    }
    if whole == Ok(None) {
        assert!(data.len() < PROXY_HEADER_BYTES_MAX, "a header without end");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn binary(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, body].concat()
    }

    fn source(bytes: &[u8]) -> Option<SocketAddr> {
        let header = parse(bytes).unwrap().unwrap();
        assert_eq!(header.len, bytes.len());
        header.source
    }

    #[test]
    fn version_1() {
        let four = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
        assert_eq!(source(four), Some("192.0.2.7:56324".parse().unwrap()));
        let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n";
        assert_eq!(source(six), Some("[2001:db8::7]:1".parse().unwrap()));
        assert_eq!(source(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(source(b"PROXY UNKNOWN anything at all\r\n"), None);
        let followed = [&four[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed).unwrap().unwrap().len, four.len());
    }

    #[test]
    fn what_is_no_version_1_is_told_at_once() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXYTCP4",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            &[b"PROXY UNKNOWN "[..].to_vec(), vec![b'x'; 200]].concat(),
        ] {
            assert_eq!(parse(bad), Err(BadProxyHeader), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn version_2() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x1f, 0x90, 1, 187];
        assert_eq!(source(&binary(0x21, 0x11, &four)), Some("192.0.2.7:8080".parse().unwrap()));
        let with_tlv = [&four[..], &[4, 0, 2, 1, 2]].concat();
        assert_eq!(source(&binary(0x21, 0x11, &with_tlv)), Some("192.0.2.7:8080".parse().unwrap()));
        let mut six = [0; 36];
        six[0..2].copy_from_slice(&[0x20, 1]);
        six[33] = 9;
        assert_eq!(source(&binary(0x21, 0x21, &six)), Some("[2001::]:9".parse().unwrap()));
        assert_eq!(source(&binary(0x20, 0x11, &four)), None, "LOCAL");
        assert_eq!(source(&binary(0x21, 0x00, &[])), None, "unspecified");
        for bad in [
            binary(0x11, 0x11, &four),
            binary(0x22, 0x11, &four),
            binary(0x21, 0x41, &four),
            binary(0x21, 0x11, &four[..11]),
            binary(0x21, 0x21, &six[..35]),
            binary(0x21, 0x00, &[0; PROXY_HEADER_BYTES_MAX]),
        ] {
            assert_eq!(parse(&bad), Err(BadProxyHeader), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&data);
            fuzz(&[&b"PROXY TCP4 "[..], &data].concat());
            fuzz(&[&SIGNATURE[..], &[0x21, 0x11, 0], &data].concat());
        }
    }
}
