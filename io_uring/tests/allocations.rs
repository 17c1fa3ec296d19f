//! The loop's own work allocates nothing once warm: reading, writing, waiting with a timeout, yielding.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "a global allocator that counts is an unsafe trait")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::time::Duration;

use uring::net::TcpStream;
use uring::{Either, Gather, arena, mailbox, select2, time};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; counting touches a cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const WARM_UP: u32 = 200;
const ROUNDS: u32 = 1000;

/// One request of a keep-alive connection: wait without a buffer, read, answer in two ways.
async fn serve_one(stream: &TcpStream, gather: &mut Gather) {
    time::timeout(Duration::from_secs(60), stream.readable()).await.unwrap().unwrap();
    let read = stream.read(arena::alloc(4096));
    let (result, mut buf) = time::timeout(Duration::from_secs(60), read).await.unwrap();
    assert_eq!(result.unwrap(), 4);
    assert_eq!(&buf[..], b"ping");
    buf.clear();
    buf.extend_from_slice(b"po");
    time::timeout(Duration::from_secs(60), stream.write_all(buf)).await.unwrap().unwrap();
    let mut head = arena::alloc(16);
    head.extend_from_slice(b"n");
    gather.push(head);
    gather.push("g");
    stream.send_all(gather).await.unwrap();
    uring::yield_now().await;
}

#[test]
fn a_keep_alive_round_allocates_nothing() {
    for driver in common::drivers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut answer = [0; 4];
            for _ in 0..WARM_UP + ROUNDS {
                stream.write_all(b"ping").unwrap();
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"pong");
            }
        });
        let allocations = common::on(driver, move |_| async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut gather = Gather::new();
            for _ in 0..WARM_UP {
                serve_one(&stream, &mut gather).await;
            }
            let before = ALLOCATIONS.get();
            for _ in 0..ROUNDS {
                serve_one(&stream, &mut gather).await;
            }
            ALLOCATIONS.get() - before
        });
        assert_eq!(allocations, 0, "on {driver}");
        peer.join().unwrap();
    }
}

#[test]
fn waiting_for_a_mailbox_beside_a_pinned_wait_allocates_nothing() {
    for driver in common::drivers() {
        let (sender, mut receiver) = mailbox::channel::<u32>(8);
        let (pace, paced) = std::sync::mpsc::channel::<()>();
        let peer = std::thread::spawn(move || {
            let mut n = 0;
            while paced.recv().is_ok() {
                sender.try_send(n).unwrap();
                n += 1;
            }
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let allocations = common::on(driver, move |_| async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            let mut gone = std::pin::pin!(stream.readable());
            let (mut before, mut pacing) = (0, 0);
            for n in 0..WARM_UP + ROUNDS {
                let counted = ALLOCATIONS.get();
                pace.send(()).unwrap();
                pacing += ALLOCATIONS.get() - counted;
                match select2(gone.as_mut(), receiver.recv()).await {
                    Either::Right(got) => assert_eq!(got, Some(n)),
                    Either::Left(_) => panic!("the peer is silent"),
                }
                if n + 1 == WARM_UP {
                    (before, pacing) = (ALLOCATIONS.get(), 0);
                }
            }
            ALLOCATIONS.get() - before - pacing
        });
        assert_eq!(allocations, 0, "on {driver}");
        peer.join().unwrap();
    }
}
