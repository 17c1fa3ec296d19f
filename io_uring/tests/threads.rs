//! What crosses threads: mailboxes under load, lanes, more cores than CPUs, graceful stops.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{drivers, on};
use uring::core::{self, CoreConfig};
use uring::lane::{Class, Lane, LaneConfig, thread_cpu_time};
use uring::mailbox::{self, SendError};
use uring::{Either, Signal, select2, time};

#[test]
fn many_producers_and_a_small_mailbox_lose_neither_values_nor_wake_ups() {
    const PRODUCERS: usize = 6;
    const EACH: usize = 3000;
    for driver in drivers() {
        for capacity in [1, 3, 64] {
            let (sender, mut receiver) = mailbox::channel::<(usize, usize)>(capacity);
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    let sender = sender.clone();
                    std::thread::spawn(move || {
                        for n in 0..EACH {
                            let mut value = (producer, n);
                            while let Err(SendError::Full(back)) = sender.try_send(value) {
                                value = back;
                                std::thread::yield_now();
                            }
                            // Now and then the receiver gets to sleep.
                            if n % 500 == producer {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                        }
                    })
                })
                .collect();
            drop(sender);
            // Only a wake-up brings the receiver back: a lost one hangs the test.
            let next = on(driver, move |_| async move {
                let mut next = [0; PRODUCERS];
                while let Some((producer, n)) = receiver.recv().await {
                    assert_eq!(n, next[producer]);
                    next[producer] += 1;
                }
                next
            });
            assert_eq!(next, [EACH; PRODUCERS]);
            producers.into_iter().for_each(|producer| producer.join().unwrap());
        }
    }
}

#[test]
fn ping_pong_between_a_thread_and_a_loop_never_hangs() {
    for driver in drivers() {
        let (sender, mut receiver) = mailbox::channel::<usize>(1);
        let (answer, answers) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            for n in 0..5000 {
                sender.try_send(n).unwrap();
                assert_eq!(answers.recv().unwrap(), n);
            }
        });
        on(driver, move |_| async move {
            // Waits are given up and begun again in between.
            loop {
                match select2(receiver.recv(), uring::yield_now()).await {
                    Either::Left(Some(n)) => answer.send(n).unwrap(),
                    Either::Left(None) => break,
                    Either::Right(()) => {}
                }
            }
        });
        thread.join().unwrap();
    }
}

#[test]
fn full_and_closed_give_the_value_back_and_nothing_leaks() {
    for driver in drivers() {
        let value = Arc::new(());
        let (sender, receiver) = mailbox::channel::<Arc<()>>(2);
        sender.try_send(Arc::clone(&value)).unwrap();
        sender.try_send(Arc::clone(&value)).unwrap();
        assert!(matches!(sender.try_send(Arc::clone(&value)), Err(SendError::Full(_))));
        assert_eq!((sender.len(), Arc::strong_count(&value)), (2, 3));
        let kept = sender.clone();
        let theirs = Arc::clone(&value);
        on(driver, move |_| async move {
            let mut receiver = receiver;
            let room = uring::spawn(async move { sender.send(theirs).await.is_ok() });
            time::sleep(Duration::from_millis(3)).await;
            assert!(!room.is_finished());
            assert!(receiver.recv().await.is_some());
            assert!(room.await);
            assert_eq!(receiver.len(), 2);
        });
        // The receiver went with values waiting: they went, too.
        assert_eq!(Arc::strong_count(&value), 1);
        assert!(kept.is_closed());
        assert!(matches!(kept.try_send(value), Err(SendError::Closed(_))));
    }
}

#[test]
fn thousands_of_mailboxes_on_one_core_wake_their_own_receiver() {
    for driver in drivers() {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..2000).map(|_| mailbox::channel::<usize>(1)).unzip();
        let thread = std::thread::spawn(move || {
            for (n, sender) in senders.iter().enumerate().rev() {
                sender.try_send(n).unwrap();
            }
        });
        let sum = on(driver, move |_| async move {
            let tasks: Vec<_> = receivers
                .into_iter()
                .map(|mut receiver| uring::spawn(async move { receiver.recv().await.unwrap() }))
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await;
            }
            sum
        });
        assert_eq!(sum, 1999 * 1000);
        thread.join().unwrap();
    }
}

#[test]
fn a_lane_answers_its_loop_and_survives_a_panicking_job() {
    enum Job {
        Square(u64, mailbox::Sender<u64>),
        Panic,
    }
    for driver in drivers() {
        for class in [Class::Normal, Class::Nice19, Class::Batch, Class::Idle] {
            on(driver, move |_| async move {
                let cpu = core::plan(Some(1))[0].cpu;
                let config = LaneConfig { cpu, class, name: "lane".into() };
                let lane = Lane::start(config, 8, || {
                    |job| match job {
                        Job::Square(n, reply) => reply.try_send(n * n).unwrap(),
                        Job::Panic => panic!("a test's own panic"),
                    }
                })
                .unwrap();
                assert_eq!(lane.warnings(), &[] as &[String]);
                let (reply, mut replies) = mailbox::channel(8);
                for n in 1..=100 {
                    lane.try_submit(Job::Panic).unwrap();
                    lane.try_submit(Job::Square(n, reply.clone())).unwrap();
                    assert_eq!(replies.recv().await, Some(n * n));
                }
                let stats = lane.stop();
                assert_eq!((stats.done, stats.panicked, stats.queued), (200, 100, 0));
                assert!(stats.busy > Duration::ZERO);
            });
        }
    }
}

