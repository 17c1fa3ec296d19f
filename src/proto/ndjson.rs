//! NDJSON framing: one JSON text a line, every line ended by exactly one `\n`, the last one too
//! (API §3).

use std::borrow::Cow;

/// What ends a line.
pub const LINE_END: &[u8] = b"\n";

/// The line's content: `json` itself if it lies on one line, else a copy without its line breaks.
///
/// In JSON a raw CR or LF can only be white space between tokens, since strings escape them
/// (RFC 8259 §7), so leaving them out does not change the value. Bytes that are no JSON stay on
/// one line too: no payload can forge an event.
#[must_use]
pub fn line(json: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'\n', b'\r', json) {
        None => Cow::Borrowed(json),
        Some(_) => {
            Cow::Owned(json.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect())
        }
    }
}

/// Appends `json` as one line.
pub fn encode(json: &[u8], out: &mut Vec<u8>) {
    let line = line(json);
    out.reserve(line.len() + LINE_END.len());
    out.extend_from_slice(&line);
    out.extend_from_slice(LINE_END);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(Value::from("a\r\nb\nc\rd")),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    #[test]
    fn a_line_on_one_line_is_not_copied() {
        assert!(matches!(line(br#"{"a":"\n"}"#), Cow::Borrowed(_)));
        assert_eq!(&*line(b"{\r\n \"a\":\n1}\n"), br#"{ "a":1}"#);
    }

    proptest! {
        #[test]
        fn an_independent_parser_reads_the_same_values(
            values in proptest::collection::vec((json(), any::<bool>()), 0..6),
        ) {
            let mut out = Vec::new();
            for (value, pretty) in &values {
                let text = match pretty {
                    true => serde_json::to_vec_pretty(value).unwrap(),
                    false => serde_json::to_vec(value).unwrap(),
                };
                encode(&text, &mut out);
            }
            let text = std::str::from_utf8(&out).unwrap();
            prop_assert!(!text.contains('\r'));
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            prop_assert_eq!(lines.len(), values.len());
            for (line, (value, _)) in lines.iter().zip(&values) {
                prop_assert!(line.ends_with('\n'));
                prop_assert_eq!(&serde_json::from_str::<Value>(line).unwrap(), value);
            }
        }

        #[test]
        fn any_bytes_make_exactly_one_line(bytes: Vec<u8>) {
            let mut out = Vec::new();
            encode(&bytes, &mut out);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert!(out.ends_with(b"\n") && !out.contains(&b'\r'));
        }
    }
}
