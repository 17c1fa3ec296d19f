//! What is said to Redis about jobs, on the control thread.

use super::script;
use crate::cluster::{Does, Link, Trouble};
use crate::limits::JOBS_LISTED_MAX;
use redis::{Cmd, Pipeline, cmd, pipe};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ulid::Ulid;

/// The consumer group.
const GROUP: &str = "w";
/// Jobs that one claim looks at.
const JOBS_AT_ONCE: usize = 4;
/// Seconds for which it is known that pages were begun again, since the last one was.
const AGAIN_S: u64 = 7 * 86_400;

/// The fields of a hash.
pub(super) type Fields = HashMap<String, Vec<u8>>;
/// Entries of a stream; one that was deleted has no fields.
type Entries = Vec<(String, Option<Fields>)>;

/// The keys of one job.
pub(super) struct Keys {
    pub(super) meta: String,
    pub(super) events: String,
    pub(super) urls: String,
    done: String,
    again: String,
}

impl Keys {
    pub(super) fn of(link: &Link, id: Ulid) -> Self {
        let key = |name| link.key(&format!("job:{{{id}}}:{name}"));
        Self {
            meta: key("meta"),
            events: key("events"),
            urls: key("urls"),
            done: key("done"),
            again: key("again"),
        }
    }
}

/// URLs of one job that were claimed.
pub(super) struct Batch {
    pub(super) job: Ulid,
    pub(super) meta: Fields,
    pub(super) urls: Vec<Claimed>,
    pub(super) taken_over: usize,
}

/// A URL that was claimed.
pub(super) struct Claimed {
    pub(super) claim: String,
    pub(super) index: u32,
    pub(super) url: String,
    /// Whether another node had it, which said nothing any more.
    pub(super) again: bool,
}

/// What became of a URL.
pub(super) struct Outcome {
    pub(super) job: Ulid,
    pub(super) index: u32,
    pub(super) claim: String,
    /// `ok`, `failed` or `cancelled`.
    pub(super) class: &'static str,
    pub(super) cached: bool,
    pub(super) late: bool,
    pub(super) result: Arc<[u8]>,
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

pub(super) fn number(fields: &Fields, name: &str) -> u64 {
    text(fields, name).parse().unwrap_or(0)
}

pub(super) fn eval(script: &str, keys: &[&String]) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(script).arg(keys.len());
    keys.iter().for_each(|key| {
        command.arg(*key);
    });
    command
}

pub(super) async fn write(link: &Link, command: &Cmd) -> Result<(), Trouble> {
    link.ask::<redis::Value>(Does::Write, command).await.map(drop)
}

async fn write_all(link: &Link, commands: &Pipeline) -> Result<(), Trouble> {
    link.ask_all::<redis::Value>(Does::Write, commands).await.map(drop)
}

/// What is known of a job; empty where there is none.
pub(super) async fn meta(link: &Link, id: Ulid) -> Result<Fields, Trouble> {
    link.ask(Does::Read, cmd("HGETALL").arg(Keys::of(link, id).meta)).await
}

/// Whether a job is not there yet, and perhaps never will be.
pub(super) fn is_being_made(meta: &Fields) -> bool {
    meta.get("status").is_some_and(|status| status == b"creating")
}

