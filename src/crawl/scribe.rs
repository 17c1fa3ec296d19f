//! Writes a resumable stream's log to Redis, for readers on other nodes.
//!
//! Each stream has one writer on its own core. It takes what is new in the log without being a reader
//! of it: the stream never waits for it. While Redis is away the stream goes on, and what is still in
//! the local window when Redis comes back is written then; what is not is a `gap` for who reads there.
//! The same goes for streams that come faster than Redis takes them, once the memory for all is used up.

use super::live::Live;
use super::node::Node;
use crate::cluster::Trouble;
use crate::local::Notify;
use crate::stream::Stream;
use crate::stream::remote::{self, Batch, Facts};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events that are written at a time, and their bytes.
const BATCH: (usize, usize) = (64, 512 * 1024);
/// How long news wait for more, so that many events are one command.
const GATHER: Duration = Duration::from_millis(2);
/// How long one write may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a quiet log is said to be alive.
const REFRESH: Duration = Duration::from_secs(20);
/// How long the end of a log is tried to be written while the server stops.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long Redis is left alone after a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// Writes until the last event is written, or its window is over.
pub(super) fn start(node: &Rc<Node>, live: &Live, news: &Rc<Notify>) {
    let (node, stream, news) = (Rc::clone(node), Arc::clone(&live.stream), Rc::clone(news));
    let busy = node.busy();
    drop(uring::spawn(async move {
        write_all(&node, &stream, &news).await;
        drop(busy);
    }));
}

async fn write_all(node: &Rc<Node>, stream: &Arc<Stream>, news: &Notify) {
    let cluster = &node.shared.cluster;
    let mut next = 0;
    let mut written_at = None::<Instant>;
    let mut ended_at = None::<Instant>;
    loop {
        let (events, ended, oldest) =
            stream.with_log(|log| (log.peek(next, BATCH.0, BATCH.1), log.ended(), log.first_seq()));
        if ended && events.is_empty() {
            return;
        }
        if ended {
            let since = *ended_at.get_or_insert_with(Instant::now);
            if since.elapsed() > stream.birth.resume_window {
                return; // nobody can come back for it any more
            }
            if node.draining() && since.elapsed() > LAST_WORDS {
                return; // the process is not kept for a Redis that is away
            }
        }
        let stale = written_at.is_none_or(|at| at.elapsed() >= REFRESH);
        if events.is_empty() && !stale {
            let _ = uring::time::timeout(REFRESH, news.notified()).await;
            uring::time::sleep(GATHER).await;
            continue;
        }
        let first_seq = events.first().map_or(next, |event| event.seq);
        let batch = Batch {
            id: stream.id(),
            facts: Facts::of(&stream.birth, cluster.node_id(), stream.status()),
            first_seq,
            oldest: first_seq == oldest,
            events,
        };
        match cluster.ask(PATIENCE, move |link| remote::append(link, batch)).await {
            Ok(Some(seq)) => {
                next = seq;
                written_at = Some(Instant::now());
            }
            // Somebody took us for dead and has ended the log.
            Ok(None) => return,
            Err(trouble) => {
                if trouble != Trouble::Open
                    && let Some(gauges) = cluster.gauges()
                {
                    gauges.log_failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                uring::time::sleep(PAUSE).await;
            }
        }
    }
}
