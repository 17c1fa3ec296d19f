//! Local search: what 20,000 pages cost in memory, what a query costs in time, and the same run's
//! fetch of one page beside it.

use crate::flags::Flags;
use crate::pages::Numbers;
use crate::server::{Client, start};
use crate::usage::Memory;
use crate::{Failure, Outcome};
use forebay::search::local::{Local, Page, Question};
use forebay::search::{Hit, Query};
use forebay_loadtest::origin::{Origin, OriginConfig};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Words of the pages' language; the n-th is used n times less often than the first.
const VOCABULARY: usize = 30_000;
/// Words of one page.
const PAGE_WORDS: usize = 400;
/// Pages handed over before it is waited for the index.
const BATCH: usize = 500;
/// Fetches that the queries are compared with.
const FETCHES: usize = 300;
/// Bytes that the index may have.
const INDEX_BYTES_MAX: u64 = 1 << 30;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Prints memory, time per query and time per fetch; in budget where the p99 of queries is below the
/// median of fetches.
pub(crate) fn run(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &["--pages", "--queries"])?;
    let pages: usize = flags.get("--pages", 20_000)?;
    let queries: usize = flags.get("--queries", 2_000)?;
    let fetches = fetches()?;
    let before = Memory::of(std::process::id())?;
    let local = Local::start(None, INDEX_BYTES_MAX)?;
    let began = Instant::now();
    let text_bytes = fill(&local, pages)?;
    let filled = began.elapsed();
    let after = Memory::of(std::process::id())?;
    let stats = local.stats();
    println!(
        "index: {} pages, {} KiB of text, {} KiB of index, {} KiB more anonymous memory, filled in {:.1} s",
        stats.pages,
        text_bytes / 1024,
        stats.bytes / 1024,
        after.anonymous.saturating_sub(before.anonymous) / 1024,
        filled.as_secs_f64(),
    );
    let asked = ask_all(&local, pages, queries)?;
    local.stop();
    show("query", &asked);
    show("fetch of one page", &fetches);
    let (p99, fetch) = (at(&asked, 99), at(&fetches, 50));
    println!("query p99 / fetch p50: {:.2} (below 1)", p99.as_secs_f64() / fetch.as_secs_f64());
    Ok(p99 < fetch)
}