/// The principal's jobs before one, the newest first.
pub(super) async fn list(
    link: Link,
    principal: Arc<str>,
    before: Option<Ulid>,
    most: usize,
) -> Result<Vec<(Ulid, Fields)>, Trouble> {
    let of = link.key(&format!("jobs:of:{principal}"));
    let mut found = Vec::new();
    let mut max = before.map_or_else(|| "+inf".to_owned(), |id| id.timestamp_ms().to_string());
    loop {
        let mut range = cmd("ZREVRANGEBYSCORE");
        range.arg(&of).arg(&max).arg("-inf").arg("LIMIT").arg(0).arg(JOBS_LISTED_MAX + 1);
        let ids: Vec<String> = link.ask(Does::Read, &range).await?;
        let whole = ids.len() <= JOBS_LISTED_MAX;
        let Some(last) = ids.last().cloned() else { return Ok(found) };
        for id in ids.iter().filter_map(|id| Ulid::from_string(id).ok()) {
            let listed = found.iter().any(|(other, _)| *other == id);
            if listed || before.is_some_and(|before| id >= before) {
                continue;
            }
            let meta = meta(&link, id).await?;
            if meta.is_empty() {
                write(&link, cmd("ZREM").arg(&of).arg(id.to_string())).await?;
                continue;
            }
            if is_being_made(&meta) {
                continue;
            }
            found.push((id, meta));
            if found.len() >= most {
                return Ok(found);
            }
        }
        if whole {
            return Ok(found);
        }
        // Jobs of one millisecond may be on both sides of the cut; a whole page of them is not.
        let last = Ulid::from_string(&last).map_or(0, |id| id.timestamp_ms());
        let next = if max == last.to_string() { last.saturating_sub(1) } else { last };
        max = next.to_string();
    }
}

/// Claims URLs of some of the jobs that have any, those that nobody cares for any more first.
pub(super) async fn claim(
    link: Link,
    consumer: Arc<str>,
    most: usize,
    takeover: Option<Duration>,
    bytes_max: u64,
) -> Result<Vec<Batch>, Trouble> {
    let active = link.key("jobs:active");
    let some: Vec<String> =
        link.ask(Does::Read, cmd("SRANDMEMBER").arg(&active).arg(JOBS_AT_ONCE)).await?;
    let (mut batches, mut trouble, mut left) = (Vec::new(), None, most);
    for id in some.iter().filter_map(|id| Ulid::from_string(id).ok()) {
        // In a cluster the keys of one job may be out of reach, and those of the next are not.
        match claim_of(&link, id, &consumer, (left, takeover, bytes_max)).await {
            Ok(None) => {}
            Ok(Some(batch)) => {
                left = left.saturating_sub(batch.urls.len());
                batches.push(batch);
            }
            Err(why) => trouble = Some(why),
        }
    }
    match trouble {
        Some(why) if batches.is_empty() => Err(why),
        _ => Ok(batches),
    }
}

/// Claims URLs of one job: `most` of them, idle ones first, while it has less than `bytes_max`.
async fn claim_of(
    link: &Link,
    id: Ulid,
    consumer: &str,
    (most, takeover, bytes_max): (usize, Option<Duration>, u64),
) -> Result<Option<Batch>, Trouble> {
    let meta = meta(link, id).await?;
    let status = text(&meta, "status");
    if matches!(status.as_str(), "" | "completed" | "failed" | "cancelled") {
        return finish(link, id, &meta).await.map(|()| None);
    }
    if is_being_made(&meta) {
        return Ok(None);
    }
    let over = status == "cancelling" || now_ms() >= number(&meta, "deadline");
    if most == 0 || !over && number(&meta, "bytes") >= bytes_max {
        return Ok(None);
    }
    let keys = Keys::of(link, id);
    let mut entries = match takeover {
        Some(idle) => take_over(link, &keys, consumer, idle, most).await?,
        None => Vec::new(),
    };
    let taken_over = entries.len();
    if most > taken_over {
        match claim_new(link, &keys, consumer, most - taken_over).await {
            Ok(new) => entries.extend(new),
            // What was taken over is this node's now.
            Err(_) if taken_over > 0 => {}
            Err(trouble) => return Err(trouble),
        }
    }
    if status == "queued" && !entries.is_empty() {
        // Where this fails, the next claim says it.
        let _ = write(link, eval(script::START, &[&keys.meta]).arg(now_ms())).await;
    }
    let read = |(at, (claim, fields)): (usize, (String, Option<Fields>))| {
        let fields = fields?;
        let index = text(&fields, "i").parse().ok()?;
        Some(Claimed { claim, index, url: text(&fields, "u"), again: at < taken_over })
    };
    let urls: Vec<_> = entries.into_iter().enumerate().filter_map(read).collect();
    Ok((!urls.is_empty()).then_some(Batch { job: id, meta, urls, taken_over }))
}

