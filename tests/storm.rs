//! A storm of faults: 10,000 fetches, drawn by a seed from every way in which an origin can fail, on
//! two cores at once. Each ends exactly once, with the code and stage that its fault has, within its
//! deadline; afterwards no descriptor, task, buffer or turn is left.
//!
//! `STORM_SEED` and `STORM_FETCHES` replay or widen it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "fetch/answers.rs"]
mod answers;
#[path = "storm/faults.rs"]
mod faults;
#[path = "fetch/http2_origin.rs"]
mod http2_origin;
#[path = "storm/origin.rs"]
mod origin;
#[path = "fetch/trust.rs"]
mod trust;

use faults::{Case, Expected, cases};
use forebay::error::{PageCode, Stage};
use forebay::fetch::pool::PoolLimits;
use forebay::fetch::resolve::{Question, Resolver, channel};
use forebay::fetch::{FetchConfig, FetchRequest, FetchShared, Fetcher};
use http2_origin::Http2Origin;
use origin::Origins;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trust::Trust;

/// Fetches under way at once, on each core.
const WORKERS: usize = 32;
/// By how much a fetch may pass its deadline on a machine that does other things, too.
const SLACK: Duration = Duration::from_secs(3);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64: which case the fetch of that number is.
fn draw(seed: usize, fetch: usize, cases: usize) -> usize {
    let mut z = (seed as u64) ^ (fetch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % cases as u64).unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// `good.test` is loopback, `inside.test` is private, `rebound.test` is one and then the other.
fn zone(name: &str, asked: usize) -> Result<Vec<IpAddr>, String> {
    let private = IpAddr::from([10, 0, 0, 1]);
    match name {
        "good.test" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        "inside.test" => Ok(vec![private]),
        "rebound.test" if asked == 0 => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        "rebound.test" => Ok(vec![private]),
        "empty.test" => Ok(Vec::new()),
        _ => Err("the name does not exist".to_owned()),
    }
}

/// What a fetch came to, in the words of [`Expected`].
async fn fetch(fetcher: &Fetcher, case: &Case) -> (Expected, String, Duration) {
    let started = Instant::now();
    let request = FetchRequest {
        url: &case.url,
        deadline: started + case.patience,
        max_body_bytes: 2 << 20,
        redirects: 3,
        user_agent: None,
        headers: &[],
        known: None,
        robots: case.robots,
        post: None,
        owner: 1,
    };
    let outcome = fetcher.fetch(&request).await;
    let took = started.elapsed();
    match outcome {
        Ok(page) => (Expected::Page(page.status), String::new(), took),
        Err(f) => (Expected::Fails(f.error.code, f.error.stage), f.error.message, took),
    }
}

/// What one core found wrong, and how often each case came up.
#[derive(Default)]
struct Report {
    wrong: Vec<String>,
    times: BTreeMap<&'static str, usize>,
}

async fn storm(
    fetcher: Rc<Fetcher>,
    cases: Arc<Vec<Case>>,
    next: Arc<AtomicUsize>,
    (seed, fetches): (usize, usize),
) -> Report {
    let baseline = uring::stats();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (fetcher, cases, next) =
                (Rc::clone(&fetcher), Arc::clone(&cases), Arc::clone(&next));
            uring::spawn(async move {
                let mut report = Report::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= fetches {
                        return report;
                    }
                    let case = &cases[draw(seed, number, cases.len())];
                    let (outcome, message, took) = fetch(&fetcher, case).await;
                    *report.times.entry(case.name).or_default() += 1;
                    let late = took > case.patience + SLACK;
                    if late || !case.expected.contains(&outcome) {
                        let name = case.name;
                        report.wrong.push(format!(
                            "#{number} {name}: {outcome:?} ({message}) after {took:?}, expected {:?}",
                            case.expected
                        ));
                    }
                }
            })
        })
        .collect();
    let mut report = Report::default();
    for worker in workers {
        let part = worker.await;
        report.wrong.extend(part.wrong);
        for (name, times) in part.times {
            *report.times.entry(name).or_default() += times;
        }
    }
    fetcher.close_idle();
    // Connections close, and the kernel gives buffers back, in their own time; but they do.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = uring::stats();
        let left = (
            now.tasks_live.saturating_sub(baseline.tasks_live),
            now.buffers_in_flight.saturating_sub(baseline.buffers_in_flight),
            uring::arena::stats().in_use(),
            fetcher.idle_connections(),
        );
        if left == (0, 0, 0, 0) {
            return report;
        }
        if Instant::now() > end {
            report.wrong.push(format!("left: tasks, operations, buffers, connections: {left:?}"));
            return report;
        }
        uring::time::sleep(Duration::from_millis(20)).await;
    }
}

