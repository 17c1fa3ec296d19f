//! How a job comes to be in Redis: in many steps, over keys of several slots, any of which may fail, and
//! behind any of which the node may die.
//!
//! The last step decides. Until then the job is `creating`: its keys and its `Idempotency-Key` go by
//! themselves soon, nobody claims its URLs or shows it, and who sends the same request again is told to
//! come back. From then on it is in every list in which it has to be. A step that fails takes back what
//! was done, unless it was the last one and has worked after all.

use super::script;
use super::store::{self, Keys, eval, text, write};
use crate::cluster::{Does, Link, Trouble};
use crate::jobs::webhook::Webhook;
use crate::proto::text::Text;
use crate::stream::idempotency::Fingerprint;
use bytes::Bytes;
use redis::cmd;
use std::sync::Arc;
use std::time::Duration;
use ulid::Ulid;

/// URLs that are written at a time.
const URLS_AT_ONCE: usize = 500;
/// Seconds that a job's first keys live without a word of who makes it.
const MAKING_S: u64 = 30;
/// How often it is tried to take back what was done, and the pause between.
const UNDO: (u32, Duration) = (10, Duration::from_millis(300));
/// Seconds that what is known of a job lives beside its deadline and its retention.
const SLACK_S: u64 = 3600;

/// A job to be made.
#[derive(Clone)]
pub(super) struct New {
    pub(super) id: Ulid,
    pub(super) principal: Arc<str>,
    /// What its `Idempotency-Key` is known by, and its request.
    pub(super) idempotency: Option<(String, Fingerprint)>,
    pub(super) urls: Arc<[Text]>,
    pub(super) options: String,
    pub(super) webhook: Option<Webhook>,
    pub(super) metadata: Bytes,
    pub(super) created_ms: u64,
    pub(super) deadline_ms: u64,
    pub(super) retention_s: u64,
    pub(super) kept_max: usize,
    pub(super) key_max: usize,
}

/// What became of it.
pub(super) enum Made {
    New,
    Same(Ulid),
    /// The same one is being made, or who made it has died: it is known soon.
    Unfinished,
    Conflict,
    Full,
    KeyFull,
}

/// An `Idempotency-Key` in Redis: who holds it while the job is made, and from then on.
struct Claim {
    name: String,
    request: String,
    making: String,
    made: String,
}

impl Claim {
    fn of(link: &Link, new: &New) -> Option<Self> {
        let (key, fingerprint) = new.idempotency.as_ref()?;
        let request: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        let made = format!("{request}:{}", new.id);
        let name = link.key(&format!("jobs:key:{key}"));
        Some(Self { name, making: format!("{made}:making"), made, request })
    }

    /// Takes the key, also from a job that is gone: `held` stands for such a one. Who holds it else.
    async fn take(&self, link: &Link, held: &str) -> Result<String, Trouble> {
        let mut take = eval(script::TAKE_KEY, &[&self.name]);
        link.ask(Does::Write, take.arg(&self.making).arg(MAKING_S).arg(held)).await
    }

    /// The job and whether it is being made, where it is one of the same request.
    fn read(&self, held: &str) -> Option<(Ulid, bool)> {
        let rest = held.strip_prefix(&self.request)?.strip_prefix(':')?;
        let making = rest.strip_suffix(":making");
        Some((Ulid::from_string(making.unwrap_or(rest)).ok()?, making.is_some()))
    }

    /// Keeps the key for so long, as one of a job that is being made or was.
    async fn keep(&self, link: &Link, holder: &str, seconds: u64) -> Result<(), Trouble> {
        let mut keep = eval(script::KEEP_KEY, &[&self.name]);
        keep.arg(&self.making).arg(holder).arg(seconds);
        match link.ask::<i64>(Does::Write, &keep).await? {
            1 => Ok(()),
            // It took so long that somebody else has it.
            _ => Err(Trouble::Late),
        }
    }

    async fn forget(&self, link: &Link) -> Result<(), Trouble> {
        let mut forget = eval(script::FORGET_KEY, &[&self.name]);
        write(link, forget.arg(&self.making).arg(&self.made)).await
    }
}

/// Makes a job, or finds the one that the same request has made.
pub(super) async fn create(link: Link, new: New) -> Result<Made, Trouble> {
    let claim = Claim::of(&link, &new);
    let known = match &claim {
        Some(claim) => claim_key(&link, &new, claim).await,
        None => Ok(None),
    };
    let made = match known {
        Ok(Some(made)) => return Ok(made),
        // Nothing was asked.
        Err(Trouble::Open) => return Err(Trouble::Open),
        Err(trouble) => Err(trouble),
        Ok(None) => make(&link, &new, claim.as_ref()).await,
    };
    if matches!(made, Ok(Made::New)) {
        return made;
    }
    // Whether it is there is known by its last step alone, which may have worked though it seemed to fail.
    match undo(&link, &new, claim.as_ref()).await {
        Ok(false) => Ok(Made::New),
        Ok(true) | Err(_) => made,
    }
}

/// Takes the key of a new job; what there is by it else.
async fn claim_key(link: &Link, new: &New, claim: &Claim) -> Result<Option<Made>, Trouble> {
    let mut gone = String::new();
    // Twice at most: somebody else may have taken over the key of a job that is gone.
    for _ in 0..2 {
        let held = claim.take(link, &gone).await?;
        if held.is_empty() {
            return Ok(None);
        }
        let Some((id, making)) = claim.read(&held) else { return Ok(Some(Made::Conflict)) };
        let meta = store::meta(link, id).await?;
        if making || store::is_being_made(&meta) {
            return Ok(Some(Made::Unfinished));
        }
        if !meta.is_empty() {
            if matches!(text(&meta, "status").as_str(), "queued" | "running" | "cancelling") {
                // A replica that took over may have heard of the job and not of its place in the lists.
                list(link, new, id).await?;
            }
            return Ok(Some(Made::Same(id)));
        }
        gone = held;
    }
    Ok(Some(Made::Unfinished))
}

