//! Agreeing on permessage-deflate (RFC 7692 §5 and §7.1).

use std::fmt::Write as _;

use crate::limits::WS_OFFERS_MAX;

/// What this server wants of a compressed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether we compress a message with the ones before it in view, if the client lets us.
    /// Better ratio, about 330 KiB per active connection with the largest window.
    pub server_context_takeover: bool,
    /// Whether the client may do the same; costs about 48 KiB per active connection.
    pub client_context_takeover: bool,
    /// log2 of our compressor's window in bytes at most, 9 to 15.
    pub server_window_bits: u8,
    /// log2 of the client's window in bytes at most, 9 to 15, for clients that let us choose. It
    /// saves memory on their side; ours always has room for the largest.
    pub client_window_bits: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            server_context_takeover: true,
            client_context_takeover: true,
            server_window_bits: 15,
            client_window_bits: 15,
        }
    }
}

/// What both sides have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// We may refer to earlier messages.
    pub server_context_takeover: bool,
    /// The client may refer to earlier messages.
    pub client_context_takeover: bool,
    /// log2 of our window in bytes, 9 to 15.
    pub server_window_bits: u8,
    /// log2 of the client's window in bytes, 8 to 15.
    pub client_window_bits: u8,
}

/// A `Sec-WebSocket-Extensions` field that does not follow its grammar (RFC 6455 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes the client's first offer that we can honour: the agreement and the answer's field value.
///
/// `fields` are the values of the request's `Sec-WebSocket-Extensions` fields. Unknown extensions,
/// unknown or repeated parameters and values out of range decline their offer, not the connection.
pub(super) fn negotiate<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    policy: &Policy,
) -> Result<Option<(Agreement, String)>, Malformed> {
    let mut chosen = None;
    let mut offers = 0;
    for field in fields {
        let mut scan = Scan { rest: field };
        while let Some(offer) = scan.offer()? {
            offers += 1;
            if offers > WS_OFFERS_MAX {
                return Err(Malformed);
            }
            if chosen.is_none() && offer.name.eq_ignore_ascii_case("permessage-deflate") {
                chosen = answer(&offer.params, policy);
            }
        }
    }
    Ok(chosen)
}

/// One element of the field: an extension with its parameters.
struct Offer<'a> {
    name: &'a str,
    params: Vec<(&'a str, Option<String>)>,
}

/// Judges one offer of permessage-deflate.
fn answer(params: &[(&str, Option<String>)], policy: &Policy) -> Option<(Agreement, String)> {
    let (mut server_alone, mut client_alone) = (false, false);
    // Outer `None`: not named. Inner `None`: named without a value.
    let (mut server_bits, mut client_bits) = (None, None);
    for (name, value) in params {
        let bits = value.as_deref().map(window_bits);
        let repeated = match (*name, bits) {
            ("server_no_context_takeover", None) => std::mem::replace(&mut server_alone, true),
            ("client_no_context_takeover", None) => std::mem::replace(&mut client_alone, true),
            ("server_max_window_bits", Some(Some(bits))) => server_bits.replace(bits).is_some(),
            ("client_max_window_bits", None) => client_bits.replace(None).is_some(),
            ("client_max_window_bits", Some(Some(bits))) => {
                client_bits.replace(Some(bits)).is_some()
            }
            _ => return None, // RFC 7692 §7: unknown, or a value that it may not have
        };
        if repeated {
            return None;
        }
    }
    // zlib can't compress with a window of 256 bytes.
    if server_bits == Some(8) {
        return None;
    }
    let agreement = Agreement {
        server_context_takeover: policy.server_context_takeover && !server_alone,
        client_context_takeover: policy.client_context_takeover && !client_alone,
        server_window_bits: policy.server_window_bits.min(server_bits.unwrap_or(15)).clamp(9, 15),
        // RFC 7692 §7.1.2.2: without the client's word we may not limit its window.
        client_window_bits: client_bits
            .map_or(15, |hint| policy.client_window_bits.clamp(9, 15).min(hint.unwrap_or(15))),
    };
    let mut field = String::from("permessage-deflate");
    if !agreement.server_context_takeover {
        field.push_str("; server_no_context_takeover");
    }
    if !agreement.client_context_takeover {
        field.push_str("; client_no_context_takeover");
    }
    // RFC 7692 §7.1.2.1: an offer that names our window is accepted by naming it too.
    if server_bits.is_some() || agreement.server_window_bits < 15 {
        let _ = write!(field, "; server_max_window_bits={}", agreement.server_window_bits);
    }
    if agreement.client_window_bits < 15 {
        let _ = write!(field, "; client_max_window_bits={}", agreement.client_window_bits);
    }
    Some((agreement, field))
}

