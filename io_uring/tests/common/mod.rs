//! What the tests share: each runs on both drivers.

use std::future::Future;

use uring::Driver;
use uring::core::{self, CoreConfig};

/// What can be tested here.
pub(crate) fn drivers() -> Vec<Driver> {
    match uring::probe::probe().io_uring {
        Ok(_) => vec![Driver::IoUring, Driver::Epoll],
        Err(error) => {
            eprintln!("only epoll is tested here: {error}");
            vec![Driver::Epoll]
        }
    }
}

/// Runs `main` as a core.
pub(crate) fn on<T, F, Fut>(driver: Driver, main: F) -> T
where
    T: Send + 'static,
    F: FnOnce(Driver) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let core =
        core::spawn(CoreConfig::new(0, driver), move || main(driver)).expect("a core starts");
    core.join().expect("the core doesn't panic")
}
