//! What a warm server allocates: nothing for `GET /livez`, nothing for an event of a cached stream.

use crate::server::{Client, start};
use crate::{ALLOCATOR, Outcome, number};
use forebay::demo::origin::Origin;
use stats_alloc::Region;

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LIVEZ_ANSWER: &[u8] = b"\r\n\r\nok\n";
/// The last chunk of a stream's answer.
const STREAM_END: &[u8] = b"\r\n0\r\n\r\n";
/// Requests before counting: they fill the arena, the tables of fields and the histograms.
const WARM_UP: usize = 2_000;
/// Batches; once a second a core rotates its histograms, which may allocate and is no part of a
/// request, so the quietest batch tells what a request costs.
const BATCHES: usize = 10;
/// URLs of the short stream and of the long one: what they differ by is the price of their events.
const URLS: [usize; 2] = [1, 101];

/// Counts the allocations of the whole process, this client included, over batches of requests.
pub(crate) fn run(args: &[String]) -> Outcome {
    let requests = number(args, "--requests", 20_000)?;
    let server = start(1)?;
    let mut client = Client::connect(server.addr())?;
    let batch = (requests / BATCHES).max(1);
    let livez = quietest(WARM_UP, batch, || client.exchange(LIVEZ, LIVEZ_ANSWER))?;
    println!(
        "GET /livez: {livez} heap allocations in the quietest of {BATCHES} batches of {batch} (at most 0)"
    );
    let origin = Origin::start()?;
    let url = origin.urls().into_iter().next().ok_or("the origin has no page")?;
    let streams = (batch / 100).max(1);
    let mut whole = [0; 2];
    for (count, urls) in whole.iter_mut().zip(URLS) {
        let request = stream_request(&url, urls);
        let ask = || client.stream(&request, STREAM_END, urls);
        *count = quietest(WARM_UP / 10, streams, ask)?;
    }
    server.stop(std::time::Duration::ZERO);
    let events = (URLS[1] - URLS[0]) * streams;
    let more = whole[1].saturating_sub(whole[0]);
    println!(
        "cached stream without a resume window, quietest of {BATCHES} batches of {streams}: {:.1} heap allocations with {} URL, {:.1} with {} \
         URLs: {:.3} for each further event (at most 0)",
        whole[0] as f64 / streams as f64,
        URLS[0],
        whole[1] as f64 / streams as f64,
        URLS[1],
        more as f64 / events as f64,
    );
    Ok(livez == 0 && more == 0)
}

/// Allocations of the batch that had the fewest.
fn quietest(
    warm_up: usize,
    batch: usize,
    mut ask: impl FnMut() -> std::io::Result<()>,
) -> std::io::Result<usize> {
    for _ in 0..warm_up {
        ask()?;
    }
    let mut quietest = usize::MAX;
    for _ in 0..BATCHES {
        let region = Region::new(ALLOCATOR);
        for _ in 0..batch {
            ask()?;
        }
        let change = region.change();
        quietest = quietest.min(change.allocations + change.reallocations);
    }
    Ok(quietest)
}

/// One URL so many times: only its first fetch goes to the origin. Without a resume window, since what
/// is kept for those who come back is memory that the next stream can't use.
fn stream_request(url: &str, urls: usize) -> Vec<u8> {
    let list = vec![format!("\"{url}\""); urls].join(",");
    let body = format!(
        "{{\"urls\":[{list}],\"options\":{{\"progress_ms\":0,\"robots\":\"ignore\",\"resume_window_s\":0}}}}"
    );
    let head =
        "POST /crawl/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
