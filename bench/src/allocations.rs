//! What a warm `GET /livez` allocates: nothing.

use crate::server::{Client, start};
use crate::{ALLOCATOR, Outcome, number};
use stats_alloc::Region;

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Requests before counting: they fill the arena, the tables of fields and the histograms.
const WARM_UP: usize = 2_000;
/// Batches; once a second a core rotates its histograms, which may allocate and is no part of a
/// request, so the quietest batch tells what a request costs.
const BATCHES: usize = 10;

/// Counts the allocations of the whole process, this client included, over batches of requests.
pub(crate) fn run(args: &[String]) -> Outcome {
    let requests = number(args, "--requests", 20_000)?;
    let server = start(1)?;
    let mut client = Client::connect(server.addr())?;
    for _ in 0..WARM_UP {
        client.exchange(REQUEST, b"\r\n\r\nok\n")?;
    }
    let batch = (requests / BATCHES).max(1);
    let mut quietest = usize::MAX;
    let mut total = 0;
    for _ in 0..BATCHES {
        let region = Region::new(ALLOCATOR);
        for _ in 0..batch {
            client.exchange(REQUEST, b"\r\n\r\nok\n")?;
        }
        let change = region.change();
        let allocations = change.allocations + change.reallocations;
        quietest = quietest.min(allocations);
        total += allocations;
    }
    server.stop(std::time::Duration::ZERO);
    println!(
        "GET /livez, {BATCHES} batches of {batch}: {quietest} heap allocations in the quietest batch, \
         {total} in all (at most 0 in the quietest)"
    );
    Ok(quietest == 0)
}
