//! Instruction counts by `valgrind --tool=callgrind`: the same on a loaded machine as on a quiet one.
//!
//! Callgrind runs this binary again as `bench counted`, collects only inside [`measured`], and dumps a
//! profile whenever that returns: one part per case, in their order. No client requests (they are
//! inline assembly) and no runner of another version are needed.

use super::{CASES, Case};
use crate::flags::Flags;
use crate::process::{clean_scratch, scratch};
use crate::{Failure, Outcome};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, Stdio};

/// What callgrind knows [`measured`] by.
const MEASURED: &str = "forebay_bench::micro::count::measured";
/// Calls before the one that is counted: tables are filled, buffers have grown.
const WARM: usize = 16;
/// Percent by which a count may be above the baseline's.
const TOLERANCE: f64 = 2.0;

/// Prints instructions per operation; against a baseline file it fails on what grew by more than 2 %.
pub(crate) fn instructions(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &["--only", "--save", "--against"])?;
    let only = flags.text("--only").unwrap_or_default();
    let counts = count(only)?;
    if let Some(file) = flags.text("--save") {
        let lines: String = counts.iter().map(|(name, n)| format!("{name} {n}\n")).collect();
        std::fs::write(file, lines)?;
    }
    let baseline = flags.text("--against").map(read).transpose()?.unwrap_or_default();
    let mut within = true;
    for (name, count) in counts {
        let what = CASES.iter().find(|case| case.name == name).map_or("", |case| case.what);
        match baseline.get(name) {
            Some(&before) => {
                let percent = (count as f64 / before as f64 - 1.0) * 100.0;
                let grown = percent > TOLERANCE;
                within &= !grown;
                let verdict = if grown { "MORE" } else { "" };
                println!("{name:<16} {count:>10}  {percent:>+6.1} % {verdict:<5} {what}");
            }
            None => println!("{name:<16} {count:>10}  {what}"),
        }
    }
    Ok(within)
}

/// What callgrind runs: every case that can be counted, warm, then once inside [`measured`].
pub(crate) fn counted(args: &[String]) -> Outcome {
    let only = args.first().map(String::as_str).unwrap_or_default();
    for case in countable(only) {
        let mut run = case.ready()?;
        for _ in 0..WARM {
            black_box(run());
        }
        black_box(measured(&mut *run));
    }
    Ok(true)
}

/// What is counted; callgrind knows it by its name.
#[inline(never)]
fn measured(run: &mut dyn FnMut() -> u64) -> u64 {
    black_box(run())
}

fn countable(only: &str) -> impl Iterator<Item = Case> {
    CASES.into_iter().filter(move |case| case.countable && case.name.contains(only))
}

fn count(only: &str) -> Result<Vec<(&'static str, u64)>, Failure> {
    let profile = scratch("callgrind");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=no"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(["counted", only])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error} (Debian: apt-get install valgrind)"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("valgrind: {told}").into());
    }
    let counts = countable(only)
        .zip(1..)
        .map(|(case, part)| {
            let part = format!("{}.{part}", profile.display());
            let text =
                std::fs::read_to_string(&part).map_err(|error| format!("{part}: {error}"))?;
            let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
            let count: u64 = total.ok_or(format!("{part}: no totals"))?.trim().parse()?;
            if count == 0 {
                return Err(format!("{}: nothing was counted", case.name).into());
            }
            Ok((case.name, count))
        })
        .collect();
    clean_scratch();
    counts
}

fn read(file: &str) -> Result<BTreeMap<String, u64>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    text.lines()
        .map(|line| {
            let (name, count) = line.split_once(' ').ok_or("expected NAME COUNT a line")?;
            Ok((name.to_owned(), count.parse()?))
        })
        .collect()
}
