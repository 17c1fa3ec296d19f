#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn wrapped(document: &str) -> Vec<u8> {
    format!("{{\"quality_score\":0.85,\"document\":{document}}}").into_bytes()
}

#[test]
fn parts_of_an_answer() {
    let bytes = wrapped("{\"title\":\"A\"}");
    let parts = answer(&bytes).unwrap();
    assert_eq!(&bytes[parts.quality], b"0.85");
    assert_eq!(&bytes[parts.document], b"{\"title\":\"A\"}");
    assert!(parts.about.is_empty());
    let bytes = wrapped("{\"title\":\"A\"},\"about\":{\"links\":[]}");
    let parts = answer(&bytes).unwrap();
    assert_eq!(&bytes[parts.document], b"{\"title\":\"A\"}");
    assert_eq!(&bytes[parts.about], b"{\"links\":[]}");
}

#[test]
fn other_shapes_are_refused() {
    for text in [
        "",
        "{}",
        "null",
        "{\"document\":{},\"quality_score\":0.5}",
        "{\"quality_score\":\"0.5\",\"document\":{}}",
        "{\"quality_score\":1.01,\"document\":{}}",
        "{\"quality_score\":-0.5,\"document\":{}}",
        "{\"quality_score\":1e999,\"document\":{}}",
        "{\"quality_score\":0.5,\"document\":[]}",
        "{\"quality_score\":0.5,\"document\":null}",
        "{\"quality_score\":0.5,\"document\":{}",
        "{\"quality_score\":0.5,\"document\":{}}}",
        "{\"quality_score\":0.5,\"document\":{}}\n",
        "{\"quality_score\":0.5,\"document\":{},\"more\":1}",
        "{\"quality_score\":0.5,\"document\":{},\"about\":1}",
        "{\"quality_score\":0.5,\"document\":{},\"about\":{},\"about\":{}}",
        "{\"quality_score\":0.5,\"document\":{},}",
        " {\"quality_score\":0.5,\"document\":{}}",
    ] {
        assert!(answer(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn broken_documents_are_refused() {
    for document in [
        "{",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":1e400}",
        "{\"a\":tru}",
        "{\"a\":[1,]}",
        "{\"a\":[1}",
        "{\"a\":\"\n\"}",
        "{\"a\":\t1}",
        "{\"a\":1\n}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\\u123g\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\\ud800\\u0041\"}",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{\"a\":\"\\u",
        "{} {}",
    ] {
        assert!(answer(&wrapped(document)).is_err(), "{document}");
    }
    assert_eq!(answer(b"{\"quality_score\":0,\"document\":{\"\xff\":1}}").unwrap_err().at, 32);
}

#[test]
fn nesting_is_bounded_and_costs_no_stack() {
    let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert!(answer(&wrapped(&nested(63))).is_ok());
    assert!(answer(&wrapped(&nested(64))).is_err());
    assert!(answer(&wrapped(&nested(1_000_000))).is_err());
    assert!(answer(&wrapped(&"{\"a\":".repeat(1_000_000))).is_err());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_writes_is_accepted(document in json()) {
        prop_assert_eq!(value(document.to_string().as_bytes()), Ok(()));
    }

    #[test]
    fn what_is_accepted_serde_reads(
        document in json(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut bytes = wrapped(&format!("{{\"a\":{document}}}"));
        for (index, byte, kind) in edits {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"{}[]\",:\\u0d1 e-."[usize::from(byte) % 16]),
                _ => { bytes.remove(at); }
            }
            fuzz(&bytes);
        }
        let read = serde_json::from_slice::<Value>(&bytes);
        match answer(&bytes) {
            Ok(parts) => {
                let read = read.unwrap();
                let own: Value = serde_json::from_slice(&bytes[parts.document]).unwrap();
                // A repeated key is the only way in which the two may differ.
                prop_assert!(read["document"] == own || read.as_object().unwrap().len() < 2);
            }
            Err(_) => {
                let odd = bytes.iter().any(|b| *b < 0x20);
                let shape = read.is_ok_and(|v| {
                    v.to_string().starts_with("{\"document\":{")
                        && bytes.starts_with(b"{\"quality_score\":0.85,\"document\":{")
                        && v.as_object().is_some_and(|o| o.len() == 2)
                        && bytes.ends_with(b"}}")
                });
                prop_assert!(odd || !shape, "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&bytes);
        let mut inside = wrapped("{\"a\":\"");
        inside.truncate(inside.len() - 1);
        inside.extend_from_slice(&bytes);
        fuzz(&inside);
    }
}
