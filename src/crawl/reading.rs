//! Reading what is long beside the loops: a body of some megabytes takes tens of milliseconds to parse,
//! and no loop works that long at once.

use crate::error::{ApiCode, ApiError};
use crate::limits::{READING_LONG_BYTES, READING_LONG_MAX, READING_SHORT_MAX};
use std::io;
use std::time::Duration;
use uring::lane::{Class, Lane, LaneConfig};
use uring::mailbox::{self, SendError};

/// What is to be done, for whoever still waits for it.
type Task = Box<dyn FnOnce() + Send>;

/// Two threads of the process, below its loops: one for what is read in a moment, and one for bodies
/// so long that they would make the others wait.
#[derive(Debug)]
pub struct Reading {
    short: Lane<Task>,
    long: Lane<Task>,
}

impl Reading {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread can't be made.
    pub fn start(class: Class) -> io::Result<Self> {
        let start = |name: &str, most| {
            let config = LaneConfig { cpu: None, class, name: name.to_owned() };
            Lane::start(config, most, || |task: Task| task())
        };
        Ok(Self {
            short: start("reader", READING_SHORT_MAX)?,
            long: start("reader-long", READING_LONG_MAX)?,
        })
    }

    /// Reads `bytes` bytes with `read`: at once where they are `here_max` at most, else on one of the
    /// threads. What nobody waits for any more is not read.
    ///
    /// # Errors
    /// `overloaded` where too many wait for the thread already.
    pub async fn read<T: Send + 'static>(
        &self,
        bytes: usize,
        here_max: usize,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= here_max {
            return Ok(read());
        }
        let (to, mut from) = mailbox::channel(1);
        let lane = if bytes <= READING_LONG_BYTES { &self.short } else { &self.long };
        let submitted = lane.try_submit(Box::new(move || {
            if !to.is_closed() {
                let _ = to.try_send(read());
            }
        }));
        match submitted {
            Ok(()) => from
                .recv()
                .await
                .ok_or_else(|| ApiError::new(ApiCode::InternalError, "the body could not be read")),
            Err(SendError::Full(_) | SendError::Closed(_)) => {
                let error = ApiError::new(ApiCode::Overloaded, "too many long bodies wait");
                Err(error.retry_after(Duration::from_secs(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::sync::mpsc;
    use std::task::Poll;
    use uring::core::CoreConfig;
    use uring::probe::Driver;

    fn on_a_loop<F: Future<Output = ()> + 'static>(main: impl FnOnce() -> F + Send + 'static) {
        uring::core::spawn(CoreConfig::new(0, Driver::Epoll), main).unwrap().join().unwrap();
    }

    /// What comes of one look at a future.
    async fn look<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn thread_name() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_is_long_is_read_beside_the_loop() {
        let reading = Reading::start(Class::Nice19).unwrap();
        on_a_loop(move || async move {
            let here = thread_name();
            assert_eq!(reading.read(10, 10, thread_name).await.unwrap(), here);
            assert_eq!(reading.read(11, 10, thread_name).await.unwrap(), "reader");
            let long = reading.read(READING_LONG_BYTES + 1, 10, thread_name);
            assert_eq!(long.await.unwrap(), "reader-long");
        });
    }

    #[test]
    fn a_full_thread_refuses_and_what_nobody_waits_for_is_not_read() {
        let reading = Reading::start(Class::Nice19).unwrap();
        on_a_loop(move || async move {
            let (go, wait) = mpsc::channel::<()>();
            let busy = reading.read(READING_LONG_BYTES + 1, 0, move || wait.recv().is_ok());
            let mut busy = pin!(busy);
            assert!(look(busy.as_mut()).await.is_none());
            let (told, heard) = mpsc::channel();
            let mut refused = 0;
            for _ in 0..READING_LONG_MAX * 2 {
                let told = told.clone();
                let one = reading.read(READING_LONG_BYTES + 1, 0, move || told.send(()).is_ok());
                if let Some(answer) = look(pin!(one)).await {
                    assert_eq!(answer.unwrap_err().code, ApiCode::Overloaded);
                    refused += 1;
                }
            }
            assert!(refused > 0, "more may wait than can");
            go.send(()).unwrap();
            assert!(busy.await.unwrap());
            let last = reading.read(READING_LONG_BYTES + 1, 0, || 7);
            assert_eq!(last.await.unwrap(), 7);
            assert!(heard.try_recv().is_err(), "nobody waited");
        });
    }
}
