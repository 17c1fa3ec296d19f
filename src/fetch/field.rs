//! Which request fields a client may add to its fetches (`options.headers`).

use crate::limits::{FETCH_HEADERS_BYTES_MAX, FETCH_HEADERS_MAX};
use crate::proto::h1::{is_token_byte, is_value_byte};

/// Fields that say how this connection works, or that this server answers for: the target's host,
/// the message's framing, what codings it can undo, and who a proxy thinks the client is.
const REFUSED: [&str; 25] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
    "content-encoding",
    "content-type",
    "accept-encoding",
    "range",
    "http2-settings",
    "max-forwards",
    "via",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
];
/// What fields begin with that say for whom a request is made: an origin that believes us would take
/// a client for whomever it likes.
const REFUSED_PREFIX: &str = "x-forwarded-";

/// Why a field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FieldError {
    /// Not a token (RFC 9110 §5.1).
    #[error("the name is not a header field's")]
    Name,
    /// A control byte in it, or white space around it (RFC 9110 §5.5).
    #[error("the value holds a control character or has white space around it")]
    Value,
    /// One that the server sets itself.
    #[error("the field is the server's own to set")]
    Refused,
    /// More than [`FETCH_HEADERS_MAX`] fields or [`FETCH_HEADERS_BYTES_MAX`] bytes.
    #[error("more than {FETCH_HEADERS_MAX} fields or {FETCH_HEADERS_BYTES_MAX} bytes of them")]
    TooMany,
}

/// Checks one field of a client.
///
/// # Errors
/// Why it is not sent.
pub fn check(name: &str, value: &str) -> Result<(), FieldError> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(FieldError::Name);
    }
    if value.trim() != value || !value.bytes().all(is_value_byte) {
        return Err(FieldError::Value);
    }
    let begins = name.get(..REFUSED_PREFIX.len());
    if REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused))
        || begins.is_some_and(|begin| begin.eq_ignore_ascii_case(REFUSED_PREFIX))
    {
        return Err(FieldError::Refused);
    }
    Ok(())
}

/// Checks all fields of a client.
///
/// # Errors
/// The first field that is not sent, with its place, or the number of fields where there are too
/// many.
pub fn check_all(fields: &[(String, String)]) -> Result<(), (usize, FieldError)> {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    if fields.len() > FETCH_HEADERS_MAX || bytes > FETCH_HEADERS_BYTES_MAX {
        return Err((fields.len(), FieldError::TooMany));
    }
    for (at, (name, value)) in fields.iter().enumerate() {
        check(name, value).map_err(|error| (at, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_could_split_or_redirect_a_request_are_refused() {
        for (name, value, outcome) in [
            ("Accept-Language", "de, en;q=0.5", Ok(())),
            ("Cookie", "a=b", Ok(())),
            ("X-Empty", "", Ok(())),
            ("", "x", Err(FieldError::Name)),
            ("a b", "x", Err(FieldError::Name)),
            ("a:", "x", Err(FieldError::Name)),
            ("a\r\nHost", "x", Err(FieldError::Name)),
            ("ä", "x", Err(FieldError::Name)),
            ("x", "a\r\nHost: b", Err(FieldError::Value)),
            ("x", "a\nb", Err(FieldError::Value)),
            ("x", "a\0b", Err(FieldError::Value)),
            ("x", " a", Err(FieldError::Value)),
            ("HOST", "b", Err(FieldError::Refused)),
            ("Content-Length", "1", Err(FieldError::Refused)),
            ("transfer-encoding", "chunked", Err(FieldError::Refused)),
            ("Connection", "close", Err(FieldError::Refused)),
            ("Accept-Encoding", "sdch", Err(FieldError::Refused)),
            ("Forwarded", "for=127.0.0.1", Err(FieldError::Refused)),
            ("X-Forwarded-For", "127.0.0.1", Err(FieldError::Refused)),
            ("x-forwarded-host", "b", Err(FieldError::Refused)),
            ("X-Forwarded-Anything", "b", Err(FieldError::Refused)),
            ("x-real-ip", "127.0.0.1", Err(FieldError::Refused)),
            ("X-Forward", "1", Ok(())),
        ] {
            assert_eq!(check(name, value), outcome, "{name:?}: {value:?}");
        }
    }

    #[test]
    fn their_number_and_bytes_are_bounded() {
        let field = |value: &str| ("x".to_owned(), value.to_owned());
        assert_eq!(check_all(&vec![field("y"); FETCH_HEADERS_MAX]), Ok(()));
        let many = vec![field("y"); FETCH_HEADERS_MAX + 1];
        assert_eq!(check_all(&many), Err((FETCH_HEADERS_MAX + 1, FieldError::TooMany)));
        let long = [field(&"y".repeat(FETCH_HEADERS_BYTES_MAX))];
        assert_eq!(check_all(&long), Err((1, FieldError::TooMany)));
        assert_eq!(check_all(&[field("y"), field("\n")]), Err((1, FieldError::Value)));
    }
}
