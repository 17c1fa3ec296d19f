//! Where a fetch is and what it has cost so far: kept outside its future, so that a deadline that
//! drops the future can still say which stage it met.

use crate::error::{PageError, Stage};
use crate::fetch::target::Target;
use crate::fetch::{FetchFailure, FetchRequest, FetchStats, Fetched, count};
use crate::timings::Timings;
use std::cell::{Cell, RefCell};
use std::time::Instant;

pub(crate) struct Track<'s> {
    /// Whose fetch it is.
    pub(crate) owner: u64,
    stage: Cell<Stage>,
    since: Cell<Instant>,
    timings: Cell<Timings>,
    wire_bytes: Cell<u64>,
    status: Cell<u16>,
    url: RefCell<String>,
    stats: &'s FetchStats,
    finished: bool,
}

impl<'s> Track<'s> {
    pub(crate) fn new(request: &FetchRequest<'_>, stats: &'s FetchStats) -> Self {
        Self {
            owner: request.owner,
            stage: Cell::new(Stage::Dns),
            since: Cell::new(Instant::now()),
            timings: Cell::default(),
            wire_bytes: Cell::default(),
            status: Cell::default(),
            url: RefCell::new(request.url.to_owned()),
            stats,
            finished: false,
        }
    }

    pub(crate) fn start_hop(&self, target: &Target) {
        target.as_str().clone_into(&mut self.url.borrow_mut());
        self.enter(Stage::Dns);
    }

    /// The time since the last call was the last stage's; from now on it is `stage`'s.
    pub(crate) fn enter(&self, stage: Stage) {
        let now = Instant::now();
        let mut timings = self.timings.get();
        timings.add(self.stage.get(), now.saturating_duration_since(self.since.get()));
        self.timings.set(timings);
        self.since.set(now);
        self.stage.set(stage);
    }

    pub(crate) const fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(crate) fn received(&self, bytes: usize) {
        count(&self.wire_bytes, bytes as u64);
        count(&self.stats.wire_bytes, bytes as u64);
    }

    pub(crate) fn answered(&self, status: u16) {
        self.status.set(status);
    }

    /// The fetch is over.
    pub(crate) fn finish(
        mut self,
        outcome: Result<Fetched, PageError>,
    ) -> Result<Fetched, FetchFailure> {
        self.enter(self.stage.get());
        self.finished = true;
        let (timings, wire_bytes) = (self.timings.get(), self.wire_bytes.get());
        match outcome {
            Ok(fetched) => {
                count(&self.stats.fetched, 1);
                count(&self.stats.body_bytes, fetched.body_bytes);
                let final_url = self.url.take();
                Ok(Fetched { final_url, timings, wire_bytes, ..fetched })
            }
            Err(error) => {
                count(&self.stats.failed, 1);
                let (status, final_url) = (self.status.get(), self.url.take());
                Err(FetchFailure { error, status, final_url, wire_bytes, timings })
            }
        }
    }
}

impl Drop for Track<'_> {
    fn drop(&mut self) {
        if !self.finished {
            count(&self.stats.dropped, 1);
        }
    }
}
