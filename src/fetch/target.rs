//! What a URL points to, and which URLs are taken at all.
//!
//! Parsers disagree about the odd forms of a URL, and where two of them disagree (a client's filter
//! and this server, this server and an origin), somebody can be led to a host that was not meant.
//! So one parser decides (`url`, the WHATWG algorithm), and forms that others read differently are
//! refused instead of normalised:
//! - anything but `http://` or `https://` written out (`http:host`, `https:///host`);
//! - userinfo (`http://user@host/`): credentials don't belong in a crawl's URL, and `@` hides hosts;
//! - backslashes before the query, control characters, surrounding white space;
//! - a `%` in the authority: percent-encoded hosts and IPv6 zone ids (RFC 6874);
//! - IPv4 addresses that are not four plain decimal numbers (octal, hex, short, full-width digits);
//! - hosts that are no DNS names once in ASCII form (IDNA is applied: `bücher.example` is taken as
//!   `xn--bcher-kva.example`), port 0, more than [`URL_BYTES_MAX`] bytes.
//!
//! One trailing dot of a name is dropped, so that rules, certificates and `Host` see one spelling.
//! The fragment is dropped: it is the client's own (RFC 9110 §7.1).

use crate::fetch::egress::is_host_name;
use crate::limits::URL_BYTES_MAX;
use std::fmt;
use std::net::IpAddr;
use url::Url;

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL without one means (RFC 9110 §4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port: what connections are pooled by and what redirects may leave (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// A name in ASCII, lower case, without a trailing dot, or the text of an IP address (IPv6
    /// without brackets).
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// A URL that was checked, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    origin: Origin,
    ip: Option<IpAddr>,
    url: Url,
}

/// Why a URL is not taken; the text says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TargetError {
    /// Longer than [`URL_BYTES_MAX`] bytes.
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// White space around it, or a control character in it.
    #[error("the URL has white space around it or a control character in it")]
    Whitespace,
    /// Another scheme, or `http:` without `//host`.
    #[error("the URL must start with http:// or https:// and a host")]
    Scheme,
    /// `user@` or `user:password@`.
    #[error("the URL holds userinfo before its host; send credentials as header fields")]
    Userinfo,
    /// `\` where some parsers see `/`.
    #[error("the URL has a backslash before its query")]
    Backslash,
    /// `%` in host or port.
    #[error("the URL's host is percent-encoded or has a zone id")]
    EncodedHost,
    /// An IPv4 address in an odd spelling.
    #[error("the URL's IPv4 address is not four decimal numbers")]
    OddIpv4,
    /// No DNS name.
    #[error("the URL's host is not a valid name or address")]
    Host,
    /// Not 1 to 65535.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// Anything else that the WHATWG algorithm refuses.
    #[error("the URL cannot be parsed")]
    Syntax,
}