/// A lane whose worker waits for a permit before each job and counts it.
fn gated_lane(capacity: usize) -> (Lane<Arc<()>>, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (permit, permits) = mpsc::channel::<()>();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let lane = Lane::start(LaneConfig::default(), capacity, move || {
        move |_job| {
            let _ = permits.recv();
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (lane.unwrap(), permit, count)
}

#[test]
fn a_full_lane_refuses_and_stops_in_two_ways() {
    for finish in [true, false] {
        let (lane, permit, count) = gated_lane(3);
        let job = Arc::new(());
        // One runs (or is about to), three wait.
        let mut accepted = 0;
        while accepted < 4 {
            match lane.try_submit(Arc::clone(&job)) {
                Ok(()) => accepted += 1,
                Err(SendError::Full(_)) => std::thread::yield_now(),
                Err(SendError::Closed(_)) => panic!("the lane runs"),
            }
        }
        while lane.stats().queued < 3 {
            std::thread::yield_now();
        }
        assert!(matches!(lane.try_submit(Arc::clone(&job)), Err(SendError::Full(_))));
        let submitter = lane.submitter();
        let stopper =
            std::thread::spawn(move || if finish { lane.stop() } else { lane.stop_now() });
        while !matches!(submitter.try_submit(Arc::clone(&job)), Err(SendError::Closed(_))) {
            std::thread::yield_now();
        }
        for _ in 0..4 {
            let _ = permit.send(());
        }
        let stats = stopper.join().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), if finish { 4 } else { 1 });
        assert_eq!(stats.queued, 0);
        assert_eq!(Arc::strong_count(&job), 1, "what was dropped is dropped");
    }
}

#[test]
fn a_factory_that_panics_closes_its_lane() {
    let lane: Lane<u32> =
        Lane::start(LaneConfig::default(), 1, || -> fn(u32) { panic!("no worker") }).unwrap();
    while !matches!(lane.try_submit(1), Err(SendError::Closed(_))) {
        std::thread::yield_now();
    }
    lane.stop();
}

#[test]
fn more_cores_than_cpus_run_and_a_cpu_that_is_not_there_is_a_warning() {
    for driver in drivers() {
        let plans = core::plan(Some(core::plan(None).len() * 2 + 1));
        let cores: Vec<_> = plans
            .iter()
            .map(|plan| {
                let slice = Some(Duration::from_micros(200));
                let config =
                    CoreConfig { cpu: plan.cpu, slice, ..CoreConfig::new(plan.index, driver) };
                let index = plan.index;
                core::spawn(config, move || async move {
                    time::sleep(Duration::from_millis(2)).await;
                    index
                })
                .unwrap()
            })
            .collect();
        for (n, core) in cores.into_iter().enumerate() {
            assert_eq!((core.info().cpu, core.info().warnings.len()), (plans[n].cpu, 0));
            assert_eq!(core.join().unwrap(), n);
        }
        for cpu in [1023, usize::MAX] {
            let config = CoreConfig { cpu: Some(cpu), ..CoreConfig::new(0, driver) };
            let core = core::spawn(config, || async {}).unwrap();
            assert!(core.info().cpu.is_none() && core.info().warnings[0].contains("could not pin"));
            core.join().unwrap();
        }
    }
}

#[test]
fn a_signal_wakes_everybody_who_waits_and_whoever_comes_later() {
    for driver in drivers() {
        let woken = on(driver, |_| async {
            let stop = Signal::new();
            let woken = std::rc::Rc::new(std::cell::Cell::new(0));
            for _ in 0..20 {
                let (stop, woken) = (stop.clone(), std::rc::Rc::clone(&woken));
                drop(uring::spawn(async move {
                    stop.wait().await;
                    woken.set(woken.get() + 1);
                }));
            }
            uring::yield_now().await;
            assert!(woken.get() == 0 && !stop.is_set());
            stop.set();
            while woken.get() < 20 {
                uring::yield_now().await;
            }
            stop.wait().await;
            woken.get()
        });
        assert_eq!(woken, 20);
    }
}

#[test]
fn cpu_time_grows_with_work() {
    let before = thread_cpu_time();
    let mut n = 1_u64;
    while thread_cpu_time() == before {
        n = std::hint::black_box(n.wrapping_mul(3));
    }
    assert!(thread_cpu_time() > before);
}
