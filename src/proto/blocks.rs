//! Blocks that small pieces of output are written into and split off from: a block comes back into
//! use once its last piece is dropped, so writing allocates nothing in the long run.

use bytes::BytesMut;
use std::collections::VecDeque;

/// Bytes of one block.
const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes that a writer finds free at least; what is longer makes the block grow.
const FREE_BYTES: usize = 4 * 1024;
/// Blocks that are remembered; whoever holds pieces of more keeps those alive alone.
const BLOCKS_MAX: usize = 64;
/// Blocks that are asked whether they are free before a new one is made. They rest in the order in
/// which they were filled, so the first is the likeliest.
const ASKED: usize = 3;

/// See the module. Not shared between threads; its pieces may be.
#[derive(Debug, Default)]
pub struct Blocks {
    current: BytesMut,
    /// Full blocks, of which pieces may still be in use; the one filled first is in front.
    resting: VecDeque<BytesMut>,
}

impl Blocks {
    /// An empty block's rest, to write into and to split off from.
    pub fn writer(&mut self) -> &mut BytesMut {
        self.current.clear();
        if self.current.capacity() < FREE_BYTES && !self.current.try_reclaim(BLOCK_BYTES) {
            let next = self.rested().unwrap_or_else(|| BytesMut::with_capacity(BLOCK_BYTES));
            let full = std::mem::replace(&mut self.current, next);
            if self.resting.len() < BLOCKS_MAX {
                self.resting.push_back(full);
            }
        }
        &mut self.current
    }

    /// A block that nobody holds a piece of any more.
    fn rested(&mut self) -> Option<BytesMut> {
        for _ in 0..ASKED.min(self.resting.len()) {
            let mut block = self.resting.pop_front()?;
            if block.try_reclaim(BLOCK_BYTES) {
                return Some(block);
            }
            // Once there are as many as may be, the longest held one goes: its pieces keep it.
            if self.resting.len() + 1 < BLOCKS_MAX {
                self.resting.push_back(block);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn piece(blocks: &mut Blocks, byte: u8) -> Bytes {
        let out = blocks.writer();
        out.extend_from_slice(&[byte; 1000]);
        out.split().freeze()
    }

    #[test]
    fn dropped_pieces_give_their_blocks_back_and_held_ones_keep_their_bytes() {
        let mut blocks = Blocks::default();
        let held = piece(&mut blocks, b'h');
        let mut places = std::collections::HashSet::new();
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
    fn blocks_that_are_held_for_good_are_forgotten() {
        let mut blocks = Blocks::default();
        let held: Vec<Bytes> = (0..4000_u32).map(|n| piece(&mut blocks, (n % 250) as u8)).collect();
        assert!(blocks.resting.len() <= BLOCKS_MAX);
        let whole = |(n, piece): (usize, &Bytes)| piece.iter().all(|b| usize::from(*b) == n % 250);
        assert!(held.iter().enumerate().all(whole));
    }
}