async fn take_over(
    link: &Link,
    keys: &Keys,
    consumer: &str,
    idle: Duration,
    most: usize,
) -> Result<Entries, Trouble> {
    let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let mut command = cmd("XAUTOCLAIM");
    command.arg(&keys.urls).arg(GROUP).arg(consumer).arg(idle).arg("0-0").arg("COUNT").arg(most);
    let answer: Result<(String, Entries, Vec<String>), _> = link.ask(Does::Write, &command).await;
    gone_is_empty(answer.map(|(_, entries, _)| entries))
}

async fn claim_new(
    link: &Link,
    keys: &Keys,
    consumer: &str,
    most: usize,
) -> Result<Entries, Trouble> {
    let mut command = cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(most);
    command.arg("STREAMS").arg(&keys.urls).arg(">");
    let answer: Result<Option<Vec<(String, Entries)>>, _> = link.ask(Does::Write, &command).await;
    let entries = answer.map(|all| all.into_iter().flatten().flat_map(|(_, e)| e).collect());
    gone_is_empty(entries)
}

/// A job that has ended in this moment has no URLs and no group.
fn gone_is_empty(entries: Result<Entries, Trouble>) -> Result<Entries, Trouble> {
    match entries {
        Err(Trouble::Refused(code)) if code == "NOGROUP" => Ok(Vec::new()),
        other => other,
    }
}

/// How often a page was begun again so far.
pub(super) async fn begun_again(link: Link, id: Ulid, index: u32) -> Result<u64, Trouble> {
    let mut get = cmd("HGET");
    get.arg(Keys::of(&link, id).again).arg(index);
    link.ask::<Option<u64>>(Does::Read, &get).await.map(Option::unwrap_or_default)
}

/// Notes that a page is begun again.
pub(super) async fn begin_again(link: Link, id: Ulid, index: u32) -> Result<(), Trouble> {
    let again = Keys::of(&link, id).again;
    let mut all = pipe();
    all.cmd("HINCRBY").arg(&again).arg(index).arg(1);
    all.cmd("EXPIRE").arg(&again).arg(AGAIN_S);
    write_all(&link, &all).await
}

/// Says that claims are still worked on, and asks how their job stands; empty where it is gone.
pub(super) async fn keep_claims(
    link: Link,
    id: Ulid,
    consumer: Arc<str>,
    claims: Vec<String>,
) -> Result<String, Trouble> {
    let keys = Keys::of(&link, id);
    if !claims.is_empty() {
        let mut command = cmd("XCLAIM");
        command.arg(&keys.urls).arg(GROUP).arg(&*consumer).arg(0).arg(claims).arg("JUSTID");
        match write(&link, &command).await {
            Err(Trouble::Refused(code)) if code == "NOGROUP" => {}
            other => other?,
        }
    }
    let status: Option<String> =
        link.ask(Does::Read, cmd("HGET").arg(&keys.meta).arg("status")).await?;
    Ok(status.unwrap_or_default())
}

/// Writes what became of a URL; the job's status and `new`, `old` or `last`, or nothing.
pub(super) async fn append(link: Link, outcome: Outcome) -> Result<Vec<String>, Trouble> {
    let keys = Keys::of(&link, outcome.job);
    let mut command = eval(script::APPEND, &[&keys.meta, &keys.events, &keys.urls, &keys.done]);
    command.arg(outcome.index).arg(&outcome.claim).arg(outcome.class);
    command.arg(u8::from(outcome.cached)).arg(&outcome.result[..]).arg(now_ms());
    command.arg(u8::from(outcome.late));
    let answer: Vec<String> = link.ask(Does::Write, &command).await?;
    if answer.get(1).is_some_and(|word| word == "last") {
        let meta = meta(&link, outcome.job).await.unwrap_or_default();
        // Where this fails, whoever claims next finds a job that has ended.
        let _ = finish(&link, outcome.job, &meta).await;
    }
    Ok(answer)
}

