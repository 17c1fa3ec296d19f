#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

/// Feeds `input` in pieces of `piece` bytes. Gives the data, the bytes used and whether it ended.
fn decode(
    input: &[u8],
    piece: usize,
    strictness: Strictness,
    max: u64,
) -> Result<(Vec<u8>, usize, bool), ChunkError> {
    let mut decoder = ChunkedDecoder::new(strictness, max);
    let (mut data, mut used) = (Vec::new(), 0);
    for part in input.chunks(piece.max(1)) {
        let mut rest = part;
        loop {
            let step = decoder.next(rest)?;
            assert!(step.data.end <= step.consumed && step.consumed <= rest.len());
            data.extend_from_slice(&rest[step.data.clone()]);
            rest = &rest[step.consumed..];
            used += step.consumed;
            if step.done {
                assert!(decoder.is_done());
                return Ok((data, used, true));
            }
            if step.consumed == 0 {
                break;
            }
        }
        assert!(rest.is_empty(), "input that is not an end is taken");
    }
    Ok((data, used, false))
}

/// The slow, obvious twin: reads the grammar off a whole body, line by line.
fn twin(input: &[u8], strictness: Strictness) -> Option<(Vec<u8>, usize)> {
    let line = |from: usize| {
        let len = input[from..].windows(2).position(|w| w == b"\r\n")?;
        Some((&input[from..from + len], from + len + 2))
    };
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let (size_line, next) = line(at)?;
        let semicolon = size_line.iter().position(|&b| b == b';');
        let digits = &size_line[..semicolon.unwrap_or(size_line.len())];
        let mut digits = std::str::from_utf8(digits).ok()?;
        if semicolon.is_some() || strictness == Strictness::Lenient {
            digits = digits.trim_end_matches([' ', '\t']);
        }
        if size_line.len() >= CHUNK_LINE_BYTES_MAX
            || digits.is_empty()
            || !digits.bytes().all(|b| b.is_ascii_hexdigit())
            || !size_line.iter().all(|&b| crate::proto::h1::is_value_byte(b))
        {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        data.extend_from_slice(input.get(at..at.checked_add(size)?)?);
        at += size;
        if input.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (field, next) = line(at)?;
        at = next;
        if field.is_empty() {
            return Some((data, at));
        }
        let colon = field.iter().position(|&b| b == b':')?;
        if colon == 0
            || !field[..colon].iter().all(|&b| crate::proto::h1::is_token_byte(b))
            || !field.iter().all(|&b| crate::proto::h1::is_value_byte(b))
        {
            return None;
        }
    }
}

#[test]
fn bodies_are_taken_apart() {
    let cases: [(&[u8], &[u8]); 8] = [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"2\r\nab\r\n1\r\nc\r\n000\r\n\r\n", b"abc"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a;n=v;q=\"x;y\"\r\n0123456789\r\n0;z\r\n\r\n", b"0123456789"),
        (b"3 ;a\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"1\r\n\r\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"\r"),
        (b"0000000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
    ];
    for (input, data) in cases {
        for piece in 1..=input.len() {
            let outcome = decode(input, piece, Strictness::Strict, 100);
            assert_eq!(outcome, Ok((data.to_vec(), input.len(), true)), "{input:?} by {piece}");
        }
        let longer = [input, b"GET /"].concat();
        assert_eq!(decode(&longer, 99, Strictness::Strict, 100).unwrap().1, input.len());
    }
}

