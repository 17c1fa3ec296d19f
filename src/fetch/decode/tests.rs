#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use proptest::prelude::*;
use std::io::Write;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn raw(data: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn br(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
    encoder.write_all(data).unwrap();
    drop(encoder);
    out
}

fn zst(data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, 3).unwrap()
}

/// Decodes a body that arrives in pieces of `piece` bytes, with `budget` decoded bytes per call.
fn decode(
    coding: &str,
    body: &[u8],
    bytes_max: u64,
    piece: usize,
    budget: usize,
) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(coding, bytes_max)?;
    let mut out = Vec::new();
    for mut piece in body.chunks(piece.max(1)) {
        loop {
            let before = out.len();
            let progress = decoder.handle_input(piece, &mut out, budget)?;
            assert!(out.len() - before <= budget, "the budget holds");
            piece = &piece[progress.consumed..];
            if progress.drained {
                assert!(piece.is_empty(), "drained with input left");
                break;
            }
        }
    }
    decoder.handle_end()?;
    assert_eq!(decoder.decoded_bytes(), out.len() as u64);
    Ok(out)
}

const MAX: u64 = 10 << 20;

fn page(bytes: usize) -> Vec<u8> {
    // Text that compresses about as a page does, and is long enough for several blocks.
    let mut seed = 7_u32;
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"<p>a page of the forebay, its text</p> "[(seed >> 24) as usize % 38]
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn each_coding_gives_back_the_page() {
    let page = page(80_000);
    let gzip_of_br = gzip(&br(&page));
    let zstd_of_deflate = zst(&zlib(&page));
    let cases: &[(&str, Vec<u8>)] = &[
        ("", page.clone()),
        ("identity", page.clone()),
        ("gzip", gzip(&page)),
        ("GZIP", gzip(&page)),
        ("x-gzip", gzip(&page)),
        ("deflate", zlib(&page)),
        ("deflate", raw(&page)),
        ("br", br(&page)),
        ("zstd", zst(&page)),
        ("br, gzip", gzip_of_br),
        ("identity, deflate , , zstd", zstd_of_deflate),
    ];
    for (coding, body) in cases {
        for (piece, budget) in [(usize::MAX, usize::MAX), (1, 65_536), (4096, 1000), (7, 1)] {
            if piece == 7 && body.len() > 60_000 {
                continue; // byte by byte is slow enough on the compressed ones
            }
            let decoded = decode(coding, body, MAX, piece, budget);
            assert!(decoded.as_ref() == Ok(&page), "{coding} {piece} {budget}");
        }
    }
}

#[test]
fn an_empty_body_needs_no_end_mark() {
    for coding in ["", "gzip", "deflate", "br", "zstd", "gzip, br"] {
        assert_eq!(decode(coding, b"", MAX, 1, 10), Ok(Vec::new()));
    }
}

#[test]
fn several_members_and_frames_are_one_body() {
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(decode("gzip", &two, MAX, 3, 100).unwrap(), b"one two");
    let padded = [gzip(b"one"), vec![0; 512]].concat();
    assert_eq!(decode("gzip", &padded, MAX, 3, 100).unwrap(), b"one");
    let frames = [zst(b"one "), zst(b"two")].concat();
    assert_eq!(decode("zstd", &frames, MAX, 3, 100).unwrap(), b"one two");
}

#[test]
fn a_cut_body_is_truncated_and_a_broken_one_corrupt() {
    let page = page(50_000);
    for (coding, body) in [
        ("gzip", gzip(&page)),
        ("deflate", zlib(&page)),
        ("deflate", raw(&page)),
        ("br", br(&page)),
        ("zstd", zst(&page)),
    ] {
        for cut in [1, 2, body.len() / 2, body.len() - 1] {
            let cut = decode(coding, &body[..cut], MAX, 100, 65_536);
            assert_eq!(cut, Err(DecodeError::Truncated(coding)));
        }
        let broken = decode(coding, b"<!doctype html><title>plain</title>", MAX, 100, 65_536);
        assert!(broken.is_err(), "{coding}");
    }
    let mut crc = gzip(&page);
    let at = crc.len() - 6;
    crc[at] ^= 1;
    assert_eq!(decode("gzip", &crc, MAX, 100, 65_536), Err(DecodeError::Corrupt("gzip")));
}

#[test]
fn bombs_are_stopped_by_the_ratio_and_by_the_size() {
    let zeros = vec![0_u8; 32 << 20];
    for (coding, body) in [
        ("gzip", gzip(&zeros)),
        ("deflate", raw(&zeros)),
        ("br", br(&zeros)),
        ("zstd", zst(&zeros)),
    ] {
        let ratio = decode(coding, &body, 64 << 20, 65_536, 65_536);
        assert_eq!(ratio, Err(DecodeError::Bomb), "{coding}");
        let size = decode(coding, &body, 100_000, 65_536, 65_536);
        assert_eq!(size, Err(DecodeError::TooLarge(100_000)), "{coding}");
    }
    // The bomb between two layers, which the inner one would never show.
    let nested = gzip(&gzip(&zeros));
    assert_eq!(decode("gzip, gzip", &nested, 64 << 20, 65_536, 65_536), Err(DecodeError::Bomb));
}

#[test]
fn the_size_cap_is_exact() {
    for coding in ["", "gzip", "br", "zstd"] {
        let page = page(5000);
        let body = match coding {
            "gzip" => gzip(&page),
            "br" => br(&page),
            "zstd" => zst(&page),
            _ => page.clone(),
        };
        assert_eq!(decode(coding, &body, 5000, 100, 70).unwrap(), page);
        assert_eq!(decode(coding, &body, 4999, 100, 70), Err(DecodeError::TooLarge(4999)));
    }
}

#[test]
fn encoded_bytes_that_decode_to_nothing_are_capped() {
    // An endless run of empty members, and of skippable frames (RFC 8878 §3.1.2).
    let empty = gzip(b"").repeat(10_000);
    assert_eq!(decode("gzip", &empty, 1000, 4096, 4096), Err(DecodeError::TooLarge(1000)));
    let skip = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat().repeat(10_000);
    assert_eq!(decode("zstd", &skip, 1000, 4096, 4096), Err(DecodeError::TooLarge(1000)));
}

#[test]
fn a_zstd_window_above_8_mib_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&page(100_000)).unwrap();
    let body = encoder.finish().unwrap();
    assert_eq!(decode("zstd", &body, MAX, 4096, 4096), Err(DecodeError::Corrupt("zstd")));
}

