//! `/_stats`, `/_wait`, `/_requests`, `/_set`, `/_reset`: what tests ask the origin about itself.
//! These requests are not counted.

use crate::http::target::Target;
use crate::num::to_u64;
use crate::origin::Web;
use crate::origin::routes;
use crate::origin::script::{Reply, Script, number};
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often `/_wait` looks.
const LOOK: Duration = Duration::from_millis(2);

/// Answers a control request.
pub(crate) async fn route(web: &Web, target: &Target, keep: bool) -> Script {
    let reply = match target.path.as_str() {
        "/_stats" => json(&stats(web, target)),
        "/_requests" => json(&web.ledger.heads(target.get("path").unwrap_or(""))),
        "/_reset" => {
            web.ledger.reset();
            json(&stats(web, target))
        }
        "/_set" => set(web, target).unwrap_or_else(|message| Reply::text(400, message)),
        "/_wait" => wait(web, target).await.unwrap_or_else(|message| Reply::text(400, message)),
        other => Reply::text(404, format!("{other}: see / for what exists")),
    };
    reply.script(&routes::plain_shape(), keep, false)
}

fn stats(web: &Web, target: &Target) -> crate::origin::Stats {
    let prefix = target.get("path").unwrap_or("");
    web.ledger.snapshot((target.get("paths") != Some("0")).then_some(prefix))
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => Reply::new(200, "application/json", body),
        Err(error) => Reply::text(500, error.to_string()),
    }
}

fn set(web: &Web, target: &Target) -> Result<Reply, String> {
    let mode = target.get("robots").ok_or("expected robots=MODE")?;
    web.set_robots(routes::robots_mode(mode)?);
    Ok(Reply::text(200, format!("robots {mode}")))
}

/// Answers as soon as every condition of the query holds, or 504 with the counts as they are.
async fn wait(web: &Web, target: &Target) -> Result<Reply, String> {
    let want = |name: &str| -> Result<Option<u64>, String> {
        target.get(name).map(|_| number(target, name, 0).map(to_u64)).transpose()
    };
    let (in_flight, open) = (want("in_flight")?, want("connections_open")?);
    let (aborted, requests) = (want("aborted")?, want("requests")?);
    let end = Instant::now() + routes::timeout(target)?;
    loop {
        let stats = web.ledger.snapshot(None);
        let holds = in_flight.is_none_or(|n| stats.in_flight == n)
            && open.is_none_or(|n| stats.connections_open <= n)
            && aborted.is_none_or(|n| stats.aborted >= n)
            && requests.is_none_or(|n| stats.requests >= n);
        if holds {
            return Ok(json(&stats));
        }
        if Instant::now() >= end {
            let reply = json(&stats);
            return Ok(Reply { status: 504, ..reply });
        }
        sleep(LOOK).await;
    }
}
