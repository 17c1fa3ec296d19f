//! `bench compare`: Forebay beside its peers, as ratios.
//!
//! Server and peer run in turn on the same core; the load and the synthetic origin run on another.
//! Rounds are interleaved A B B A, and each run starts a process of its own, so that neither side
//! profits from the other's warmth.

mod env;
mod scenario;

pub(crate) use env::{Env, FLAGS};
pub(crate) use scenario::{Figure, Run, Scenario};

use crate::flags::Flags;
use crate::process::Side;
use crate::ratio::Spread;
use crate::{Failure, Outcome};

/// One figure of both sides.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) rounds: usize,
    pub(crate) ours: Spread,
    pub(crate) theirs: Spread,
    /// Ours over theirs; none when a side has nothing to divide by.
    pub(crate) ratio: Option<Spread>,
}

impl Compared {
    fn of(name: &Figure, blocks: &[[f64; 4]]) -> Result<Self, Failure> {
        let side = |at: [usize; 2]| {
            let values = blocks.iter().flat_map(|block| at.map(|at| block[at])).collect();
            Spread::of(values).ok_or("no round was run")
        };
        Ok(Self {
            figure: name.name,
            unit: name.unit,
            rounds: blocks.len(),
            ours: side([0, 3])?,
            theirs: side([1, 2])?,
            ratio: Spread::of_blocks(blocks),
        })
    }

    /// The ratio in words: nothing that is smaller than its own noise is printed as a figure.
    pub(crate) fn ratio_text(&self) -> String {
        match &self.ratio {
            None => "no ratio: a side has nothing to divide by".to_owned(),
            Some(ratio) if ratio.is_told(self.rounds) => format!("ratio {ratio}"),
            Some(_) if self.rounds < 2 => "no ratio: one round can't show its spread".to_owned(),
            Some(Spread { min, max, .. }) => format!(
                "no ratio: the rounds spread from {min:.2} to {max:.2}, more than what they differ by from 1"
            ),
        }
    }
}

/// Prints every comparison that can be made here.
pub(crate) fn run(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &[&FLAGS[..], &["--only", "--peer"]].concat())?;
    let env = Env::new(&flags)?;
    let (only, peer) = (flags.text("--only"), flags.text("--peer"));
    if let Some(name) = only
        && !Scenario::ALL.iter().any(|scenario| scenario.name() == name)
    {
        let names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        return Err(format!("--only {name}: expected one of {}", names.join(", ")).into());
    }
    println!("{}", env.describe());
    let mut failures = 0;
    for scenario in Scenario::ALL {
        if only.is_some_and(|name| name != scenario.name()) {
            continue;
        }
        println!("\n{}: {}", scenario.name(), scenario.what());
        if let Some(why) = scenario.lacks(&env) {
            println!("  skipped: {why}");
            continue;
        }
        for side in scenario.peers() {
            if peer.is_some_and(|name| name != side.name()) {
                continue;
            }
            match pair(&env, scenario, *side) {
                Ok(compared) => compared.iter().for_each(|line| print_line(*side, line)),
                Err(error) => {
                    failures += 1;
                    println!("  {}: could not be measured: {error}", side.name());
                }
            }
        }
    }
    if failures > 0 {
        return Err(format!("{failures} comparisons could not be made").into());
    }
    Ok(true)
}

fn print_line(side: Side, line: &Compared) {
    let Compared { figure, unit, ours, theirs, .. } = line;
    let (ours, theirs) = (format!("{ours} {unit}"), format!("{theirs} {unit}"));
    println!(
        "  {figure:<22} forebay {ours:<28} {:<10} {theirs:<28} {}",
        side.name(),
        line.ratio_text()
    );
}

/// Runs a scenario in blocks A B B A and compares every figure of it.
///
/// # Errors
/// When a run could not be made or did not go well.
pub(crate) fn pair(env: &Env, scenario: Scenario, side: Side) -> Result<Vec<Compared>, Failure> {
    let mut runs: Vec<Vec<Figure>> = Vec::new();
    for _ in 0..env.rounds {
        for side in [Side::Forebay, side, side, Side::Forebay] {
            runs.push(scenario.run(env, side)?);
        }
    }
    compare_runs(&runs)
}

/// Compares runs that stand in order A B B A A B B A …
///
/// # Errors
/// When there are none.
pub(crate) fn compare_runs(runs: &[Vec<Figure>]) -> Result<Vec<Compared>, Failure> {
    let first = runs.first().ok_or("no round was run")?;
    (0..first.len())
        .map(|at| {
            let (blocks, _) = runs.as_chunks::<4>();
            let blocks: Vec<[f64; 4]> =
                blocks.iter().map(|block| block.each_ref().map(|run| run[at].value)).collect();
            Compared::of(&first[at], &blocks)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn runs(values: &[f64]) -> Vec<Vec<Figure>> {
        values.iter().map(|value| vec![Figure { name: "x", unit: "µs", value: *value }]).collect()
    }

    #[test]
    fn a_clear_ratio_is_printed_and_a_noisy_one_is_refused() {
        let clear = compare_runs(&runs(&[1.0, 2.0, 2.0, 1.0, 1.1, 2.0, 2.0, 1.1])).unwrap();
        assert_eq!(clear[0].ratio_text(), "ratio 0.53 (0.50 … 0.55)");
        let noisy = compare_runs(&runs(&[1.0, 1.0, 1.2, 1.0, 1.3, 1.0, 1.0, 1.3])).unwrap();
        assert!(noisy[0].ratio_text().starts_with("no ratio: the rounds spread"), "{noisy:?}");
        let single = compare_runs(&runs(&[1.0, 2.0, 2.0, 1.0])).unwrap();
        assert!(single[0].ratio_text().contains("one round"));
        let empty = compare_runs(&runs(&[0.0, 0.0, 0.0, 0.0])).unwrap();
        assert!(empty[0].ratio_text().contains("nothing to divide by"));
    }
}
