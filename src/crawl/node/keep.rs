//! Streams that are over: kept for their resume window, and forgotten.

use super::{Node, SWEEP_EVERY};
use crate::crawl::claims;
use crate::crawl::live::Live;
use crate::stream::Stream;
use std::sync::atomic::Ordering;
use std::time::Instant;
use ulid::Ulid;

/// Slabs of the arena that are given back before others have their turn.
const SLABS_AT_ONCE: usize = 16;

impl Node {
    /// A stream of this core is over: it can be read until its resume window ends, or until there
    /// are too many newer ones; one that is not `ours` to forget, until somebody else does.
    pub(in crate::crawl) fn retire(&self, live: &Live, ours: bool) {
        let id = live.stream.id();
        self.live.borrow_mut().remove(&id);
        self.idle.notify();
        if ours {
            self.keep_until_expired(&live.stream);
        }
    }

    /// From now on a stream's resume window runs out.
    pub(in crate::crawl) fn keep_until_expired(&self, stream: &Stream) {
        let until = Instant::now() + stream.birth.resume_window;
        self.finished.borrow_mut().insert((until, stream.id()));
        let kept_max = self.shared.config.streams_kept_max / self.shared.mesh.len();
        let over = self.finished.borrow().len().saturating_sub(kept_max);
        if over > 0 {
            self.forget_oldest(over);
        }
    }

    /// Forgets a finished stream at once where its window is over and nobody reads it.
    pub(super) fn expire_when_unread(&self, id: Ulid) {
        let now = Instant::now();
        let finished = self.finished.borrow();
        let mut over = finished.iter().take_while(|(until, _)| *until <= now);
        let entry = over.find(|(_, other)| *other == id).copied();
        drop(finished);
        if let Some(entry) = entry {
            self.expire(entry);
        }
    }

    fn is_read(&self, id: Ulid) -> bool {
        let stream = self.shared.registry.find(id);
        stream.is_some_and(|stream| stream.with_log(|log| log.readers()) > 0)
    }

    fn expire(&self, entry: (Instant, Ulid)) {
        if self.is_read(entry.1) {
            return;
        }
        self.finished.borrow_mut().remove(&entry);
        let Some(stream) = self.shared.registry.remove(entry.1) else { return };
        stream.forget();
        if let Some(key) = &stream.birth.idempotency_key {
            claims::forget(self, &stream.birth.principal, key, entry.1);
        }
    }

    /// Forgets so many finished streams that nobody reads, the oldest first.
    pub(super) fn forget_oldest(&self, count: usize) {
        let finished = self.finished.borrow();
        let unread = finished.iter().filter(|(_, id)| !self.is_read(*id));
        let oldest: Vec<_> = unread.take(count).copied().collect();
        drop(finished);
        oldest.into_iter().for_each(|entry| self.expire(entry));
    }

    pub(super) async fn sweep(&self) {
        loop {
            uring::time::sleep(SWEEP_EVERY).await;
            if self.index == 0 {
                self.shared.search.tick();
            }
            let now = Instant::now();
            self.shared.beats[self.index].fetch_add(1, Ordering::Relaxed);
            while self.observe.tick(now) {
                uring::yield_now().await;
            }
            self.sweep_spares().await;
            while uring::arena::relax(SLABS_AT_ONCE) == SLABS_AT_ONCE {
                uring::yield_now().await;
            }
            let over: Vec<_> = self
                .finished
                .borrow()
                .iter()
                .take_while(|(until, _)| *until <= now)
                .copied()
                .collect();
            over.into_iter().for_each(|entry| self.expire(entry));
        }
    }
}
