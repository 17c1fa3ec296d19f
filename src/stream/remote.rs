//! A stream's log in Redis: what its node writes there, and what any other node reads.
//!
//! Two keys in one hash slot: `{id}:log`, a Redis Stream whose entry ids are `seq + 1`, and `{id}:facts`,
//! a hash of what must be known beside it. Only scripts write, so the log has no holes but at its
//! beginning, nothing twice, and nothing behind its last event, whoever writes at the same time.
//!
//! What is read is trusted by nobody: an entry that is no event of its place is none.

use super::state::State;
use super::{Birth, Patience};
use crate::cluster::{Does, Link, Trouble};
use crate::proto::events::{Counts, Event, Kind};
use bytes::Bytes;
use redis::{cmd, pipe};
use std::collections::HashMap;
use std::time::Duration;
use ulid::Ulid;

/// Entries that are read at a time.
const READ_MAX: usize = 16;
/// Bytes of the longest event that is taken from Redis.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a log outlives the last word of a node that died while it wrote.
const SLACK: Duration = Duration::from_secs(60);

/// Appends events; the next `seq`, or -1 where the log has its last event already. What would leave a
/// hole is not written, unless there is nothing better to be had; nor are the facts that came with events
/// all of which were there, and more: they come late, and are old. `KEYS`: log, facts. `ARGV`: the first
/// event's seq, the most bytes, milliseconds to live, whether a hole will do, how many facts, the facts by
/// name and value, then a kind and a text for each event.
const APPEND: &str = r"
local known = redis.call('HMGET', KEYS[2], 'next', 'bytes', 'results', 'ended')
if known[4] then return -1 end
local next, bytes, results = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
local seq, facts = tonumber(ARGV[1]), tonumber(ARGV[5])
if seq > next and ARGV[4] == '0' then return next end
if seq + (#ARGV - 5 - 2 * facts) / 2 >= next then
  for at = 6, 5 + 2 * facts, 2 do redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
end
for at = 6 + 2 * facts, #ARGV, 2 do
  local kind, text = ARGV[at], ARGV[at + 1]
  if seq >= next then
    redis.call('XADD', KEYS[1], string.format('%d-0', seq + 1), 'k', kind, 'e', text)
    bytes, next = bytes + #text, seq + 1
    if kind == 'result' then results = results + 1 end
    if kind == 'summary' or kind == 'error' then redis.call('HSET', KEYS[2], 'ended', '1') end
  end
  seq = seq + 1
end
while bytes > tonumber(ARGV[2]) do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 2)
  if #oldest < 2 then break end
  bytes = bytes - #oldest[1][2][4]
  redis.call('XDEL', KEYS[1], oldest[1][1])
end
redis.call('HSET', KEYS[2], 'next', next, 'bytes', bytes, 'results', results)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return next";

/// What is known of a stream beside its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The node that crawls.
    pub home: Ulid,
    /// Whose stream it is.
    pub principal: String,
    /// Bytes of its replay window.
    pub replay_bytes_max: usize,
    /// How long it is kept.
    pub window: Duration,
    /// How its readers are to be treated.
    pub patience: Patience,
    /// Where it stands.
    pub state: State,
    /// Its totals.
    pub counts: Counts,
    /// Fetches under way.
    pub in_flight: u32,
}

/// What a read has found.
#[derive(Debug)]
pub struct Read {
    /// The facts.
    pub facts: Facts,
    /// Results in the log, those that were dropped again among them.
    pub results: u64,
    /// `seq` behind the last event.
    pub next: u64,
    /// Whether the last event is there.
    pub ended: bool,
    /// Events, without holes among them; the first may be later than was asked for.
    pub events: Vec<Event>,
}

impl Facts {
    /// The facts of a stream of the node `home`.
    #[must_use]
    pub fn of(birth: &Birth, home: Ulid, status: super::Status) -> Self {
        Self {
            home,
            principal: birth.principal.to_string(),
            replay_bytes_max: birth.replay_bytes_max,
            window: birth.resume_window,
            patience: birth.patience,
            state: status.state,
            counts: status.counts,
            in_flight: status.in_flight,
        }
    }