async fn make(link: &Link, new: &New, claim: Option<&Claim>) -> Result<Made, Trouble> {
    let (active, live) =
        (link.key("jobs:active"), link.key(&format!("jobs:live:{}", new.principal)));
    let count = async |key: &String| link.ask::<usize>(Does::Read, cmd("SCARD").arg(key)).await;
    if count(&active).await? >= new.kept_max {
        return Ok(Made::Full);
    }
    if new.key_max > 0
        && count(&live).await? >= new.key_max
        && store::count_live(link, &live).await? >= new.key_max
    {
        return Ok(Made::KeyFull);
    }
    let keys = Keys::of(link, new.id);
    write_meta(link, &keys, new).await?;
    list(link, new, new.id).await?;
    for (part, urls) in new.urls.chunks(URLS_AT_ONCE).enumerate() {
        write_urls(link, &keys, part * URLS_AT_ONCE, urls).await?;
        if let Some(claim) = claim {
            claim.keep(link, &claim.making, MAKING_S).await?;
        }
    }
    if let Some(claim) = claim {
        claim.keep(link, &claim.made, life_s(new)).await?;
    }
    let mut commit = eval(script::COMMIT, &[&keys.meta, &keys.events, &keys.urls]);
    done(link.ask(Does::Write, commit.arg(life_s(new))).await?).map(|()| Made::New)
}

/// Seconds for which a job's keys live where nothing becomes of it.
fn life_s(new: &New) -> u64 {
    new.deadline_ms.saturating_sub(new.created_ms) / 1000 + new.retention_s + SLACK_S
}

/// What a script says that goes on only with a job that is being made.
fn done(answer: i64) -> Result<(), Trouble> {
    // It took so long that the first keys are gone.
    if answer == 1 { Ok(()) } else { Err(Trouble::Late) }
}

/// Puts a job into the lists in which it is looked for.
async fn list(link: &Link, new: &New, id: Ulid) -> Result<(), Trouble> {
    let (name, life) = (id.to_string(), life_s(new));
    let of = link.key(&format!("jobs:of:{}", new.principal));
    let live = link.key(&format!("jobs:live:{}", new.principal));
    write(link, cmd("ZADD").arg(&of).arg(id.timestamp_ms()).arg(&name)).await?;
    write(link, cmd("EXPIRE").arg(&of).arg(life)).await?;
    write(link, cmd("SADD").arg(&live).arg(&name)).await?;
    write(link, cmd("EXPIRE").arg(&live).arg(life)).await?;
    write(link, cmd("SADD").arg(link.key("jobs:active")).arg(&name)).await
}

/// Takes back what was done of a job; `false` where it is there after all.
async fn undo(link: &Link, new: &New, claim: Option<&Claim>) -> Result<bool, Trouble> {
    let mut left = UNDO.0;
    loop {
        match try_undo(link, new, claim).await {
            // What is left goes by itself.
            Err(trouble) if left == 0 => return Err(trouble),
            Err(_) => left -= 1,
            Ok(undone) => return Ok(undone),
        }
        tokio::time::sleep(UNDO.1).await;
    }
}

async fn try_undo(link: &Link, new: &New, claim: Option<&Claim>) -> Result<bool, Trouble> {
    let keys = Keys::of(link, new.id);
    let undo = eval(script::UNDO, &[&keys.meta, &keys.events, &keys.urls]);
    if link.ask::<i64>(Does::Write, &undo).await? == 0 {
        return Ok(false);
    }
    if let Some(claim) = claim {
        claim.forget(link).await?;
    }
    // From the lists it goes when somebody finds it there and nowhere else.
    Ok(true)
}

async fn write_meta(link: &Link, keys: &Keys, new: &New) -> Result<(), Trouble> {
    let mut begin = eval(script::BEGIN, &[&keys.meta, &keys.events, &keys.urls]);
    begin.arg(MAKING_S).arg(&new.metadata[..]);
    begin.arg("status").arg("creating").arg("principal").arg(&*new.principal);
    begin.arg("options").arg(&new.options);
    for (name, value) in [
        ("total", new.urls.len() as u64),
        ("ok", 0),
        ("failed", 0),
        ("cancelled", 0),
        ("cached", 0),
        ("bytes", 0),
        ("seq", 0),
        ("created", new.created_ms),
        ("deadline", new.deadline_ms),
        ("retention", new.retention_s),
    ] {
        begin.arg(name).arg(value);
    }
    if let Some(hook) = &new.webhook {
        let events: Vec<_> = hook.events.iter().map(|event| event.as_str()).collect();
        begin.arg("hook").arg("pending").arg("hook_url").arg(&hook.url);
        begin.arg("hook_secret").arg(hook.secret.write());
        begin.arg("hook_events").arg(events.join(" "));
    }
    write(link, &begin).await
}

async fn write_urls(link: &Link, keys: &Keys, first: usize, urls: &[Text]) -> Result<(), Trouble> {
    let mut add = eval(script::ADD_URLS, &[&keys.meta, &keys.events, &keys.urls]);
    add.arg(MAKING_S);
    for (index, url) in (first..).zip(urls) {
        add.arg(index).arg(&**url);
    }
    done(link.ask(Does::Bulk, &add).await?)
}
