//! Every benchmark with tiny inputs: that it runs and that its checks hold, not what it costs.

use crate::{Outcome, allocations, memory};

/// Runs all; a budget that is missed on tiny inputs is no failure, a check that fails is.
pub(crate) fn run(_: &[String]) -> Outcome {
    let small = |flag: &str, value: &str| [flag.to_owned(), value.to_owned()];
    let _ = allocations::run(&small("--requests", "200"))?;
    let _ = memory::run(&small("--pages", "80"))?;
    Ok(true)
}
