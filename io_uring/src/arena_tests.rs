#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! No ring here, so Miri can run all of it.

use super::*;
use std::collections::VecDeque;
use std::io::Write as _;

#[test]
fn a_buffer_returns_on_drop_and_is_used_again() {
    std::thread::spawn(|| {
        let first = alloc(100);
        let address = first.ptr;
        assert_eq!(first.capacity(), 512);
        assert_eq!(stats().classes[0].in_use, 1);
        drop(first);
        assert_eq!(stats().in_use(), 0);
        let second = alloc(512);
        assert_eq!(second.ptr, address);
        assert_eq!(stats().classes[0].high_water, 1);
    })
    .join()
    .unwrap();
}

#[test]
fn beyond_the_bound_buffers_come_from_the_heap_and_are_counted() {
    std::thread::spawn(|| {
        configure(ArenaConfig { bytes_max: slab_layout(3).size() });
        let held: Vec<Buf> = (0..6).map(|_| alloc(64 * 1024)).collect();
        let now = stats();
        assert_eq!((now.classes[3].in_use, now.heap.in_use), (4, 2));
        assert_eq!(now.heap.bytes, 2 * 64 * 1024);
        let huge = alloc(1_000_000);
        assert_eq!(huge.capacity(), 1_000_000);
        drop(held);
        drop(huge);
        let now = stats();
        assert_eq!((now.in_use(), now.heap.bytes), (0, 0));
        assert_eq!(now.heap.total, 3);
        assert_eq!(trim(), slab_layout(3).size());
        assert_eq!(stats().classes[3].bytes, 0);
    })
    .join()
    .unwrap();
}

#[test]
fn what_a_crowd_needed_goes_when_it_is_gone_but_not_before() {
    std::thread::spawn(|| {
        let slab = slab_layout(3).size();
        let slabs = || stats().classes[3].bytes / slab;
        // Ten slabs of four buffers, and nothing goes while they are out, or in the round after.
        let crowd: Vec<Buf> = (0..40).map(|_| alloc(64 * 1024)).collect();
        assert_eq!((relax(100), slabs()), (0, 10));
        drop(crowd);
        assert_eq!((relax(100), slabs()), (0, 10), "it may come again");
        assert_eq!((relax(3), slabs()), (3, 7), "a few at a time");
        assert_eq!((relax(3), slabs()), (3, 4));
        assert_eq!((relax(4), slabs()), (3, 1), "one stays for the next");
        assert_eq!((relax(4), slabs()), (0, 1));
        // Who takes five buffers time and again keeps two slabs and one.
        for _ in 0..5 {
            drop((0..5).map(|_| alloc(64 * 1024)).collect::<Vec<Buf>>());
            assert_eq!((relax(4), slabs()), (0, 2));
        }
        drop((0..12).map(|_| alloc(64 * 1024)).collect::<Vec<Buf>>());
        drop((0..5).map(|_| alloc(64 * 1024)).collect::<Vec<Buf>>());
        assert_eq!((relax(4), slabs()), (0, 3));
        assert_eq!((relax(4), slabs()), (2, 1));
    })
    .join()
    .unwrap();
}

#[test]
fn trim_keeps_slabs_with_a_buffer_in_use() {
    std::thread::spawn(|| {
        let mut held: Vec<Buf> = (0..64 * 3).map(|_| alloc(1)).collect();
        let keep = held.remove(70);
        drop(held);
        assert_eq!(trim(), 2 * slab_layout(0).size());
        assert_eq!(stats().classes[0].free, 63);
        let again: Vec<Buf> = (0..64 * 2).map(|_| alloc(1)).collect();
        assert_eq!(stats().classes[0].in_use, 129);
        drop((keep, again));
    })
    .join()
    .unwrap();
}

#[test]
fn cursor_operations_match_a_deque() {
    let mut buf = alloc(512);
    let mut twin: VecDeque<u8> = VecDeque::new();
    let mut seed = 7_u32;
    let rounds = if cfg!(miri) { 200 } else { 20_000 };
    for _ in 0..rounds {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = (seed >> 20) as usize % 300;
        match seed >> 29 {
            0..=2 => {
                let bytes: Vec<u8> = (0..n).map(|i| (i ^ seed as usize).to_le_bytes()[0]).collect();
                if buf.len() + n < 3000 {
                    buf.reserve(n);
                    buf.extend_from_slice(&bytes);
                    twin.extend(&bytes);
                }
            }
            3 | 4 => {
                let n = n.min(buf.len());
                buf.advance(n);
                twin.drain(..n);
            }
            5 => buf.compact(),
            6 => {
                let n = n.min(buf.len());
                let keep = buf.len() - n / 8;
                buf.truncate(keep);
                twin.truncate(keep);
            }
            _ => {
                let took = buf.append(&[1, 2, 3]);
                twin.extend(&[1, 2, 3][..took]);
            }
        }
        assert!(buf.iter().eq(twin.iter()));
    }
}

#[test]
fn writing_into_a_full_buffer_says_so() {
    let mut buf = alloc(512);
    write!(buf, "{}", "x".repeat(500)).unwrap();
    assert_eq!(write!(buf, "{}", "y".repeat(13)).unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(buf.len(), 512);
}