impl Target {
    /// Parses and checks an absolute URL, from a client or from a `Location` field.
    ///
    /// # Errors
    /// The first rule of this module that it breaks.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        check_text(text)?;
        let rest = after_scheme(text).ok_or(TargetError::Scheme)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        check_authority(authority)?;
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::InvalidPort => TargetError::Port,
            url::ParseError::InvalidIpv4Address => TargetError::OddIpv4,
            url::ParseError::IdnaError
            | url::ParseError::InvalidDomainCharacter
            | url::ParseError::InvalidIpv6Address
            | url::ParseError::EmptyHost => TargetError::Host,
            _ => TargetError::Syntax,
        })?;
        Self::from_url(url, authority)
    }

    /// Resolves a `Location` field against this target (RFC 9110 §10.2.2) and checks the outcome
    /// as [`Target::parse`] does.
    ///
    /// # Errors
    /// The first rule of this module that it breaks.
    pub fn join(&self, location: &str) -> Result<Self, TargetError> {
        check_text(location)?;
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.origin.scheme.as_str()));
        }
        if has_scheme(location) {
            return Self::parse(location);
        }
        let joined = self.url.join(location).map_err(|_| TargetError::Syntax)?;
        Self::parse(joined.as_str())
    }

    fn from_url(mut url: Url, authority: &str) -> Result<Self, TargetError> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(TargetError::Scheme),
        };
        url.set_fragment(None);
        let written_host = strip_port(authority);
        let (host, ip) = match url.host().ok_or(TargetError::Host)? {
            url::Host::Ipv4(v4) if v4.to_string() == written_host => {
                (v4.to_string(), Some(IpAddr::V4(v4)))
            }
            url::Host::Ipv4(_) => return Err(TargetError::OddIpv4),
            url::Host::Ipv6(v6) => (v6.to_string(), Some(IpAddr::V6(v6))),
            url::Host::Domain(name) => (name.strip_suffix('.').unwrap_or(name).to_owned(), None),
        };
        if ip.is_none() {
            if !is_host_name(&host) {
                return Err(TargetError::Host);
            }
            url.set_host(Some(&host)).map_err(|_| TargetError::Host)?;
        }
        let port = url.port_or_known_default().filter(|&p| p > 0).ok_or(TargetError::Port)?;
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(TargetError::TooLong); // percent-encoding has made it longer
        }
        Ok(Self { origin: Origin { scheme, host, port }, ip, url })
    }

    /// Scheme, host and port.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The host as the guard and the resolver take it; see [`Origin::host`].
    #[must_use]
    pub fn host(&self) -> &str {
        &self.origin.host
    }

    /// The address, where the URL names one instead of a name.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The normalised URL, without a fragment.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The `Host` field: the port only where it is not the scheme's own (RFC 9110 §7.2).
    #[must_use]
    pub fn host_field(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Path and query: the request target in origin-form (RFC 9112 §3.2.1).
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.url[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The checks that no parser is needed for.
fn check_text(text: &str) -> Result<(), TargetError> {
    if text.len() > URL_BYTES_MAX {
        return Err(TargetError::TooLong);
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(TargetError::Whitespace);
    }
    if text.split(['?', '#']).next().unwrap_or_default().contains('\\') {
        return Err(TargetError::Backslash);
    }
    Ok(())
}

/// What follows `http://` or `https://`, in any case.
fn after_scheme(text: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The checks of what stands between `//` and the path, as it was written.
fn check_authority(authority: &str) -> Result<(), TargetError> {
    if authority.contains('@') {
        return Err(TargetError::Userinfo);
    }
    if authority.contains('%') {
        return Err(TargetError::EncodedHost);
    }
    // `http:///host` and `http://:80/`: the WHATWG algorithm skips slashes, others see no host.
    if strip_port(authority).is_empty() {
        return Err(TargetError::Scheme);
    }
    if authority.ends_with(':') {
        return Err(TargetError::Port);
    }
    Ok(())
}

/// The authority without its port; brackets of an IPv6 address stay.
fn strip_port(authority: &str) -> &str {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_bracket..].find(':') {
        Some(at) => &authority[..after_bracket + at],
        None => authority,
    }
}

/// Whether a reference starts with a scheme (RFC 3986 §3.1), not with a path that has a colon.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::TargetError::*;
    use super::*;
    use proptest::prelude::*;

    /// What is taken: URL, normalised, host, Host field, path and query.
    const TAKEN: &[(&str, &str, &str, &str, &str)] = &[
        ("http://a.test", "http://a.test/", "a.test", "a.test", "/"),
        ("HTTP://A.Test/X?Y#z", "http://a.test/X?Y", "a.test", "a.test", "/X?Y"),
        ("https://a.test:443/", "https://a.test/", "a.test", "a.test", "/"),
        ("http://a.test:443/", "http://a.test:443/", "a.test", "a.test:443", "/"),
        ("http://a.test:080/", "http://a.test/", "a.test", "a.test", "/"),
        ("http://a.test./p", "http://a.test/p", "a.test", "a.test", "/p"),
        ("http://a.test.:81/p", "http://a.test:81/p", "a.test", "a.test:81", "/p"),
        (
            "http://bücher.test/ü",
            "http://xn--bcher-kva.test/%C3%BC",
            "xn--bcher-kva.test",
            "xn--bcher-kva.test",
            "/%C3%BC",
        ),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/", "127.0.0.1", "127.0.0.1:8080", "/"),
        ("http://[::1]/", "http://[::1]/", "::1", "[::1]", "/"),
        ("http://[0:0::0001]:81/", "http://[::1]:81/", "::1", "[::1]:81", "/"),
        (
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "/",
        ),
        ("http://a_b.test/a b", "http://a_b.test/a%20b", "a_b.test", "a_b.test", "/a%20b"),
        ("http://a.test/../b/./c", "http://a.test/b/c", "a.test", "a.test", "/b/c"),
        (
            "http://a.test/?u=http://x@y\\z",
            "http://a.test/?u=http://x@y\\z",
            "a.test",
            "a.test",
            "/?u=http://x@y\\z",
        ),
        ("http://a.test?q", "http://a.test/?q", "a.test", "a.test", "/?q"),
        ("http://localhost:3000/", "http://localhost:3000/", "localhost", "localhost:3000", "/"),
        ("http://a.test/@me:x", "http://a.test/@me:x", "a.test", "a.test", "/@me:x"),
    ];

    #[test]
    fn takes_and_normalises() {
        for &(text, url, host, host_field, path) in TAKEN {
            let target = Target::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(target.as_str(), url);
            assert_eq!(target.host(), host);
            assert_eq!(target.host_field(), host_field);
            assert_eq!(target.path_and_query(), path);
        }
    }

    const REFUSED: &[(&str, TargetError)] = &[
        ("", Scheme),
        ("a.test", Scheme),
        ("//a.test/", Scheme),
        ("ftp://a.test/", Scheme),
        ("file:///etc/passwd", Scheme),
        ("javascript:alert(1)", Scheme),
        ("httpx://a.test/", Scheme),
        ("https", Scheme),
        ("http:", Scheme),
        ("http:/a.test/", Scheme),
        ("http:a.test", Scheme),
        ("http://", Scheme),
        ("http:///a.test/", Scheme),
        ("http:////a.test/", Scheme),
        ("http://:80/", Scheme),
        ("http://?q", Scheme),
        ("http://user@a.test/", Userinfo),
        ("http://user:pass@a.test/", Userinfo),
        ("http://@a.test/", Userinfo),
        ("http://a.test@127.0.0.1/", Userinfo),
        ("http://a.test\\@127.0.0.1/", Backslash),
        ("http:\\\\a.test/", Backslash),
        ("http://a.test/\\b", Backslash),
        (" http://a.test/", Whitespace),
        ("http://a.test/ ", Whitespace),
        ("http://a.test/\u{a0}", Whitespace),
        ("http://a.te\tst/", Whitespace),
        ("http://a.test/\r\nX: y", Whitespace),
        ("http://a.test/\0", Whitespace),
        ("http://a.test/\u{7f}", Whitespace),
        ("http://a.test/\u{85}x", Whitespace),
        ("http://%61.test/", EncodedHost),
        ("http://127.0.0.1%2f/", EncodedHost),
        ("http://[fe80::1%25eth0]/", EncodedHost),
        ("http://[fe80::1%eth0]/", EncodedHost),
        ("http://a.test:%38%30/", EncodedHost),
        ("http://0177.0.0.1/", OddIpv4),
        ("http://0x7f.0.0.1/", OddIpv4),
        ("http://0x7f000001/", OddIpv4),
        ("http://2130706433/", OddIpv4),
        ("http://127.1/", OddIpv4),
        ("http://127.0.1/", OddIpv4),
        ("http://127.0.0.1./", OddIpv4),
        ("http://010.0.0.1/", OddIpv4),
        ("http://１２７.0.0.1/", OddIpv4),
        ("http://127。0。0。1/", OddIpv4),
        ("http://1.2.3.4.5/", OddIpv4),
        ("http://256.1.1.1/", OddIpv4),
        ("http://a.0x1/", OddIpv4),
        ("http://a..test/", Host),
        ("http://.a.test/", Host),
        ("http://a.test../", Host),
        ("http://./", Host),
        ("http://a test/", Host),
        ("http://a<b/", Host),
        ("http://a*b/", Host),
        ("http://a,b.test/", Host),
        ("http://a;b.test/", Host),
        ("http://a'b.test/", Host),
        ("http://[::1/", Host),
        ("http://[::g]/", Host),
        ("http://[1.2.3.4]/", Host),
        ("http://::1/", Scheme),
        ("http://a.test／@b/", Userinfo),
        ("http://a.test／b/", Host),
        ("http://a.test:/", Port),
        ("http://a.test:0/", Port),
        ("http://a.test:65536/", Port),
        ("http://a.test:-1/", Port),
        ("http://a.test:8o/", Port),
    ];

    #[test]
    fn refuses_what_parsers_disagree_on() {
        for &(text, error) in REFUSED {
            assert_eq!(Target::parse(text).map(|t| t.as_str().to_owned()), Err(error), "{text:?}");
        }
        let long_label = format!("http://{}.test/", "a".repeat(64));
        assert_eq!(Target::parse(&long_label), Err(Host));
        let long_name = format!("http://{}test/", "abcdefgh.".repeat(30));
        assert_eq!(Target::parse(&long_name), Err(Host));
        let long = format!("http://a.test/{}", "a".repeat(URL_BYTES_MAX));
        assert_eq!(Target::parse(&long), Err(TooLong));
        let grows = format!("http://a.test/{}", " ü".repeat(URL_BYTES_MAX / 4));
        assert_eq!(Target::parse(&grows), Err(TooLong));
    }

    #[test]
    fn a_fragment_may_hold_anything_and_is_dropped() {
        let target = Target::parse("http://127.0.0.1#@a.test/x\\").unwrap();
        assert_eq!((target.host(), target.path_and_query()), ("127.0.0.1", "/"));
    }

    #[test]
    fn locations_are_resolved_and_checked_again() {
        let base = Target::parse("https://a.test/b/c?d").unwrap();
        for (location, expected) in [
            ("/x", Ok("https://a.test/x")),
            ("x", Ok("https://a.test/b/x")),
            ("?x", Ok("https://a.test/b/c?x")),
            ("", Ok("https://a.test/b/c?d")),
            ("#f", Ok("https://a.test/b/c?d")),
            ("../x:y", Ok("https://a.test/x:y")),
            ("//b.test/x", Ok("https://b.test/x")),
            ("http://b.test/x", Ok("http://b.test/x")),
            ("//u@b.test/x", Err(Userinfo)),
            ("///b.test", Err(Scheme)),
            ("/\\b.test", Err(Backslash)),
            ("\\\\b.test", Err(Backslash)),
            ("https:b.test", Err(Scheme)),
            ("https:/b.test", Err(Scheme)),
            ("ftp://b.test/", Err(Scheme)),
            ("javascript:alert(1)", Err(Scheme)),
            ("//127.1/", Err(OddIpv4)),
            ("/a\tb", Err(Whitespace)),
        ] {
            let joined = base.join(location);
            assert_eq!(
                joined.as_ref().map(Target::as_str),
                expected.as_ref().copied(),
                "{location:?}"
            );
        }
    }

    proptest! {
        /// A taken URL reads the same again, and is what goes on the wire: no byte that could end
        /// a request line or a field.
        #[test]
        fn is_stable_and_safe_to_write(text in "https?://[a-zA-Z0-9.:@%\\[\\]\\\\ü／-]{1,30}[/?#]?.{0,30}") {
            if let Ok(target) = Target::parse(&text) {
                let again = Target::parse(target.as_str());
                prop_assert_eq!(again.as_ref(), Ok(&target));
                let clean = |s: &str| s.bytes().all(|b| b.is_ascii_graphic());
                prop_assert!(clean(target.path_and_query()) && clean(&target.host_field()));
                prop_assert!(target.path_and_query().starts_with('/'));
            }
        }

        #[test]
        fn joining_never_panics_and_never_leaves_the_rules(location in ".{0,40}") {
            let base = Target::parse("https://a.test/b/c?d").unwrap();
            if let Ok(target) = base.join(&location) {
                let again = Target::parse(target.as_str());
                prop_assert_eq!(again.as_ref(), Ok(&target));
            }
        }
    }
}
