//! Waiting for the first of two futures.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Which of the two finished, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first future finished.
    Left(A),
    /// The second future finished.
    Right(B),
}

/// The future of [`select2`].
#[must_use = "a select does nothing unless awaited"]
pub struct Select2<A, B> {
    left: A,
    right: B,
}

/// Waits for the first of two futures and drops the other. The first one is asked first, so it wins when both are ready.
///
/// What loses is cancelled: wait on [`crate::net::TcpStream::readable`], a mailbox or a timer this way, and never on a read, whose bytes
/// may be lost. To keep a future across rounds of a loop, pin it once and pass `fut.as_mut()`: it then isn't cancelled and submitted anew each round.
pub fn select2<A: Future, B: Future>(left: A, right: B) -> Select2<A, B> {
    Select2 { left, right }
}

impl<A: Future, B: Future> Future for Select2<A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: both fields are pinned structurally: neither is moved out of `self`, and `Select2` has no `Drop`.
        let (left, right) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.left), Pin::new_unchecked(&mut this.right))
        };
        if let Poll::Ready(output) = left.poll(cx) {
            return Poll::Ready(Either::Left(output));
        }
        right.poll(cx).map(Either::Right)
    }
}
