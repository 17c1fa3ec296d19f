#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

type Outcome = Result<Option<usize>, ResponseError>;

fn decode(input: &[u8]) -> (Outcome, ResponseDecoder, Vec<u8>) {
    let mut buf = input.to_vec();
    let mut decoder = ResponseDecoder::new(false);
    let outcome = decoder.handle_bytes(&mut buf);
    (outcome, decoder, buf)
}

fn with_fields(fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes()
}

fn refusals() -> Vec<(Vec<u8>, ResponseError)> {
    let long = "a".repeat(RESPONSE_HEAD_BYTES_MAX);
    let mut cases: Vec<(Vec<u8>, ResponseError)> = vec![
        (b"SSH-2.0-OpenSSH".to_vec(), ResponseError::NotHttp),
        (b"<html>".to_vec(), ResponseError::NotHttp),
        (b"ICY 200 OK\r\n\r\n".to_vec(), ResponseError::NotHttp),
        (b"HTTP/2 200\r\n\r\n".to_vec(), ResponseError::NotHttp),
        (b"HTTP/2.0 200 OK\r\n\r\n".to_vec(), ResponseError::NotHttp),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n".to_vec(), ResponseError::NotHttp),
        (b"\x15\x03\x01".to_vec(), ResponseError::NotHttp),
        (b"HTTP/1.2 200 OK\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (b"HTTP/1.1 20 OK\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (b"HTTP/1.1 abc OK\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (b"HTTP/1.1 099 OK\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (b"HTTP/1.1  200 OK\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (b"HTTP/1.1 200 \0\r\n\r\n".to_vec(), ResponseError::StatusLine),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n".to_vec(),
            ResponseError::SwitchingProtocols,
        ),
        (
            b"HTTP/1.1 103 Early\r\n\r\n".repeat(INTERIM_RESPONSES_MAX + 1),
            ResponseError::TooManyInterim,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nx".to_vec(), ResponseError::NotHttp),
        (with_fields(&format!("X: {long}\r\n")), ResponseError::HeadTooLarge),
        (format!("HTTP/1.1 200 {long}").into_bytes(), ResponseError::HeadTooLarge),
        (with_fields(&"X: 1\r\n".repeat(RESPONSE_FIELDS_MAX + 1)), ResponseError::TooManyFields),
    ];
    let fields = [
        (" X: folded\r\n", ResponseError::Field),
        ("X\r\n", ResponseError::Field),
        (": x\r\n", ResponseError::Field),
        ("a b: x\r\n", ResponseError::Field),
        ("X: \0\r\n", ResponseError::Field),
        ("Transfer-Encoding\0: chunked\r\n", ResponseError::Field),
        ("X: a\rb\r\n", ResponseError::BareCr),
        ("X: a\r\r\n", ResponseError::BareCr),
        ("Content-Length: x\r\n", ResponseError::BadLength),
        ("Content-Length:\r\n", ResponseError::BadLength),
        ("Content-Length: -1\r\n", ResponseError::BadLength),
        ("Content-Length: +1\r\n", ResponseError::BadLength),
        ("Content-Length: 1,\r\n", ResponseError::BadLength),
        ("Content-Length: 5 6\r\n", ResponseError::BadLength),
        ("Content-Length: 1\r\n 2\r\n", ResponseError::BadLength),
        ("Content-Length: 18446744073709551616\r\n", ResponseError::BadLength),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", ResponseError::LengthsDiffer),
        ("Content-Length: 5, 6\r\n", ResponseError::LengthsDiffer),
        ("Transfer-Encoding:\r\n", ResponseError::TransferCoding),
        ("Transfer-Encoding: gzip\r\n", ResponseError::TransferCoding),
        ("Transfer-Encoding: identity\r\n", ResponseError::TransferCoding),
        ("Transfer-Encoding: gzip, chunked\r\n", ResponseError::TransferCoding),
        ("Transfer-Encoding: chunked, gzip\r\n", ResponseError::TransferCoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ResponseError::TransferCoding,
        ),
        ("Transfer-Encoding: xchunked\r\n", ResponseError::TransferCoding),
    ];
    cases.extend(fields.into_iter().map(|(fields, error)| (with_fields(fields), error)));
    cases
}

#[test]
fn refusals_say_why_however_bytes_are_cut() {
    for (input, error) in refusals() {
        let text = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
        assert_eq!(decode(&input).0, Err(error), "{text:?}");
        let mut buf = input.clone();
        let mut decoder = ResponseDecoder::new(false);
        let dripped = (0..=buf.len()).find_map(|n| decoder.handle_bytes(&mut buf[..n]).err());
        assert_eq!(dripped, Some(error), "{text:?} dripped");
        assert!(decoder.response(&buf).is_none());
        assert_eq!(decoder.handle_eof(buf.len()), error);
    }
}

#[test]
fn framing_follows_the_rules() {
    let length = |n| Framing::Length(n);
    let cases: [(&[u8], Framing, bool); 20] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", length(5), true),
        (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", length(5), true),
        (b"HTTP/1.1 200 \r\nContent-Length: 005\r\n\r\n", length(5), true),
        (b"HTTP/1.1 999 No\xe9\r\nContent-Length: 0\r\n\r\n", length(0), true),
        (b"HTTP/1.1 200 OK\r\n\r\n", Framing::Close, false),
        (b"HTTP/1.1 204 OK\r\n\r\n", Framing::None, true),
        (b"HTTP/1.1 304 OK\r\nContent-Length: 99\r\n\r\n", Framing::None, true),
        (b"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::None, true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, true),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", length(1), false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", length(1), false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", length(1), true),
        // Taken without doubt about the meaning, and then not used again.
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\n", length(5), false),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", length(5), false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n b\r\n\r\n", length(5), false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", length(5), false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", length(5), false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked, false),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked, false),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            length(5), true),
    ];
    for (input, framing, keep_alive) in cases {
        let text = String::from_utf8_lossy(input);
        let body = [input, b"rest"].concat();
        let (outcome, decoder, buf) = decode(&body);
        assert_eq!(outcome, Ok(Some(input.len())), "{text:?}");
        let response = decoder.response(&buf).unwrap();
        assert_eq!((response.framing(), response.keep_alive()), (framing, keep_alive), "{text:?}");
    }
}

#[test]
fn an_answer_to_head_has_no_body() {
    let mut buf = with_fields("Content-Length: 5\r\n");
    let mut decoder = ResponseDecoder::new(true);
    decoder.handle_bytes(&mut buf).unwrap().unwrap();
    let response = decoder.response(&buf).unwrap();
    assert_eq!((response.framing(), response.keep_alive()), (Framing::None, true));
    decoder.reset(false);
    decoder.handle_bytes(&mut buf).unwrap().unwrap();
    assert_eq!(decoder.response(&buf).unwrap().framing(), Framing::Length(5));
}

#[test]
fn folded_values_become_one_line() {
    let input = with_fields("X: a\r\n \tb\r\n  c\r\nY: z\r\n");
    let (outcome, decoder, buf) = decode(&input);
    assert_eq!(outcome, Ok(Some(input.len())));
    let response = decoder.response(&buf).unwrap();
    let value: Vec<_> = response.field("x").unwrap().split(u8::is_ascii_whitespace).collect();
    let words: Vec<_> = value.into_iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(words, [b"a", b"b", b"c"]);
    assert_eq!(response.field("y"), Some(b"z".as_slice()));
}

#[test]
fn the_end_of_the_connection_is_told_apart() {
    let (_, decoder, _) = decode(b"HTTP/1.1 200 OK\r\n");
    assert_eq!(decoder.handle_eof(17), ResponseError::ClosedInHead);
    assert_eq!(ResponseDecoder::new(false).handle_eof(0), ResponseError::ClosedSilently);
}

#[test]
fn a_dripped_head_costs_linear_work() {
    let mut head = with_fields(&format!("X: {}\r\nY: a\r\n b\r\n", "a".repeat(20_000)));
    let mut decoder = ResponseDecoder::new(false);
    for n in 0..head.len() {
        assert_eq!(decoder.handle_bytes(&mut head[..n]), Ok(None));
    }
    assert!(decoder.handle_bytes(&mut head).unwrap().is_some());
    assert!(decoder.scanner.work_bytes <= head.len() + 16, "{}", decoder.scanner.work_bytes);
}

proptest! {
    #[test]
    fn cutting_anywhere_changes_nothing(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "HTTP/1.1 200 OK", "HTTP/1.0 404", "HTTP/1.1 100 Continue\r\n\r\n", "\r\n", "\r\n",
            "\r\n", "\n", "\r", " ", "\t", "Content-Length: 5", "Transfer-Encoding: chunked", "X: y",
            ":", "\0", "X :y", "\r\n ", "\r\n\r\n", "Connection: close",
        ]), 0..12),
        good_start: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let start = if good_start { "HTTP/1.1 200 OK\r\n" } else { "" };
        let input = format!("{start}{}", pieces.concat()).into_bytes();
        let (whole, whole_decoder, whole_buf) = decode(&input);
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        ends.push(input.len());
        ends.sort_unstable();
        let mut buf = input.clone();
        let mut decoder = ResponseDecoder::new(false);
        let mut outcome = Ok(None);
        for end in ends {
            outcome = decoder.handle_bytes(&mut buf[..end]);
            if outcome != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(outcome, whole);
        let fields = |d: &ResponseDecoder, b: &[u8]| d.response(b).map(|r| {
            let fields: Vec<_> = r.fields().iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            (r.status(), r.framing(), r.keep_alive(), fields)
        });
        prop_assert_eq!(fields(&decoder, &buf), fields(&whole_decoder, &whole_buf));
    }
}
