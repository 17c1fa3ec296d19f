//! Cores, tasks, timers, streams, mailboxes and lanes doing their plain work, on both drivers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::on;
use uring::core::{self, CoreConfig, CoreError};
use uring::net::{PeerState, TcpListener, TcpStream};
use uring::{Either, Gather, arena, mailbox, select2, time};

/// Runs `main` as a core on each driver.
fn on_both<F, Fut>(main: F)
where
    F: Fn(uring::Driver) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    common::drivers().into_iter().for_each(|driver| on(driver, main));
}

#[test]
fn an_echo_in_both_directions() {
    on_both(|_| async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = uring::spawn(async move {
            let stream = listener.accept().await.unwrap().unwrap();
            let mut total = 0;
            loop {
                stream.readable().await.unwrap();
                let (result, buf) = stream.read(arena::alloc(4096)).await;
                if result.unwrap() == 0 {
                    return total;
                }
                total += buf.len();
                stream.write_all(buf).await.unwrap();
            }
        });
        let client = TcpStream::connect(addr).await.unwrap();
        client.set_nodelay(true).unwrap();
        let mut gather = Gather::new();
        let mut head = arena::alloc(64);
        head.extend_from_slice(b"head ");
        gather.push(head);
        gather.push(bytes::Bytes::from_static(b"body "));
        gather.push("tail");
        client.send_all(&mut gather).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 14 {
            let (result, buf) = client.read(arena::alloc(512)).await;
            assert!(result.unwrap() > 0);
            got.extend_from_slice(&buf);
        }
        assert_eq!(got, b"head body tail");
        assert_eq!(client.peer_state(), PeerState::Quiet);
        client.shutdown_write().unwrap();
        assert_eq!(server.await, 14);
        client.readable().await.unwrap();
        assert!(client.is_closed());
        let (result, _) = client.read(arena::alloc(512)).await;
        assert_eq!(result.unwrap(), 0);
        assert_eq!(uring::stats().bytes_out, 28);
        assert_eq!(uring::stats().bytes_in, 28);
    });
}

#[test]
fn accepted_connections_send_without_delay_whoever_made_the_listener() {
    on_both(|_| async {
        let passed = StdListener::bind("127.0.0.1:0").unwrap();
        let listeners = [
            TcpListener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap(),
            TcpListener::from_fd(passed.into()).unwrap(),
        ];
        for listener in listeners {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let accepted = listener.accept().await.unwrap().unwrap().into_fd().unwrap();
            assert!(socket2::SockRef::from(&accepted).tcp_nodelay().unwrap());
            drop(client);
        }
    });
}

#[test]
fn a_read_that_is_taken_back_loses_nothing() {
    on_both(|_| async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = uring::spawn(async move { listener.accept().await.unwrap().unwrap() });
        let client = TcpStream::connect(addr).await.unwrap();
        let server = accepted.await;
        let mut expected: Vec<u8> = Vec::new();
        let mut got: Vec<u8> = Vec::new();
        let mut taken_back = 0;
        for round in 0..200_u8 {
            // Some bytes come before the stop, some in the same turn, some behind it.
            let pause = Duration::from_millis(u64::from(round % 3));
            let sent = uring::spawn({
                let client = client.clone();
                async move {
                    time::sleep(pause).await;
                    client.write_all(bytes::Bytes::from(vec![round; 3])).await.unwrap();
                }
            });
            let stop = time::sleep(Duration::from_millis(1));
            let (result, buf) = server.read_until(arena::alloc(64), stop).await;
            taken_back += u32::from(result.unwrap().is_none());
            got.extend_from_slice(&buf);
            sent.await;
            expected.extend([round; 3]);
            while got.len() < expected.len() {
                let (result, buf) = server.read(arena::alloc(64)).await;
                assert!(result.unwrap() > 0);
                got.extend_from_slice(&buf);
            }
        }
        assert_eq!(got, expected);
        assert!(taken_back > 10, "{taken_back} of 200 reads were taken back");
        client.shutdown_write().unwrap();
        let never = std::future::pending::<()>();
        let (result, _) = server.read_until(arena::alloc(64), never).await;
        assert_eq!(result.unwrap(), Some(0), "the end is told");
    });
}

#[test]
fn timers_and_select() {
    on_both(|_| async {
        let begin = Instant::now();
        time::sleep(Duration::from_millis(20)).await;
        assert!(begin.elapsed() >= Duration::from_millis(20));
        let never = std::future::pending::<()>();
        assert_eq!(time::timeout(Duration::from_millis(5), never).await, Err(time::Elapsed));
        assert_eq!(time::timeout(Duration::from_secs(3600), async { 7 }).await, Ok(7));
        assert_eq!(
            select2(async { 1 }, time::sleep(Duration::from_secs(9))).await,
            Either::Left(1)
        );
        // Beyond what the wheel holds, and in the past.
        assert!(matches!(
            select2(time::sleep(Duration::MAX), time::sleep_until(begin)).await,
            Either::Right(())
        ));
    });
}

