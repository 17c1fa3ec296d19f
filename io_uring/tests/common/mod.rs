//! What the tests share: each runs on both drivers.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use uring::Driver;
use uring::core::{self, CoreConfig};

/// Descriptor counts are of the whole process: tests that count run one at a time.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn drivers() -> Vec<Driver> {
    let kernel = uring::probe::probe();
    match &kernel.io_uring {
        Ok(_) => vec![Driver::IoUring, Driver::Epoll],
        Err(error) => {
            eprintln!("only epoll is tested here: {error}");
            vec![Driver::Epoll]
        }
    }
}

/// Runs `main` as a core on each driver.
pub(crate) fn on_both<F, Fut>(main: F)
where
    F: Fn(Driver) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    for driver in drivers() {
        on(driver, main);
    }
}

pub(crate) fn on<T, F, Fut>(driver: Driver, main: F) -> T
where
    T: Send + 'static,
    F: FnOnce(Driver) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    core::spawn(CoreConfig::new(0, driver), move || main(driver)).unwrap().join().unwrap()
}

pub(crate) fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits (bounded) until `done`; for what the kernel finishes on its own.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// As [`eventually`], on a loop.
pub(crate) async fn eventually_async(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        uring::time::sleep(Duration::from_millis(2)).await;
    }
}
