//! What waits in the send rings of a core's connections: each ring has a share in the sums, which it
//! changes by what has changed and takes back when it goes.

use super::Core;
use super::metrics::{Counter, Resized};
use std::cell::Cell;
use std::rc::Rc;

/// The sums over a core's rings.
#[derive(Debug, Default)]
pub struct Rings(Cell<RingStats>);

/// All send rings of a core together, or one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Rings that there are.
    pub rings: u64,
    /// Frames that wait.
    pub frames: u64,
    /// Frames that may wait, as the rings have adapted it.
    pub frames_limit: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// Most frames that have ever waited in one ring.
    pub frames_high_water: u64,
    /// Most bytes that have ever waited in one ring.
    pub bytes_high_water: u64,
    /// Times that a ring has refused a frame for want of room, ever.
    pub refused: u64,
}

impl Rings {
    /// The sums right now.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.0.get()
    }
}

/// One ring's share in the sums of its core.
#[derive(Debug)]
pub struct Share {
    of: Rc<Rings>,
    frames: u32,
    frames_limit: u32,
    bytes: u64,
    grown: u32,
    shrunk: u32,
    refused: u64,
}

impl Share {
    /// A ring that is new: nothing waits in it.
    #[must_use]
    pub fn new(core: &Core) -> Self {
        let of = Rc::clone(&core.rings);
        let sums = of.stats();
        of.0.set(RingStats { rings: sums.rings + 1, ..sums });
        Self { of, frames: 0, frames_limit: 0, bytes: 0, grown: 0, shrunk: 0, refused: 0 }
    }

    /// The ring is as `now` says.
    pub fn update(&mut self, core: &Core, now: &uring::ring::RingStats) {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.hold(small(now.frames), small(now.frames_limit), now.bytes as u64);
        let sums = self.of.stats();
        self.of.0.set(RingStats {
            frames_high_water: sums.frames_high_water.max(now.frames_high_water as u64),
            bytes_high_water: sums.bytes_high_water.max(now.bytes_high_water as u64),
            refused: sums.refused
                + (now.refused - std::mem::replace(&mut self.refused, now.refused)),
            ..sums
        });
        for (way, now, before) in [
            (Resized::Grown, now.grown, &mut self.grown),
            (Resized::Shrunk, now.shrunk, &mut self.shrunk),
        ] {
            core.add(Counter::RingsResized(way), u64::from(now - std::mem::replace(before, now)));
        }
    }

    fn hold(&mut self, frames: u32, frames_limit: u32, bytes: u64) {
        let sums = self.of.stats();
        self.of.0.set(RingStats {
            frames: sums.frames - u64::from(self.frames) + u64::from(frames),
            frames_limit: sums.frames_limit - u64::from(self.frames_limit)
                + u64::from(frames_limit),
            bytes: sums.bytes - self.bytes + bytes,
            ..sums
        });
        (self.frames, self.frames_limit, self.bytes) = (frames, frames_limit, bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0, 0, 0);
        let sums = self.of.stats();
        self.of.0.set(RingStats { rings: sums.rings - 1, ..sums });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::hist::Epoch;

    #[test]
    fn shares_add_up_and_go_with_their_rings() {
        let epoch = Epoch::now();
        let core = Core::new(epoch, epoch.instant);
        let ring = |frames, bytes| uring::ring::RingStats {
            frames,
            bytes,
            frames_limit: 64,
            frames_high_water: frames,
            bytes_high_water: bytes,
            refused: 1,
            grown: 2,
            ..uring::ring::RingStats::default()
        };
        let (mut one, mut two) = (Share::new(&core), Share::new(&core));
        one.update(&core, &ring(3, 700));
        two.update(&core, &ring(5, 90));
        two.update(&core, &ring(4, 80));
        let sums = core.rings.stats();
        assert_eq!((sums.rings, sums.frames, sums.bytes, sums.frames_limit), (2, 7, 780, 128));
        assert_eq!((sums.frames_high_water, sums.bytes_high_water, sums.refused), (5, 700, 2));
        assert_eq!(core.counters().value(Counter::RingsResized(Resized::Grown)), 4);
        drop(one);
        drop(two);
        let left = RingStats {
            frames_high_water: 5,
            bytes_high_water: 700,
            refused: 2,
            ..RingStats::default()
        };
        assert_eq!(core.rings.stats(), left);
    }
}
