//! Blocks that small pieces of output are written into and split off from: a block comes back into
//! use once its last piece is dropped, so writing allocates nothing in the long run.
//!
//! Pieces live for as long as a send takes, or for as long as a replay window. So the blocks that are
//! written full are remembered, and [`Blocks::sweep`] finds those that nobody holds a piece of any
//! more. How many free ones are kept follows what was needed since the last sweep: after a burst
//! they go back to the allocator.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Bytes of one block.
const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes that a writer finds free at least; what is longer makes the block grow.
const FREE_BYTES: usize = 4 * 1024;
/// Full blocks that are remembered (32 bytes each, beside what their pieces' holders keep anyway): 1 GiB
/// of them, which is what the windows of all streams may hold unless they are told otherwise. Whoever
/// holds pieces of more keeps those alive alone.
const RESTING_MAX: usize = 65_536;
/// Free blocks that are kept whether they are needed or not.
const FREE_KEPT: usize = 16;
/// Blocks that are asked whether they are free before a new one is made. They rest in the order in
/// which they were filled, so the first is the likeliest.
const ASKED: usize = 3;
/// Blocks that one step of a sweep looks at, or frees: some tens of microseconds.
const STEP: usize = 256;

/// See the module. Not shared between threads; its pieces may be.
#[derive(Debug)]
pub struct Blocks {
    current: BytesMut,
    /// Full blocks, of which pieces may still be in use; the one filled first is in front.
    resting: VecDeque<BytesMut>,
    /// Blocks that nobody holds a piece of.
    free: Vec<BytesMut>,
    /// The fewest that there were of those since the last sweep: so many were not needed.
    idle: usize,
    /// What the sweep in progress has yet to look at.
    left: Option<usize>,
    resting_max: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self::remembering(RESTING_MAX)
    }
}

impl Blocks {
    /// No blocks yet; so many full ones are remembered.
    #[must_use]
    pub fn remembering(resting_max: usize) -> Self {
        Self {
            current: BytesMut::new(),
            resting: VecDeque::new(),
            free: Vec::new(),
            idle: 0,
            left: None,
            resting_max,
        }
    }

    /// An empty block's rest, to write into and to split off from.
    pub fn writer(&mut self) -> &mut BytesMut {
        self.current.clear();
        if self.current.capacity() < FREE_BYTES && !self.current.try_reclaim(BLOCK_BYTES) {
            let next = self.next();
            let full = std::mem::replace(&mut self.current, next);
            if full.capacity() > 0 && self.resting.len() < self.resting_max {
                self.resting.push_back(full);
            }
        }
        &mut self.current
    }

    /// Copies bytes, in as many pieces as there are blocks that they come to stand in.
    pub fn copy(&mut self, mut bytes: &[u8], mut piece: impl FnMut(Bytes)) {
        while !bytes.is_empty() {
            let out = self.writer();
            let (now, later) = bytes.split_at(bytes.len().min(out.capacity()));
            out.extend_from_slice(now);
            piece(out.split().freeze());
            bytes = later;
        }
    }

    /// Looks for blocks that have become free, and gives back those that were not needed since the
    /// last time. To be called about once a second, and again at once while it answers `true`.
    pub fn sweep(&mut self) -> bool {
        let left = match self.left.take() {
            Some(left) => left,
            None => {
                let unneeded = self.free.len().saturating_sub(FREE_KEPT).min(self.idle);
                self.free.truncate(self.free.len() - unneeded.min(STEP));
                if unneeded > STEP {
                    self.idle = unneeded - STEP;
                    return true;
                }
                self.free.shrink_to(2 * self.free.len());
                self.resting.len()
            }
        };
        for _ in 0..left.min(STEP) {
            let Some(mut block) = self.resting.pop_front() else { break };
            if block.try_reclaim(BLOCK_BYTES) {
                self.free.push(block);
            } else {
                self.resting.push_back(block);
            }
        }
        self.left = (left > STEP).then(|| left - STEP);
        if self.left.is_none() {
            self.idle = self.free.len();
            self.resting.shrink_to(2 * self.resting.len());
        }
        self.left.is_some()
    }