/// Counts the principal's jobs that have not ended, without those that were never made or are gone.
pub(super) async fn count_live(link: &Link, live: &str) -> Result<usize, Trouble> {
    let ids: Vec<String> = link.ask(Does::Read, cmd("SMEMBERS").arg(live)).await?;
    let mut count = 0;
    for id in ids {
        let known = Ulid::from_string(&id).ok();
        let status: Option<String> = match known {
            Some(id) => {
                let meta = Keys::of(link, id).meta;
                link.ask(Does::Read, cmd("HGET").arg(meta).arg("status")).await?
            }
            None => None,
        };
        match status.as_deref() {
            None | Some("completed" | "failed" | "cancelled") => {
                write(link, cmd("SREM").arg(live).arg(id)).await?;
            }
            Some(_) => count += 1,
        }
    }
    Ok(count)
}

/// A job has ended, or is gone: nobody needs to look at it any more, but whoever delivers its webhook.
async fn finish(link: &Link, id: Ulid, meta: &Fields) -> Result<(), Trouble> {
    let event = format!("job.{}", text(meta, "status"));
    if text(meta, "hook") == "pending" {
        if text(meta, "hook_events").split(' ').any(|wanted| wanted == event) {
            let hooks = link.key("jobs:hooks");
            write(link, cmd("ZADD").arg(hooks).arg("NX").arg(now_ms()).arg(id.to_string())).await?;
        } else {
            note_hook(link, id, ("unwanted", 0, 0, "")).await?;
        }
    }
    if let Some(principal) = meta.get("principal") {
        let live = [&link.key("jobs:live:").into_bytes()[..], principal].concat();
        write(link, cmd("SREM").arg(live).arg(id.to_string())).await?;
    }
    write(link, cmd("SREM").arg(link.key("jobs:active")).arg(id.to_string())).await
}

/// Ends a job early; its status, empty where there is none.
pub(super) async fn cancel(link: Link, id: Ulid) -> Result<String, Trouble> {
    let command = eval(script::CANCEL, &[&Keys::of(&link, id).meta]);
    let status: Option<String> = link.ask(Does::Write, &command).await?;
    Ok(status.unwrap_or_default())
}

/// The events from a seq on, as many as fit into an answer.
pub(super) async fn events(
    link: Link,
    id: Ulid,
    from: u64,
    most: usize,
) -> Result<Vec<(u64, Fields)>, Trouble> {
    let mut command = cmd("XRANGE");
    command.arg(Keys::of(&link, id).events).arg(format!("{}-0", from.saturating_add(1)));
    command.arg("+").arg("COUNT").arg(most);
    let entries: Entries = link.ask(Does::Read, &command).await?;
    let read = |(id, fields): (String, Option<Fields>)| {
        let number: u64 = id.strip_suffix("-0")?.parse().ok()?;
        Some((number.checked_sub(1)?, fields?))
    };
    Ok(entries.into_iter().filter_map(read).collect())
}

/// Takes a webhook that is due; its job.
pub(super) async fn take_hook(link: &Link, lease: Duration) -> Result<Option<Ulid>, Trouble> {
    let now = now_ms();
    let until = now.saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
    let mut command = eval(script::TAKE, &[&link.key("jobs:hooks")]);
    let id: Option<String> = link.ask(Does::Write, command.arg(now).arg(until)).await?;
    Ok(id.and_then(|id| Ulid::from_string(&id).ok()))
}

/// Notes how a delivery stands: state, attempts, status, error.
pub(super) async fn note_hook(
    link: &Link,
    id: Ulid,
    (state, attempts, status, error): (&str, u32, u16, &str),
) -> Result<(), Trouble> {
    let mut command = eval(script::NOTE, &[&Keys::of(link, id).meta]);
    write(link, command.arg(state).arg(attempts).arg(status).arg(error)).await
}

/// Says when a delivery is to be tried again; never, without a time.
pub(super) async fn set_hook(
    link: &Link,
    id: Ulid,
    again: Option<Duration>,
) -> Result<(), Trouble> {
    let (hooks, id) = (link.key("jobs:hooks"), id.to_string());
    match again {
        Some(pause) => {
            let due = now_ms() + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 2);
            write(link, cmd("ZADD").arg(hooks).arg(due).arg(id)).await
        }
        None => write(link, cmd("ZREM").arg(hooks).arg(id)).await,
    }
}