#[test]
fn an_alarm_rings_when_it_is_asked_to_however_often_it_was_moved() {
    on_both(|_| async {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut alarm = time::Alarm::new(after(10));
        // Given up before its time, then asked for later: it may not ring when it was set to.
        assert_eq!(alarm.timeout_at(after(10), async { 1 }).await, Ok(1));
        assert_eq!(
            select2(alarm.at(after(60)), time::sleep_until(after(30))).await,
            Either::Right(())
        );
        alarm.at(after(60)).await;
        assert!(Instant::now() >= after(60));
        // Set far ahead, then asked for sooner; and what has passed already.
        assert_eq!(alarm.timeout_at(after(3_600_000), async { 2 }).await, Ok(2));
        let never = std::future::pending::<()>();
        assert_eq!(alarm.timeout_at(after(90), never).await, Err(time::Elapsed));
        assert!((after(90)..after(3_600_000)).contains(&Instant::now()));
        alarm.at(begin).await;
    });
}

#[test]
fn a_crowd_of_timers_fires_each_in_its_time_and_dropped_ones_never() {
    on_both(|_| async {
        let mut tasks = Vec::new();
        for n in 0..300 {
            let wait = Duration::from_millis((n * 37) % 50);
            tasks.push(uring::spawn(async move {
                let until = Instant::now() + wait;
                let first = select2(time::sleep_until(until), time::sleep(wait * 2 + wait)).await;
                assert_eq!(first, Either::Left(()));
                assert!(Instant::now() >= until);
                // Due before whatever the loop waits for now.
                time::sleep(Duration::from_millis(1)).await;
            }));
        }
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_task_that_panics_ends_alone_and_a_main_that_panics_is_an_error() {
    on_both(|_| async {
        let failing = uring::spawn(async { panic!("a test's own panic") });
        let fine = uring::spawn(async { 5 });
        assert_eq!(fine.await, 5);
        uring::yield_now().await;
        assert!(failing.is_finished());
        assert_eq!(uring::stats().tasks_panicked, 1);
        drop(failing);
    });
    for driver in common::drivers() {
        let core =
            core::spawn(CoreConfig::new(3, driver), || async { panic!("main gave up") }).unwrap();
        let CoreError::Panicked { index, message } = core.join().unwrap_err();
        assert_eq!((index, message.as_str()), (3, "main gave up"));
    }
}

#[test]
fn a_stopped_core_drops_its_tasks_on_its_own_thread() {
    struct OnDrop(Rc<Cell<u32>>, std::thread::ThreadId, std::sync::mpsc::Sender<u32>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            assert_eq!(std::thread::current().id(), self.1);
            self.0.set(self.0.get() + 1);
            self.2.send(self.0.get()).unwrap();
        }
    }
    for driver in common::drivers() {
        let (dropped, drops) = std::sync::mpsc::channel();
        on(driver, move |_| async move {
            let count = Rc::new(Cell::new(0));
            for _ in 0..10 {
                let guard = OnDrop(Rc::clone(&count), std::thread::current().id(), dropped.clone());
                drop(uring::spawn(async move {
                    let _guard = guard;
                    time::sleep(Duration::from_secs(3600)).await;
                }));
            }
            uring::yield_now().await;
        });
        assert_eq!(drops.iter().collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    }
}

#[test]
fn a_connection_moves_to_another_core() {
    for driver in common::drivers() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut client = StdStream::connect(addr).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let fd = on(driver, move |_| async move {
            let stream = TcpStream::from_fd(accepted.into()).unwrap();
            stream.write_all("one ").await.unwrap();
            stream.into_fd().unwrap()
        });
        on(driver, move |_| async move {
            let stream = TcpStream::from_fd(fd).unwrap();
            stream.write_all("two").await.unwrap();
        });
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        assert!(client.write(b"x").is_ok());
    }
}

#[test]
fn mailboxes_between_cores() {
    for driver in common::drivers() {
        let (ask, mut asked) = mailbox::channel::<u32>(4);
        let (answer, mut answers) = mailbox::channel::<u32>(4);
        let doubler = core::spawn(CoreConfig::new(1, driver), move || async move {
            while let Some(n) = asked.recv().await {
                answer.send(n * 2).await.unwrap();
            }
        })
        .unwrap();
        let sum = on(driver, move |_| async move {
            let feeder = uring::spawn(async move {
                for n in 0..1000 {
                    ask.send(n).await.unwrap();
                }
            });
            let mut sum = 0;
            while let Some(n) = answers.recv().await {
                sum += n;
            }
            feeder.await;
            sum
        });
        assert_eq!(sum, 999_000);
        doubler.join().unwrap();
    }
}