    fn next(&mut self) -> BytesMut {
        if let Some(block) = self.free.pop() {
            self.idle = self.idle.min(self.free.len());
            return block;
        }
        self.idle = 0;
        self.rested().unwrap_or_else(|| BytesMut::with_capacity(BLOCK_BYTES))
    }

    /// A block that nobody holds a piece of any more.
    fn rested(&mut self) -> Option<BytesMut> {
        for _ in 0..ASKED.min(self.resting.len()) {
            let mut block = self.resting.pop_front()?;
            if block.try_reclaim(BLOCK_BYTES) {
                return Some(block);
            }
            // Once there are as many as may be, the longest held one goes: its pieces keep it.
            if self.resting.len() + 1 < self.resting_max {
                self.resting.push_back(block);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn piece(blocks: &mut Blocks, byte: u8) -> Bytes {
        let out = blocks.writer();
        out.extend_from_slice(&[byte; 1000]);
        out.split().freeze()
    }

    fn sweep(blocks: &mut Blocks) {
        while blocks.sweep() {}
    }

    #[test]
    fn dropped_pieces_give_their_blocks_back_and_held_ones_keep_their_bytes() {
        let mut blocks = Blocks::default();
        let held = piece(&mut blocks, b'h');
        let mut places = HashSet::new();
        for round in 0..1000_u32 {
            let byte = (round % 200) as u8;
            let piece = piece(&mut blocks, byte);
            assert!(piece.iter().all(|other| *other == byte));
            places.insert(piece.as_ptr());
        }
        assert!(held.iter().all(|byte| *byte == b'h'));
        assert!(places.len() < 40, "the same memory again: {}", places.len());
        assert!(blocks.resting.len() < 3);
    }

    #[test]
    fn what_is_longer_than_a_block_is_copied_in_pieces_and_makes_none_grow() {
        let mut blocks = Blocks::default();
        let _first = piece(&mut blocks, b'h');
        let long: Vec<u8> = (0..=250).cycle().take(3 * BLOCK_BYTES).collect();
        let mut pieces = Vec::new();
        blocks.copy(&long, |piece| pieces.push(piece));
        assert_eq!(pieces.concat(), long);
        assert!(pieces.len() <= 4 && pieces.iter().all(|piece| piece.len() <= BLOCK_BYTES));
        blocks.copy(&[], |_| panic!("nothing is no piece"));
    }

    #[test]
    fn blocks_that_are_held_for_good_are_forgotten() {
        let most = 500;
        let mut blocks = Blocks::remembering(most);
        let mut held = Vec::new();
        for n in 0..(most + 100) * 13 {
            held.push(piece(&mut blocks, u8::try_from(n % 250).unwrap_or_default()));
        }
        assert!(blocks.resting.len() <= most);
        sweep(&mut blocks);
        assert!(blocks.free.is_empty() && !blocks.resting.is_empty());
        let whole = |(n, piece): (usize, &Bytes)| piece.iter().all(|b| usize::from(*b) == n % 250);
        assert!(held.iter().enumerate().all(whole));
    }

    /// Windows of 4,000 pieces, of which half go with each sweep: the blocks of the ones are those of
    /// the next, and once nobody writes any more nearly all are given back.
    #[test]
    fn windows_that_expire_give_their_blocks_to_the_next_and_the_last_ones_are_freed() {
        let mut blocks = Blocks::default();
        let mut windows = VecDeque::from([Vec::new(), Vec::new()]);
        let mut places = HashSet::new();
        let mut new = 0;
        for round in 0..20_u8 {
            windows.pop_front();
            sweep(&mut blocks);
            let window: Vec<Bytes> = (0..2000).map(|_| piece(&mut blocks, round)).collect();
            let block = |piece: &Bytes| piece.as_ptr() as usize / BLOCK_BYTES;
            new = window.iter().filter(|piece| places.insert(block(piece))).count();
            windows.push_back(window);
        }
        assert_eq!(new, 0, "no new memory once the windows' own comes back");
        assert!(windows.iter().flatten().all(|piece| piece.iter().all(|byte| *byte >= 18)));
        windows.clear();
        for _ in 0..3 {
            sweep(&mut blocks);
        }
        assert!(blocks.free.len() <= FREE_KEPT, "{} are kept", blocks.free.len());
        assert!(blocks.resting.is_empty() && blocks.free.capacity() <= 4 * FREE_KEPT);
    }
}
