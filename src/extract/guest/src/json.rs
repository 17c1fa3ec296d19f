//! A JSON writer that allocates nothing but its output (RFC 8259 §7).

/// For each byte the letter of its short escape, `u` for `\u00xx`, 0 for none. Bytes of multi-byte
/// characters stand as they are.
const ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[0x7f] = b'u'; // allowed raw, but a control character all the same
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends `text` as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = ESCAPE[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends `text` as a JSON string, or `null`.
pub(crate) fn nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends `hundredths / 100`, which is between 0 and 1.
pub(crate) fn hundredths(out: &mut Vec<u8>, hundredths: u8) {
    if hundredths >= 100 {
        out.extend_from_slice(b"1.0");
        return;
    }
    out.extend_from_slice(b"0.");
    out.push(b'0' + hundredths / 10);
    if !hundredths.is_multiple_of(10) {
        out.push(b'0' + hundredths % 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).expect("written from a str")
    }

    #[test]
    fn escapes() {
        assert_eq!(written(""), r#""""#);
        assert_eq!(written("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(written("\n\r\t\u{8}\u{c}"), r#""\n\r\t\b\f""#);
        assert_eq!(written("\u{0}\u{1f}\u{7f}"), r#""\u0000\u001f\u007f""#);
        assert_eq!(written("水é\u{2028}😀/"), "\"水é\u{2028}😀/\"");
    }

    #[test]
    fn scores() {
        let written: Vec<String> = [0, 5, 40, 85, 99, 100]
            .map(|n| {
                let mut out = Vec::new();
                hundredths(&mut out, n);
                String::from_utf8(out).expect("ascii")
            })
            .to_vec();
        assert_eq!(written, ["0.0", "0.05", "0.4", "0.85", "0.99", "1.0"]);
    }
}
