//! What this kernel can do, and which driver follows from it. Every refusal names what to change.

use std::fmt;
use std::io;
use std::str::FromStr;

use io_uring::{IoUring, Probe, opcode};

use crate::sys;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// io_uring where it works, else epoll, with the reason.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// What drives a core's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Operations are handed to the kernel and complete.
    IoUring,
    /// The kernel says what is ready, and system calls do it.
    Epoll,
}

/// Not `auto`, `io_uring` or `epoll`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown runtime {0:?}: expected auto, io_uring or epoll")]
pub struct UnknownRuntime(pub String);

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Runtime, UnknownRuntime> {
        match text {
            "auto" => Ok(Runtime::Auto),
            "io_uring" => Ok(Runtime::IoUring),
            "epoll" => Ok(Runtime::Epoll),
            _ => Err(UnknownRuntime(text.to_owned())),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::Auto => "auto",
            Runtime::IoUring => "io_uring",
            Runtime::Epoll => "epoll",
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        })
    }
}

/// Why io_uring can't be used here, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The sysctl forbids it.
    #[error(
        "io_uring is switched off: kernel.io_uring_disabled = {0}; set it to 0 (sysctl -w kernel.io_uring_disabled=0)"
    )]
    Disabled(u32),
    /// Permission denied with the sysctl at 0: a seccomp filter (container runtimes ship such profiles) or an LSM.
    #[error(
        "io_uring is forbidden to this process: a seccomp profile or security module refuses io_uring_setup; allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden,
    /// The kernel has none.
    #[error("this kernel ({0}) has no io_uring: Linux 5.6 or later with CONFIG_IO_URING is needed")]
    Missing(String),
    /// Locked memory, which rings of kernels before 5.12 are charged to.
    #[error(
        "no memory for a ring: raise RLIMIT_MEMLOCK (now {0:?} bytes; ulimit -l, or LimitMEMLOCK= in the service's unit)"
    )]
    Memory(Option<u64>),
    /// An operation or feature that is used isn't there.
    #[error("this kernel's io_uring ({release}) lacks {lacks}: Linux 5.7 or later is needed")]
    TooOld {
        /// `uname -r`.
        release: String,
        /// The first thing missed.
        lacks: &'static str,
    },
    /// Anything else that `io_uring_setup` said.
    #[error("io_uring_setup failed: {0}")]
    Other(String),
}

/// What a ring of this kernel offers beyond the necessary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFlags {
    /// `IORING_SETUP_SINGLE_ISSUER` (Linux 6.0): one thread submits, so the kernel takes fewer locks.
    pub single_issuer: bool,
    /// `IORING_SETUP_COOP_TASKRUN` (Linux 5.19): completions don't interrupt the loop.
    pub coop_taskrun: bool,
}

/// This kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// `kernel.io_uring_disabled`, where the kernel has it (Linux 6.6).
    pub io_uring_disabled: Option<u32>,
    /// The soft RLIMIT_MEMLOCK in bytes; `None` when unlimited.
    pub memlock_bytes: Option<u64>,
    /// Whether io_uring works here, and with which flags.
    pub io_uring: Result<RingFlags, ProbeError>,
}

/// The driver chosen and why, in words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to run.
    pub driver: Driver,
    /// Why.
    pub reason: String,
}

/// Looks at this kernel: sets up a small ring and asks it.
pub fn probe() -> Kernel {
    let release = sys::kernel_release();
    let io_uring_disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let memlock_bytes = sys::memlock_limit();
    let io_uring =
        probe_ring().map_err(|failure| failure.explain(&release, io_uring_disabled, memlock_bytes));
    Kernel { release, io_uring_disabled, memlock_bytes, io_uring }
}

/// Chooses the driver that `wanted` allows on `kernel`.
///
/// # Errors
/// When io_uring is demanded and impossible.
pub fn choose(wanted: Runtime, kernel: &Kernel) -> Result<Choice, ProbeError> {
    let choice = |driver, reason| Ok(Choice { driver, reason });
    match (wanted, &kernel.io_uring) {
        (Runtime::Epoll, _) => choice(Driver::Epoll, "the configuration asks for epoll".to_owned()),
        (_, Ok(flags)) => {
            choice(Driver::IoUring, format!("Linux {} offers io_uring{flags}", kernel.release))
        }
        (Runtime::IoUring, Err(error)) => Err(error.clone()),
        (Runtime::Auto, Err(error)) => {
            choice(Driver::Epoll, format!("falling back to epoll: {error}"))
        }
    }
}

impl fmt::Display for RingFlags {
    /// ` with A and B`, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.single_issuer, self.coop_taskrun) {
            (true, true) => f.write_str(" with SINGLE_ISSUER and COOP_TASKRUN"),
            (true, false) => f.write_str(" with SINGLE_ISSUER"),
            (false, true) => f.write_str(" with COOP_TASKRUN"),
            (false, false) => Ok(()),
        }
    }
}

impl RingFlags {
    /// A builder with these flags. Never `DEFER_TASKRUN`: monoio would not see completions until the loop parks.
    pub(crate) fn builder(self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        if self.single_issuer {
            builder.setup_single_issuer();
        }
        if self.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        builder
    }
}

