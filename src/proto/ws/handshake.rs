//! The opening handshake, server side (RFC 6455 §4.2).

use tungstenite::handshake::derive_accept_key;

use super::extension::{self, Agreement};
use crate::error::ApiCode;

/// The subprotocol of `/crawl/ws` (API §1).
pub const CRAWL_SUBPROTOCOL: &str = "crawl.v1";

/// What this server speaks on one route.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offer {
    /// Subprotocols; the first one in the *client's* list that stands here is chosen. A client
    /// that names none, or none of these, is taken without.
    pub subprotocols: &'static [&'static str],
    /// How to compress; `None` never agrees to permessage-deflate.
    pub deflate: Option<extension::Policy>,
}

/// A request that becomes a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// The subprotocol agreed.
    pub subprotocol: Option<&'static str>,
    /// The compression agreed; the [`Session`](super::Session) needs it.
    pub deflate: Option<Agreement>,
    extensions: Option<String>,
}

/// Why a request does not become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The method is not GET.
    #[error("a WebSocket is opened with GET")]
    Method,
    /// HTTP/1.0, or no `Upgrade: websocket` with its `Connection: Upgrade`.
    #[error("this path speaks WebSocket only: upgrade the connection")]
    NotUpgrade,
    /// `Sec-WebSocket-Version` is not 13, or not there.
    #[error("only WebSocket version 13 is spoken here")]
    Version,
    /// `Sec-WebSocket-Key` is not exactly one field with 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// `Sec-WebSocket-Extensions` does not follow its grammar.
    #[error("malformed Sec-WebSocket-Extensions")]
    Extensions,
    /// The request has a body, so that where the session's bytes begin would be in doubt.
    #[error("a WebSocket's opening request has no body")]
    Body,
}

impl Rejection {
    /// The code that the refusal is answered with; its status is 400, 405 or 426.
    #[must_use]
    pub const fn code(self) -> ApiCode {
        match self {
            Self::Method => ApiCode::MethodNotAllowed,
            Self::NotUpgrade | Self::Version => ApiCode::UpgradeRequired,
            Self::Key | Self::Extensions | Self::Body => ApiCode::BadRequest,
        }
    }

    /// Fields that the answer must bear.
    #[must_use]
    pub const fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("Allow", "GET")],
            // RFC 9110 §15.5.22 and §7.8, RFC 6455 §4.4.
            Self::NotUpgrade | Self::Version => &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
            ],
            Self::Key | Self::Extensions | Self::Body => &[],
        }
    }
}

