//! The names that an open server goes by.
//!
//! A page that a browser shows can have its own name lead to any address, ours too (DNS rebinding);
//! what it asks for then is "same-origin", and it may read the answers. But a browser says in `Host`
//! what it was asked for, and a page can't be at `localhost` or at a plain address that is not its own.

use crate::limits::{HOST_BYTES_MAX, HOSTS_NAMED_MAX};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Names beside those that nobody else can have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    any: bool,
    names: Vec<String>,
}

impl Names {
    /// Reads `api.example.com`, without a port, or `*` for any name.
    ///
    /// # Errors
    /// The first that is none, or that there are too many.
    pub fn new(texts: &[String]) -> Result<Self, String> {
        if texts.len() > HOSTS_NAMED_MAX {
            return Err(format!("more than {HOSTS_NAMED_MAX} names"));
        }
        let mut named = Self::default();
        for text in texts {
            match text.as_str() {
                "*" => named.any = true,
                name if is_name(name) => named.names.push(name.to_owned()),
                other => return Err(format!("{other:?} is no host's name")),
            }
        }
        Ok(named)
    }

    /// Whether a `Host` (with or without a port) names this server.
    #[must_use]
    pub fn know(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            let inside = rest.split_once(']').map(|(inside, _)| inside);
            return inside.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.split(':').next().unwrap_or_default();
        // RFC 6761 §6.3: these names never leave the machine.
        let last = name.rsplit('.').next().unwrap_or_default();
        self.any
            || last.eq_ignore_ascii_case("localhost")
            || name.parse::<Ipv4Addr>().is_ok()
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Letters, digits, hyphens and underscores between dots.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.bytes().all(plain);
    text.len() <= HOST_BYTES_MAX && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn names(texts: &[&str]) -> Result<Names, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Names::new(&texts)
    }

    #[test]
    fn plain_addresses_and_localhost_are_ours_and_names_have_to_be_named() {
        let none = Names::default();
        for ours in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::1]:1",
        ] {
            assert!(none.know(ours), "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "[evil.example]",
            "[::1",
            "0x7f.1",
            "2130706433",
            "",
        ] {
            assert!(!none.know(other), "{other}");
        }
        let named = names(&["Forebay.internal", "forebay"]).unwrap();
        assert!(named.know("forebay:8080") && named.know("FOREBAY.internal"));
        assert!(!named.know("xforebay") && !named.know("forebay.internal.evil"));
        assert!(names(&["*"]).unwrap().know("evil.example"));
    }

    #[test]
    fn what_is_no_name_is_told() {
        for wrong in ["", "a b", "http://a", "a:80", "[::1]", ".a", "*.a"] {
            assert!(names(&[wrong]).is_err(), "{wrong}");
        }
        assert!(names(&["a"; HOSTS_NAMED_MAX + 1]).is_err());
    }
}