/// Fetches of a page of usual size by a whole server on loopback, without its cache; sorted.
fn fetches() -> Result<Vec<Duration>, Failure> {
    let origin = Origin::start(OriginConfig::default())?;
    let server = start(1)?;
    let mut client = Client::connect(server.addr())?;
    let body = format!(
        "{{\"urls\":[\"http://{}/page/1?size=20000\"],\"options\":{{\"cache_mode\":\"bypass\",\"robots\":\"ignore\"}}}}",
        origin.addr()
    );
    let request = format!(
        "POST /crawl/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut took = Vec::with_capacity(FETCHES);
    for at in 0..FETCHES + FETCHES / 10 {
        let began = Instant::now();
        let found = client.stream(request.as_bytes(), b"\"gate_decision\":\"approved\"")?;
        if found != 1 {
            return Err("the page was not fetched".into());
        }
        // The first ones warm it up.
        if at >= FETCHES / 10 {
            took.push(began.elapsed());
        }
    }
    server.stop(Duration::ZERO);
    took.sort_unstable();
    Ok(took)
}

/// Hands so many pages over, as fast as they are taken; the bytes of their texts.
fn fill(local: &Local, pages: usize) -> Result<usize, Failure> {
    let (mut numbers, mut bytes) = (Numbers(11), 0);
    let deadline = Instant::now() + PATIENCE;
    for page in 0..pages {
        let mut text = String::with_capacity(PAGE_WORDS * 8);
        for _ in 0..PAGE_WORDS {
            word(&mut text, zipf(&mut numbers));
        }
        bytes += text.len();
        let mut title = String::new();
        (0..5).for_each(|_| word(&mut title, zipf(&mut numbers)));
        let document =
            format!("{{\"title\":\"{title}page{page}\",\"text\":\"{text}\",\"markdown\":null}}");
        let url = format!("http://pages.test/{page}");
        local.offer(Page { url, owner: Arc::from(""), document: document.into() });
        let last = page + 1 == pages;
        while (page % BATCH == BATCH - 1 || last) && local.stats().pages < page as u64 + 1 {
            wait(deadline)?;
        }
    }
    if local.stats().dropped + local.stats().evicted > 0 {
        return Err("pages were dropped".into());
    }
    // The last page is found once all are committed.
    while !ask(local, &format!("page{}", pages - 1))?
        .iter()
        .any(|hit| hit.url.ends_with(&format!("/{}", pages - 1)))
    {
        local.tick();
        wait(deadline)?;
    }
    Ok(bytes)
}

/// Asks for pages by one to three words; times, sorted. Each tenth query asks for one page by its own
/// word, which must come first.
fn ask_all(local: &Local, pages: usize, queries: usize) -> Result<Vec<Duration>, Failure> {
    let mut numbers = Numbers(12);
    let mut took = Vec::with_capacity(queries);
    for at in 0..queries {
        let known = numbers.below(pages);
        let text = if at % 10 == 0 {
            format!("page{known}")
        } else {
            let mut text = String::new();
            (0..1 + at % 3).for_each(|_| word(&mut text, zipf(&mut numbers)));
            text
        };
        let began = Instant::now();
        let hits = ask(local, &text)?;
        took.push(began.elapsed());
        let first = hits.first().ok_or_else(|| format!("nothing is found for {text}"))?;
        if at % 10 == 0 && first.url != format!("http://pages.test/{known}") {
            return Err(format!("{text} is found in {}", first.url).into());
        }
    }
    took.sort_unstable();
    Ok(took)
}

fn ask(local: &Local, text: &str) -> Result<Vec<Hit>, Failure> {
    let query = Query { text: text.to_owned(), limit: 10, country: None, locale: None };
    let (to, mut from) = uring::mailbox::channel(1);
    let deadline = Instant::now() + PATIENCE;
    local.ask(Question { query, owner: None, deadline, to })?;
    loop {
        if let Some(hits) = from.try_recv() {
            return Ok(hits?);
        }
        if from.is_empty() && Instant::now() >= deadline {
            return Err("the index does not answer".into());
        }
        std::thread::yield_now();
    }
}

fn wait(deadline: Instant) -> Result<(), Failure> {
    if Instant::now() >= deadline {
        return Err("the index takes too long".into());
    }
    std::thread::sleep(Duration::from_millis(2));
    Ok(())
}

/// A word's number by Zipf's law.
fn zipf(numbers: &mut Numbers) -> usize {
    let share = numbers.below(1 << 20) as f64 / f64::from(1 << 20);
    let rank = (share * (VOCABULARY as f64).ln()).exp();
    // Between 1 and the vocabulary's size.
    let mut word = 1;
    while ((word + word / 8 + 1) as f64) < rank {
        word += word / 8 + 1;
    }
    word + numbers.below(word / 8 + 1)
}

/// Appends the n-th word and a space.
fn word(text: &mut String, mut n: usize) {
    const SYLLABLES: [&str; 16] = [
        "ba", "ke", "li", "mo", "nu", "pra", "sto", "vi", "we", "zu", "ta", "ri", "fe", "go",
        "hal", "jo",
    ];
    text.push('w');
    while n > 0 {
        text.push_str(SYLLABLES[n % SYLLABLES.len()]);
        n /= SYLLABLES.len();
    }
    text.push(' ');
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn show(what: &str, sorted: &[Duration]) {
    let mut line = format!("{what}: {} times,", sorted.len());
    for percent in [50, 90, 99, 100] {
        let _ = write!(line, " p{percent} {:.3} ms", at(sorted, percent).as_secs_f64() * 1e3);
    }
    println!("{line}");
}
