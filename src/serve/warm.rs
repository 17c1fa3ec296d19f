//! What a core asks for once before its first client, so that the first requests cost what later
//! ones do: I/O buffers, and the histograms of everything that is measured.

use super::conn::READ_BYTES;
use crate::crawl::node::Node;
use crate::observe::series::Key;

/// Buffers of each size that a core begins with.
const BUFFERS: usize = 16;

/// Warms this core up. Takes about a millisecond: before it accepts.
pub(super) fn core(node: &Node) {
    let buffers = [1024, READ_BYTES]
        .map(|bytes| (0..BUFFERS).map(|_| uring::arena::alloc(bytes)).collect::<Vec<_>>());
    drop(buffers);
    // 94 KB each, of which the kernel gives what is written to.
    node.observe.warm(Key::all());
}
