//! The end of the process. Its cores wait for each other: what one has begun may still run on another,
//! or be read there.

use super::{Node, Shared};
use crate::crawl::live::Live;
use crate::stream::machine::Ending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often a core that drains looks whether all of them are done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Something that is to come to its end before the process does; over when dropped.
pub struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Release);
    }
}

impl Node {
    /// Something begins that is to come to its end before the process does.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.shared.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.shared))
    }

    /// Waits until no core has anything left to do or to send; whether that was before `until`. Streams
    /// that nobody can read any more are ended.
    pub async fn all_done(self: &Rc<Self>, until: Instant) -> bool {
        loop {
            // A connection goes after what it has begun was counted, so this order misses nothing.
            let unread = self.shared.connections.load(Ordering::Acquire) == 0;
            if unread && self.shared.busy.load(Ordering::Acquire) == 0 {
                return true;
            }
            if unread {
                self.end_where(Ending::Drained, Live::is_lost);
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            uring::time::sleep_until(until.min(now + LOOK_EVERY)).await;
        }
    }

    /// Ends every stream of this core.
    pub fn end_all(self: &Rc<Self>, ending: Ending) {
        self.end_where(ending, |_| true);
    }

    fn end_where(self: &Rc<Self>, ending: Ending, which: impl Fn(&Live) -> bool) {
        let all: Vec<Rc<Live>> = self.live.borrow().values().cloned().collect();
        all.iter().filter(|live| which(live)).for_each(|live| live.end(self, ending));
    }

    /// Waits until no stream of this core runs and no page runs here, for `until` at most.
    pub async fn quiesced(&self, until: Instant) {
        while !self.live.borrow().is_empty() || !self.pages.borrow().is_empty() {
            if uring::time::timeout_at(until, self.idle.notified()).await.is_err() {
                return;
            }
        }
    }
}
