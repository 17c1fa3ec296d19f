//! A job as its client sees it: the same object wherever the job lives.

use super::webhook::{Event, Verdict};
use crate::proto::events::Counts;
use crate::proto::json;
use crate::proto::timestamp::rfc3339_millis;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::{Duration, SystemTime};
use ulid::Ulid;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Taken; nothing has been fetched yet.
    Queued,
    /// Being worked on.
    Running,
    /// Its client has ended it; what runs is coming to its end.
    Cancelling,
    /// Every URL has its result.
    Completed,
    /// Ended by its client.
    Cancelled,
    /// Given up: its deadline has passed, or its server went down.
    Failed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Completed,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The status of that word.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Failed)
    }

    /// What is told of it.
    #[must_use]
    pub const fn event(self) -> Option<Event> {
        match self {
            Self::Completed => Some(Event::Completed),
            Self::Cancelled => Some(Event::Cancelled),
            Self::Failed => Some(Event::Failed),
            _ => None,
        }
    }
}

/// How the delivery of a webhook stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// `pending`, `delivered`, `failed`, or `unwanted` for an event that nobody asked for.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// The receiver's last status; 0 where there was none.
    pub status: u16,
    /// Why the last attempt did not reach it.
    pub error: Option<String>,
}

impl Delivery {
    /// The state that a verdict leads to.
    #[must_use]
    pub const fn state_after(verdict: Verdict) -> &'static str {
        match verdict {
            Verdict::Delivered => "delivered",
            Verdict::GivenUp => "failed",
            Verdict::Again(_) => "pending",
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct View {
    /// The job's id.
    pub id: Ulid,
    /// Where it stands.
    pub status: Status,
    /// Why it failed, where it did.
    pub error: Option<&'static str>,
    /// Where it lives: `memory` or `redis`.
    pub place: &'static str,
    /// Its totals.
    pub counts: Counts,
    /// `seq` of its last event so far.
    pub last_seq: Option<u64>,
    /// Bytes of its results.
    pub bytes: u64,
    /// When it was made.
    pub created: SystemTime,
    /// When its first page was taken up.
    pub started: Option<SystemTime>,
    /// When its last event was written.
    pub ended: Option<SystemTime>,
    /// When it must have ended.
    pub deadline: SystemTime,
    /// For how long it is kept after its end.
    pub retention: Duration,
    /// How its webhook stands, where it has one.
    pub webhook: Option<Delivery>,
}

impl View {
    /// The object of `GET /jobs/{id}`.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(768);
        self.write(&mut out, true);
        out.freeze()
    }

    /// The body of its webhook; the same for each attempt.
    #[must_use]
    pub fn webhook_body(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(768);
        out.put_slice(b"{\"type\":");
        let event = self.status.event().unwrap_or(Event::Failed);
        json::string(&mut out, event.as_str());
        time(&mut out, b",\"timestamp\":", self.ended);
        out.put_slice(b",\"data\":");
        self.write(&mut out, false);
        out.put_u8(b'}');
        out.freeze()
    }

    fn write(&self, out: &mut BytesMut, with_delivery: bool) {
        let id = self.id.to_string();
        out.put_slice(b"{\"job_id\":");
        json::string(out, &id);
        out.put_slice(b",\"status\":");
        json::string(out, self.status.as_str());
        out.put_slice(b",\"error\":");
        json::string_or_null(out, self.error);
        out.put_slice(b",\"where\":");
        json::string(out, self.place);
        let counts = self.counts;
        let numbers = [
            ("total_urls", counts.total),
            ("successful", counts.successful),
            ("failed", counts.failed),
            ("cancelled", counts.cancelled),
            ("from_cache", counts.from_cache),
            ("result_bytes", self.bytes),
        ];
        json::integers(out, &numbers);
        out.put_slice(b",\"last_seq\":");
        match self.last_seq {
            Some(seq) => json::integer(out, seq),
            None => out.put_slice(b"null"),
        }
        time(out, b",\"created_at\":", Some(self.created));
        time(out, b",\"started_at\":", self.started);
        time(out, b",\"ended_at\":", self.ended);
        time(out, b",\"deadline_at\":", Some(self.deadline));
        time(out, b",\"expires_at\":", self.ended.map(|ended| ended + self.retention));
        out.put_slice(b",\"events\":\"/jobs/");
        out.put_slice(id.as_bytes());
        out.put_slice(b"/events\"");
        if let Some(delivery) = self.webhook.as_ref().filter(|_| with_delivery) {
            out.put_slice(b",\"webhook\":{\"state\":");
            json::string(out, &delivery.state);
            let numbers = [
                ("attempts", u64::from(delivery.attempts)),
                ("last_status", u64::from(delivery.status)),
            ];
            json::integers(out, &numbers);
            out.put_slice(b",\"last_error\":");
            json::string_or_null(out, delivery.error.as_deref());
            out.put_u8(b'}');
        }
        out.put_u8(b'}');
    }
}

fn time(out: &mut BytesMut, name: &[u8], at: Option<SystemTime>) {
    out.put_slice(name);
    match at {
        Some(at) => {
            out.put_u8(b'"');
            out.put_slice(&rfc3339_millis(at));
            out.put_u8(b'"');
        }
        None => out.put_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_view_is_json_and_its_webhook_does_not_change_with_the_attempts() {
        let mut view = View {
            id: Ulid(7),
            status: Status::Completed,
            error: None,
            place: "memory",
            counts: Counts { total: 2, successful: 2, ..Counts::default() },
            last_seq: Some(3),
            bytes: 10,
            created: SystemTime::UNIX_EPOCH,
            started: None,
            ended: Some(SystemTime::UNIX_EPOCH),
            deadline: SystemTime::UNIX_EPOCH,
            retention: Duration::from_secs(60),
            webhook: Some(Delivery { state: "pending".to_owned(), ..Delivery::default() }),
        };
        let read: serde_json::Value = serde_json::from_slice(&view.json()).unwrap();
        assert_eq!(read["status"], "completed");
        assert_eq!(read["webhook"]["state"], "pending");
        assert_eq!(read["expires_at"], "1970-01-01T00:01:00.000Z");
        let body = view.webhook_body();
        view.webhook = Some(Delivery { attempts: 3, ..Delivery::default() });
        assert_eq!(body, view.webhook_body());
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["type"], "job.completed");
        assert_eq!(read["data"]["total_urls"], 2);
        for status in Status::ALL {
            assert_eq!(Status::read(status.as_str()), Some(status));
            assert_eq!(status.ended(), status.event().is_some());
        }
    }
}
