#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! The ring against a slow obvious twin: one vector of all bytes accepted.

use super::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

const FAST: Duration = Duration::from_millis(1);
const SLOW: Duration = Duration::from_millis(100);

fn small() -> BufferConfig {
    BufferConfig {
        frames_min: 2,
        frames_start: 4,
        frames_max: 10,
        bytes_max: 200,
        ..BufferConfig::default()
    }
}

fn frame(bytes: &[u8]) -> Frame {
    Frame::new().with(Bytes::copy_from_slice(bytes))
}

#[derive(Clone, Debug)]
enum Step {
    /// A frame of parts of these sizes.
    Push(Vec<usize>),
    Gather,
    /// Sends up to so many bytes of the gather, slowly or not.
    Send(usize, bool),
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(0..80_usize, 0..=FRAME_CHUNKS_MAX).prop_map(Step::Push),
        2 => Just(Step::Gather),
        4 => (0..150_usize, any::<bool>()).prop_map(|(n, slow)| Step::Send(n, slow)),
        1 => Just(Step::Shrink),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 512 }, ..ProptestConfig::default() })]

    #[test]
    fn bytes_come_out_in_order_exactly_once_and_no_bound_is_passed(steps in vec(step(), 0..120)) {
        let config = small();
        let mut ring = Ring::new(config.clone()).unwrap();
        let mut gather = Gather::new();
        let (mut accepted, mut sent) = (Vec::new(), Vec::new());
        let mut serial = 0_u8;
        let now = Instant::now();
        for step in steps {
            match step {
                Step::Push(sizes) => {
                    let mut frame = Frame::new();
                    let mut bytes = Vec::new();
                    for size in sizes {
                        let part: Vec<u8> = (0..size).map(|_| { serial = serial.wrapping_add(1); serial }).collect();
                        frame = frame.with(Bytes::copy_from_slice(&part));
                        bytes.extend_from_slice(&part);
                    }
                    let before = ring.stats();
                    match ring.push(frame) {
                        Ok(()) => accepted.extend_from_slice(&bytes),
                        Err(PushError::TooLarge(_)) => prop_assert!(bytes.len() > config.bytes_max),
                        Err(PushError::Full(back)) => {
                            prop_assert_eq!(back.len(), bytes.len());
                            let no_frames = before.frames >= ring.stats().frames_limit;
                            prop_assert!(no_frames || before.bytes + bytes.len() > config.bytes_max);
                            prop_assert!(ring.above_high());
                        }
                    }
                }
                Step::Gather => { ring.poll_gather(&mut gather); }
                Step::Send(n, slow) => {
                    let n = n.min(gather.len());
                    let mut waiting = Vec::new();
                    gather.copy_to(&mut waiting);
                    sent.extend_from_slice(&waiting[..n]);
                    gather.advance(n);
                    ring.handle_sent(now, n, if slow { SLOW } else { FAST });
                }
                Step::Shrink => ring.shrink(),
            }
            let stats = ring.stats();
            prop_assert_eq!(stats.bytes, accepted.len() - sent.len());
            prop_assert!(stats.bytes <= config.bytes_max && stats.frames <= config.frames_max);
            prop_assert!((config.frames_min..=config.frames_max).contains(&stats.frames_limit));
            prop_assert_eq!(stats.frames == 0, stats.bytes == 0);
        }
        while !ring.is_empty() {
            ring.poll_gather(&mut gather);
            gather.copy_to(&mut sent);
            let n = gather.len();
            gather.clear();
            ring.handle_sent(now, n, FAST);
        }
        prop_assert_eq!(sent, accepted);
        prop_assert!(!ring.above_high());
    }
}

#[test]
fn pauses_above_high_and_goes_on_below_low_only() {
    let mut ring = Ring::new(BufferConfig { frames_start: 8, ..small() }).unwrap();
    let mut gather = Gather::new();
    for _ in 0..6 {
        ring.push(frame(&[0; 10])).unwrap();
    }
    assert!(!ring.above_high());
    ring.push(frame(&[0; 10])).unwrap();
    assert!(ring.above_high());
    ring.poll_gather(&mut gather);
    let now = Instant::now();
    ring.handle_sent(now, 40, FAST);
    assert!(ring.above_high(), "three frames are between the marks");
    ring.handle_sent(now, 10, FAST);
    assert!(!ring.above_high());
    assert_eq!(ring.last_progress(), Some(now));
}

#[test]
fn grows_with_a_fast_reader_and_shrinks_with_a_slow_one() {
    let config = BufferConfig { bytes_max: 1 << 20, ..BufferConfig::default() };
    let mut ring = Ring::new(config).unwrap();
    let mut gather = Gather::new();
    let now = Instant::now();
    for _ in 0..256 {
        ring.push(frame(b"x")).unwrap();
    }
    assert!(matches!(ring.push(frame(b"x")), Err(PushError::Full(_))), "no send was seen yet");
    ring.poll_gather(&mut gather);
    ring.handle_sent(now, 1, FAST);
    ring.push(frame(b"x")).unwrap();
    ring.push(frame(b"x")).unwrap();
    assert_eq!(ring.stats().frames_limit, 384);
    for _ in 0..10 {
        ring.handle_sent(now, 1, SLOW);
    }
    assert_eq!((ring.stats().frames_limit, ring.stats().slow_sends), (384, 10));
    ring.handle_sent(now, 1, SLOW);
    assert_eq!((ring.stats().frames_limit, ring.stats().slow_sends), (288, 0));
    // Ten slow ones of each fifty are tolerated for ever.
    for n in 0..200 {
        ring.handle_sent(now, 0, if n % 5 == 0 { SLOW } else { FAST });
    }
    assert_eq!(ring.stats().frames_limit, 288);
    assert_eq!((ring.stats().grown, ring.stats().shrunk), (1, 1));
}

#[test]
fn one_gather_takes_no_more_than_one_send_does() {
    let config = BufferConfig { frames_start: 2048, ..BufferConfig::default() };
    let mut ring = Ring::new(config).unwrap();
    for _ in 0..1500 {
        ring.push(frame(b"ab")).unwrap();
    }
    let mut gather = Gather::new();
    assert_eq!(ring.poll_gather(&mut gather), 2 * IOV_MAX);
    assert_eq!(ring.poll_gather(&mut gather), 0);
    gather.advance(21);
    ring.handle_sent(Instant::now(), 21, FAST);
    assert_eq!(ring.poll_gather(&mut gather), 20);
    assert_eq!(ring.stats().frames, 1490);
}

#[test]
fn senseless_settings_are_refused() {
    let refused = |change: fn(&mut BufferConfig)| {
        let mut config = BufferConfig::default();
        change(&mut config);
        config.validate().is_err()
    };
    assert!(BufferConfig::default().validate().is_ok());
    assert!(refused(|c| c.frames_min = 0));
    assert!(refused(|c| c.frames_start = 5000));
    assert!(refused(|c| c.growth_percent = 100));
    assert!(refused(|c| c.shrink_percent = 100));
    assert!(refused(|c| c.window_sends = 65));
    assert!(refused(|c| c.low_percent = 75));
    assert!(refused(|c| c.bytes_max = 0));
}
