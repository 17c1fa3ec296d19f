//! Memory that streams leave behind for the next ones, so that sending allocates nothing in the long
//! run.

use super::node::Node;
use bytes::BytesMut;
use uring::ring::{BufferConfigError, Ring};

/// Rings kept for the next stream.
const RINGS_MAX: usize = 16;

impl Node {
    /// As events are written, what stands around them on the wire, which lives for a send only.
    pub fn with_frames<T>(&self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        write(self.frames.borrow_mut().writer())
    }

    /// A ring for a connection, with the memory of one that is not used any more.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn ring(&self) -> Result<Ring, BufferConfigError> {
        let used = self.rings.borrow_mut().pop();
        used.map_or_else(|| Ring::new(self.shared.config.ring()), Ok)
    }

    /// A ring is not used any more.
    pub fn give_back(&self, ring: Ring) {
        let mut rings = self.rings.borrow_mut();
        if rings.len() < RINGS_MAX
            && let Ok(ring) = ring.renew(self.shared.config.ring())
        {
            rings.push(ring);
        }
    }
}
