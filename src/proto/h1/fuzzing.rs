//! Entry functions for fuzzing: they take any bytes and panic if an invariant does not hold.
//!
//! A fuzz target calls them, and so does a test here, with a seeded corpus of mutated good input.

use super::fields::Fields;
use super::{
    BodyReader, Framing, RequestDecoder, ResponseDecoder, TargetForm, Version, is_token_byte,
    is_value_byte,
};
use crate::proto::chunked::{ChunkError, ChunkedDecoder, Strictness};

/// Any bytes as a server's input: heads one after another, each with its body.
pub fn fuzz_request(data: &[u8]) {
    let mut rest = data;
    let mut decoder = RequestDecoder::new();
    loop {
        decoder.reset();
        let whole = decoder.handle_bytes(rest);
        let mut dripped_decoder = RequestDecoder::new();
        let dripped = cuts(rest).map(|end| dripped_decoder.handle_bytes(&rest[..end]));
        let dripped = { dripped }.find(|outcome| *outcome != Ok(None)).unwrap_or(Ok(None));
        assert_eq!(dripped, whole, "a head's meaning depends on how it was cut");
        let Ok(Some(head_len)) = whole else { return };
        let request = decoder.request(rest).expect("a complete head has a request");
        check_fields(request.fields());
        assert!(request.path().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
        assert!(request.path().starts_with('/') || request.target_form() == TargetForm::Asterisk);
        assert!(request.version() == Version::Http10 || request.host().is_some());
        let has = |name| request.fields().get(name).is_some();
        let expected = match request.framing() {
            Framing::None => (false, false),
            Framing::Length(_) => (true, false),
            Framing::Chunked => (false, true),
            Framing::Close => unreachable!("no request ends with its connection"),
        };
        assert_eq!((has("content-length"), has("transfer-encoding")), expected);
        rest = &rest[head_len..];
        let Some(body_len) = read_body(request.framing(), Strictness::Strict, rest) else { return };
        rest = &rest[body_len..];
    }
}

/// Any bytes as an origin's answer to `GET` and to `HEAD`.
pub fn fuzz_response(data: &[u8]) {
    for to_head in [false, true] {
        let mut buf = data.to_vec();
        let mut decoder = ResponseDecoder::new(to_head);
        let whole = decoder.handle_bytes(&mut buf);
        let mut dripped_buf = data.to_vec();
        let mut dripped_decoder = ResponseDecoder::new(to_head);
        let mut dripped = Ok(None);
        for end in cuts(data) {
            dripped = dripped_decoder.handle_bytes(&mut dripped_buf[..end]);
            if dripped != Ok(None) {
                break;
            }
        }
        assert_eq!(dripped, whole, "a head's meaning depends on how it was cut");
        let Ok(Some(head_len)) = whole else { continue };
        assert_eq!(buf[head_len..], data[head_len..], "only the head is unfolded");
        let response = decoder.response(&buf).expect("a complete head has a response");
        check_fields(response.fields());
        assert!((200..=999).contains(&response.status()));
        assert!(!to_head || response.framing() == Framing::None);
        assert!(!response.keep_alive() || response.framing() != Framing::Close);
        let body = &data[head_len..];
        let body_len = read_body(response.framing(), Strictness::Lenient, body);
        assert!(body_len.is_none_or(|len| len <= body.len()));
    }
}

/// Any bytes as a chunked body.
pub fn fuzz_chunked(data: &[u8]) {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let whole = read_chunked(strictness, data, std::iter::once(data.len()));
        let dripped = read_chunked(strictness, data, cuts(data));
        assert_eq!(dripped, whole, "a body's meaning depends on how it was cut");
        let Ok((body, used, true)) = whole else { continue };
        // What was read can be written, and read again.
        let mut wire = Vec::new();
        super::write_chunk(&mut wire, &body);
        super::write_last_chunk(&mut wire);
        let again = read_chunked(Strictness::Strict, &wire, std::iter::once(wire.len()));
        assert!(used <= data.len());
        assert_eq!(again, Ok((body, wire.len(), true)));
    }
}

type ChunkedOutcome = Result<(Vec<u8>, usize, bool), ChunkError>;

fn read_chunked(
    strictness: Strictness,
    data: &[u8],
    ends: impl IntoIterator<Item = usize>,
) -> ChunkedOutcome {
    let mut decoder = ChunkedDecoder::new(strictness, 1 << 20);
    let (mut body, mut at) = (Vec::new(), 0);
    for end in ends {
        loop {
            let step = decoder.next(&data[at..end])?;
            assert!(step.data.start <= step.data.end && step.data.end <= step.consumed);
            body.extend_from_slice(&data[at..end][step.data.clone()]);
            at += step.consumed;
            if step.done {
                return Ok((body, at, true));
            }
            if step.consumed == 0 {
                break;
            }
        }
        assert_eq!(at, end, "a decoder that wants more has taken everything");
    }
    Ok((body, at, false))
}

