//! monoio's traps and the kernel's borrows, each with the test that would notice it coming back. Descriptors are counted for the whole process, so these
//! tests run one at a time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::{drivers, on};
use uring::net::{TcpListener, TcpStream};
use uring::{Driver, Either, arena, select2, time};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until the process has as many descriptors as before: rings die in the background.
fn no_fd_leaked(before: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while open_fds() > before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", open_fds());
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        time::sleep(Duration::from_millis(2)).await;
    }
}

/// A listener of the standard library and a connection to it that never says anything.
async fn silent_peer() -> (TcpStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (stream, listener.accept().unwrap().0)
}

#[test]
fn a_task_that_yields_for_ever_starves_neither_io_nor_timers() {
    let _alone = alone();
    for driver in drivers() {
        on(driver, |_| async {
            for _ in 0..3 {
                drop(uring::spawn(async {
                    loop {
                        uring::yield_now().await;
                    }
                }));
            }
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
            let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            let stream = listener.accept().await.unwrap().unwrap();
            client.write_all(b"hello").unwrap();
            let (result, buf) = stream.read(arena::alloc(64)).await;
            assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
            time::sleep(Duration::from_millis(5)).await;
        });
    }
}

#[test]
fn cancelled_accepts_leak_nothing_and_lose_no_connection() {
    const CONNECTIONS: usize = 200;
    let _alone = alone();
    for driver in drivers() {
        let before = open_fds();
        on(driver, |_| async {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), 256).unwrap();
            let addr = listener.local_addr().unwrap();
            let peer = std::thread::spawn(move || {
                for _ in 0..CONNECTIONS {
                    let mut stream = StdStream::connect(addr).unwrap();
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                }
            });
            let mut accepted = 0;
            while accepted < CONNECTIONS {
                // The wait is begun and given up again and again while connections arrive.
                if let Either::Left(stream) = select2(listener.accept(), uring::yield_now()).await {
                    drop(stream.unwrap().unwrap());
                    accepted += 1;
                }
            }
            // Joined outside: the last close is submitted when the loop parks, and blocking here would keep it from that.
            peer
        })
        .join()
        .unwrap();
        no_fd_leaked(before);
    }
}

#[test]
fn a_stopped_listener_hands_out_its_backlog_first() {
    let _alone = alone();
    for driver in drivers() {
        on(driver, |_| async {
            let listener = TcpListener::bind("[::]:0".parse().unwrap(), 16).unwrap();
            let addr = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            let waiting = uring::spawn({
                let listener = listener.clone();
                async move {
                    let mut handed_out = 0;
                    while let Some(stream) = listener.accept().await.unwrap() {
                        assert!(stream.peer_addr().unwrap().ip().to_canonical().is_loopback());
                        handed_out += 1;
                    }
                    handed_out
                }
            });
            uring::yield_now().await;
            let clients = [StdStream::connect(addr).unwrap(), StdStream::connect(addr).unwrap()];
            listener.stop();
            assert_eq!(waiting.await, 2);
            drop(clients);
        });
    }
}

#[test]
fn a_buffer_of_a_dropped_read_stays_out_until_the_kernel_is_done() {
    let _alone = alone();
    for driver in drivers() {
        let before = open_fds();
        on(driver, |driver| async move {
            let (stream, mut peer) = silent_peer().await;
            for round in 0..50_u8 {
                let read = stream.read(arena::alloc(4096));
                assert!(matches!(select2(read, uring::yield_now()).await, Either::Right(())));
                if driver == Driver::IoUring {
                    // Dropped this very moment: the cancellation isn't even submitted.
                    assert_eq!(arena::stats().classes[1].in_use, 1);
                    assert_eq!(uring::stats().buffers_in_flight, 1);
                }
                // The next one gets other memory, and the kernel writes into that alone.
                let mut other = arena::alloc(4096);
                other.extend_from_slice(&[round; 100]);
                eventually("the buffer comes back", || arena::stats().classes[1].in_use == 1).await;
                assert_eq!(uring::stats().buffers_in_flight, 0);
                assert!(other.iter().all(|&byte| byte == round));
            }
            // The connection is still good.
            peer.write_all(b"late").unwrap();
            let (result, buf) = stream.read(arena::alloc(4096)).await;
            assert_eq!((result.unwrap(), &buf[..]), (4, &b"late"[..]));
        });
        no_fd_leaked(before);
    }
}

