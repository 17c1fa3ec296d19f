//! io_uring with multishot accept, multishot receive and a ring of provided buffers: per request one
//! submission (the send) and two completions, and one `io_uring_enter` for all that is ready.

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

const ENTRIES: u32 = 4096;
/// Buffers for requests: a power of two, and their entries fill exactly one page.
const BUFFERS: u16 = 256;
const BUFFER_BYTES: u16 = 2048;
const GROUP: u16 = 1;
/// What a completion is of: the upper half of its `user_data`; the lower is the descriptor.
const ACCEPT: u64 = 1 << 32;
const RECV: u64 = 2 << 32;
const SEND: u64 = 3 << 32;

/// Room for the entries of the buffer ring, aligned as the kernel wants it.
#[repr(C, align(4096))]
struct Entries([u8; BUFFERS as usize * size_of::<BufRingEntry>()]);

/// The buffers that the kernel picks from. Never dropped before the ring: [`serve`] keeps both for
/// ever.
struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl Buffers {
    /// Allocates them for the rest of the process's life and registers them.
    fn register(ring: &IoUring) -> io::Result<Self> {
        let entries = Box::leak(Box::new(Entries([0; _]))).0.as_mut_ptr().cast();
        let bytes =
            Vec::leak(vec![0_u8; usize::from(BUFFERS) * usize::from(BUFFER_BYTES)]).as_mut_ptr();
        // SAFETY: BUFFERS entries on pages of their own, valid for the rest of the process's life.
        unsafe { ring.submitter().register_buf_ring(entries as u64, BUFFERS, GROUP)? };
        let mut buffers = Self { entries, bytes, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.give(id));
        Ok(buffers)
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, id: u16) {
        let at = usize::from(self.tail % BUFFERS);
        let start = usize::from(id % BUFFERS) * usize::from(BUFFER_BYTES);
        // SAFETY: `at` is below BUFFERS, so this entry lies in the allocation, and the kernel does not
        // read it before the tail below has passed it; all-zero bytes are a valid entry.
        let entry = unsafe { &mut *self.entries.add(at) };
        // SAFETY: `start + BUFFER_BYTES` is within the buffers' allocation.
        entry.set_addr(unsafe { self.bytes.add(start) } as u64);
        entry.set_len(BUFFER_BYTES.into());
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` points to the first entry of a registered ring, where the tail lies; it is
        // aligned for u16, and only atomics touch it from here on, as the kernel does.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Answers every receive, for ever.
///
/// # Errors
/// What the kernel says to the ring itself; a broken connection is only dropped.
pub(crate) fn serve(listener: &TcpListener, answer: &'static [u8]) -> io::Result<()> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(ENTRIES * 4)
        .build(ENTRIES)?;
    let mut buffers = Buffers::register(&ring)?;
    push(&mut ring, &accept(listener.as_raw_fd()))?;
    let mut done: Vec<cqueue::Entry> = Vec::with_capacity(ENTRIES as usize);
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            submitted => submitted?,
        };
        done.extend(ring.completion());
        for entry in done.drain(..) {
            let fd = RawFd::try_from(entry.user_data() & u64::from(u32::MAX))
                .expect("we put a descriptor there");
            match entry.user_data() - u64::from(fd.cast_unsigned()) {
                ACCEPT => {
                    if let Ok(socket) = u32::try_from(entry.result()) {
                        set_nodelay(socket.cast_signed());
                        push(&mut ring, &receive(socket.cast_signed()))?;
                    }
                    if !cqueue::more(entry.flags()) {
                        push(&mut ring, &accept(fd))?;
                    }
                }
                RECV => {
                    if let Some(id) = cqueue::buffer_select(entry.flags()) {
                        buffers.give(id);
                    }
                    let over = entry.result() <= 0 && entry.result() != -libc::ENOBUFS;
                    if over {
                        // SAFETY: accepted by us, and its receive has just ended for good.
                        drop(unsafe { OwnedFd::from_raw_fd(fd) });
                        continue;
                    }
                    if entry.result() > 0 {
                        push(&mut ring, &send(fd, answer))?;
                    }
                    if !cqueue::more(entry.flags()) {
                        push(&mut ring, &receive(fd))?;
                    }
                }
                // A send that failed ends with its connection's receive.
                _ => {}
            }
        }
    }
}

fn accept(listener: RawFd) -> squeue::Entry {
    opcode::AcceptMulti::new(Fd(listener))
        .build()
        .user_data(ACCEPT | u64::from(listener.cast_unsigned()))
}

fn receive(socket: RawFd) -> squeue::Entry {
    opcode::RecvMulti::new(Fd(socket), GROUP)
        .build()
        .user_data(RECV | u64::from(socket.cast_unsigned()))
}

fn send(socket: RawFd, answer: &'static [u8]) -> squeue::Entry {
    let len = u32::try_from(answer.len()).expect("an answer is short");
    opcode::Send::new(Fd(socket), answer.as_ptr(), len)
        .flags(libc::MSG_NOSIGNAL)
        .build()
        .user_data(SEND | u64::from(socket.cast_unsigned()))
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    loop {
        // SAFETY: what the entries point to (the answer, the buffers) lives as long as the process.
        if unsafe { ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        ring.submit()?;
    }
}

fn set_nodelay(socket: RawFd) {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).expect("an int is short");
    // SAFETY: the option's value outlives the call and has the length that is given.
    unsafe {
        libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), len)
    };
}
