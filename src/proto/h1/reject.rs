//! The one table of requests that are refused before anything is asked of them.

use crate::error::{ApiCode, ApiError};

/// Why a request is refused at the level of HTTP. Each is answered with its status and closes the
/// connection, because what follows on it can no longer be told from a smuggled request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// The first bytes are a TLS record: `https` spoken to a plain port.
    TlsHello,
    /// The connection preface of HTTP/2 (RFC 9113 §3.4).
    Http2Preface,
    /// A request line with no version.
    Http09,
    /// A version other than 1.0 and 1.1.
    Version,
    /// More empty lines before the request line than RFC 9112 §2.2 asks to skip.
    EmptyLines,
    /// A request line that is not `method SP target SP version`.
    RequestLine,
    /// More or other white space in the request line than the two spaces.
    RequestLineSpace,
    /// A method that this server does not know.
    UnknownMethod,
    /// `CONNECT`: this is no proxy.
    Connect,
    /// A target or request line that is too long.
    TargetTooLong,
    /// A target in no form that its method allows, or with bytes that no URI has.
    BadTarget,
    /// A target with a fragment.
    TargetFragment,
    /// A head that is too long.
    HeadTooLarge,
    /// Too many fields.
    TooManyFields,
    /// A carriage return that does not end a line (RFC 9112 §2.2).
    BareCr,
    /// A line feed with no carriage return before it.
    BareLf,
    /// A field value continued on the next line (RFC 9112 §5.2), or space before the first field.
    ObsFold,
    /// White space between a field's name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A field without a name.
    EmptyFieldName,
    /// A field name that is no token, or a line without a colon.
    BadFieldName,
    /// A field value with NUL or another control byte (RFC 9110 §5.5).
    BadFieldValue,
    /// No `Host` in an HTTP/1.1 request (RFC 9112 §3.2).
    HostMissing,
    /// More than one `Host`.
    HostDoubled,
    /// A `Host` that is no host and port.
    BadHost,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.1).
    LengthAndTransferEncoding,
    /// More than one `Content-Length`, or a list of them (RFC 9112 §6.3).
    LengthDoubled,
    /// A `Content-Length` that is no plain decimal number of 64 bits.
    BadLength,
    /// `Transfer-Encoding` in an HTTP/1.0 request (RFC 9112 §6.1).
    TransferEncodingIn10,
    /// A `Transfer-Encoding` whose last coding is not `chunked`, or that has it twice.
    BadTransferEncoding,
    /// A transfer coding besides `chunked`.
    UnknownTransferCoding,
    /// An `Expect` other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
}

impl Reject {
    /// The table: every rejection, the code (and with it the status) that answers it, and the
    /// sentence that tells the client what was expected.
    pub const TABLE: [(Self, ApiCode, &'static str); 31] = [
        (Self::TlsHello, ApiCode::BadRequest, "this port speaks HTTP without TLS"),
        (Self::Http2Preface, ApiCode::VersionNotSupported, "this port speaks HTTP/1.1, not HTTP/2"),
        (Self::Http09, ApiCode::BadRequest, "the request line names no HTTP version"),
        (Self::Version, ApiCode::VersionNotSupported, "only HTTP/1.1 and HTTP/1.0 are supported"),
        (Self::EmptyLines, ApiCode::BadRequest, "too many empty lines before the request line"),
        (Self::RequestLine, ApiCode::BadRequest, "the request line is malformed"),
        (Self::RequestLineSpace, ApiCode::BadRequest, "the request line takes two single spaces"),
        (Self::UnknownMethod, ApiCode::NotImplemented, "this method is not known here"),
        (Self::Connect, ApiCode::NotImplemented, "this server is no proxy"),
        (Self::TargetTooLong, ApiCode::UriTooLong, "the request target is too long"),
        (Self::BadTarget, ApiCode::BadRequest, "the request target is malformed"),
        (Self::TargetFragment, ApiCode::BadRequest, "a request target takes no fragment"),
        (Self::HeadTooLarge, ApiCode::HeadersTooLarge, "the request head is too large"),
        (Self::TooManyFields, ApiCode::HeadersTooLarge, "the request has too many header fields"),
        (Self::BareCr, ApiCode::BadRequest, "a carriage return stands without a line feed"),
        (Self::BareLf, ApiCode::BadRequest, "a line feed stands without a carriage return"),
        (Self::ObsFold, ApiCode::BadRequest, "header fields may not be continued on a new line"),
        (Self::SpaceBeforeColon, ApiCode::BadRequest, "white space before a header field's colon"),
        (Self::EmptyFieldName, ApiCode::BadRequest, "a header field has no name"),
        (Self::BadFieldName, ApiCode::BadRequest, "a header field's name is malformed"),
        (Self::BadFieldValue, ApiCode::BadRequest, "a header field's value has a control byte"),
        (Self::HostMissing, ApiCode::BadRequest, "the Host header field is missing"),
        (Self::HostDoubled, ApiCode::BadRequest, "more than one Host header field"),
        (Self::BadHost, ApiCode::BadRequest, "the Host header field is no host and port"),
        (
            Self::LengthAndTransferEncoding,
            ApiCode::BadRequest,
            "Content-Length and Transfer-Encoding exclude each other",
        ),
        (Self::LengthDoubled, ApiCode::BadRequest, "more than one Content-Length"),
        (Self::BadLength, ApiCode::BadRequest, "Content-Length is not a decimal number"),
        (Self::TransferEncodingIn10, ApiCode::BadRequest, "HTTP/1.0 has no Transfer-Encoding"),
        (Self::BadTransferEncoding, ApiCode::BadRequest, "Transfer-Encoding must be chunked, once"),
        (
            Self::UnknownTransferCoding,
            ApiCode::NotImplemented,
            "the only transfer coding here is chunked",
        ),
        (Self::Expectation, ApiCode::ExpectationFailed, "the only expectation is 100-continue"),
    ];

    /// The code that answers it; the status follows from the code.
    #[must_use]
    pub fn code(self) -> ApiCode {
        self.row().1
    }

    /// The HTTP status that answers it.
    #[must_use]
    pub fn status(self) -> u16 {
        self.code().status()
    }

    /// One sentence for the client.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, ApiCode, &'static str) {
        // The table stands in the order of the variants; a test holds it there.
        &Self::TABLE[self as usize]
    }
}

impl From<Reject> for ApiError {
    fn from(reject: Reject) -> Self {
        Self::new(reject.code(), reject.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_variants() {
        for (i, (reject, code, message)) in Reject::TABLE.iter().enumerate() {
            assert_eq!(*reject as usize, i, "{reject:?} stands in the wrong row");
            assert!((400..=505).contains(&code.status()), "{reject:?}");
            assert!(!message.is_empty());
        }
        assert_eq!(Reject::Expectation as usize + 1, Reject::TABLE.len(), "a variant has no row");
    }
}
