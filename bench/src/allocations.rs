//! What a warm `GET /livez` and a warm event of a cached stream allocate: nothing.

use crate::flags::Flags;
use crate::server::{Client, start, start_with, text_frame};
use crate::{ALLOCATOR, Failure, Outcome, http};
use forebay_loadtest::origin::{Origin, OriginConfig};
use stats_alloc::Region;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Requests before counting: they fill the arena, the tables of fields and the histograms.
const WARM_UP: usize = 2_000;
/// Batches; once a second a core rotates its histograms, which may allocate and is no part of a
/// request, so the quietest batch tells what a request costs.
const BATCHES: usize = 10;
/// What is told of a stream's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Ndjson,
    Sse,
    WebSocket,
    Deflate,
}

/// Streams whose events are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    way: Way,
    /// Cached pages of a short stream and of a long one: their difference is events alone. Both lie
    /// between the same powers of two, so that the lists of URLs, which double when they are read, are
    /// equally long.
    urls: [usize; 2],
    /// The resume window, in seconds.
    window_s: u64,
}

const fn case(name: &'static str, way: Way, urls: [usize; 2], window_s: u64) -> Case {
    Case { name, way, urls, window_s }
}

/// Few URLs without a resume window, and as many as a stream may have with the usual one.
pub(crate) const CASES: [Case; 8] = [
    case("NDJSON, 250 URLs, no window", Way::Ndjson, [130, 250], 0),
    case("NDJSON, 1,000 URLs, window of 120 s", Way::Ndjson, [520, 1000], 120),
    case("SSE, 250 URLs, no window", Way::Sse, [130, 250], 0),
    case("SSE, 1,000 URLs, window of 120 s", Way::Sse, [520, 1000], 120),
    case("WebSocket, 250 URLs, no window", Way::WebSocket, [130, 250], 0),
    case("WebSocket, 1,000 URLs, window of 120 s", Way::WebSocket, [520, 1000], 120),
    case("WebSocket with deflate, 250 URLs, no window", Way::Deflate, [130, 250], 0),
    case("WebSocket with deflate, 1,000 URLs, window of 120 s", Way::Deflate, [520, 1000], 120),
];

/// Batches of a stream, at most: more than [`BATCHES`] where there was no quiet one among those.
const BATCHES_MAX: usize = 8 * BATCHES;
/// Ended streams that are kept: their windows are longer than anybody measures, so these are what comes
/// and goes.
const KEPT: usize = 6;
/// How long a server is warmed up, at least: its sweeps, once a second, settle what it keeps.
const WARM: Duration = Duration::from_secs(3);
/// The same in streams.
const WARM_STREAMS: usize = 4 * KEPT;

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
    for case in &CASES {
        let each = per_cached_event(&page, case)?;
        println!("an event of a cached stream, {}: {each} heap allocations (at most 0)", case.name);
        within &= each <= 0.0;
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
/// of the same page, by the quietest of several. An event is a result; what a stream costs however long
/// it is falls out of the difference. The warm-up takes as many streams as are kept, and more: from then
/// on those that are forgotten give their memory to those that begin.
///
/// # Errors
/// When a stream can't be had, or its pages are not cached.
pub(crate) fn per_cached_event(page: &str, case: &Case) -> Result<f64, Failure> {
    let server = start_with(1, |config| config.streams_kept_max = KEPT)?;
    let mut reader = Reader::new(Client::connect(server.addr())?, page, case)?;
    let warm = Instant::now() + WARM;
    let mut rounds = 0;
    while rounds < WARM_STREAMS || Instant::now() < warm {
        rounds += 1;
        reader.read(rounds % 2)?;
    }
    let mut quietest = [usize::MAX; 2];
    for batch in 1..=BATCHES_MAX {
        for (which, least) in quietest.iter_mut().enumerate() {
            // The parser makes room for as much as the last body had.
            reader.read(which)?;
            // To look through a long answer takes so long that its connection begins to rest.
            let mut read = 0;
            let allocations = counting(|| {
                read = reader.read(which)?;
                Ok(())
            })?;
            *least = allocations.min(*least);
            reader.check(which, read)?;
        }
        // A wait more or less is an allocation more or less, and a long stream is seldom without.
        if batch >= BATCHES && quietest[1] <= quietest[0] {
            break;
        }
    }
    server.stop(Duration::ZERO);
    let more = quietest[1] as f64 - quietest[0] as f64;
    Ok(more / (case.urls[1] - case.urls[0]) as f64)
}

/// A client that reads a short and a long stream.
struct Reader {
    client: Client,
    case: Case,
    requests: [Vec<u8>; 2],
}

impl Reader {
    fn new(mut client: Client, page: &str, case: &Case) -> Result<Self, Failure> {
        let body = |urls: usize| {
            let urls = vec![format!("\"{page}\""); urls].join(",");
            format!(
                "{{\"urls\":[{urls}],\"options\":{{\"robots\":\"ignore\",\"progress_ms\":0,\
                 \"resume_window_s\":{}}}}}",
                case.window_s
            )
        };
        // Equally long: what is read of a request is no part of an event.
        let bodies = case.urls.map(body);
        let length = bodies[1].len();
        let bodies = bodies.map(|body| format!("{body:length$}"));
        // Whatever way the events take, their pages come from the cache.
        let request = |body: &String, accept: &str| post(body, accept).into_bytes();
        client.stream(&request(&bodies[0], "*/*"), b"\"type\":\"summary\"")?;
        let cached = client.stream(&request(&bodies[1], "*/*"), b"\"from_cache\":true")?;
        if cached != case.urls[1] {
            return Err("the page is not cached".into());
        }
        let requests = match case.way {
            Way::Ndjson => bodies.map(|body| request(&body, "*/*")),
            Way::Sse => bodies.map(|body| request(&body, "text/event-stream")),
            Way::WebSocket | Way::Deflate => {
                let offer = match case.way {
                    Way::Deflate => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
                    _ => "",
                };
                client.upgrade(&http::websocket_request_with("/crawl/ws", offer))?;
                bodies.map(|body| {
                    text_frame(&format!("{{\"op\":\"crawl\",\"id\":\"a\",\"data\":{body}}}"))
                })
            }
        };
        Ok(Self { client, case: *case, requests })
    }

    /// Reads a whole stream; its bytes, where they can be looked at.
    fn read(&mut self, which: usize) -> Result<usize, Failure> {
        let (request, urls) = (&self.requests[which], self.case.urls[which]);
        match self.case.way {
            Way::Ndjson | Way::Sse => Ok(self.client.take_stream(request)?),
            // Beside the results: metadata and summary.
            Way::WebSocket | Way::Deflate => {
                self.client.messages(request, urls + 2)?;
                Ok(0)
            }
        }
    }

    /// Whether the stream that was just read has all its results, from the cache.
    fn check(&self, which: usize, read: usize) -> Result<(), Failure> {
        let (seen, urls) = (self.client.taken(read, b"\"from_cache\":true"), self.case.urls[which]);
        match self.case.way {
            Way::Ndjson | Way::Sse if seen != urls => {
                Err(format!("{seen} cached results of {urls}").into())
            }
            _ => Ok(()),
        }
    }
}

fn post(body: &str, accept: &str) -> String {
    format!(
        "POST /crawl/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: {accept}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Allocations of the whole process while something is done.
fn counting(work: impl FnOnce() -> Result<(), Failure>) -> Result<usize, Failure> {
    let region = Region::new(ALLOCATOR);
    work()?;
    let change = region.change();
    Ok(change.allocations + change.reallocations)
}
