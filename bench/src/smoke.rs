//! Every benchmark with tiny inputs: that it runs and that its checks hold, not what it costs.

use std::process::Command;

use crate::{Outcome, allocations, compare, idle, memory, micro, process, redis, search};

/// Runs all; a budget that is missed on tiny inputs is no failure, a check that fails is, and an
/// allocation where there must be none.
pub(crate) fn run(_: &[String]) -> Outcome {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let counted = allocations::run(&words("--requests 200"))?;
    let _ = memory::run(&words("--pages 80"))?;
    let _ = search::run(&words("--pages 200 --queries 20"))?;
    let _ = micro::run(&words("--batch-ms 0"))?;
    if Command::new("valgrind").arg("--version").output().is_ok() {
        let _ = micro::instructions(&words("--only h1"))?;
    } else {
        println!("instructions: skipped: there is no valgrind");
    }
    // The others need the other binaries and a core for each side.
    let missing = ["forebay", "loadtest", "forebay-peer-axum", "forebay-peer-echo"]
        .into_iter()
        .find_map(|name| process::binary(name).err());
    match missing {
        Some(why) => println!("compare, idle, redis: skipped: {why}"),
        None if process::cpus()?.len() < 2 => {
            println!("compare, idle, redis: skipped: there is one CPU");
        }
        None => {
            let _ = compare::run(&words("--rounds 1 --seconds 0.2 --connections 20"))?;
            let _ = idle::run(&words("--rounds 1 --connections 20"))?;
            match redis::lacks() {
                Some(why) => println!("redis: skipped: {why}"),
                None => {
                    let _ = redis::run(&words("--rounds 1 --seconds 0.2 --streams 20"))?;
                }
            }
        }
    }
    Ok(counted)
}