/// Reads a body to its end; gives its length on the wire, if it ends.
fn read_body(framing: Framing, strictness: Strictness, data: &[u8]) -> Option<usize> {
    let mut reader = BodyReader::new(framing, strictness, 1 << 20).ok()?;
    let mut at = 0;
    loop {
        let step = reader.next(&data[at..]).ok()?;
        assert!(step.data.end <= step.consumed && step.consumed <= data.len() - at);
        at += step.consumed;
        if step.done {
            assert!(reader.is_done() && reader.is_complete_on_eof());
            return Some(at);
        }
        if step.consumed == 0 {
            assert_eq!(reader.is_complete_on_eof(), framing == Framing::Close);
            return None;
        }
    }
}

fn check_fields(fields: Fields<'_>) {
    for (name, value) in fields.iter() {
        assert!(!name.is_empty() && name.iter().all(|&byte| is_token_byte(byte)));
        assert!(value.iter().all(|&byte| is_value_byte(byte)));
        assert!(!matches!(value.first(), Some(b' ' | b'\t')));
        assert!(!matches!(value.last(), Some(b' ' | b'\t')));
    }
}

/// Where to cut: everywhere in short input, else at places that the input itself decides.
fn cuts(data: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
    let len = data.len();
    let (mut at, mut state) = (0, len);
    std::iter::from_fn(move || {
        if at >= len {
            return None;
        }
        state = state.wrapping_mul(31).wrapping_add(usize::from(data[at]));
        at = (at + if len <= 64 { 1 } else { 1 + state % 97 }).min(len);
        Some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2?x=y HTTP/1.1\r\nHost: b:80\r\nAccept: */*\r\n\r\n",
        b"POST /crawl HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n{\"urls\":[]}GET / HTTP/1.0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        b"\r\nGET http://a.example/?q HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nX:\r\n\r\n",
    ];
    const RESPONSES: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 404 Not Found\nServer: x\n folded\nX : y\n\nbody to the end",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7, 7\r\nETag: \"x\"\r\n\r\n",
    ];
    const CHUNKED: [&[u8]; 3] = [
        b"5\r\nhello\r\n6;ext=\"q\"\r\n world\r\n0\r\n\r\n",
        b"a\r\n0123456789\r\n000\r\nTrailer: x\r\nT:\r\n\r\nrest",
        b"1 ;x\r\na\r\nFFFFFFFF\r\n",
    ];
    const SPLICES: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"Content-Length: 1\r\n",
        b"0",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b",",
        b"\xff",
    ];

    /// splitmix64: a seed gives the same corpus for ever.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((z ^ (z >> 31)) % (bound.max(1) as u64)).unwrap_or(0)
        }

        fn byte(&mut self) -> u8 {
            u8::try_from(self.below(256)).unwrap_or(0)
        }
    }

    fn mutate(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
        let mut data = seed.to_vec();
        for _ in 0..rng.below(4) {
            let (at, byte) = (rng.below(data.len() + 1), rng.byte());
            match rng.below(5) {
                0 if at < data.len() => data[at] = byte,
                1 if at < data.len() => drop(data.remove(at)),
                2 => {
                    let splice = SPLICES[rng.below(SPLICES.len())];
                    data.splice(at..at, splice.iter().copied());
                }
                3 => data.truncate(at),
                _ => {
                    let copied = data[at..(at + rng.below(40)).min(data.len())].to_vec();
                    let to = rng.below(data.len() + 1);
                    data.splice(to..to, copied);
                }
            }
        }
        data
    }

    fn run(seeds: &[&[u8]], fuzz: fn(&[u8])) {
        let mut rng = Rng(0x0f0e_ba1d);
        for seed in seeds {
            fuzz(seed);
            for _ in 0..1500 {
                fuzz(&mutate(&mut rng, seed));
            }
        }
        for _ in 0..500 {
            let noise: Vec<_> = (0..rng.below(200)).map(|_| rng.byte()).collect();
            fuzz(&noise);
        }
    }

    #[test]
    fn requests_keep_the_invariants() {
        run(&REQUESTS, fuzz_request);
    }

    #[test]
    fn responses_keep_the_invariants() {
        run(&RESPONSES, fuzz_response);
    }

    #[test]
    fn chunked_bodies_keep_the_invariants() {
        run(&CHUNKED, fuzz_chunked);
    }
}
