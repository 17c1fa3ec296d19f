//! The few system calls made directly, each behind a safe function.

use std::cell::Cell;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::probe::Driver;
use crate::stats;

thread_local! {
    static DRIVER: Cell<Option<Driver>> = const { Cell::new(None) };
}

/// Says what drives this thread's loop.
pub(crate) fn set_driver(driver: Driver) {
    DRIVER.set(Some(driver));
}

/// What drives this thread's loop; `None` off a core.
pub(crate) fn driver() -> Option<Driver> {
    DRIVER.get()
}

/// Turns `-1` into the thread's `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new non-blocking eventfd.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one. The only failure of a live eventfd is a full counter, which is as readable as one can be.
pub(crate) fn eventfd_write(fd: RawFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: eight readable bytes.
    let _ = unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

/// Resets the counter to zero.
pub(crate) fn eventfd_drain(fd: RawFd) {
    let mut count = [0_u8; 8];
    // SAFETY: eight writable bytes.
    let _ = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
}

/// Accepts one connection without waiting, close-on-exec, non-blocking where the driver needs it (see [`crate::net`]).
pub(crate) fn accept(listener: BorrowedFd<'_>, driver: Driver) -> io::Result<OwnedFd> {
    let flags = match driver {
        Driver::IoUring => libc::SOCK_CLOEXEC,
        Driver::Epoll => libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
    };
    // SAFETY: null addresses are allowed: the peer's is asked for when somebody wants it.
    let fd = check(unsafe {
        libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags)
    })?;
    // SAFETY: just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `poll(2)` for `events` without waiting; the events that hold.
pub(crate) fn poll_events(fd: BorrowedFd<'_>, events: libc::c_short) -> io::Result<libc::c_short> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid entry, written by the kernel before the call returns.
    check(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    Ok(poll.revents)
}

/// `CLOCK_MONOTONIC`, as the kernel and the service manager count it.
pub(crate) fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "the monotonic clock exists on every Linux");
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// CPU time that the calling thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(result, 0, "the thread's CPU clock always exists");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sets the calling thread's scheduling policy (`SCHED_OTHER`, `SCHED_BATCH`, `SCHED_IDLE`).
pub(crate) fn set_policy(policy: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is readable; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }).map(drop)
}

/// Sets the calling thread's nice value.
pub(crate) fn set_nice(nice: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointers. On Linux `PRIO_PROCESS` with 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// Asks for a slice of `slice` for the calling thread, which stays `SCHED_OTHER` with its nice value. Linux 6.12 and later use it; earlier
/// ones ignore it.
pub(crate) fn set_slice(slice: Duration) -> io::Result<()> {
    /// `struct sched_attr` of the kernel, first version (48 bytes).
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: takes no pointers. An error can't be told from nice -1 here; 0 is the calling thread, which exists.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).expect("48 bytes"),
        policy: 0,
        flags: 0,
        nice,
        priority: 0,
        runtime: u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX),
        deadline: 0,
        period: 0,
    };
    // SAFETY: `attr` is readable for the size it states.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's release, as `uname -r` prints it.
pub(crate) fn kernel_release() -> String {
    // SAFETY: all zero is a valid `utsname`.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: `names` is writable.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        return String::new();
    }
    let bytes: Vec<u8> =
        names.release.iter().map(|&c| c.to_ne_bytes()[0]).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Raises the number of descriptors that this process may open as far as it may itself, and answers it. The soft limit is low by
/// default for programs that wait with `select(2)`; nothing here does.
///
/// # Errors
/// What the kernel says; the limit is as it was then.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is readable.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// The soft limit of locked memory in bytes; `None` when unlimited or unknown.
pub(crate) fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Any descriptor whose readiness the loop can wait for. monoio offers that on its socket types only, so one of those holds it; nothing
/// but readiness is asked of it here.
pub(crate) struct Pollable(monoio::net::TcpStream);

impl Pollable {
    /// Registers `fd` with this core's loop.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Pollable> {
        monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd)).map(Pollable)
    }

    /// Waits until a read would not block. Dropping the future is safe and leaks nothing.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        stats::update(|s| s.polls += 1);
        self.0.readable(false).await
    }

    /// Waits until a write would not block.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        stats::update(|s| s.polls += 1);
        self.0.writable(false).await
    }

    /// The stream that holds the descriptor.
    pub(crate) fn into_stream(self) -> monoio::net::TcpStream {
        self.0
    }
}

impl AsFd for Pollable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as `self` is.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// A new stream socket on its way to `addr`: connected already, or in progress. Non-blocking.
pub(crate) fn start_connect(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}