/// What went wrong, before it is put into words.
enum RingFailure {
    Setup(io::Error),
    Lacks(&'static str),
}

impl RingFailure {
    fn explain(self, release: &str, disabled: Option<u32>, memlock: Option<u64>) -> ProbeError {
        let error = match self {
            RingFailure::Lacks(lacks) => {
                return ProbeError::TooOld { release: release.to_owned(), lacks };
            }
            RingFailure::Setup(error) => error,
        };
        match (error.raw_os_error(), disabled) {
            (Some(libc::EPERM | libc::EACCES), Some(level @ 1..)) => ProbeError::Disabled(level),
            (Some(libc::EPERM | libc::EACCES), _) => ProbeError::Forbidden,
            // A seccomp profile may answer ENOSYS, too; a kernel that has the sysctl has io_uring.
            (Some(libc::ENOSYS), Some(_)) => ProbeError::Forbidden,
            (Some(libc::ENOSYS), None) => ProbeError::Missing(release.to_owned()),
            (Some(libc::ENOMEM), _) => ProbeError::Memory(memlock),
            _ => ProbeError::Other(error.to_string()),
        }
    }
}

/// Newest flags first; a kernel answers EINVAL to those it doesn't know.
fn probe_ring() -> Result<RingFlags, RingFailure> {
    let mut failure = RingFailure::Lacks("io_uring_setup");
    for (single_issuer, coop_taskrun) in [(true, true), (false, true), (false, false)] {
        let flags = RingFlags { single_issuer, coop_taskrun };
        match flags.builder().build(8) {
            Ok(ring) => {
                return missing(&ring).map_or(Ok(flags), |lacks| Err(RingFailure::Lacks(lacks)));
            }
            Err(error) => {
                let unknown_flags = error.raw_os_error() == Some(libc::EINVAL);
                failure = RingFailure::Setup(error);
                if !unknown_flags {
                    break;
                }
            }
        }
    }
    Err(failure)
}

/// The first operation or feature that we use and `ring` doesn't have.
fn missing(ring: &IoUring) -> Option<&'static str> {
    let mut probe = Probe::new();
    if ring.submitter().register_probe(&mut probe).is_err() {
        return Some("IORING_REGISTER_PROBE");
    }
    let needed = [
        (opcode::Recv::CODE, "IORING_OP_RECV"),
        (opcode::Send::CODE, "IORING_OP_SEND"),
        (opcode::Writev::CODE, "IORING_OP_WRITEV"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
        (opcode::Close::CODE, "IORING_OP_CLOSE"),
    ];
    let features = [
        // Without it a full completion queue loses completions, and with them buffers.
        (ring.params().is_feature_nodrop(), "IORING_FEAT_NODROP"),
        // Without it a waiting read blocks a kernel thread each.
        (ring.params().is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
    ];
    let operation =
        needed.iter().find(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name);
    operation.or_else(|| features.iter().find(|(has, _)| !has).map(|(_, name)| *name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn kernel(io_uring: Result<RingFlags, ProbeError>) -> Kernel {
        Kernel { release: "6.1.0".into(), io_uring_disabled: None, memlock_bytes: None, io_uring }
    }

    #[test]
    fn auto_falls_back_and_says_why_and_demand_fails() {
        let broken = kernel(Err(ProbeError::Disabled(2)));
        let choice = choose(Runtime::Auto, &broken).unwrap();
        assert_eq!(choice.driver, Driver::Epoll);
        assert!(choice.reason.contains("kernel.io_uring_disabled = 2"), "{}", choice.reason);
        assert_eq!(choose(Runtime::IoUring, &broken), Err(ProbeError::Disabled(2)));
        assert_eq!(choose(Runtime::Epoll, &broken).unwrap().driver, Driver::Epoll);
        let fine = kernel(Ok(RingFlags { single_issuer: true, coop_taskrun: true }));
        assert_eq!(choose(Runtime::Auto, &fine).unwrap().driver, Driver::IoUring);
    }

    #[test]
    fn each_refusal_names_what_to_change() {
        let explain = |errno, disabled| {
            let failure = RingFailure::Setup(io::Error::from_raw_os_error(errno));
            failure.explain("4.19.0", disabled, Some(65_536)).to_string()
        };
        assert!(explain(libc::EPERM, Some(1)).contains("kernel.io_uring_disabled"));
        assert!(explain(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(explain(libc::ENOSYS, None).contains("CONFIG_IO_URING"));
        assert!(explain(libc::ENOMEM, None).contains("RLIMIT_MEMLOCK"));
        let old = RingFailure::Lacks("IORING_OP_RECV").explain("5.4.0", None, None).to_string();
        assert!(old.contains("IORING_OP_RECV") && old.contains("5.7"), "{old}");
    }

    #[test]
    fn names_round_trip() {
        for runtime in [Runtime::Auto, Runtime::IoUring, Runtime::Epoll] {
            assert_eq!(runtime.to_string().parse(), Ok(runtime));
        }
        assert!("uring".parse::<Runtime>().is_err());
    }
}
