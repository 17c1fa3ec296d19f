//! What ends a request's body (RFC 9112 §6.3), and the numbers that say so.

use super::fields::{Fields, list_members};
use super::{Framing, Reject, Version};

/// The framing of a request. One wrong sign and the request is refused: a front end may have read
/// it the other way (RFC 9112 §11.2).
pub(super) fn of_request(fields: Fields<'_>, version: Version) -> Result<Framing, Reject> {
    let mut lengths = fields.all("content-length");
    let mut codings = fields.all("transfer-encoding");
    let (length, coding) = (lengths.next(), codings.next());
    match (length, coding) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(Reject::LengthAndTransferEncoding),
        (None, Some(_)) if version == Version::Http10 => Err(Reject::TransferEncodingIn10),
        (None, Some(_)) if codings.next().is_some() => Err(Reject::BadTransferEncoding),
        (None, Some(coding)) => single_chunked(coding).map(|()| Framing::Chunked),
        (Some(_), None) if lengths.next().is_some() => Err(Reject::LengthDoubled),
        (Some(length), None) if length.contains(&b',') => Err(Reject::LengthDoubled),
        (Some(length), None) => decimal(length).map(Framing::Length).ok_or(Reject::BadLength),
    }
}

// RFC 9112 §6.1: chunked must be there, once, and last; a coding that is not known is 501.
fn single_chunked(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_chunked = |member: &[u8]| member.eq_ignore_ascii_case(b"chunked");
    let count = list_members(value).filter(|m| is_chunked(m)).count();
    let last = list_members(value).last().is_some_and(is_chunked);
    let members = list_members(value).count();
    if last && count == 1 && members > 1 {
        return Err(Reject::UnknownTransferCoding);
    }
    Err(Reject::BadTransferEncoding)
}

/// `1*DIGIT` that fits in 64 bits: no sign, no space, no prefix (RFC 9110 §8.6).
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "+1", "-1", " 1", "1 ", "0x1", "1_0", "1.0", "٣"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }
}
