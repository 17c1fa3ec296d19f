//! Writing JSON (RFC 8259) straight into a frame's bytes: no tree, no formatting machinery.
//!
//! Nothing here allocates beyond the growth of `out`. Strings come out in one line: control bytes
//! are escaped, so that a JSON text of ours never holds a raw line end (NDJSON and SSE rely on it).

use bytes::{BufMut, BytesMut};

/// For each byte: 0 where it stands for itself, else the letter after the backslash; `u` is `\u00XX`.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Writes a string with its quotes.
pub fn string(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        out.put_slice(&bytes[plain..at]);
        plain = at + 1;
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.put_slice(b"\\u00");
            out.put_u8(HEX[usize::from(byte >> 4)]);
            out.put_u8(HEX[usize::from(byte & 15)]);
        } else {
            out.put_slice(&[b'\\', escape]);
        }
    }
    out.put_slice(&bytes[plain..]);
    out.put_u8(b'"');
}

/// Writes a string, or `null`.
pub fn string_or_null(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => string(out, text),
        None => out.put_slice(b"null"),
    }
}

/// Writes a whole number.
pub fn integer(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `,"name":number` for each pair; the names are ours and need no escapes.
pub fn integers(out: &mut BytesMut, pairs: &[(&str, u64)]) {
    for (name, number) in pairs {
        out.put_slice(b",\"");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\":");
        integer(out, *number);
    }
}

/// Writes `part / whole` with up to four decimals, at least one: `1.0`, `0.5`, `0.3333`; 0.0 of nothing.
pub fn ratio(out: &mut BytesMut, part: u64, whole: u64) {
    let scaled = (part * 10_000 + whole / 2).checked_div(whole).unwrap_or(0);
    integer(out, scaled / 10_000);
    let mut decimals = scaled % 10_000;
    let mut width = 1000;
    out.put_u8(b'.');
    loop {
        out.put_u8(b'0' + (decimals / width % 10) as u8);
        decimals %= width;
        width /= 10;
        if decimals == 0 || width == 0 {
            return;
        }
    }
}

/// Writes `true` or `false`.
pub fn boolean(out: &mut BytesMut, value: bool) {
    out.put_slice(if value { b"true" } else { b"false" });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_independent_parser_reads_every_string_back(text in any::<String>()) {
            let mut out = BytesMut::new();
            string(&mut out, &text);
            prop_assert!(!out.iter().any(|byte| *byte < 0x20));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn ratios_are_rounded_to_four_decimals(part in 0u64..5000, whole in 1u64..5000) {
            let mut out = BytesMut::new();
            ratio(&mut out, part, whole);
            let read: f64 = serde_json::from_slice(&out).unwrap();
            prop_assert!((read - part as f64 / whole as f64).abs() <= 0.000_051);
        }
    }

    #[test]
    fn ratios_have_at_least_one_decimal() {
        let show = |part, whole| {
            let mut out = BytesMut::new();
            ratio(&mut out, part, whole);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(
            [show(1, 1), show(1, 2), show(0, 0), show(1, 3)],
            ["1.0", "0.5", "0.0", "0.3333"]
        );
    }
}
