//! The events of API §3 and how they are written for each transport.

use crate::page::{Outcome, PageError, Timings};
use axum::extract::ws::Utf8Bytes;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// How a stream is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Ndjson,
    Sse,
    /// One JSON text for the whole stream.
    Json,
    /// Text messages that bear the client's id.
    Ws(String),
}

/// Counts of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) from_cache: u64,
}

impl Counts {
    pub(crate) fn completed(&self) -> u64 {
        self.successful + self.failed + self.cancelled
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    r#type: &'static str,
    seq: u64,
    stream_id: &'a str,
    total_urls: u64,
    request_id: &'a str,
    timestamp: &'a str,
    stream_type: &'static str,
    resume: Resume,
    limits: Limits,
    warnings: [&'static str; 0],
}

#[derive(Serialize)]
struct Resume {
    window_s: u64,
    max_bytes: u64,
}

#[derive(Serialize)]
struct Limits {
    deadline_ms: u64,
}

#[derive(Serialize)]
struct ResultEvent<'a> {
    r#type: &'static str,
    seq: u64,
    index: u64,
    result: PageResult<'a>,
    progress: Share,
}

#[derive(Serialize)]
struct PageResult<'a> {
    url: &'a str,
    final_url: &'a str,
    status: u16,
    from_cache: bool,
    cache: &'static str,
    gate_decision: &'static str,
    quality_score: f64,
    processing_time_ms: u64,
    timings_us: Timings,
    bytes: Sizes,
    document: Option<&'a RawValue>,
    error: Option<&'a PageError>,
    cache_key: &'a str,
}

#[derive(Serialize)]
struct Sizes {
    wire: usize,
    body: usize,
}

#[derive(Serialize)]
struct Share {
    completed: u64,
    total: u64,
    success_rate: f64,
}

#[derive(Serialize)]
struct Progress<'a> {
    r#type: &'static str,
    operation_id: &'a str,
    operation_type: &'static str,
    started_at: &'a str,
    current_phase: &'static str,
    progress_percentage: f64,
    items_completed: u64,
    items_total: u64,
    estimated_completion: Option<&'a str>,
    current_item: Option<&'a str>,
}

#[derive(Serialize)]
struct Heartbeat<'a> {
    r#type: &'static str,
    timestamp: &'a str,
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    seq: u64,
    total_urls: u64,
    successful: u64,
    failed: u64,
    cancelled: u64,
    from_cache: u64,
    total_processing_time_ms: u64,
    cache_hit_rate: f64,
    status: &'static str,
    ttfr_ms: Option<u64>,
    last_seq: u64,
}

/// Writes events into one growing buffer, which leaves as it is.
#[derive(Debug)]
pub(crate) struct Encoder {
    transport: Transport,
    out: BytesMut,
    messages: Vec<Utf8Bytes>,
    results: u64,
}

