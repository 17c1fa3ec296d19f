//! Tests of the session, and of all of `proto::ws` against an independent client.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Cursor, Read, Write};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::deflate::Deflater;
use super::extension::Agreement;
use super::testing::{Seen, feed, frame};
use super::*;
use crate::limits::{WS_INFLATE_PIECE_BYTES, WS_INFLATE_TURN_BYTES};

const AGREEMENT: Agreement = Agreement {
    server_context_takeover: true,
    client_context_takeover: true,
    server_window_bits: 15,
    client_window_bits: 15,
};

fn session() -> (Session, Instant) {
    let now = Instant::now();
    (Session::new(now, Config::default(), None), now)
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn fragments_and_control_frames_interleave() {
    let (mut session, now) = session();
    let bytes = [
        frame(0x01, b"Hel"),
        frame(0x89, b"are you there"),
        frame(0x00, b""),
        frame(0x8a, b"yes"),
        frame(0x80, b"lo"),
        frame(0x82, b"\xff"),
        frame(0x81, b""),
    ]
    .concat();
    let expected = [
        Seen::Ping(b"are you there".to_vec()),
        Seen::Pong(b"yes".to_vec()),
        text("Hello"),
        Seen::Binary(vec![0xff]),
        text(""),
    ];
    assert_eq!(feed(&mut session, now, &bytes), expected);
    assert_eq!(session.poll_transmit().unwrap(), &b"\x8a\x0dare you there"[..]);
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn a_message_in_one_piece_is_not_copied() {
    let (mut session, now) = session();
    let mut bytes = frame(0x81, &[b'x'; 50_000]);
    let mut input = &mut bytes[..];
    assert!(matches!(session.handle_bytes(now, &mut input), Some(Event::Text(_))));
    assert_eq!(session.heap_bytes(), 0);
}

#[test]
fn sequences_that_break_the_rules() {
    let cases: [(&[Vec<u8>], Violation); 6] = [
        (&[frame(0x80, b"x")], Violation::LoneContinuation),
        (&[frame(0x01, b"x"), frame(0x81, b"y")], Violation::InterleavedMessage),
        (&[frame(0x81, b"\xce\xba\xe1\xbd")], Violation::InvalidUtf8), // stops in a character
        (&[frame(0x01, b"\xce"), frame(0x80, b"a")], Violation::InvalidUtf8),
        (&[frame(0x88, b"\x03\xed")], Violation::MalformedClose),
        (&[frame(0x88, b"\x03\xe8\xff")], Violation::InvalidUtf8),
    ];
    for (frames, violation) in cases {
        let (mut session, now) = session();
        let bytes = [&frames.concat()[..], &frame(0x89, b"too late")].concat();
        assert_eq!(feed(&mut session, now, &bytes), [Seen::Violation(violation)]);
        let close = session.poll_transmit().unwrap();
        assert_eq!(close[0], 0x88);
        assert_eq!(close[2..4], violation.code().get().to_be_bytes());
        assert_eq!(session.status(), Status::Draining);
        assert_eq!(
            session.send(MessageKind::Text, &[b"x"], &mut Vec::new()),
            Err(SendError::Closed)
        );
        assert_eq!(session.heap_bytes(), 0);
    }
}

#[test]
fn bad_text_fails_before_its_message_ends() {
    let (mut session, now) = session();
    let bytes = frame(0x01, b"\xce\xba\xf4\x90\x80\x80 and more to come");
    assert_eq!(feed(&mut session, now, &bytes[..6 + 3]), []);
    let verdict = feed(&mut session, now, &bytes[6 + 3..6 + 4]);
    assert_eq!(verdict, [Seen::Violation(Violation::InvalidUtf8)]);
}

#[test]
fn inflated_text_fails_as_early() {
    let now = Instant::now();
    let mut session = Session::new(now, Config::default(), Some(AGREEMENT));
    let mut deflater = Deflater::new(&AGREEMENT, 6);
    let good = deflater.message(&["κόσμε ".repeat(50).as_bytes()]).unwrap();
    let bytes = [frame(0x41, &good[..20]), frame(0x80, &good[20..])].concat();
    assert_eq!(feed(&mut session, now, &bytes), [text(&"κόσμε ".repeat(50))]);
    let cut = deflater.message(&[b"\xce"]).unwrap();
    let mut other = Session::new(now, Config::default(), Some(AGREEMENT));
    feed(&mut other, now, &bytes);
    let verdict = feed(&mut other, now, &frame(0xc1, &cut));
    assert_eq!(verdict, [Seen::Violation(Violation::InvalidUtf8)], "stops in a character");
    let mut deflater = Deflater::new(&AGREEMENT, 6);
    let bad = deflater.message(&[b"\xce\xba\xed\xa0\x80", &[b'x'; 500]]).unwrap();
    // Not the message's last frame, and not even all of this one.
    let mut bytes = frame(0x41, &bad);
    bytes.pop();
    assert_eq!(feed(&mut session, now, &bytes), [Seen::Violation(Violation::InvalidUtf8)]);
}

#[test]
fn limits_hold_before_the_bytes_arrive() {
    let now = Instant::now();
    let config = Config { message_bytes_max: 10, fragments_max: 3, ..Config::default() };
    let run = |bytes: &[u8]| feed(&mut Session::new(now, config, Some(AGREEMENT)), now, bytes);
    assert_eq!(run(&frame(0x82, &[7; 10])), [Seen::Binary(vec![7; 10])]);
    let too_big = [Seen::Violation(Violation::MessageTooBig)];
    assert_eq!(run(&frame(0x82, &[7; 11])[..6]), too_big, "judged by its header");
    assert_eq!(run(&[frame(0x02, &[7; 6]), frame(0x80, &[7; 5])].concat()), too_big);
    assert_eq!(run(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), too_big);
    let mut fragments = [frame(0x02, b""), frame(0, b""), frame(0, b""), frame(0x80, b"")];
    assert_eq!(run(&fragments.concat()), [Seen::Binary(Vec::new())]);
    fragments[3] = frame(0, b"");
    assert_eq!(run(&fragments.concat()), [Seen::Violation(Violation::TooManyFragments)]);
    let bomb = Deflater::new(&AGREEMENT, 9).message(&[&[b'a'; 11]]).unwrap();
    assert!(bomb.len() < 10);
    assert_eq!(run(&frame(0xc2, &bomb)), too_big);
}

#[test]
fn the_peer_closes() {
    let (mut session, now) = session();
    let bytes = [frame(0x88, b"\x03\xe9bye"), frame(0x81, b"too late")].concat();
    assert_eq!(feed(&mut session, now, &bytes), [Seen::Close(Some(1001), "bye".to_owned())]);
    assert_eq!(session.poll_transmit().unwrap(), &b"\x88\x02\x03\xe9"[..]);
    assert_eq!(session.status(), Status::Draining);
    session.handle_eof();
    assert_eq!(session.status(), Status::Cut(CutReason::Finished));
}

#[test]
fn we_close_and_patience_ends() {
    let (mut session, now) = session();
    session.close(now, CloseCode::GOING_AWAY, "drain");
    session.close(now, CloseCode::NORMAL, "twice");
    assert_eq!(session.poll_transmit().unwrap(), &b"\x88\x07\x03\xe9drain"[..]);
    let bytes = [frame(0x89, b"x"), frame(0x81, b"last words")].concat();
    let expected = [Seen::Ping(b"x".to_vec()), text("last words")];
    assert_eq!(feed(&mut session, now, &bytes), expected);
    assert_eq!(session.poll_transmit(), None, "nothing follows our Close");
    let deadline = session.poll_timeout().unwrap();
    assert_eq!(deadline, now + Config::default().close_timeout);
    let mut late = session;
    late.handle_timeout(deadline);
    assert_eq!(late.status(), Status::Cut(CutReason::CloseTimeout));
    assert_eq!(late.poll_timeout(), None);

    let mut answered = Session::new(now, Config::default(), None);
    answered.close(now, CloseCode::NORMAL, "");
    assert_eq!(feed(&mut answered, now, &frame(0x88, b"")), [Seen::Close(None, String::new())]);
    assert_eq!(answered.status(), Status::Draining);
}

#[test]
fn two_silent_pings_cut_and_any_byte_is_a_sign_of_life() {
    let (mut session, start) = session();
    let tick = Duration::from_secs(30);
    session.handle_timeout(start + tick / 2);
    assert_eq!(session.poll_transmit(), None, "not yet");
    for n in 1..5u8 {
        session.handle_timeout(start + tick * u32::from(n));
        assert_eq!(session.poll_transmit().unwrap(), [0x89, 4, 0, 0, 0, n].as_slice());
        feed(&mut session, start, &frame(0x81, b"")[..1]);
    }
    session.handle_timeout(start + tick * 5); // heard since the fourth
    session.handle_timeout(start + tick * 6); // the fifth was silent
    assert_eq!(session.status(), Status::Open);
    session.handle_timeout(start + tick * 7); // and the sixth
    assert_eq!(session.status(), Status::Cut(CutReason::PeerSilent));
}

#[test]
fn end_of_file_without_a_close_is_told_apart() {
    let (mut session, now) = session();
    feed(&mut session, now, &frame(0x01, b"half"));
    session.handle_eof();
    assert_eq!(session.status(), Status::Cut(CutReason::PeerGone));
    assert_eq!(session.heap_bytes(), 0);
}

#[test]
fn compression_is_used_where_it_pays() {
    let now = Instant::now();
    let alone = Agreement { server_context_takeover: false, ..AGREEMENT };
    let mut session = Session::new(now, Config::default(), Some(alone));
    let mut body = Vec::new();
    let small = session.send(MessageKind::Text, &[b"small"], &mut body).unwrap();
    assert_eq!((&*small.head, small.deflated), (&b"\x81\x05"[..], false));
    let parts: [&[u8]; 2] = [&[b'x'; 500], &[b'y'; 500]];
    let sent = session.send(MessageKind::Text, &parts, &mut body).unwrap();
    assert!(sent.head[0] == 0xc1 && sent.deflated);
    assert!(body.len() < 50);
    let huge = vec![b'x'; 65_537];
    assert!(!session.send(MessageKind::Text, &[&huge], &mut body).unwrap().deflated);
    assert!(session.heap_bytes() > 100_000);
    session.handle_timeout(now + Duration::from_secs(30));
    session.poll_transmit();
    assert_eq!(session.heap_bytes(), 0, "a quiet connection holds no compressor");
}

#[test]
fn an_idle_session_is_small() {
    let bytes = size_of::<Session>();
    assert!(bytes <= 512, "{bytes} bytes");
    assert_eq!(session().0.heap_bytes(), 0);
}

/// An in-memory socket for the independent client: what it reads was put there before.
#[derive(Default)]
struct Pipe {
    read: Cursor<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self.read.read(out)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.written.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<String>().prop_map(Message::text),
        (0usize..70_000, any::<u8>()).prop_map(|(n, byte)| Message::binary(vec![byte; n])),
        proptest::collection::vec(any::<u8>(), 0..125).prop_map(|data| Message::Ping(data.into())),
    ]
}

#[test]
fn a_message_that_inflates_to_much_is_read_in_turns() {
    let mut deflater = Deflater::new(&AGREEMENT, 9);
    let zeros = vec![b'0'; 8 << 20];
    let packed = deflater.message(&[&zeros]).unwrap();
    let now = Instant::now();
    let mut session = Session::new(now, Config::default(), Some(AGREEMENT));
    let mut wire = frame(0xc1, &packed);
    let mut input = &mut wire[..];
    let (mut turns, mut held, mut text) = (0, 0, 0);
    while let Some(event) = session.handle_bytes(now, &mut input) {
        match event {
            Event::Turn => turns += 1,
            Event::Text(whole) => text = whole.len(),
            other => panic!("{other:?}"),
        }
        let grown = session.heap_bytes();
        // The buffer doubles as it grows; what it holds grows by a turn and a piece.
        assert!(text > 0 || grown <= 2 * held.max(256 << 10), "{held} to {grown}");
        held = grown;
    }
    assert_eq!(text, zeros.len());
    let most = WS_INFLATE_TURN_BYTES + WS_INFLATE_PIECE_BYTES * 1032;
    assert!(turns >= zeros.len() / most, "{turns}");
}

#[test]
fn a_message_that_does_not_end_is_given_up() {
    let (mut session, now) = session();
    let second = Duration::from_secs(1);
    assert!(feed(&mut session, now, &frame(0x01, b"begun")).is_empty());
    assert_eq!(session.poll_timeout(), Some(now + Config::default().ping_interval));
    session.handle_timeout(now + 30 * second);
    session.handle_bytes(now + 31 * second, &mut &mut frame(0x8a, b"")[..]);
    assert_eq!(session.status(), Status::Open);
    // A peer that goes on sending has the time that it takes at the slowest speed.
    let mebibyte = frame(0x00, &vec![b'x'; 1 << 20]);
    assert!(feed(&mut session, now + 40 * second, &mebibyte).is_empty());
    let due = now + Config::default().message_timeout + 256 * second;
    for at in 2..11 {
        let at = now + 30 * at * second;
        session.handle_timeout(at);
        assert_eq!(session.status(), Status::Open);
        session.handle_bytes(at + second, &mut &mut frame(0x8a, b"")[..]);
    }
    assert_eq!(session.poll_timeout(), Some(due));
    session.handle_timeout(due);
    assert_eq!((session.status(), session.gathered_bytes()), (Status::Draining, 0));
    let close = session.poll_transmit().unwrap();
    assert_eq!(close[close.len() - "message takes too long".len() - 2..][..2], [0x03, 0xf0]);
}

#[test]
fn a_message_without_room_is_refused_with_1013() {
    let (mut session, now) = session();
    assert!(feed(&mut session, now, &frame(0x02, &[7; 4000])).is_empty());
    assert!(session.gathered_bytes() >= 4000);
    session.refuse_message(now);
    assert_eq!((session.status(), session.gathered_bytes()), (Status::Draining, 0));
    assert_eq!(session.poll_transmit().unwrap()[2..4], 1013_u16.to_be_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_an_independent_client_sends_comes_back_to_it(
        messages in proptest::collection::vec(message(), 1..8), step in 1usize..4096,
    ) {
        let (mut session, now) = session();
        let mut client = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        for message in &messages {
            client.send(message.clone()).unwrap();
        }
        let sent = std::mem::take(&mut client.get_mut().written);
        let mut wire = Vec::new();
        for piece in sent.chunks(step) {
            for seen in feed(&mut session, now, piece) {
                let (kind, data) = match seen {
                    Seen::Text(text) => (MessageKind::Text, text.into_bytes()),
                    Seen::Binary(data) => (MessageKind::Binary, data),
                    _ => continue,
                };
                let half = data.len() / 2;
                let sent = session.send(kind, &[&data[..half], &data[half..]], &mut Vec::new()).unwrap();
                prop_assert!(!sent.deflated);
                wire.extend_from_slice(&sent.head);
                wire.extend_from_slice(&data);
            }
            wire.extend(session.poll_transmit().unwrap_or_default());
        }
        client.get_mut().read = Cursor::new(wire);
        let (mut echoes, mut pongs) = (Vec::new(), Vec::new());
        while let Ok(message) = client.read() {
            match message {
                Message::Pong(data) => pongs.push(Message::Ping(data)),
                message => echoes.push(message),
            }
        }
        let (pings, expected): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.is_ping());
        prop_assert_eq!(echoes, expected);
        prop_assert_eq!(pongs, pings);
    }
}
