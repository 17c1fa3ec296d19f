//! Spans as an `ExportTraceServiceRequest` (opentelemetry-proto 1.x, `trace/v1/trace.proto`).

use super::Resource;
use super::wire::Wire;
use crate::observe::span::{Span, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `Status.code`: the operation has failed.
const ERROR: u64 = 2;
/// `SpanFlags`: the span is sampled, and it is known whether its parent is another process'.
const SAMPLED: u32 = 0x101;
/// And it is.
const REMOTE_PARENT: u32 = 0x200;

/// One message with these spans.
pub(super) fn message(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let mut out = Wire::default();
    out.message(1, |all| {
        all.message(1, |out| resource.write(out));
        all.message(2, |scope| {
            scope.message(1, Resource::write_scope);
            spans.iter().for_each(|span| scope.message(2, |out| write(out, span)));
        });
    });
    out.into_bytes()
}

fn write(out: &mut Wire, span: &Span) {
    out.bytes(1, &span.context.trace_id);
    out.bytes(2, &span.context.parent_id);
    if span.parent != [0; 8] {
        out.bytes(4, &span.parent);
    }
    out.bytes(5, span.name.as_bytes());
    out.integer(6, span.kind as u64);
    out.fixed64(7, nanos(span.started));
    out.fixed64(8, nanos(span.started + span.took));
    for (name, value) in &span.attributes {
        match value {
            Value::Text(text) => out.text_attribute(9, name, text),
            Value::Number(number) => out.number_attribute(9, name, *number),
        }
    }
    for part in &span.parts {
        out.message(11, |out| {
            out.fixed64(1, nanos(span.started + part.ended));
            out.bytes(2, part.name.as_bytes());
            out.number_attribute(3, "forebay.took_us", micros(part.took));
        });
    }
    if let Some(error) = &span.error {
        out.message(15, |out| {
            out.bytes(2, error.as_bytes());
            out.integer(3, ERROR);
        });
    }
    out.fixed32(16, if span.parent_is_remote { SAMPLED | REMOTE_PARENT } else { SAMPLED });
}

/// Nanoseconds since 1970.
pub(super) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
