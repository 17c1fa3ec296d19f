//! Memory of a process, from `/proc`. (Its CPU time over a load is what `loadtest --pid` reports.)

use crate::Failure;
use std::fs;

/// Memory of a process, by `/proc/PID/smaps_rollup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident, in bytes.
    pub(crate) rss: u64,
    /// Of that, what no file backs: heap, stacks, arenas.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Self::parse(&text).ok_or_else(|| format!("{path}: unknown format").into())
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self { rss: bytes("Rss:")?, anonymous: bytes("Anonymous:")? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id();
        let memory = Memory::of(own).unwrap();
        assert!(memory.rss >= memory.anonymous && memory.anonymous > 10_000);
        assert!(Memory::of(0).is_err());
    }
}
