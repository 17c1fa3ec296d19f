//! Budgets and micro-benchmarks. Each prints a ratio or a count, and checks what it measured, so
//! that nothing gets fast by being wrong. Exit status 1: over budget, 2: could not be measured.

mod allocations;
mod budgets;
mod compare;
mod crowd;
mod flags;
mod http;
mod idle;
mod load;
mod memory;
mod micro;
mod pages;
mod process;
mod ratio;
mod redis;
mod search;
mod server;
mod smoke;
mod usage;
mod wasm_native;

use std::process::ExitCode;

/// Why a benchmark could not run.
type Failure = Box<dyn std::error::Error>;

/// What a benchmark ends with: whether it is within its budget, or why it could not run.
type Outcome = Result<bool, Failure>;

/// Name, what it measures, what runs it.
type Bench = (&'static str, &'static str, fn(&[String]) -> Outcome);

const BENCHES: [Bench; 12] = [
    ("compare", "ratios beside axum and a bare echo, server and peers as processes", compare::run),
    ("budgets", "one line per budget, with limit, figure and verdict", budgets::run),
    ("idle", "memory of idle connections, and what it is made of", idle::run),
    ("micro", "the pieces of the hot path, timed, each with a checked result", micro::run),
    (
        "instructions",
        "the same in instructions, by callgrind [--save|--against FILE]",
        micro::instructions,
    ),
    (
        "wasm-native",
        "extraction in the sandbox against the same code native [--pages DIR]",
        wasm_native::run,
    ),
    (
        "allocations",
        "heap allocations of a warm GET /livez, and of an event of a cached stream [--requests N]",
        allocations::run,
    ),
    ("memory", "resident memory after 20,000 pages against 5,000 [--pages N]", memory::run),
    (
        "local-search",
        "memory and time per query over 20,000 indexed pages [--pages N] [--queries N]",
        search::run,
    ),
    ("redis", "streams with and without Redis, and when it dies [--streams N]", redis::run),
    ("smoke", "every benchmark once, with inputs so small that only its checks count", smoke::run),
    ("counted", "what `instructions` runs under valgrind", micro::counted),
];

/// Every allocation of the process is counted, whichever benchmark runs.
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else { return usage() };
    if name == "--help" {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some((_, _, run)) = BENCHES.iter().find(|bench| bench.0 == name) else { return usage() };
    let outcome = run(rest);
    process::clean_scratch();
    match outcome {
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