/// Judges an upgrade request: its method, whether it is HTTP/1.1, and its fields in order.
///
/// Bytes behind the request's head are the first bytes of the session.
///
/// # Errors
///
/// The first rule of RFC 6455 §4.2.1 that the request breaks.
pub fn accept<'a>(
    method: &str,
    is_http_11: bool,
    fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    offer: &Offer,
) -> Result<Accepted, Rejection> {
    let values = |name: &'static str| {
        let fields = fields.clone();
        fields.filter(move |field| field.0.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let names = |name, token: &str| {
        values(name).flat_map(list).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    };
    if method != "GET" {
        return Err(Rejection::Method);
    }
    // RFC 9110 §7.8: an Upgrade field in an HTTP/1.0 request is ignored.
    if !is_http_11 || !names("upgrade", "websocket") || !names("connection", "upgrade") {
        return Err(Rejection::NotUpgrade);
    }
    let version = single(values("sec-websocket-version"));
    if version != Some(b"13") {
        return Err(Rejection::Version);
    }
    let key = single(values("sec-websocket-key")).filter(|key| is_key(key));
    let key = key.ok_or(Rejection::Key)?;
    let chosen = match &offer.deflate {
        Some(policy) => extension::negotiate(values("sec-websocket-extensions"), policy)
            .map_err(|_| Rejection::Extensions)?,
        None => None,
    };
    let subprotocol = values("sec-websocket-protocol").flat_map(list).find_map(|wanted| {
        offer.subprotocols.iter().copied().find(|known| known.as_bytes() == wanted)
    });
    let (deflate, extensions) = chosen.unzip();
    Ok(Accepted { accept_key: derive_accept_key(key), subprotocol, deflate, extensions })
}

impl Accepted {
    /// The answer's fields beside `Upgrade` and `Connection` (RFC 6455 §4.2.2, item 5).
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let own = [
            ("Sec-WebSocket-Accept", Some(self.accept_key.as_str())),
            ("Sec-WebSocket-Protocol", self.subprotocol),
            ("Sec-WebSocket-Extensions", self.extensions.as_deref()),
        ];
        own.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Appends the whole 101 answer with `fields` of the caller's, as `X-Request-ID`, whose names
    /// and values must be clean already.
    pub fn write_response<'a>(
        &self,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
        out: &mut Vec<u8>,
    ) {
        // RFC 6455 §4.2.2, item 5.
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        );
        for (name, value) in self.fields() {
            write_field(name, value, out);
        }
        for (name, value) in fields {
            write_field(name, value, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn write_field(name: &str, value: &str, out: &mut Vec<u8>) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The elements of a comma-separated field value (RFC 9110 §5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The value, if there is exactly one.
fn single<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let value = values.next()?.trim_ascii();
    values.next().is_none().then_some(value)
}

/// RFC 6455 §4.1, item 7: 16 bytes in base64 are 22 digits and two pads. The unused bits of the
/// last digit are not judged (RFC 4648 §3.5 leaves that open).
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const OFFER: Offer = Offer {
        subprotocols: &[CRAWL_SUBPROTOCOL],
        deflate: Some(extension::Policy {
            server_context_takeover: true,
            client_context_takeover: true,
            server_window_bits: 15,
            client_window_bits: 15,
        }),
    };

    /// The request of RFC 6455 §1.2 with one field replaced, removed (`None`) or added.
    fn judge(name: &'static str, value: Option<&'static str>) -> Result<Accepted, Rejection> {
        let mut fields = vec![
            ("Upgrade", "websocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        fields.retain(|field| field.0 != name);
        fields.extend(value.map(|value| (name, value)));
        let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        accept("GET", true, fields.iter().copied(), &OFFER)
    }

    #[test]
    fn the_example_of_the_standard() {
        let accepted = judge("Sec-WebSocket-Protocol", Some("chat, crawl.v1")).unwrap();
        assert_eq!(accepted.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        accepted.write_response([("X-Request-ID", "r1")], &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: crawl.v1\r\nX-Request-ID: r1\r\n\r\n"
        );
    }

    #[test]
    fn compression_is_agreed_on() {
        let accepted = judge(
            "Sec-WebSocket-Extensions",
            Some("permessage-deflate; client_max_window_bits=12"),
        )
        .unwrap();
        assert_eq!(accepted.deflate.unwrap().client_window_bits, 12);
        let mut out = Vec::new();
        accepted.write_response([], &mut out);
        let field = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n";
        assert!(String::from_utf8(out).unwrap().contains(field));
    }

    #[test]
    fn broken_requests_are_refused() {
        let cases = [
            ("Upgrade", None, Rejection::NotUpgrade),
            ("Upgrade", Some("h2c"), Rejection::NotUpgrade),
            ("Connection", Some("keep-alive"), Rejection::NotUpgrade),
            ("Sec-WebSocket-Version", None, Rejection::Version),
            ("Sec-WebSocket-Version", Some("8"), Rejection::Version),
            ("Sec-WebSocket-Key", None, Rejection::Key),
            ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQ"), Rejection::Key),
            ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQA="), Rejection::Key),
            ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQ===="), Rejection::Key),
            ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25j*Q=="), Rejection::Key),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ=="), Rejection::Key), // twice
            ("Sec-WebSocket-Extensions", Some("a; ="), Rejection::Extensions),
        ];
        for (name, value, rejection) in cases {
            assert_eq!(judge(name, value), Err(rejection), "{name}: {value:?}");
        }
        assert_eq!(Rejection::Version.code().status(), 426);
        assert!(Rejection::Version.fields().contains(&("Sec-WebSocket-Version", "13")));
    }

    #[test]
    fn method_and_http_version_count() {
        let fields: [(&str, &[u8]); 0] = [];
        let post = accept("POST", true, fields.into_iter(), &OFFER);
        assert_eq!(post, Err(Rejection::Method));
        let old = accept("GET", false, fields.into_iter(), &OFFER);
        assert_eq!(old, Err(Rejection::NotUpgrade));
    }
}
