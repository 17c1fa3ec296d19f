//! `bench budgets`: one line per budget of the design, with its limit, its figure and a verdict.
//!
//! A figure that differs between rounds has to hold in every one of them.

mod own;

use crate::compare::{Compared, Env, FLAGS, Scenario, pair};
use crate::crowd::Kind;
use crate::flags::Flags;
use crate::process::Side;
use crate::ratio::{Limit, Spread, Verdict};
use crate::{Failure, Outcome, allocations, idle, wasm_native};

/// What came of a measurement.
enum Measured {
    /// Its figure over all rounds.
    Figure(Spread),
    /// It can't be made with this server.
    Skipped(String),
}

type Measure = fn(&Env) -> Result<Measured, Failure>;

/// What is limited, by what, and what measures it.
const BUDGETS: [(&str, Limit, Measure); 16] = [
    ("heap allocations per GET /livez", Limit::AtMost(0.0), |_| {
        Ok(Measured::Figure(Spread::exactly(allocations::livez(20_000)?.quietest as f64)))
    }),
    ("heap allocations per event of a cached stream", Limit::AtMost(0.0), |env| {
        let mut figures = Vec::new();
        for case in &allocations::CASES {
            figures.push(allocations::per_cached_event(&env.page("/page/1?size=2000"), case)?);
        }
        Ok(Measured::Figure(Spread::of(figures).ok_or("nothing was measured")?))
    }),
    ("CPU per GET /livez over the epoll echo's", Limit::AtMost(1.2), |env| {
        ratio(env, Scenario::Livez, Side::Epoll, "CPU per request", false)
    }),
    ("user CPU per GET /livez over axum's", Limit::AtMost(0.3), |env| {
        ratio(env, Scenario::Livez, Side::Axum, "  user part", false)
    }),
    ("CPU per cached one-URL stream over axum's", Limit::AtMost(0.5), |env| {
        ratio(env, Scenario::CachedStream, Side::Axum, "CPU per stream", false)
    }),
    ("frames per CPU second, SSE, over axum's", Limit::AtLeast(3.0), |env| {
        ratio(env, Scenario::FramesSse, Side::Axum, "CPU per frame", true)
    }),
    ("frames per CPU second, WebSocket, over axum's", Limit::AtLeast(3.0), |env| {
        ratio(env, Scenario::FramesWs, Side::Axum, "CPU per frame", true)
    }),
    ("p99.9 TTFB at half load over axum's", Limit::AtMost(0.5), |env| {
        ratio(env, Scenario::HalfLoad, Side::Axum, "TTFB p99.9", false)
    }),
    ("p99.9 TTFB with every lane extracting over idle", Limit::AtMost(2.0), own::busy_over_idle),
    ("p99.9 TTFB beside hostile documents over idle", Limit::AtMost(2.0), own::hostile_over_idle),
    ("pages per CPU second over axum's", Limit::AtLeast(1.0), |env| {
        ratio(env, Scenario::Pages, Side::Axum, "CPU per page", true)
    }),
    ("bytes of user space per idle keep-alive connection", idle::LIMIT, |env| {
        let figures = (0..env.rounds)
            .map(|_| Ok(idle::measure(env, Side::Forebay, &Kind::KeepAlive)?.anonymous))
            .collect::<Result<_, Failure>>()?;
        Ok(Measured::Figure(Spread::of(figures).ok_or("no round was run")?))
    }),
    ("bytes of user space per idle WebSocket", idle::LIMIT, |env| {
        if !env.websockets {
            return Ok(Measured::Skipped("the server has no /crawl/ws".to_owned()));
        }
        let idle = idle::measure(env, Side::Forebay, &Kind::WebSocket)?;
        Ok(Measured::Figure(Spread::exactly(idle.anonymous)))
    }),
    (
        "CPU per URL, dearest over cheapest of 1 to 1,000 a stream",
        Limit::AtMost(1.1),
        own::flatness,
    ),
    ("server-side p99 to the first byte of a stream, µs", Limit::AtMost(50.0), own::first_byte),
    ("CPU of extraction, sandbox over native", Limit::AtMost(wasm_native::RATIO_MAX), |_| {
        Ok(Measured::Figure(Spread::exactly(wasm_native::ratio(60)?)))
    }),
];

/// Prints all budgets; within when none was missed.
pub(crate) fn run(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &[&FLAGS[..], &["--only"]].concat())?;
    let env = Env::new(&flags)?;
    println!("{}\n", env.describe());
    let (mut missed, mut unknown) = (0, 0);
    for (name, limit, measure) in BUDGETS {
        if flags.text("--only").is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (figure, verdict) = match measure(&env) {
            Ok(Measured::Figure(figure)) => {
                let verdict = limit.judge(&figure);
                missed += u32::from(verdict == Verdict::Missed);
                unknown += u32::from(verdict == Verdict::Undecided);
                (figure.to_string(), verdict.to_string())
            }
            Ok(Measured::Skipped(why)) => {
                unknown += 1;
                (why, "skipped".to_owned())
            }
            Err(error) => {
                unknown += 1;
                (error.to_string(), "FAILED".to_owned())
            }
        };
        println!("{verdict:<10} {name:<58} {:<14} {figure}", limit.to_string());
    }
    println!("\n{missed} missed, {unknown} undecided, skipped or failed");
    match (missed, unknown) {
        (0, 0) => Ok(true),
        (0, _) => Err(format!("{unknown} budgets could not be judged").into()),
        _ => Ok(false),
    }
}

/// The ratio of one figure of a scenario, ours over theirs or the other way round.
fn ratio(
    env: &Env,
    scenario: Scenario,
    side: Side,
    figure: &str,
    inverse: bool,
) -> Result<Measured, Failure> {
    if let Some(why) = scenario.lacks(env) {
        return Ok(Measured::Skipped(why));
    }
    let compared = pair(env, scenario, side)?;
    let line = compared.iter().find(|line| line.figure == figure);
    let ratio = line.and_then(|Compared { ratio, .. }| *ratio).ok_or("there is no ratio")?;
    let Spread { min, median, max } = ratio;
    Ok(Measured::Figure(if inverse {
        Spread { min: 1.0 / max, median: 1.0 / median, max: 1.0 / min }
    } else {
        ratio
    }))
}
