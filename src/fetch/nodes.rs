//! A host's turns among nodes that share a Redis: the starts of requests are an interval apart however
//! many nodes there are, and one host's wish to be left alone is every node's.
//!
//! One number in Redis for each host: when its next request may start, by Redis' own clock (GCRA without a
//! burst, as [`pacing`](super::pacing) has it for one node). Each node keeps its own turns as well, so
//! without Redis the interval holds for each of them.

use super::Fetcher;
use super::courtesy::throttled;
use crate::cluster::{Cluster, Does, Link};
use crate::error::PageError;
use redis::cmd;
use std::time::{Duration, Instant};

/// How long a node asks for its turn before it goes by its own turns alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes the next start: microseconds until then, or -1 where that is later than one waits. Without an
/// interval nothing is taken. `KEYS`: the host's. `ARGV`: microseconds of the interval, and that one waits
/// at most.
const TAKE: &str = "local time = redis.call('TIME') \
     local now = time[1] * 1000000 + time[2] \
     local start = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) \
     if start - now > tonumber(ARGV[2]) then return -1 end \
     if ARGV[1] == '0' then return start - now end \
     local next = start + ARGV[1] \
     redis.call('SET', KEYS[1], string.format('%d', next), 'PX', math.ceil((next - now) / 1000) + 1) \
     return start - now";
/// Moves the next start to so many microseconds from now, if it is sooner.
const HOLD: &str = "local time = redis.call('TIME') \
     local start = time[1] * 1000000 + time[2] + ARGV[1] \
     if start > tonumber(redis.call('GET', KEYS[1]) or 0) then \
     redis.call('SET', KEYS[1], string.format('%d', start), 'PX', math.ceil(ARGV[1] / 1000) + 1) end \
     return 0";

impl Fetcher {
    /// Waits for a host's turn among all nodes: `host_throttled` where it can't come in time.
    pub(super) async fn turn_among_nodes(
        &self,
        host: &str,
        interval: Duration,
        deadline: Instant,
    ) -> Result<(), PageError> {
        let Some(cluster) = self.shared.cluster.get().filter(|cluster| cluster.takes()) else {
            return Ok(());
        };
        let (key, interval) = (key(host), micros(interval));
        let most = micros(deadline.saturating_duration_since(Instant::now()));
        // Where there is nothing to take but word of a host that wants to be left alone, a slow Redis
        // must not cost what the turn would.
        let patience = if interval == 0 { PATIENCE.min(cluster.patience()) } else { PATIENCE };
        let asked = cluster.ask(patience, move |link: Link| async move {
            let mut eval = cmd("EVAL");
            eval.arg(TAKE).arg(1).arg(link.key(&key)).arg(interval).arg(most);
            link.ask::<i64>(Does::Write, &eval).await
        });
        match asked.await.map(u64::try_from) {
            Ok(Ok(0)) => {}
            Ok(Ok(wait)) => {
                let wait = Duration::from_micros(wait.min(most));
                if interval == 0 {
                    // Who stands in line here hears it, too.
                    self.shared.hosts.hold(host, Instant::now() + wait);
                }
                uring::time::sleep(wait).await;
            }
            Ok(Err(_)) => {
                return Err(throttled("the host's turn, which all nodes share, comes too late"));
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// A host wants to be left alone for so long.
pub(super) fn hold(cluster: &Cluster, host: &str, time: Duration) {
    let (key, time) = (key(host), micros(time));
    // Where it can't be said, the other nodes will hear it from the host.
    let _ = cluster.tell(PATIENCE, move |link| async move {
        let mut eval = cmd("EVAL");
        eval.arg(HOLD).arg(1).arg(link.key(&key)).arg(time);
        let _ = link.ask::<i64>(Does::Write, &eval).await;
    });
}

fn key(host: &str) -> String {
    format!("turn:{host}")
}

fn micros(time: Duration) -> u64 {
    // A day: what a script adds up stays an exact number.
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(86_400_000_000)
}
