//! Budgets and micro-benchmarks. Each prints a ratio or a count, and checks what it measured, so
//! that nothing gets fast by being wrong. Exit status 1: over budget, 2: could not be measured.

mod allocations;
mod memory;
mod pages;
mod server;
mod smoke;
mod wasm_native;

use std::process::ExitCode;

/// What a benchmark ends with: whether it is within its budget, or why it could not run.
type Outcome = Result<bool, Box<dyn std::error::Error>>;

/// Name, what it measures, what runs it.
type Bench = (&'static str, &'static str, fn(&[String]) -> Outcome);

const BENCHES: [Bench; 4] = [
    (
        "wasm-native",
        "CPU time of extraction in the sandbox against the same code native [--pages DIR]",
        wasm_native::run,
    ),
    (
        "allocations",
        "heap allocations of a warm GET /livez, and of an event of a cached stream [--requests N]",
        allocations::run,
    ),
    ("memory", "resident memory after 20,000 pages against 5,000 [--pages N]", memory::run),
    ("smoke", "every benchmark once, with inputs so small that only its checks count", smoke::run),
];

/// Every allocation of the process is counted, whichever benchmark runs.
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// The number behind a flag, where it is given.
fn number(
    args: &[String],
    flag: &str,
    default: usize,
) -> Result<usize, Box<dyn std::error::Error>> {
    match args {
        [] => Ok(default),
        [name, value] if name == flag => Ok(value.parse()?),
        _ => Err(format!("expected {flag} N").into()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else { return usage() };
    if name == "--help" {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some((_, _, run)) = BENCHES.iter().find(|bench| bench.0 == name) else { return usage() };
    match run(rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::from(2)
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{}", help());
    ExitCode::from(2)
}

fn help() -> String {
    let usage = "usage: cargo run --release -p forebay-bench -- NAME [ARGUMENTS]\n".to_owned();
    BENCHES.iter().fold(usage, |text, (name, what, _)| text + &format!("  {name:<14}{what}\n"))
}
