//! What a core asks for once before its first client, so that the first requests cost what later
//! ones do: I/O buffers, and the histograms of what most clients ask for.

use super::conn::READ_BYTES;
use crate::crawl::node::Node;
use crate::error::Stage;
use crate::observe::series::{Endpoint, Key, Measure};

/// Buffers of each size that a core begins with.
const BUFFERS: usize = 16;
/// What has histograms from the start; 94 KB for each measure.
const ENDPOINTS: [Endpoint; 3] = [Endpoint::Livez, Endpoint::CrawlNdjson, Endpoint::CrawlSse];
/// Measures of these.
const MEASURES: [Measure; 4] =
    [Measure::AcceptToParse, Measure::Ttfb, Measure::Ttfr, Measure::Whole];

/// Warms this core up. Takes about a millisecond: before it accepts.
pub(super) fn core(node: &Node) {
    let buffers = [1024, READ_BYTES]
        .map(|bytes| (0..BUFFERS).map(|_| uring::arena::alloc(bytes)).collect::<Vec<_>>());
    drop(buffers);
    let at = ENDPOINTS.into_iter().flat_map(|endpoint| MEASURES.map(|m| Key::At(endpoint, m)));
    node.observe.warm(at.chain(Stage::ALL.map(Key::Page)));
}