impl Encoder {
    pub(crate) fn new(transport: Transport) -> Self {
        let mut out = BytesMut::new();
        if transport == Transport::Sse {
            out.put_slice(b"retry: 1000\n\n");
        }
        Self { transport, out, messages: Vec::new(), results: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.messages.is_empty()
    }

    /// What has been written for HTTP.
    pub(crate) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// What has been written for a WebSocket.
    pub(crate) fn take_messages(&mut self) -> Vec<Utf8Bytes> {
        std::mem::take(&mut self.messages)
    }

    pub(crate) fn metadata(
        &mut self,
        ids: (&str, &str),
        total: u64,
        at: SystemTime,
        deadline_ms: u64,
    ) {
        let event = Metadata {
            r#type: "metadata",
            seq: 0,
            stream_id: ids.0,
            total_urls: total,
            request_id: ids.1,
            timestamp: &rfc3339(at),
            stream_type: "crawl",
            resume: Resume { window_s: 0, max_bytes: 0 },
            limits: Limits { deadline_ms },
            warnings: [],
        };
        self.event("metadata", Some((ids.0, 0)), &event);
    }

    pub(crate) fn result(
        &mut self,
        stream_id: &str,
        (seq, index): (u64, usize),
        url: &str,
        outcome: &Outcome,
        counts: &Counts,
    ) {
        let page = outcome.page.as_ref();
        let mut key = String::new();
        if page.is_ok() {
            let _ = write!(key, "{:016x}", outcome.key);
        }
        let result = PageResult {
            url,
            final_url: page.map_or(url, |page| &page.final_url),
            status: page.map_or(0, |page| page.status),
            from_cache: outcome.from_cache,
            cache: if outcome.from_cache { "hit" } else { "miss" },
            gate_decision: match page {
                Ok(_) if outcome.from_cache => "cached",
                Ok(_) => "approved",
                Err(error) if error.is_rejected() => "rejected",
                Err(_) => "failed",
            },
            quality_score: page.map_or(0.0, |page| page.quality),
            processing_time_ms: outcome.timings.total() / 1000,
            timings_us: outcome.timings,
            bytes: page.map_or(Sizes { wire: 0, body: 0 }, |page| Sizes {
                wire: page.wire_bytes,
                body: page.body_bytes,
            }),
            document: page.ok().map(|page| &*page.document),
            error: outcome.page.as_ref().err(),
            cache_key: &key,
        };
        let progress = Share {
            completed: counts.completed(),
            total: counts.total,
            success_rate: ratio(counts.successful, counts.completed()),
        };
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let event = ResultEvent { r#type: "result", seq, index, result, progress };
        self.event("result", Some((stream_id, seq)), &event);
    }

    pub(crate) fn progress(
        &mut self,
        stream_id: &str,
        started: SystemTime,
        counts: &Counts,
        estimated: Option<SystemTime>,
        current: Option<&str>,
    ) {
        let estimated = estimated.map(rfc3339);
        let event = Progress {
            r#type: "progress",
            operation_id: stream_id,
            operation_type: "batch_crawl",
            started_at: &rfc3339(started),
            current_phase: "processing",
            progress_percentage: 100.0 * ratio(counts.completed(), counts.total),
            items_completed: counts.completed(),
            items_total: counts.total,
            estimated_completion: estimated.as_deref(),
            current_item: current,
        };
        self.event("progress", None, &event);
    }

    pub(crate) fn summary(
        &mut self,
        stream_id: &str,
        seq: u64,
        counts: &Counts,
        total_ms: u64,
        ttfr_ms: Option<u64>,
        status: &'static str,
    ) {
        let event = Summary {
            r#type: "summary",
            seq,
            total_urls: counts.total,
            successful: counts.successful,
            failed: counts.failed,
            cancelled: counts.cancelled,
            from_cache: counts.from_cache,
            total_processing_time_ms: total_ms,
            cache_hit_rate: ratio(counts.from_cache, counts.total),
            status,
            ttfr_ms,
            last_seq: seq,
        };
        self.event("summary", Some((stream_id, seq)), &event);
    }

    /// What keeps a quiet connection alive.
    pub(crate) fn heartbeat(&mut self) {
        match self.transport {
            Transport::Sse => self.out.put_slice(b":\n\n"),
            Transport::Json => self.out.put_u8(b'\n'),
            Transport::Ndjson => {
                let timestamp = &rfc3339(SystemTime::now());
                self.event("heartbeat", None, &Heartbeat { r#type: "heartbeat", timestamp });
            }
            // WebSockets are pinged.
            Transport::Ws(_) => {}
        }
    }

    fn event(&mut self, kind: &str, place: Option<(&str, u64)>, event: &impl Serialize) {
        match &self.transport {
            Transport::Ndjson => {
                self.json(event);
                self.out.put_u8(b'\n');
            }
            Transport::Sse => {
                let _ = match place {
                    Some((id, seq)) => {
                        write!(self.out, "event: {kind}\nid: {id}.{seq}\ndata: ")
                    }
                    None => write!(self.out, "event: {kind}\ndata: "),
                };
                self.json(event);
                self.out.put_slice(b"\n\n");
            }
            Transport::Json => {
                let (before, after): (&[u8], &[u8]) = match kind {
                    "metadata" => (b"{\"metadata\":", b",\"results\":["),
                    "result" => {
                        self.results += 1;
                        (if self.results > 1 { b"," } else { b"" }, b"")
                    }
                    "summary" => (b"],\"summary\":", b"}\n"),
                    _ => return,
                };
                self.out.put_slice(before);
                self.json(event);
                self.out.put_slice(after);
            }
            Transport::Ws(id) => {
                let id = id.clone();
                self.json(event);
                self.out.truncate(self.out.len() - 1);
                self.out.put_slice(b",\"id\":");
                self.json(&id);
                self.out.put_u8(b'}');
                let text = Utf8Bytes::try_from(self.out.split().freeze());
                self.messages.push(text.expect("JSON is UTF-8"));
            }
        }
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer((&mut self.out).writer(), value).expect("events are plain data");
    }
}

/// `part / whole` to four decimals, 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1e4).round() / 1e4 }
}

/// RFC 3339 in UTC with milliseconds; days to dates by H. Hinnant's civil-from-days.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_millis(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(1_768_473_000_250), "2026-01-15T10:30:00.250Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }
}
