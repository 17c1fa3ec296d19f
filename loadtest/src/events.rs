//! What must hold on every stream of events: sequence numbers without holes, exactly one result
//! per index, exactly one summary or error at the end.

use crate::num::{to_u64, to_usize};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Indexes that are tracked one by one.
const INDEXES_MAX: u64 = 1_000_000;

/// The fields of an event that the checks need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct EventHead {
    /// `type`.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) seq: Option<u64>,
    #[serde(default)]
    pub(crate) index: Option<u64>,
    #[serde(default)]
    pub(crate) total_urls: Option<u64>,
    #[serde(default)]
    pub(crate) stream_id: Option<String>,
    #[serde(default)]
    pub(crate) from_seq: Option<u64>,
    #[serde(default)]
    pub(crate) to_seq: Option<u64>,
    #[serde(default)]
    pub(crate) successful: Option<u64>,
    #[serde(default)]
    pub(crate) failed: Option<u64>,
    #[serde(default)]
    pub(crate) cancelled: Option<u64>,
    #[serde(default)]
    pub(crate) error: Option<ErrorHead>,
}

/// The error of an `error` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ErrorHead {
    /// Its code.
    #[serde(default)]
    pub(crate) code: String,
}

impl EventHead {
    /// Reads an event. A `result` is read only as far as its `seq` and `index` unless `whole`:
    /// its document is most of the bytes, and a client that parses it would measure itself.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub(crate) fn parse(json: &[u8], whole: bool) -> Result<Self, String> {
        if !whole && let Some(head) = Self::peek_result(json) {
            return Ok(head);
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The head of `{"type":"result","seq":N,"index":N,…}`, in that order.
    fn peek_result(json: &[u8]) -> Option<Self> {
        let rest = json.strip_prefix(b"{\"type\":\"result\",\"seq\":")?;
        let (seq, rest) = leading_number(rest)?;
        let (index, rest) = leading_number(rest.strip_prefix(b",\"index\":")?)?;
        let closed = json.trim_ascii_end().ends_with(b"}");
        (rest.first() == Some(&b',') && closed).then(|| Self {
            kind: "result".to_owned(),
            seq: Some(seq),
            index: Some(index),
            ..Self::default()
        })
    }

    /// Whether the event carries a `seq` and may never be lost.
    pub(crate) fn is_durable(&self) -> bool {
        self.seq.is_some()
    }

    /// Whether it ends its stream.
    pub(crate) fn is_final(&self) -> bool {
        self.kind == "summary" || (self.kind == "error" && self.seq.is_some())
    }
}

fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|b| !b.is_ascii_digit())?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, &bytes[end..]))
}

/// Follows one stream across all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamCheck {
    /// The id that resumes it.
    pub(crate) stream_id: Option<String>,
    next_seq: u64,
    total: Option<u64>,
    seen: Vec<u64>,
    /// Results so far, each index once.
    pub(crate) results: u64,
    /// The last event.
    pub(crate) last: Option<EventHead>,
    resumed: bool,
    /// Events that a resume sent again.
    pub(crate) replayed: u64,
    /// Sequence numbers that a `gap` event owned up to.
    pub(crate) gap_events: u64,
    /// Broken rules by name.
    pub(crate) violations: BTreeMap<&'static str, u64>,
}

impl StreamCheck {
    /// The last sequence number seen.
    pub(crate) fn last_seq(&self) -> Option<u64> {
        self.next_seq.checked_sub(1)
    }

    /// Whether the stream came to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.last.is_some()
    }

    /// The stream goes on over another connection, which may repeat some events.
    pub(crate) fn handle_resume(&mut self) {
        self.resumed = true;
    }

    /// Checks one event; returns false for one that a resume repeated: it may do so until its first new
    /// event, and not again behind that.
    pub(crate) fn handle_event(&mut self, event: &EventHead) -> bool {
        let Some(seq) = event.seq else {
            if self.is_over() {
                self.violation("event after the end", 1);
            }
            return true;
        };
        if seq < self.next_seq {
            if self.resumed {
                self.replayed += 1;
            } else {
                self.violation("seq repeated", 1);
            }
            return false;
        }
        if self.is_over() {
            self.violation("event after the end", 1);
        }
        let covered = match (event.kind.as_str(), event.from_seq, event.to_seq) {
            ("gap", Some(from), Some(to)) if from <= self.next_seq && to >= from => {
                let lost = (to + 1).saturating_sub(self.next_seq);
                self.gap_events += lost;
                self.next_seq + lost
            }
            _ => self.next_seq,
        };
        if seq > covered {
            self.violation("seq missing", seq - covered);
        }
        self.next_seq = seq + 1;
        self.resumed = false;
        self.take(event);
        true
    }

    fn take(&mut self, event: &EventHead) {
        match event.kind.as_str() {
            "metadata" => {
                self.stream_id.clone_from(&event.stream_id);
                self.total = event.total_urls;
            }
            "search" | "gap" => {}
            "result" => match event.index {
                Some(index) if self.total.is_none_or(|total| index < total) => self.mark(index),
                _ => self.violation("index out of range", 1),
            },
            _ if event.is_final() => self.last = Some(event.clone()),
            _ => self.violation("unknown event type with a seq", 1),
        }
    }

    fn mark(&mut self, index: u64) {
        if index >= INDEXES_MAX {
            self.violation("index out of range", 1);
            return;
        }
        let (word, bit) = (to_usize(index / 64), 1_u64 << (index % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.violation("index repeated", 1);
        } else {
            self.seen[word] |= bit;
            self.results += 1;
        }
    }

    /// The connection ended for good: what is missing now is missing.
    pub(crate) fn handle_end(&mut self) {
        let Some(last) = self.last.clone() else {
            self.violation("no summary or error at the end", 1);
            return;
        };
        if last.kind != "summary" {
            return;
        }
        let count = |n: Option<u64>| n.unwrap_or(0);
        let total = self.total.or(last.total_urls);
        let sum = count(last.successful) + count(last.failed) + count(last.cancelled);
        if total.is_some_and(|total| total != sum) {
            self.violation("summary does not add up", 1);
        }
        let expected = total.unwrap_or(sum);
        if self.gap_events == 0 && self.results < expected {
            self.violation("result missing", expected - self.results);
        }
    }

    fn violation(&mut self, what: &'static str, times: u64) {
        *self.violations.entry(what).or_default() += times;
    }

    /// Broken rules in all.
    pub(crate) fn violation_count(&self) -> u64 {
        self.violations.values().sum()
    }
}

