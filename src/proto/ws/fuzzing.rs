//! Entries for fuzzers, also run by a seeded test below. Each takes any bytes and panics if an
//! invariant does not hold.

use std::time::Instant;

use super::deflate::{Deflater, Inflater};
use super::extension::{Agreement, Policy, negotiate};
use super::handshake::{self, Offer};
use super::{Config, Event, MessageKind, Session};
use crate::limits::WS_CONTROL_BACKLOG_BYTES_MAX;

const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Raw bytes as a client sends them: any cut of them gives the same events and answers, and memory
/// stays within the limits.
pub fn session(data: &[u8]) {
    let Some((&[flags, step], wire)) = data.split_first_chunk() else { return };
    let whole = run(flags, wire, usize::MAX);
    assert_eq!(run(flags, wire, usize::from(step) + 1), whole, "pieces of {}", step + 1);
    assert_eq!(run(flags, wire, 1), whole, "single bytes");
}

/// The same with frames that are mostly legal, built from the bytes: a fuzzer gets past the
/// headers sooner.
pub fn frames(data: &[u8]) {
    let Some((&[flags, step], mut rest)) = data.split_first_chunk() else { return };
    let mut wire = vec![flags, step];
    while let Some((&[first, length], tail)) = rest.split_first_chunk() {
        let (payload, tail) = tail.split_at(tail.len().min(usize::from(length & 0x7f).min(125)));
        // A quarter of the first bytes stays as it is; the others become likely ones.
        const LIKELY: [u8; 10] = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0xc1, 0xc2];
        let first = match first {
            0..0xc0 => LIKELY[usize::from(first) % LIKELY.len()],
            first => first,
        };
        let length = u8::try_from(payload.len()).expect("125 at most");
        let mask = [first, length, flags, step];
        wire.extend([first, 0x80 | length]);
        wire.extend(mask);
        wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        rest = tail;
    }
    session(&wire);
}

/// Compressed data: cuts do not matter and the limit holds; and what we compress inflates again.
pub fn deflate(data: &[u8]) {
    let Some((&[flags, step], body)) = data.split_first_chunk() else { return };
    let agreement = agreement(flags);
    let inflate = |step: usize, bytes_max: usize, body: &[u8]| {
        let mut inflater = Inflater::new(&agreement);
        let mut message = Vec::new();
        let verdict = body
            .chunks(step)
            .try_for_each(|piece| inflater.push(piece, &mut message, bytes_max, |_| Ok(())))
            .and_then(|()| inflater.finish(&mut message, bytes_max, |_| Ok(())));
        assert!(message.capacity() <= 2 * bytes_max + 1024, "bounded output");
        verdict.map(|()| message)
    };
    let whole = inflate(usize::MAX, MESSAGE_BYTES_MAX, body);
    assert_eq!(inflate(usize::from(step) + 1, MESSAGE_BYTES_MAX, body), whole);
    if body.is_empty() {
        return;
    }
    let level = step % 9 + 1;
    let mut compressed = Vec::new();
    let done = Deflater::new(&agreement, level).message_into(&[body], &mut compressed);
    done.expect("zlib's contract");
    assert_eq!(inflate(usize::MAX, body.len(), &compressed).as_deref(), Ok(body), "round trip");
}

/// Handshake fields, one a line: no panic, and an agreement is within its bounds.
pub fn handshake(data: &[u8]) {
    let policy = Policy::default();
    if let Ok(Some((agreement, _))) = negotiate(data.split(|byte| *byte == b'\n'), &policy) {
        assert!((9..=15).contains(&agreement.server_window_bits));
        assert!((8..=15).contains(&agreement.client_window_bits));
    }
    let fields = data.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
    });
    let offer = Offer { subprotocols: &[handshake::CRAWL_SUBPROTOCOL], deflate: Some(policy) };
    let _ = handshake::accept("GET", true, fields, &offer);
}

fn agreement(flags: u8) -> Agreement {
    Agreement {
        server_context_takeover: flags & 1 == 0,
        client_context_takeover: flags & 2 == 0,
        server_window_bits: 9 + (flags >> 2) % 7,
        client_window_bits: 8 + (flags >> 4) % 8,
    }
}

/// Everything that a session says to `wire` in pieces of `step` bytes, as a log.
fn run(flags: u8, wire: &[u8], step: usize) -> Vec<String> {
    let now = Instant::now();
    let config =
        Config { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: 32, ..Config::default() };
    let agreement = (flags & 0x80 == 0).then(|| agreement(flags));
    let mut session = Session::new(now, config, agreement);
    let bytes_max = 3 * MESSAGE_BYTES_MAX + 2 * WS_CONTROL_BACKLOG_BYTES_MAX + (64 << 10);
    let mut log = Vec::new();
    for piece in wire.chunks(step.min(wire.len().max(1))) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while let Some(event) = session.handle_bytes(now, &mut input) {
            if let Event::Text(text) = &event {
                assert!(std::str::from_utf8(text).is_ok(), "texts are UTF-8");
            }
            // How the work is cut into turns is no matter of what is said.
            if event != Event::Turn {
                log.push(format!("{event:?}"));
            }
        }
        assert!(input.is_empty(), "input is used up");
        assert!(session.heap_bytes() <= bytes_max, "bounded memory: {}", session.heap_bytes());
    }
    log.push(format!("{:?} {:?}", session.status(), session.poll_transmit()));
    let sent = session.send(MessageKind::Text, &[b"x"], &mut Vec::new());
    log.push(format!("{:?}", sent.map(|_| ())));
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ws::testing::frame;

    /// xorshift64*: a seed replays its bytes.
    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn seeds_hold_every_invariant() {
        for seed in 0..600 {
            let length = [3, 16, 60, 400, 3000][usize::try_from(seed % 5).expect("small")];
            let data = bytes(seed, length);
            session(&data);
            frames(&data);
            deflate(&data);
            handshake(&data);
            let alphabet = b"permessage-deflate; =\"\\,\n:x19";
            let pick = |byte: &u8| alphabet[usize::from(*byte) % alphabet.len()];
            handshake(&data.iter().map(pick).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn compressed_messages_in_fragments_survive_any_cut() {
        for seed in 0..60u64 {
            let agreement = agreement(0);
            let mut deflater = Deflater::new(&agreement, 6);
            let mut wire = vec![0, 7];
            for n in 0..4 {
                let noise = bytes(seed * 4 + n, 300);
                let text: Vec<u8> = noise.iter().map(|byte| b'a' + byte % 8).collect();
                let body = deflater.message(&[&text, &text]).expect("zlib's contract");
                let (head, tail) = body.split_at(usize::from(noise[0]).min(body.len()));
                wire.extend([frame(0x41, head), frame(0x89, b"p"), frame(0x80, tail)].concat());
            }
            session(&wire);
            let at = usize::try_from(seed).expect("small") * 7 + 2;
            wire[at] ^= 1 << (seed % 8); // and so does damage
            session(&wire);
        }
    }
}