    fn pairs(&self) -> [(&'static str, String); 13] {
        let counts = self.counts;
        [
            ("home", self.home.to_string()),
            ("principal", self.principal.clone()),
            ("replay_bytes_max", self.replay_bytes_max.to_string()),
            ("window_s", self.window.as_secs().to_string()),
            ("stall_ms", self.patience.stall.as_millis().to_string()),
            ("cut_slow", u8::from(self.patience.cut_slow).to_string()),
            ("state", self.state.as_str().to_owned()),
            ("total", counts.total.to_string()),
            ("successful", counts.successful.to_string()),
            ("failed", counts.failed.to_string()),
            ("cancelled", counts.cancelled.to_string()),
            ("from_cache", counts.from_cache.to_string()),
            ("in_flight", self.in_flight.to_string()),
        ]
    }

    fn read(found: &HashMap<String, String>) -> Option<Self> {
        let text = |name: &str| found.get(name);
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        // Nobody means to wait longer, and a time of centuries can't be added to a clock.
        let stall = Duration::from_millis(number("stall_ms")?.min(86_400_000));
        Some(Self {
            home: Ulid::from_string(text("home")?).ok()?,
            principal: text("principal")?.clone(),
            replay_bytes_max: usize::try_from(number("replay_bytes_max")?).ok()?,
            window: Duration::from_secs(number("window_s")?.min(86_400)),
            patience: Patience { stall, cut_slow: number("cut_slow")? == 1 },
            state: State::ALL
                .into_iter()
                .find(|s| Some(s.as_str()) == text("state").map(|s| &**s))?,
            counts: Counts {
                total: number("total")?,
                successful: number("successful")?,
                failed: number("failed")?,
                cancelled: number("cancelled")?,
                from_cache: number("from_cache")?,
            },
            in_flight: u32::try_from(number("in_flight")?).ok()?,
        })
    }
}

/// What is to be written.
#[derive(Debug)]
pub struct Batch {
    /// Of which stream.
    pub id: Ulid,
    /// Its facts.
    pub facts: Facts,
    /// `seq` of the first event, or of the one to come.
    pub first_seq: u64,
    /// Whether nothing before it can be had any more: what is missing there stays missing.
    pub oldest: bool,
    /// Events without holes, or none.
    pub events: Vec<Event>,
}

/// Writes events behind what is there, those that are there already excepted; the next `seq` that is
/// missing, or `None` where the log has its last event. That `seq` may be an earlier one: Redis has lost
/// what it had.
///
/// # Errors
/// [`Trouble`]; the same events may be written again.
pub async fn append(link: Link, batch: Batch) -> Result<Option<u64>, Trouble> {
    let Batch { id, facts, first_seq, oldest, events } = batch;
    let ends = events.iter().any(|event| event.kind.last());
    let lives = if ends { facts.window } else { facts.window + SLACK };
    let pairs = facts.pairs();
    let mut eval = cmd("EVAL");
    eval.arg(APPEND).arg(2).arg(link.key(&log(id))).arg(link.key(&facts_of(id)));
    eval.arg(first_seq).arg(facts.replay_bytes_max);
    eval.arg(u64::try_from(lives.as_millis()).unwrap_or(u64::MAX));
    eval.arg(u8::from(oldest)).arg(pairs.len());
    for (name, value) in &pairs {
        eval.arg(name).arg(value);
    }
    for event in &events {
        let mut text = Vec::with_capacity(event.len());
        for part in [&event.head, &event.body, &event.tail] {
            text.extend_from_slice(part);
        }
        eval.arg(event.kind.as_str()).arg(text);
    }
    let next: i64 = link.ask(Does::Bulk, &eval).await?;
    Ok(u64::try_from(next).ok())
}

/// Reads a stream from `seq` on; `None` where there is no such stream.
///
/// # Errors
/// [`Trouble`].
pub async fn read(
    link: Link,
    id: Ulid,
    seq: u64,
    check: fn(&[u8]) -> bool,
) -> Result<Option<Read>, Trouble> {
    let mut both = pipe();
    both.cmd("HGETALL").arg(link.key(&facts_of(id)));
    let from = format!("{}-0", seq.saturating_add(1));
    both.cmd("XRANGE").arg(link.key(&log(id))).arg(from).arg("+").arg("COUNT").arg(READ_MAX);
    type Entry = (String, HashMap<String, Vec<u8>>);
    let (found, entries): (HashMap<String, String>, Vec<Entry>) =
        link.ask_all(Does::Read, &both).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let facts = Facts::read(&found).ok_or(Trouble::Garbage)?;
    let number = |name: &str| found.get(name).and_then(|text| text.parse().ok());
    let mut events: Vec<Event> = Vec::with_capacity(entries.len());
    for (place, mut fields) in entries {
        let kind = fields.remove("k").ok_or(Trouble::Garbage)?;
        let text = fields.remove("e").ok_or(Trouble::Garbage)?;
        let event = event(&place, &kind, text, check).ok_or(Trouble::Garbage)?;
        if events.last().is_some_and(|last| last.seq + 1 != event.seq) {
            return Err(Trouble::Garbage);
        }
        events.push(event);
    }
    Ok(Some(Read {
        facts,
        results: number("results").unwrap_or(0),
        next: number("next").unwrap_or(0),
        ended: found.contains_key("ended"),
        events,
    }))
}

fn event(place: &str, kind: &[u8], text: Vec<u8>, check: fn(&[u8]) -> bool) -> Option<Event> {
    let seq = place.strip_suffix("-0")?.parse::<u64>().ok()?.checked_sub(1)?;
    let mut written = Kind::ALL.into_iter().filter(|kind| kind.durable() && *kind != Kind::Gap);
    let kind = written.find(|known| known.as_str().as_bytes() == kind)?;
    let start = format!("{{\"type\":\"{}\",\"seq\":{seq},", kind.as_str());
    let good = text.len() <= EVENT_BYTES_MAX && text.starts_with(start.as_bytes()) && check(&text);
    good.then(|| Event {
        kind,
        seq,
        head: Bytes::from(text),
        body: Bytes::new(),
        tail: Bytes::new(),
    })
}

fn log(id: Ulid) -> String {
    format!("{{{id}}}:log")
}

fn facts_of(id: Ulid) -> String {
    format!("{{{id}}}:facts")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn facts() -> Facts {
        Facts {
            home: Ulid(7),
            principal: "ann".to_owned(),
            replay_bytes_max: 1000,
            window: Duration::from_secs(120),
            patience: Patience { stall: Duration::from_secs(30), cut_slow: true },
            state: State::Active,
            counts: Counts { total: 5, successful: 1, failed: 2, cancelled: 0, from_cache: 1 },
            in_flight: 2,
        }
    }

    #[test]
    fn facts_come_back_as_they_were_and_no_others() {
        let pairs = facts().pairs();
        let found: HashMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        assert_eq!(Facts::read(&found), Some(facts()));
        for (name, _) in &pairs {
            let mut less = found.clone();
            less.remove(*name);
            assert_eq!(Facts::read(&less), None, "without {name}");
            if *name != "principal" {
                less.insert((*name).to_owned(), "-x".to_owned());
                assert_eq!(Facts::read(&less), None, "odd {name}");
            }
        }
    }

    #[test]
    fn an_entry_is_an_event_of_its_place_or_none() {
        let good = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok();
        let read = |place, kind: &str, text: &str| {
            event(place, kind.as_bytes(), text.as_bytes().to_vec(), good)
        };
        let text = "{\"type\":\"result\",\"seq\":4,\"index\":1}";
        assert_eq!(read("5-0", "result", text).unwrap().seq, 4);
        for kind in Kind::ALL.map(Kind::as_str) {
            let text = format!("{{\"type\":\"{kind}\",\"seq\":0,\"x\":1}}");
            let found = read("1-0", kind, &text).map(|event| event.kind.as_str());
            // What tells of holes is made where somebody reads.
            let written = !matches!(kind, "gap" | "progress" | "heartbeat");
            assert_eq!(found, written.then_some(kind));
        }
        for (place, kind, text) in [
            ("6-0", "result", text),
            ("5-1", "result", text),
            ("0-0", "result", text),
            ("x", "result", text),
            ("5-0", "summary", text),
            ("5-0", "progress", text),
            ("5-0", "result", "{\"type\":\"result\",\"seq\":4,\"index\":1"),
            ("5-0", "result", "{\"type\":\"result\",\"seq\":44}"),
        ] {
            assert!(read(place, kind, text).is_none(), "{place} {kind} {text}");
        }
    }
}
