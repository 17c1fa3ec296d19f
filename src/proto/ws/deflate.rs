//! Compressed messages (RFC 7692 §7.2), by `flate2`.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::Violation;
use super::extension::Agreement;
use crate::limits::WS_FINAL_BLOCKS_MAX;

/// What a sender cuts off each message's end and a receiver puts back: the empty stored block that
/// a sync flush ends with (RFC 7692 §7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// The largest window (RFC 1951 §3.2.5).
const WINDOW_BYTES: usize = 32 * 1024;
/// Bytes by which the output grows at first, and at most, while a message inflates.
const ROOM_BYTES: std::ops::RangeInclusive<usize> = 512..=64 * 1024;

/// Inflates the client's messages. About 48 KiB of heap.
#[derive(Debug)]
pub(super) struct Inflater {
    stream: Decompress,
    keeps_context: bool,
    final_blocks: usize,
}

impl Inflater {
    /// For the client's half of the agreement.
    pub(super) fn new(agreement: &Agreement) -> Self {
        // Whatever window the client promised, the largest reads its data, and zlib-rs always
        // allocates that.
        Self {
            stream: Decompress::new(false),
            keeps_context: agreement.client_context_takeover,
            final_blocks: 0,
        }
    }

    /// Inflates the next piece of a message behind `message`, handing new output to `check`.
    ///
    /// Memory: `message` grows with what really comes out, up to twice `bytes_max`.
    ///
    /// # Errors
    ///
    /// What `check` says; `MessageTooBig` as soon as the message passes `bytes_max`;
    /// `MalformedDeflate`.
    pub(super) fn push(
        &mut self,
        mut piece: &[u8],
        message: &mut Vec<u8>,
        bytes_max: usize,
        mut check: impl FnMut(&[u8]) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        loop {
            let start = message.len();
            let room = piece.len().saturating_mul(4).clamp(*ROOM_BYTES.start(), *ROOM_BYTES.end());
            // One byte past the limit is enough to know that it is passed.
            message.reserve(room.min(bytes_max + 1 - start));
            let consumed = self.stream.total_in();
            let status = self.stream.decompress_vec(piece, message, FlushDecompress::None);
            let consumed = usize::try_from(self.stream.total_in() - consumed)
                .expect("no more than the piece has");
            piece = &piece[consumed..];
            // Output counts in the order of the stream: what came out before an error is judged
            // before it, so that no cut of the input changes the verdict.
            check(&message[start..message.len().min(bytes_max)])?;
            if message.len() > bytes_max {
                return Err(Violation::MessageTooBig);
            }
            let full = message.len() == message.capacity();
            match status.map_err(|_| Violation::MalformedDeflate)? {
                Status::StreamEnd => self.restart(message)?,
                Status::Ok | Status::BufError if piece.is_empty() && !full => return Ok(()),
                Status::Ok | Status::BufError if consumed == 0 && message.len() == start => {
                    return Err(Violation::MalformedDeflate);
                }
                Status::Ok | Status::BufError => {}
            }
            if piece.is_empty() && !full {
                return Ok(());
            }
        }
    }

    /// Ends a message.
    ///
    /// # Errors
    ///
    /// As [`Inflater::push`].
    pub(super) fn finish(
        &mut self,
        message: &mut Vec<u8>,
        bytes_max: usize,
        check: impl FnMut(&[u8]) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        self.push(&FLUSH_TAIL, message, bytes_max, check)?; // RFC 7692 §7.2.2
        self.final_blocks = 0;
        if !self.keeps_context {
            self.stream.reset(false);
        }
        Ok(())
    }

