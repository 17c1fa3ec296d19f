//! Whether memory comes back: resident size after many pages against after some.

use crate::Outcome;
use crate::flags::Flags;
use crate::server::start;
use forebay::cli::client;
use forebay::cli::seen::Seen;
use forebay::demo::Origin;
use std::net::SocketAddr;
use std::time::Duration;

/// Late over early; the bar.
const RATIO_MAX: f64 = 1.10;
/// URLs of one stream.
const STREAM_URLS: usize = 1000;

/// Crawls the demo's pages again and again, through streams of 1,000, and compares. No page comes from
/// the cache: each is fetched and extracted.
pub(crate) fn run(args: &[String]) -> Outcome {
    let pages = Flags::parse(args, &["--pages"])?.get("--pages", 20_000)?;
    let origin = Origin::start()?;
    let server = start(0)?;
    // Only pages that answer at once: latency would only make this slower.
    let urls: Vec<String> =
        origin.urls().into_iter().filter(|url| !url.ends_with("/reset")).collect();
    let early_pages = (pages / 4).max(1);
    crawl(server.addr(), &urls, early_pages)?;
    let early = resident_bytes()?;
    crawl(server.addr(), &urls, pages - early_pages)?;
    let late = resident_bytes()?;
    server.stop(Duration::ZERO);
    let ratio = late as f64 / early as f64;
    println!(
        "resident after {early_pages} pages {} KiB, after {pages} {} KiB, ratio {ratio:.3} (at most {RATIO_MAX})",
        early / 1024,
        late / 1024
    );
    Ok(ratio <= RATIO_MAX)
}

/// Crawls so many pages; each stream must end with a summary that counts all of its URLs.
fn crawl(
    addr: SocketAddr,
    urls: &[String],
    pages: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut left = pages;
    while left > 0 {
        let take = left.min(STREAM_URLS);
        let quoted: Vec<String> =
            urls.iter().cycle().take(take).map(|url| format!("\"{url}\"")).collect();
        let body = format!(
            "{{\"urls\":[{}],\"options\":{{\"concurrency\":64,\"cache_mode\":\"bypass\"}}}}",
            quoted.join(",")
        );
        let mut answer =
            client::send(addr, "POST", "/crawl/stream", "application/json", body.as_bytes())?;
        let (mut ended, mut extracted) = (0, 0);
        while let Some(line) = answer.line()? {
            if let Some(Seen::Summary { successful, failed, cancelled, .. }) = Seen::read(&line) {
                (ended, extracted) = (successful + failed + cancelled, successful);
            }
        }
        // A few of the demo's URLs are there to fail.
        if ended != take as u64 || extracted < ended / 2 {
            return Err(
                format!("{ended} of {take} pages ended, {extracted} with a document").into()
            );
        }
        left -= take;
    }
    Ok(())
}

/// Resident bytes of this process, by `/proc/self/statm`.
fn resident_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("statm has no second number")?.parse()?;
    Ok(pages * 4096)
}
