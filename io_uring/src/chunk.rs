//! What is sent: one piece of memory ([`Chunk`]) or a queue of them ([`Gather`]) that goes out in one vectored send.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

use bytes::{Buf as _, Bytes};

use crate::arena::Buf;

/// Most chunks that one send hands to the kernel: its own bound (`UIO_MAXIOV`); what is behind waits for the next send.
pub const IOV_MAX: usize = 1024;

/// Bytes to send, from wherever they are: nothing is copied.
#[derive(Debug)]
pub enum Chunk {
    /// An arena buffer: heads and other small things made for this connection.
    Buf(Buf),
    /// Shared bytes: a document that is in the cache too.
    Bytes(Bytes),
    /// Constant text.
    Static(&'static [u8]),
}

impl Chunk {
    /// Drops `n` bytes from the front.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, n: usize) {
        match self {
            Chunk::Buf(buf) => buf.advance(n),
            Chunk::Bytes(bytes) => bytes.advance(n),
            Chunk::Static(bytes) => *bytes = &bytes[n..],
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Buf(buf) => buf,
            Chunk::Bytes(bytes) => bytes,
            Chunk::Static(bytes) => bytes,
        }
    }
}

impl From<Buf> for Chunk {
    fn from(buf: Buf) -> Chunk {
        Chunk::Buf(buf)
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Chunk {
        Chunk::Bytes(bytes)
    }
}

impl From<&'static [u8]> for Chunk {
    fn from(bytes: &'static [u8]) -> Chunk {
        Chunk::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Chunk {
    fn from(bytes: &'static [u8; N]) -> Chunk {
        Chunk::Static(bytes)
    }
}

impl From<&'static str> for Chunk {
    fn from(text: &'static str) -> Chunk {
        Chunk::Static(text.as_bytes())
    }
}

/// A queue of chunks. One per connection, kept: its memory is reused, so sending allocates nothing after warm-up.
#[derive(Default)]
pub struct Gather {
    pub(crate) batch: Batch,
    bytes: usize,
}

/// The part of a [`Gather`] that goes into the operation, so that the kernel's borrow outlives a dropped future.
#[derive(Default)]
pub(crate) struct Batch {
    chunks: VecDeque<Chunk>,
    iovecs: Vec<libc::iovec>,
}

impl Gather {
    /// An empty queue.
    pub fn new() -> Gather {
        Gather::default()
    }

    /// Appends a chunk; an empty one is dropped.
    pub fn push(&mut self, chunk: impl Into<Chunk>) {
        let chunk = chunk.into();
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.batch.chunks.push_back(chunk);
        }
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether it has memory that a next use would find.
    pub fn has_memory(&self) -> bool {
        self.batch.chunks.capacity() > 0
    }

    /// Chunks waiting.
    pub fn chunks(&self) -> usize {
        self.batch.chunks.len()
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.batch.chunks.clear();
        self.bytes = 0;
    }

    /// Copies out what waits, in order: for tests and for transports that transform bytes (TLS).
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        for chunk in &self.batch.chunks {
            out.extend_from_slice(chunk);
        }
    }

    /// The first chunk waiting.
    pub fn front(&self) -> Option<&[u8]> {
        self.batch.chunks.front().map(|chunk| &**chunk)
    }

    /// Drops `n` bytes from the front: they are sent.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, mut n: usize) {
        assert!(n <= self.bytes, "advanced past the end of what waits");
        self.bytes -= n;
        while n > 0 {
            let front =
                self.batch.chunks.front_mut().expect("the count of bytes says there is more");
            let took = n.min(front.len());
            front.advance(took);
            n -= took;
            if front.is_empty() {
                self.batch.chunks.pop_front();
            }
        }
    }

    /// Takes the chunks out for an operation. Until [`Gather::restore`] the queue is empty, and stays so when the operation is dropped.
    pub(crate) fn take_batch(&mut self) -> Batch {
        self.bytes = 0;
        let mut batch = std::mem::take(&mut self.batch);
        batch.iovecs.clear();
        batch.iovecs.extend(batch.chunks.iter().take(IOV_MAX).map(|chunk| libc::iovec {
            iov_base: chunk.as_ptr().cast_mut().cast(),
            iov_len: chunk.len(),
        }));
        batch
    }

    /// Puts an operation's chunks back; `bytes` is what [`Gather::len`] was before.
    pub(crate) fn restore(&mut self, batch: Batch, bytes: usize) {
        debug_assert!(
            self.batch.chunks.is_empty(),
            "the send borrows the gather, so nothing was pushed"
        );
        self.bytes = bytes;
        self.batch = batch;
    }
}

impl Batch {
    /// Whether it is in one piece.
    pub(crate) fn is_one(&self) -> bool {
        self.chunks.len() == 1
    }

    /// Its first piece; empty where there is none.
    pub(crate) fn first(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    pub(crate) fn iovecs(&self) -> &[libc::iovec] {
        &self.iovecs
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("chunks", &self.chunks())
            .field("bytes", &self.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::arena;

    #[test]
    fn advancing_by_any_split_yields_the_same_bytes() {
        for step in 1..40 {
            let mut gather = Gather::new();
            let mut head = arena::alloc(64);
            head.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            gather.push(head);
            gather.push("");
            gather.push(Bytes::from(vec![b'x'; 17]));
            gather.push("tail");
            assert_eq!(gather.chunks(), 3);
            let mut expected = Vec::new();
            gather.copy_to(&mut expected);
            let mut got = Vec::new();
            while !gather.is_empty() {
                let mut rest = Vec::new();
                gather.copy_to(&mut rest);
                let n = step.min(gather.len());
                got.extend_from_slice(&rest[..n]);
                gather.advance(n);
            }
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_batch_is_bounded_and_comes_back_whole() {
        let mut gather = Gather::new();
        for _ in 0..IOV_MAX + 5 {
            gather.push("ab");
        }
        let batch = gather.take_batch();
        assert_eq!(batch.iovecs().len(), IOV_MAX);
        assert!(gather.is_empty());
        gather.restore(batch, 2 * (IOV_MAX + 5));
        assert_eq!(gather.len(), 2 * (IOV_MAX + 5));
    }
}