    /// Goes on behind a block with BFINAL set, which may end a message's data (RFC 7692 §7.2.3.4).
    ///
    /// What this message has produced stays in the window. What came before it does not: no
    /// compressor is known that ends its stream and yet refers to earlier messages.
    fn restart(&mut self, message: &[u8]) -> Result<(), Violation> {
        self.final_blocks += 1;
        if self.final_blocks > WS_FINAL_BLOCKS_MAX {
            return Err(Violation::MalformedDeflate);
        }
        self.stream.reset(false);
        if !message.is_empty() {
            let window = &message[message.len().saturating_sub(WINDOW_BYTES)..];
            self.stream.set_dictionary(window).map_err(|_| Violation::MalformedDeflate)?;
        }
        Ok(())
    }
}

/// Compresses our messages. About 330 KiB of heap with the largest window.
#[derive(Debug)]
pub(super) struct Deflater {
    stream: Compress,
    keeps_context: bool,
}

impl Deflater {
    /// For our half of the agreement, at zlib's `level` of 1 to 9.
    pub(super) fn new(agreement: &Agreement, level: u8) -> Self {
        let level = Compression::new(u32::from(level.clamp(1, 9)));
        Self {
            stream: Compress::new_with_window_bits(level, false, agreement.server_window_bits),
            keeps_context: agreement.server_context_takeover,
        }
    }

    /// Compresses one message, given in parts, of at least one byte; `out` holds it then, and nothing
    /// else.
    ///
    /// Returns `None` if the library breaks its contract; the connection can't go on then.
    pub(super) fn message_into(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.clear();
        out.reserve(length / 3 + 64);
        for part in parts {
            self.run(part, out, FlushCompress::None)?;
        }
        self.run(&[], out, FlushCompress::Sync)?;
        if !self.keeps_context {
            self.stream.reset();
        }
        if !out.ends_with(&FLUSH_TAIL) {
            return None;
        }
        out.truncate(out.len() - FLUSH_TAIL.len()); // RFC 7692 §7.2.1
        Some(())
    }

    /// As [`Deflater::message_into`], in memory of its own.
    #[cfg(test)]
    pub(super) fn message(&mut self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.message_into(parts, &mut out).map(|()| out)
    }

