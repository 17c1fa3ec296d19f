//! What the kernel says about this process (`/proc/self`, proc(5)).
//!
//! Reading takes some 100 µs and is blocking: from the control thread, not from a loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clock ticks a second in `/proc/self/stat`: fixed for user space on Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Figures of this process; `None` where `/proc` can't be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// CPU time of all threads, user and system.
    pub cpu: Option<Duration>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Address space, most of it reserved by the sandbox and never touched.
    pub virtual_bytes: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// Descriptors that may be open.
    pub fds_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Reads them now.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let fds = fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu: cpu(&stat),
            resident_bytes: kib(&status, "VmRSS:"),
            virtual_bytes: kib(&status, "VmSize:"),
            // The listing itself has a descriptor open.
            fds: fds.map(|fds| (fds.count() as u64).saturating_sub(1)),
            fds_max: field(&limits, "Max open files"),
            threads: field(&status, "Threads:"),
        }
    }
}

/// Bytes of memory that this process may use: the machine's, or those of its control group or one
/// above that, where they are fewer.
#[must_use]
pub fn memory_total() -> Option<u64> {
    let machine = kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_limits(&groups).into_iter().filter_map(|path| {
        // `max` is no number, and no limit.
        fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    machine.into_iter().chain(limits).min()
}

/// The files that may limit this process' memory: cgroup v2 and v1, of each group from its own to the
/// root. In a container the own group may be shown as the root.
fn group_limits(groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            named if named.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        found.extend(group.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    found
}

/// Descriptors of this process' io_uring rings, in the order in which they were made. Looks at every
/// open descriptor: for the start.
#[must_use]
pub fn rings() -> Vec<u32> {
    let fds = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let is_ring = |path: &Path| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("[io_uring]"))
    };
    let rings = fds.filter(|fd| is_ring(&fd.path()));
    let mut rings: Vec<u32> =
        rings.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
    rings.sort_unstable();
    rings
}

/// How many entries were submitted to a ring, and how many completions it gave, modulo 2³². Takes
/// some 10 µs.
#[must_use]
pub fn ring_counts(fd: u32) -> Option<(u64, u64)> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    Some((field(&info, "SqTail:")?, field(&info, "CqTail:")?))
}

fn cpu(stat: &str) -> Option<Duration> {
    // The second field is the program's name, which may hold blanks and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    field(status, name)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(kib("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        let limits = "Max open files            1024                 524288               files";
        assert_eq!(field(limits, "Max open files"), Some(1024));
        assert_eq!(cpu(""), None);
        let ring = "SqMask:\t0x3ff\nSqHead:\t7\nSqTail:\t9\nCachedSqHead:\t7\nCqTail:\t8\n";
        assert_eq!((field(ring, "SqTail:"), field(ring, "CqTail:")), (Some(9), Some(8)));
    }

    #[test]
    fn each_group_above_may_limit_memory() {
        let shown = |groups: &str| -> Vec<String> {
            group_limits(groups).iter().map(|path| path.display().to_string()).collect()
        };
        let root = "/sys/fs/cgroup/memory.max";
        assert_eq!(
            shown("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", root]
        );
        assert_eq!(shown("0::/\n"), [root]);
        let old = "/sys/fs/cgroup/memory/d/memory.limit_in_bytes";
        assert_eq!(shown("4:cpu,cpuacct:/c\n3:memory:/d\n")[0], old);
        assert!(shown("nothing").is_empty());
        assert!(memory_total().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.fds.is_some_and(|fds| fds > 0));
        assert!(process.cpu.is_some() && process.threads.is_some() && process.fds_max.is_some());
    }
}