/// RFC 7692 §7.1.2: a decimal number from 8 to 15 without leading zeroes.
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (!value.starts_with(['0', '+'])).then_some(bits)
}

/// A cursor over a field value of RFC 6455 §9.1's grammar.
struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    /// The next element; empty ones are skipped (RFC 9110 §5.6.1).
    fn offer(&mut self) -> Result<Option<Offer<'a>>, Malformed> {
        while self.eat(b',') {}
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut offer = Offer { name: self.token()?, params: Vec::new() };
        while self.eat(b';') {
            let name = self.token()?;
            let value = if self.eat(b'=') { Some(self.value()?) } else { None };
            offer.params.push((name, value));
        }
        if self.rest.is_empty() || self.eat(b',') { Ok(Some(offer)) } else { Err(Malformed) }
    }

    /// Eats `byte` with the white space around it, if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        let Some(rest) = self.rest.strip_prefix(&[byte]) else { return false };
        self.rest = rest.trim_ascii_start();
        true
    }

    /// RFC 9110 §5.6.2.
    fn token(&mut self) -> Result<&'a str, Malformed> {
        let end = self.rest.iter().position(|byte| !is_tchar(*byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        let token = std::str::from_utf8(token).expect("tchars are ASCII");
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or a quoted string that holds a token (RFC 6455 §9.1).
    fn value(&mut self) -> Result<String, Malformed> {
        let Some(quoted) = self.rest.strip_prefix(b"\"") else {
            return self.token().map(str::to_owned);
        };
        let mut value = String::new();
        let mut bytes = quoted.iter();
        loop {
            let byte = match bytes.next().ok_or(Malformed)? {
                b'"' => break,
                b'\\' => bytes.next().ok_or(Malformed)?,
                byte => byte,
            };
            if !is_tchar(*byte) {
                return Err(Malformed);
            }
            value.push(char::from(*byte));
        }
        self.rest = bytes.as_slice();
        if value.is_empty() { Err(Malformed) } else { Ok(value) }
    }
}

/// RFC 9110 §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn field_for(offer: &str, policy: &Policy) -> Option<String> {
        negotiate([offer.as_bytes()].into_iter(), policy).unwrap().map(|(_, field)| field)
    }

    #[test]
    fn offers_and_their_answers() {
        let cases = [
            ("permessage-deflate", "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
            (
                "permessage-deflate; client_max_window_bits=8",
                "permessage-deflate; client_max_window_bits=8",
            ),
            (
                "PerMessage-Deflate;server_max_window_bits=\"1\\0\" ; client_no_context_takeover",
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
            ),
            (
                "permessage-deflate; server_max_window_bits=15; server_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
            ),
            // The first offer that can be honoured wins.
            (
                "x-webkit-deflate-frame, , permessage-deflate; server_max_window_bits=8, \
                 permessage-deflate; server_max_window_bits=9, permessage-deflate",
                "permessage-deflate; server_max_window_bits=9",
            ),
        ];
        for (offer, field) in cases {
            assert_eq!(field_for(offer, &Policy::default()).as_deref(), Some(field), "{offer}");
        }
    }

    #[test]
    fn the_policy_limits_only_what_it_may() {
        let policy = Policy {
            server_context_takeover: false,
            client_context_takeover: false,
            server_window_bits: 11,
            client_window_bits: 10,
        };
        let alone = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                     server_max_window_bits=11";
        assert_eq!(field_for("permessage-deflate", &policy).as_deref(), Some(alone));
        let both = field_for("permessage-deflate; client_max_window_bits", &policy).unwrap();
        assert_eq!(both, format!("{alone}; client_max_window_bits=10"));
    }

    #[test]
    fn offers_that_are_declined() {
        for offer in [
            "",
            "mux",
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        ] {
            assert_eq!(field_for(offer, &Policy::default()), None, "{offer}");
        }
    }

    #[test]
    fn malformed_fields_are_refused() {
        let many = "a,".repeat(WS_OFFERS_MAX + 1);
        for field in ["a b", "a;", "a; =1", "a; b=", "a; b=\"", "a; b=\"\"", "a=1", "\"a\"", &many]
        {
            let verdict = negotiate([field.as_bytes()].into_iter(), &Policy::default());
            assert_eq!(verdict, Err(Malformed), "{field}");
        }
    }
}