    fn run(&mut self, mut part: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Option<()> {
        loop {
            // With a few bytes free, zlib would write the flush marker twice.
            out.reserve(64);
            let consumed = self.stream.total_in();
            self.stream.compress_vec(part, out, flush).ok()?;
            let consumed = usize::try_from(self.stream.total_in() - consumed).ok()?;
            part = &part[consumed..];
            if part.is_empty() && out.len() < out.capacity() {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn agreement(bits: u8, takeover: bool) -> Agreement {
        Agreement {
            server_context_takeover: takeover,
            client_context_takeover: takeover,
            server_window_bits: bits,
            client_window_bits: bits,
        }
    }

    fn inflate(inflater: &mut Inflater, data: &[u8], max: usize) -> Result<Vec<u8>, Violation> {
        let mut message = Vec::new();
        inflater.push(data, &mut message, max, |_| Ok(()))?;
        inflater.finish(&mut message, max, |_| Ok(()))?;
        Ok(message)
    }

    /// Messages with matches near and far, and noise.
    fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            (any::<u8>(), 1usize..700).prop_map(|(byte, n)| vec![byte; n]),
            proptest::collection::vec(any::<u8>(), 1..300),
            (0u16..40).prop_map(|n| format!("{{\"seq\":{n},\"url\":\"https://a/{n}\"}}").into()),
        ];
        let message =
            proptest::collection::vec(piece, 1..12).prop_map(|p: Vec<Vec<u8>>| p.concat());
        proptest::collection::vec(message, 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_window_and_level_round_trips(
            messages in messages(), bits in 9u8..=15, level in 1u8..=9, takeover: bool,
        ) {
            let agreement = agreement(bits, takeover);
            let mut deflater = Deflater::new(&agreement, level);
            let mut inflater = Inflater::new(&agreement);
            for message in messages {
                let half = message.len() / 2;
                let data = deflater.message(&[&message[..half], &[], &message[half..]]).unwrap();
                prop_assert_eq!(&inflate(&mut inflater, &data, message.len()).unwrap(), &message);
            }
        }
    }

    #[test]
    fn no_match_reaches_behind_the_agreed_window() {
        // Noise that comes again just outside the smaller window: only the larger one can see it.
        for bits in 9u8..15 {
            let mut state = 1u32;
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            });
            let noise: Vec<u8> = noise.take((1 << bits) + 1).collect();
            let length = |bits| {
                let mut deflater = Deflater::new(&agreement(bits, true), 6);
                deflater.message(&[&noise, &noise]).unwrap().len()
            };
            assert!(length(bits) > 2 * noise.len(), "{bits} bits: nothing to find");
            assert!(length(bits + 1) < 3 * noise.len() / 2, "{bits} bits and one more");
        }
    }

    #[test]
    fn the_examples_of_the_standard() {
        // RFC 7692 §7.2.3.1 to §7.2.3.5.
        let mut inflater = Inflater::new(&agreement(15, true));
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        assert_eq!(inflate(&mut inflater, hello, 99).unwrap(), b"Hello");
        assert_eq!(inflate(&mut inflater, b"\xf2\x00\x11\x00\x00", 99).unwrap(), b"Hello");
        let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
        assert_eq!(inflate(&mut inflater, stored, 99).unwrap(), b"Hello");
        let final_block = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
        assert_eq!(inflate(&mut inflater, final_block, 99).unwrap(), b"Hello");
        let two_blocks = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
        assert_eq!(inflate(&mut inflater, two_blocks, 99).unwrap(), b"Hello");
        assert_eq!(inflate(&mut inflater, b"\x00", 99).unwrap(), b"");
    }

    #[test]
    fn a_message_goes_on_behind_a_final_block() {
        let agreement = agreement(15, false);
        let half = Deflater::new(&agreement, 9).message(&[b"some text"]).unwrap();
        let finished = |dictionary: &[u8]| {
            let mut stream = Compress::new(Compression::new(9), false);
            if !dictionary.is_empty() {
                stream.set_dictionary(dictionary).unwrap();
            }
            let mut out = Vec::with_capacity(1000);
            stream.compress_vec(&half.repeat(9), &mut out, FlushCompress::Finish).unwrap();
            out
        };
        let data = [finished(b""), finished(&half.repeat(9)), vec![0]].concat();
        let inflated = inflate(&mut Inflater::new(&agreement), &data, 1000).unwrap();
        assert_eq!(inflated, half.repeat(18));
        let lost = [finished(&half), vec![0]].concat();
        let refused = inflate(&mut Inflater::new(&agreement), &lost, 1000);
        assert_eq!(refused, Err(Violation::MalformedDeflate), "nothing to refer to");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let agreement = agreement(15, false);
        let zeros = vec![0; 8 << 20];
        let bomb = Deflater::new(&agreement, 9).message(&[&zeros]).unwrap();
        assert!(bomb.len() < 16 << 10, "{}", bomb.len());
        let mut message = Vec::new();
        let verdict = Inflater::new(&agreement).push(&bomb, &mut message, 100_000, |_| Ok(()));
        assert_eq!(verdict, Err(Violation::MessageTooBig));
        assert!(message.capacity() <= 2 * 100_000 + 2, "{}", message.capacity());
        let whole = inflate(&mut Inflater::new(&agreement), &bomb, zeros.len()).unwrap();
        assert!(whole == zeros);
    }

    #[test]
    fn garbage_and_endless_final_blocks_are_refused() {
        let agreement = agreement(15, true);
        let garbage = inflate(&mut Inflater::new(&agreement), b"\xff\xff\xff\xff", 99);
        assert_eq!(garbage, Err(Violation::MalformedDeflate));
        let finals = [0x03, 0x00].repeat(WS_FINAL_BLOCKS_MAX + 1);
        let refused = inflate(&mut Inflater::new(&agreement), &finals, 99);
        assert_eq!(refused, Err(Violation::MalformedDeflate));
    }
}
