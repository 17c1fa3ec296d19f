//! Memory and CPU time of a process, from /proc.

use serde::{Deserialize, Serialize};
use std::fs;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// CPU time in user mode.
    pub(crate) user_s: f64,
    /// CPU time in the kernel.
    pub(crate) system_s: f64,
}

impl Usage {
    /// Reads it; `self` stands for this process.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: &str) -> Result<Self, String> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        let status = read("status")?;
        let stat = read("stat")?;
        Self::parse(&status, &stat).ok_or_else(|| format!("/proc/{pid}: unknown format"))
    }

    fn parse(status: &str, stat: &str) -> Option<Self> {
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = rss.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        // The command in parentheses may hold anything; fields count from behind it (proc(5)).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        let (user, system) = (ticks()?, ticks()?);
        let per_s = rustix::param::clock_ticks_per_second() as f64;
        Some(Self { rss_bytes: kib * 1024, user_s: user / per_s, system_s: system / per_s })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of("self").unwrap();
        assert!(usage.rss_bytes > 100_000);
        assert!(Usage::of("0").is_err());
    }

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let stat = "1 (a) b) S 1 1 1 0 -1 4 1 0 0 0 250 50 0 0 20 0 1 0 9 0 0";
        let usage = Usage::parse("Name:\tx\nVmRSS:\t    12 kB\n", stat).unwrap();
        assert_eq!(usage.rss_bytes, 12 * 1024);
        assert_eq!(usage.user_s / usage.system_s, 5.0);
    }
}