fn config(trust: &Trust) -> FetchConfig {
    FetchConfig {
        egress_allow: vec!["127.0.0.1:*".to_owned()],
        tls_ca_files: vec![trust.ca_file()],
        dns_timeout: Duration::from_secs(5),
        ttfb_timeout: Duration::from_secs(4),
        body_idle_timeout: Duration::from_secs(4),
        tls_timeout: Duration::from_secs(30), // handshakes are slow in a debug build
        host_concurrency: 1024,
        pool: PoolLimits { per_origin: 4, total: 64, idle: Duration::from_secs(2) },
        ..FetchConfig::default()
    }
}

/// Held by each test: the origins of one would be among the descriptors that the other counts.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn ten_thousand_fetches_over_every_fault_end_once_and_leave_nothing() {
    let _alone = ALONE.lock();
    let (seed, fetches) = (number("STORM_SEED", 1), number("STORM_FETCHES", 10_000));
    let trust = Trust::new();
    let (origins, http2) = (Origins::start(&trust), Http2Origin::start(&trust));
    let cases = Arc::new(cases(&origins, &http2));
    let before = descriptors();
    let started = Instant::now();
    let (questions, mut asked) = channel(1024);
    let control = std::thread::spawn(move || {
        let mut times = std::collections::HashMap::<String, usize>::new();
        while let Some(question) = asked.blocking_recv() {
            let Question { name, .. } = &question;
            let n = times.entry(name.clone()).or_default();
            let found = zone(name, *n).map(|found| (found, Duration::from_secs(3600)));
            *n += usize::from(found.is_ok());
            question.answer(found);
        }
    });
    let shared = FetchShared::new(config(&trust)).unwrap();
    let next = Arc::<AtomicUsize>::default();
    let driver = uring::probe::choose(uring::Runtime::Auto, &uring::probe::probe()).unwrap().driver;
    let cores: Vec<_> = (0..2)
        .map(|index| {
            let (shared, questions) = (Arc::clone(&shared), questions.clone());
            let (cases, next) = (Arc::clone(&cases), Arc::clone(&next));
            let core = uring::core::CoreConfig::new(index, driver);
            uring::core::spawn(core, move || async move {
                let fetcher = Fetcher::new(shared, Resolver::new(questions));
                uring::yield_now().await;
                storm(fetcher, cases, next, (seed, fetches)).await
            })
            .unwrap()
        })
        .collect();
    drop(questions);
    let mut wrong = Vec::new();
    let mut times = BTreeMap::<&str, usize>::new();
    for core in cores {
        let report = core.join().unwrap();
        wrong.extend(report.wrong);
        for (name, n) in report.times {
            *times.entry(name).or_default() += n;
        }
    }
    control.join().unwrap();
    let total: usize = times.values().sum();
    let end = Instant::now() + Duration::from_secs(20);
    while descriptors() > before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{total} fetches of {} kinds in {:?}, seed {seed}", times.len(), started.elapsed());
    println!("descriptors: {before} before, {} after", descriptors());
    assert!(wrong.is_empty(), "{} wrong, the first:\n{}", wrong.len(), first(&wrong));
    assert_eq!((total, shared.under_way()), (fetches, (0, 0)));
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    let seen = &http2.seen;
    let count = |n: &AtomicUsize| n.load(Ordering::SeqCst);
    assert_eq!(count(&seen.ended), count(&seen.connections), "HTTP/2 connections");
    if fetches >= 10_000 {
        assert_eq!(times.len(), cases.len(), "every kind came up");
        assert!(count(&seen.resets) > 0);
    }
}

fn first(wrong: &[String]) -> String {
    wrong.iter().take(25).cloned().collect::<Vec<_>>().join("\n")
}

/// The codes of API §5 that fetching can have: each is some fault's.
#[test]
fn every_code_of_a_fetch_is_among_the_faults() {
    use PageCode::*;
    let _alone = ALONE.lock();
    let trust = Trust::new();
    let cases = cases(&Origins::start(&trust), &Http2Origin::start(&trust));
    let has = |code: PageCode| {
        let fails = |e: &Expected| matches!(e, Expected::Fails(c, _) if *c == code);
        cases.iter().any(|case| case.expected.iter().any(fails))
    };
    for code in [
        DnsFailed,
        ConnectFailed,
        TlsFailed,
        ReadTimeout,
        UrlTimeout,
        BodyTooLarge,
        TooManyRedirects,
        BlockedEgress,
        RobotsDisallowed,
        UnsupportedType,
        DecodeFailed,
        HttpMalformed,
    ] {
        assert!(has(code), "{code:?}");
    }
    assert!(cases.iter().any(|c| c.expected.contains(&Expected::Fails(TlsFailed, Stage::Tls))));
}