#[test]
fn unknown_and_stacked_codings_are_refused_by_name() {
    assert_eq!(decode("sdch", b"x", MAX, 1, 1), Err(DecodeError::Unknown("sdch".into())));
    assert_eq!(decode("gzip, gzip, gzip", b"x", MAX, 1, 1), Err(DecodeError::Stacked));
    let error = PageError::from(DecodeError::Bomb);
    assert_eq!((error.code, error.stage), (PageCode::DecodeFailed, Stage::Body));
    assert_eq!(PageError::from(DecodeError::TooLarge(1)).code, PageCode::BodyTooLarge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Where the pieces are cut changes nothing, neither for good bodies nor for damaged ones.
    #[test]
    fn pieces_do_not_matter(
        data in proptest::collection::vec(0_u8..4, 0..3000),
        which in 0_usize..5,
        damage in proptest::option::of((0_usize..3000, 1_u8..)),
        piece in 1_usize..200,
        budget in 1_usize..500,
    ) {
        let codings = ["gzip", "deflate", "deflate", "br", "zstd"];
        let mut body = [gzip, zlib, raw, br, zst][which](&data);
        if let Some((at, bits)) = damage {
            let at = at % body.len();
            body[at] ^= bits;
        }
        let whole = decode(codings[which], &body, MAX, usize::MAX, usize::MAX);
        let pieces = decode(codings[which], &body, MAX, piece, budget);
        if damage.is_none() {
            prop_assert_eq!(whole.as_ref(), Ok(&data));
        }
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            prop_assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn noise_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..2000),
        coding in "(gzip|deflate|br|zstd)(, ?(gzip|deflate|br|zstd))?",
        piece in 1_usize..300,
    ) {
        let _ = decode(&coding, &noise, 100_000, piece, 4096);
    }
}

#[test]
fn a_body_in_crumbs_costs_about_what_it_costs_in_one_piece() {
    let text: String = (0..20_000).map(|at| format!("{at} ")).collect();
    type Encode = fn(&[u8]) -> Vec<u8>;
    let codings: [(&str, Encode); 5] =
        [("gzip", gzip), ("deflate", zlib), ("deflate", raw), ("br", br), ("zstd", zst)];
    for (coding, encode) in codings {
        for (coding, body) in [
            (coding.to_owned(), encode(text.as_bytes())),
            (format!("gzip, {coding}"), encode(&gzip(text.as_bytes()))),
        ] {
            let cleared = |piece| {
                CLEARED.set(0);
                let out = decode(&coding, &body, 1 << 20, piece, 1 << 16).unwrap();
                assert_eq!(out, text.as_bytes(), "{coding}");
                CLEARED.get()
            };
            let (whole, crumbs) = (cleared(body.len()), cleared(1));
            let steps = if coding.contains(',') { 16 } else { 4 };
            assert!(whole < text.len() * steps, "{coding}: {whole}");
            assert!(crumbs < body.len() * 2048 + whole, "{coding}: {crumbs} for {}", body.len());
        }
    }
}