#[test]
fn every_refusal_has_its_vectors() {
    let long_extension = format!("1;{}\r\nx\r\n", "a".repeat(CHUNK_LINE_BYTES_MAX));
    let extensions = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(200);
    let trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(TRAILER_BYTES_MAX));
    let cases: [(&[u8], ChunkError); 36] = [
        (b"\r\n", ChunkError::BadSize),
        (b";a\r\n", ChunkError::BadSize),
        (b"+5\r\n", ChunkError::BadSize),
        (b"-5\r\n", ChunkError::BadSize),
        (b" 5\r\n", ChunkError::BadSize),
        (b"\t5\r\n", ChunkError::BadSize),
        (b"0x5\r\n", ChunkError::BadSize),
        (b"5 \r\n", ChunkError::BadSize),
        (b"5 5\r\n", ChunkError::BadSize),
        (b"5g\r\n", ChunkError::BadSize),
        (b"5\0\r\n", ChunkError::BadSize),
        (b"5,\r\n", ChunkError::BadSize),
        (b"5_0\r\n", ChunkError::BadSize),
        (b"\xef\xbc\x95\r\n", ChunkError::BadSize),
        (b"GET / HTTP/1.1", ChunkError::BadSize),
        (b"10000000000000000\r\n", ChunkError::SizeOverflow),
        (b"ffffffffffffffffff\r\n", ChunkError::SizeOverflow),
        (b"5\nhello\r\n", ChunkError::BadLineEnd),
        (b"5\r5hello\r\n", ChunkError::BadLineEnd),
        (b"5;a\nhello", ChunkError::BadLineEnd),
        (b"5;a\0\r\n", ChunkError::BadExtension),
        (b"5;a\x7f\r\n", ChunkError::BadExtension),
        (long_extension.as_bytes(), ChunkError::LineTooLong),
        (extensions.as_bytes(), ChunkError::TooMuchFraming),
        (b"5\r\nhello!\r\n", ChunkError::MissingDataEnd),
        (b"5\r\nhello\n0\r\n\r\n", ChunkError::MissingDataEnd),
        (b"5\r\nhello\r0", ChunkError::MissingDataEnd),
        (b"0\r\n\n", ChunkError::BadLineEnd),
        (b"0\r\n\rX", ChunkError::BadLineEnd),
        (b"0\r\nX: a\n", ChunkError::BadLineEnd),
        (b"0\r\n X: a\r\n", ChunkError::BadTrailer),
        (b"0\r\n: a\r\n", ChunkError::BadTrailer),
        (b"0\r\nX a\r\n", ChunkError::BadTrailer),
        (b"0\r\nX: \0\r\n", ChunkError::BadTrailer),
        (trailer.as_bytes(), ChunkError::TrailerTooLong),
        (b"5\r\nhello\r\n6\r\n", ChunkError::BodyTooLarge),
    ];
    for (input, error) in cases {
        for piece in [1, 2, 3, 7, input.len()] {
            let outcome = decode(input, piece, Strictness::Strict, 10);
            let expected = if error == ChunkError::TooMuchFraming {
                decode(input, piece, Strictness::Strict, 1000)
            } else {
                outcome
            };
            assert_eq!(expected, Err(error), "{:?}", String::from_utf8_lossy(input));
        }
    }
}

#[test]
fn a_failed_decoder_stays_failed() {
    let mut decoder = ChunkedDecoder::new(Strictness::Strict, 10);
    assert_eq!(decoder.next(b"x"), Err(ChunkError::BadSize));
    assert_eq!(decoder.next(b"0\r\n\r\n"), Err(ChunkError::BadSize));
}

#[test]
fn padded_sizes_are_for_responses_only() {
    let input = b"3  \r\nabc\r\n0\t\r\n\r\n";
    assert_eq!(decode(input, 1, Strictness::Strict, 9), Err(ChunkError::BadSize));
    let outcome = decode(input, 1, Strictness::Lenient, 9);
    assert_eq!(outcome, Ok((b"abc".to_vec(), input.len(), true)));
}

#[test]
fn tiny_chunks_are_no_attack() {
    let input = "1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n";
    let (data, ..) = decode(input.as_bytes(), 4096, Strictness::Strict, 100_000).unwrap();
    assert_eq!(data.len(), 100_000);
}

#[test]
fn heads_of_chunks() {
    for (len, line) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xdead_beef, "deadbeef\r\n")]
    {
        assert_eq!(ChunkHead::new(len).unwrap().as_bytes(), line.as_bytes());
    }
    assert_eq!(ChunkHead::new(usize::MAX).unwrap().as_bytes(), b"ffffffffffffffff\r\n");
    assert!(ChunkHead::new(0).is_none());
}

proptest! {
    #[test]
    fn it_agrees_with_its_twin(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "0", "1", "3", "a", "\r\n", "\r\n", "\r\n", "abc", ";x", " ", "\t", "0\r\n\r\n",
            "3\r\nabc\r\n", "5\r\nhello\r\n", "X: y\r\n", "\r", "\n", ":", "1;a=b\r\nz\r\n", "\0",
        ]), 0..16),
        piece in 1_usize..9,
        lenient: bool,
    ) {
        let input = pieces.concat().into_bytes();
        let strictness = if lenient { Strictness::Lenient } else { Strictness::Strict };
        let found = match decode(&input, piece, strictness, u64::MAX) {
            Ok((data, used, true)) => Some((data, used)),
            _ => None,
        };
        prop_assert_eq!(found, twin(&input, strictness));
        let whole = decode(&input, input.len(), strictness, u64::MAX);
        prop_assert_eq!(decode(&input, piece, strictness, u64::MAX), whole);
    }

    #[test]
    fn what_is_written_is_read(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), piece in 1_usize..50) {
        let mut wire = Vec::new();
        for part in &parts {
            crate::proto::h1::write_chunk(&mut wire, part);
        }
        crate::proto::h1::write_last_chunk(&mut wire);
        let outcome = decode(&wire, piece, Strictness::Strict, u64::MAX);
        prop_assert_eq!(outcome, Ok((parts.concat(), wire.len(), true)));
    }
}
