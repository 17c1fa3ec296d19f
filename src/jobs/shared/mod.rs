//! Jobs in Redis: every node's cores take URLs from a consumer group, what becomes of a URL is written
//! once, and every node reads the events.
//!
//! A job's keys carry its id as their hash tag, so that a script sees all of them:
//!
//! ```text
//! job:{id}:meta     hash     status, totals, options, webhook
//! job:{id}:urls     stream   what is left to fetch; group `w`, a claim is a pending entry
//! job:{id}:done     bitmap   indexes that have their result
//! job:{id}:again    hash     how often a page was begun again, by its index
//! job:{id}:events   stream   the durable events; entry `n-0` is seq n - 1
//! jobs:active       set      jobs that have URLs left, or will have
//! jobs:live:P       set      jobs of the principal P that have not ended
//! jobs:of:P         zset     all of them, by when they were made
//! jobs:key:H        string   the job that an Idempotency-Key stands for
//! jobs:hooks        zset     webhooks to be delivered, by when
//! ```
//!
//! A node that dies leaves its claims behind; when nobody has said anything of them for
//! `jobs.takeover_s`, another takes them over (XAUTOCLAIM). A page may so be fetched twice, but the
//! script that writes its result looks at the bitmap first. A page that may be what its nodes die of is
//! worked on by itself, and given up after a few times.

mod create;
mod hooks;
mod mirror;
mod read;
mod script;
mod store;
pub(super) mod worker;

pub use read::Submitted;
