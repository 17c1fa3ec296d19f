//! `bench micro` and `bench instructions`: the pieces of the hot path one by one, each with a checked
//! result, so that none of them can get fast by being wrong.

mod cases;
mod count;

pub(crate) use cases::{CASES, Case};
pub(crate) use count::{counted, instructions};

use crate::flags::Flags;
use crate::ratio::Spread;
use crate::{Failure, Outcome};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Runs of a batch; their spread is printed.
const BATCHES: usize = 11;

/// A benchmark, ready to run: each call does its work once and returns its checksum.
pub(crate) type Run = Box<dyn FnMut() -> u64>;

impl Case {
    /// Makes the benchmark and checks its result, twice: what a first run leaves behind must not change
    /// it.
    ///
    /// # Errors
    /// When it can't be made, or is wrong.
    pub(crate) fn ready(&self) -> Result<Run, Failure> {
        let (mut run, expected) = (self.make)()?;
        for _ in 0..2 {
            let found = run();
            if found != expected {
                let name = self.name;
                return Err(format!("{name}: the result is {found}, expected {expected}").into());
            }
        }
        Ok(run)
    }
}

/// Times every case.
pub(crate) fn run(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &["--only", "--batch-ms"])?;
    let batch = Duration::from_millis(flags.get("--batch-ms", 20)?);
    println!(
        "{BATCHES} batches of {} ms each: ns per operation, median (least … largest)",
        batch.as_millis()
    );
    for case in CASES {
        if flags.text("--only").is_some_and(|only| !case.name.contains(only)) {
            continue;
        }
        let mut run = case.ready()?;
        let times = time(&mut *run, batch).ok_or("no batch was run")?;
        println!("{:<18} {:<34} {}", case.name, times.to_string(), case.what);
    }
    Ok(true)
}

/// Nanoseconds of one call, over batches of about that length.
fn time(run: &mut dyn FnMut() -> u64, batch: Duration) -> Option<Spread> {
    let mut calls: u32 = 1;
    // As many calls as fill a batch; a clock is read twice for all of them.
    loop {
        let spent = batch_of(run, calls);
        if spent * 2 >= batch || calls >= 1 << 24 {
            break;
        }
        calls *= 2;
    }
    let nanos = (0..BATCHES).map(|_| batch_of(run, calls).as_nanos() as f64 / f64::from(calls));
    Spread::of(nanos.collect())
}

fn batch_of(run: &mut dyn FnMut() -> u64, calls: u32) -> Duration {
    let begun = Instant::now();
    for _ in 0..calls {
        black_box(run());
    }
    begun.elapsed()
}
