//! W3C Trace Context (Level 1, <https://www.w3.org/TR/trace-context-1/>): the `traceparent` field.

use std::fmt;

/// Bytes of a version 00 `traceparent`.
const LEN: usize = 55;

/// Where a request stands in somebody's trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace; never all zero.
    pub trace_id: [u8; 16],
    /// The caller's span (or ours, on the way out); never all zero.
    pub parent_id: [u8; 8],
    /// Whether the caller may have recorded this trace.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent` field; `None` if it breaks the format, and then the request starts a
    /// trace of its own (§2.2.2, §4.3). A request must have exactly one such field.
    #[must_use]
    pub fn parse(field: &[u8]) -> Option<Self> {
        // §3.2.2.1: two lower-case digits; ff is forbidden.
        let version = hex::<1>(field.get(..2)?)?[0];
        let head = field.get(..LEN)?;
        let whole = match version {
            0xff => false,
            0 => field.len() == LEN,
            // §4.3: of a higher version, the parts that version 00 has, if a dash ends them.
            _ => field.get(LEN).is_none_or(|&byte| byte == b'-'),
        };
        if !whole || [2, 35, 52].iter().any(|&place| head[place] != b'-') {
            return None;
        }
        let trace_id = hex::<16>(&head[3..35])?;
        let parent_id = hex::<8>(&head[36..52])?;
        let flags = hex::<1>(&head[53..])?[0];
        // §3.2.2.3, §3.2.2.4: all zeros are invalid.
        let valid = trace_id != [0; 16] && parent_id != [0; 8];
        // §3.2.2.5: unknown flags are ignored, and not passed on.
        valid.then_some(Self { trace_id, parent_id, sampled: flags & 1 == 1 })
    }

    /// A trace of our own. Zero ids, which are invalid, become one.
    #[must_use]
    pub fn root(trace_id: u128, span_id: u64, sampled: bool) -> Self {
        let trace_id = trace_id.max(1).to_be_bytes();
        Self { trace_id, parent_id: span_id.max(1).to_be_bytes(), sampled }
    }

    /// The context that a request of ours carries on: same trace, our span.
    #[must_use]
    pub fn child(&self, span_id: u64) -> Self {
        Self { parent_id: span_id.max(1).to_be_bytes(), ..*self }
    }

    /// The context of one of many things below this span: like this one's, with an id that the
    /// number makes different from every other's.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        // An odd factor makes different products of different numbers, spread over all bits.
        let spread = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.child(u64::from_be_bytes(self.parent_id) ^ spread)
    }

    /// The trace's id as text, for logs.
    #[must_use]
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }
}

/// The field's value in version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent) =
            (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.parent_id));
        write!(out, "00-{trace:032x}-{parent:016x}-{:02x}", u8::from(self.sampled))
    }
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower case only, as the standard's HEXDIGLC.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_is_read_and_written() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert!(context.sampled);
        assert_eq!(context.parent_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(context.to_string(), GOOD);
        let child = context.child(0xabc);
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01");
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let bad = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
        ];
        for field in bad {
            assert_eq!(TraceContext::parse(field.as_bytes()), None, "{field}");
        }
    }

    #[test]
    fn a_higher_version_is_read_as_far_as_it_is_known() {
        for tail in ["", "-what-comes-later"] {
            let field = format!("cc{}{tail}", GOOD.strip_prefix("00").unwrap());
            assert_eq!(TraceContext::parse(field.as_bytes()).unwrap().to_string(), GOOD);
        }
        let unknown_flags = GOOD.replace("-01", "-fe");
        assert!(!TraceContext::parse(unknown_flags.as_bytes()).unwrap().sampled);
    }

    #[test]
    fn many_below_one_span_have_ids_of_their_own() {
        let stream = TraceContext::parse(GOOD.as_bytes()).unwrap();
        let pages: std::collections::HashSet<_> =
            (0..1000).map(|number| stream.numbered(number).parent_id).collect();
        assert_eq!(pages.len(), 1000);
        assert!(!pages.contains(&stream.parent_id));
        assert_eq!(stream.numbered(7).trace_id, stream.trace_id);
        assert_eq!(stream.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    proptest! {
        #[test]
        fn any_context_round_trips(trace: u128, span: u64, sampled: bool) {
            let context = TraceContext::root(trace, span, sampled);
            prop_assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceContext::parse(&bytes);
        }
    }
}
