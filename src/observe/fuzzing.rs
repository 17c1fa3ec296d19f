//! Entry functions for fuzzing: they take any bytes and panic if an invariant does not hold.
//!
//! A fuzz target calls them, and so does a test here.

use super::redact::Url;
use super::traceparent::TraceContext;

/// Any text as a URL in a log: it drives no terminal, is bounded, and shows none of the secrets that
/// stand around it.
pub fn fuzz_redact(data: &[u8]) {
    const SECRET: &str = "5ecre7-5ecre7";
    let text = String::from_utf8_lossy(data);
    let url = |text: &str| {
        let shown = Url(text).to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        // Of a character that is escaped ten are shown.
        assert!(shown.len() <= 10 * 3 * 2048 + 64, "{} of {}", shown.len(), text.len());
        shown
    };
    url(&text);
    if text.contains("5ecre7") {
        return;
    }
    // What is in a path can't end a parameter that is behind it, or the credentials before it.
    for hidden in [
        format!("https://user:{SECRET}@host/{text}"),
        format!("https://host/?token={SECRET}&{text}"),
        format!("https://host/{text}&token={SECRET}"),
        format!("https://host/{text}?next=https%3A%2F%2Fu%3A{SECRET}%40h"),
    ] {
        assert!(!url(&hidden).contains(SECRET), "{hidden:?}");
    }
}

/// Any bytes as a `traceparent`: what is read is written as something that reads the same.
pub fn fuzz_traceparent(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let Some(context) = TraceContext::parse(line) else { continue };
        assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
        let child = context.numbered(7);
        assert_eq!(child.trace_id, context.trace_id);
        assert_ne!(child.parent_id, [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_hold_every_invariant(data: Vec<u8>) {
            fuzz_redact(&data);
            fuzz_traceparent(&data);
        }

        #[test]
        fn likely_text_holds_every_invariant(
            text in "([a-z/?&=#:;@%\\\\]|%[0-9A-F]{2}|token=|url=http://){0,20}",
            field in "0[01]-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3](-x)?",
        ) {
            fuzz_redact(text.as_bytes());
            fuzz_traceparent(field.as_bytes());
        }
    }
}