#[test]
fn dropping_everything_with_reads_and_writes_in_flight_closes_the_connection() {
    let _alone = alone();
    for driver in drivers() {
        let before = open_fds();
        on(driver, move |_| async move {
            let base = open_fds();
            for _ in 0..20 {
                let (stream, peer) = silent_peer().await;
                // More than any socket buffer takes.
                let flood = bytes::Bytes::from(vec![0; 32 << 20]);
                let both = select2(stream.write_all(flood.clone()), stream.read(arena::alloc(512)));
                assert!(matches!(select2(both, uring::yield_now()).await, Either::Right(())));
                drop(stream);
                eventually("descriptors close", || open_fds() == base + 1).await;
                eventually("the shared bytes are released", || flood.is_unique()).await;
                assert_eq!((uring::stats().buffers_in_flight, arena::stats().in_use()), (0, 0));
                drop(peer);
            }
        });
        no_fd_leaked(before);
    }
}

/// A listening address whose queue is full, so that a connect stays on its way.
fn full_backlog() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let fillers = (0..8)
        .map(|_| {
            let filler =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&addr);
            filler
        })
        .collect();
    (listener, fillers, addr.as_socket().unwrap())
}

#[test]
fn a_connect_dropped_on_its_way_leaks_no_descriptor() {
    let _alone = alone();
    for driver in drivers() {
        let (_listener, _fillers, addr) = full_backlog();
        let before = open_fds();
        on(driver, move |_| async move {
            let base = open_fds();
            for _ in 0..20 {
                let connect = TcpStream::connect(addr);
                assert!(time::timeout(Duration::from_millis(2), connect).await.is_err());
            }
            eventually("descriptors close", || open_fds() == base).await;
        });
        no_fd_leaked(before);
    }
}

#[test]
fn a_refused_connect_is_an_error() {
    let _alone = alone();
    for driver in drivers() {
        on(driver, |_| async {
            let addr = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let error = TcpStream::connect(addr).await.err().unwrap();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    }
}

#[test]
fn a_core_stopped_with_operations_in_flight_leaks_nothing() {
    let _alone = alone();
    for driver in drivers() {
        let before = open_fds();
        for _ in 0..5 {
            let peers = on(driver, |_| async {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
                drop(uring::spawn(async move { listener.accept().await }));
                // More than any socket buffers take.
                let flood = bytes::Bytes::from(vec![1; 32 << 20]);
                let mut peers = Vec::new();
                for n in 0..60 {
                    let (stream, peer) = silent_peer().await;
                    peers.push(peer);
                    let flood = flood.clone();
                    drop(uring::spawn(async move {
                        match n % 3 {
                            0 => drop(stream.read(arena::alloc(4096)).await),
                            1 => drop(stream.readable().await),
                            _ => drop(stream.write_all(flood).await),
                        }
                    }));
                }
                uring::yield_now().await;
                assert!(uring::stats().tasks_live > 60);
                assert!(uring::stats().buffers_in_flight >= 20);
                peers
            });
            // Now that nobody can, write into what was being read: were a buffer still the kernel's, it would be freed memory.
            for mut peer in peers {
                let _ = peer.write_all(&[0xff; 4096]);
            }
        }
        no_fd_leaked(before);
    }
}

#[test]
fn two_reads_at_once_are_a_bug_that_panics() {
    let _alone = alone();
    for driver in drivers() {
        on(driver, |_| async {
            let (stream, _peer) = silent_peer().await;
            let second = stream.clone();
            let first = uring::spawn(async move { stream.readable().await });
            uring::yield_now().await;
            let clash = uring::spawn(async move { drop(second.read(arena::alloc(64)).await) });
            uring::yield_now().await;
            assert!(clash.is_finished() && !first.is_finished());
            assert_eq!(uring::stats().tasks_panicked, 1);
            drop((clash, first));
        });
    }
}

#[test]
fn a_write_to_a_closed_peer_is_an_error_and_no_signal() {
    let _alone = alone();
    for driver in drivers() {
        on(driver, |_| async {
            let (stream, peer) = silent_peer().await;
            drop(peer);
            let mut gather = uring::Gather::new();
            let mut failed = false;
            for _ in 0..100 {
                gather.clear();
                gather.push("some ");
                gather.push("bytes");
                failed = stream.send(&mut gather).await.is_err();
                if failed {
                    break;
                }
                time::sleep(Duration::from_millis(1)).await;
            }
            assert!(failed && stream.is_closed());
            assert_eq!(gather.len(), 10, "what was not sent stays");
        });
    }
}