/// Splits NDJSON into its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Bytes of one line.
    const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// Takes bytes, hands over each whole line without its end.
    ///
    /// # Errors
    /// When a line is beyond any bound.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.partial.is_empty() {
                sink(&bytes[..end]);
            } else {
                self.partial.extend_from_slice(&bytes[..end]);
                sink(&self.partial);
                self.partial.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > Self::LINE_BYTES_MAX {
            return Err(format!("a line above {} bytes", Self::LINE_BYTES_MAX));
        }
        Ok(())
    }

    /// Bytes after the last line feed: an NDJSON stream leaves none.
    pub(crate) fn leftover(&self) -> u64 {
        to_u64(self.partial.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn play(lines: &[&str]) -> StreamCheck {
        let mut check = StreamCheck::default();
        for line in lines {
            check.handle_event(&EventHead::parse(line.as_bytes(), false).unwrap());
        }
        check.handle_end();
        check
    }

    const META: &str = r#"{"type":"metadata","seq":0,"stream_id":"01J","total_urls":2}"#;
    const R0: &str = r#"{"type":"result","seq":1,"index":0,"result":{}}"#;
    const R1: &str = r#"{"type":"result","seq":2,"index":1,"result":{}}"#;
    const SUM: &str =
        r#"{"type":"summary","seq":3,"total_urls":2,"successful":1,"failed":1,"cancelled":0}"#;

    #[test]
    fn a_good_stream_breaks_nothing() {
        let check = play(&[META, R0, r#"{"type":"progress"}"#, R1, SUM]);
        assert!(check.violations.is_empty(), "{:?}", check.violations);
        assert_eq!((check.results, check.last_seq()), (2, Some(3)));
    }

    #[test]
    fn each_broken_rule_is_seen() {
        let cases: [(&[&str], &str, u64); 7] = [
            (&[META, R1, SUM], "seq missing", 1),
            (&[META, R0, R0, R1, SUM], "seq repeated", 1),
            (&[META, R0, R1], "no summary or error at the end", 1),
            (&[META, R0, r#"{"type":"result","seq":2,"index":0}"#, SUM], "index repeated", 1),
            (&[META, r#"{"type":"result","seq":1,"index":2}"#], "index out of range", 1),
            (&[META, R0, R1, SUM, r#"{"type":"heartbeat"}"#], "event after the end", 1),
            (
                &[META, R0, R1, r#"{"type":"summary","seq":3,"successful":1}"#],
                "summary does not add up",
                1,
            ),
        ];
        for (lines, rule, times) in cases {
            let check = play(lines);
            assert_eq!(check.violations.get(rule), Some(&times), "{rule}: {:?}", check.violations);
        }
    }

    #[test]
    fn a_resume_may_repeat_and_a_gap_may_skip() {
        let mut check = StreamCheck::default();
        for line in [META, R0] {
            check.handle_event(&EventHead::parse(line.as_bytes(), true).unwrap());
        }
        check.handle_resume();
        for line in [R0, R1, SUM] {
            check.handle_event(&EventHead::parse(line.as_bytes(), true).unwrap());
        }
        check.handle_end();
        assert!(check.violations.is_empty() && check.replayed == 1, "{:?}", check.violations);
        let gap = r#"{"type":"gap","seq":3,"from_seq":1,"to_seq":2,"reason":"window_exceeded"}"#;
        let end = r#"{"type":"summary","seq":4,"successful":2}"#;
        let check = play(&[META, gap, end]);
        assert!(check.violations.is_empty() && check.gap_events == 2, "{:?}", check.violations);
    }

    #[test]
    fn a_result_peeked_is_a_result_parsed() {
        let peeked = EventHead::parse(R1.as_bytes(), false).unwrap();
        assert_eq!(peeked, EventHead::parse(R1.as_bytes(), true).unwrap());
        assert!(EventHead::parse(br#"{"type":"result","seq":1,"index":0,"#, false).is_err());
    }

    #[test]
    fn lines_join_across_pieces() {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for part in [&b"ab"[..], b"c\nd", b"\n\ne"] {
            splitter.feed(part, |line| lines.push(line.to_vec())).unwrap();
        }
        assert_eq!(lines, [b"abc".to_vec(), b"d".to_vec(), Vec::new()]);
        assert_eq!(splitter.leftover(), 1);
    }
}
