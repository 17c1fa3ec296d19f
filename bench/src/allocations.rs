//! What a warm `GET /livez` and a warm event of a cached stream allocate: nothing.

use crate::flags::Flags;
use crate::server::{Client, start};
use crate::{ALLOCATOR, Failure, Outcome};
use forebay_loadtest::origin::{Origin, OriginConfig};
use stats_alloc::Region;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Requests before counting: they fill the arena, the tables of fields and the histograms.
const WARM_UP: usize = 2_000;
/// Batches; once a second a core rotates its histograms, which may allocate and is no part of a
/// request, so the quietest batch tells what a request costs.
const BATCHES: usize = 10;
/// Cached pages of a short stream and of a long one: their difference is events alone. Both lie between
/// the same powers of two, so that the lists of URLs, which double when they are read, are equally
/// long.
const STREAM_URLS: [usize; 2] = [130, 250];

/// Resume windows of the measured streams, in seconds.
pub(crate) const WINDOWS: [(u64, &str); 2] =
    [(0, "without a resume window"), (1, "with a resume window")];

/// Allocations of the whole process over batches of requests.
#[derive(Debug)]
pub(crate) struct Livez {
    batch: usize,
    pub(crate) quietest: usize,
    total: usize,
}

/// Prints both.
pub(crate) fn run(args: &[String]) -> Outcome {
    let requests = Flags::parse(args, &["--requests"])?.get("--requests", 20_000)?;
    let Livez { batch, quietest, total } = livez(requests)?;
    println!(
        "GET /livez, {BATCHES} batches of {batch}: {quietest} heap allocations in the quietest batch, \
         {total} in all (at most 0 in the quietest)"
    );
    let origin = Origin::start(OriginConfig::default())?;
    let page = format!("http://{}/page/1?size=2000", origin.addr());
    let mut within = quietest == 0;
    for (window_s, name) in WINDOWS {
        match per_cached_event(&page, window_s)? {
            Some(each) => {
                println!(
                    "an event of a cached stream, {name}: {each} heap allocations (at most 0)"
                );
                within &= each <= 0.0;
            }
            None => println!("an event of a cached stream: skipped, the server has no page cache"),
        }
    }
    Ok(within)
}

/// Counts the allocations of the whole process, this client included.
///
/// # Errors
/// When an answer is another one.
pub(crate) fn livez(requests: usize) -> Result<Livez, Failure> {
    let server = start(1)?;
    let mut client = Client::connect(server.addr())?;
    for _ in 0..WARM_UP {
        client.exchange(REQUEST, b"\r\n\r\nok\n")?;
    }
    let batch = (requests / BATCHES).max(1);
    let mut quietest = usize::MAX;
    let mut total = 0;
    for _ in 0..BATCHES {
        let allocations = counting(|| {
            for _ in 0..batch {
                client.exchange(REQUEST, b"\r\n\r\nok\n")?;
            }
            Ok(())
        })?;
        quietest = quietest.min(allocations);
        total += allocations;
    }
    server.stop(Duration::ZERO);
    Ok(Livez { batch, quietest, total })
}

/// What one more event of a cached stream allocates: the difference between a long and a short stream
/// of the same page, by the quietest of several; `None` without a page cache. An event is a result;
/// what a stream costs however long it is falls out of the difference. The warm-up takes three
/// windows: from then on windows that expire give their memory to those that begin.
///
/// # Errors
/// When a stream can't be had.
pub(crate) fn per_cached_event(page: &str, window_s: u64) -> Result<Option<f64>, Failure> {
    let server = start(1)?;
    let warm = Instant::now() + Duration::from_secs(3 * window_s);
    let mut client = Client::connect(server.addr())?;
    let requests = STREAM_URLS.map(|urls| {
        let urls = vec![format!("\"{page}\""); urls].join(",");
        let body = format!(
            "{{\"urls\":[{urls}],\"options\":{{\"robots\":\"ignore\",\"progress_ms\":0,\
             \"resume_window_s\":{window_s}}}}}"
        );
        format!(
            "POST /crawl/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let (mut cached, mut rounds) = (false, 0);
    while rounds < 20 || Instant::now() < warm {
        rounds += 1;
        client.stream(&requests[0], b"\"from_cache\":true")?;
        cached = client.stream(&requests[1], b"\"from_cache\":true")? == STREAM_URLS[1];
    }
    if !cached {
        server.stop(Duration::ZERO);
        return Ok(None);
    }
    let mut quietest = [usize::MAX; 2];
    for _ in 0..BATCHES {
        for (least, request) in quietest.iter_mut().zip(&requests) {
            let allocations = counting(|| {
                client.stream(request, b"\"from_cache\":true")?;
                Ok(())
            })?;
            *least = allocations.min(*least);
        }
    }
    server.stop(Duration::ZERO);
    let more = quietest[1] as f64 - quietest[0] as f64;
    Ok(Some(more / (STREAM_URLS[1] - STREAM_URLS[0]) as f64))
}

/// Allocations of the whole process while something is done.
fn counting(work: impl FnOnce() -> Result<(), Failure>) -> Result<usize, Failure> {
    let region = Region::new(ALLOCATOR);
    work()?;
    let change = region.change();
    Ok(change.allocations + change.reallocations)
}
