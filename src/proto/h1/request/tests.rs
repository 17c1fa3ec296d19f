#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::limits::REQUEST_TARGET_BYTES_MAX;

fn decode(input: &[u8]) -> Result<Option<usize>, Reject> {
    RequestDecoder::new().handle_bytes(input)
}

/// A request that is fine but for the line in its middle.
fn with_line(line: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// Every rejection, by raw bytes.
fn vectors() -> Vec<(Vec<u8>, Reject)> {
    let long = "a".repeat(REQUEST_TARGET_BYTES_MAX);
    let mut vectors: Vec<(Vec<u8>, Reject)> = vec![
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), Reject::TlsHello),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Reject::Http2Preface),
        (b"GET /\r\n".to_vec(), Reject::Http09),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n".to_vec(), Reject::EmptyLines),
        (b"\nGET / HTTP/1.1\r\n".to_vec(), Reject::BareLf),
        (b"\rGET / HTTP/1.1\r\n".to_vec(), Reject::BareCr),
        (b" GET / HTTP/1.1\r\n".to_vec(), Reject::RequestLineSpace),
        (b"\0".to_vec(), Reject::RequestLine),
        (b"\x80\x80".to_vec(), Reject::RequestLine),
        (b"{\"urls\":[]}".to_vec(), Reject::RequestLine),
        (format!("GET /{long} HTTP/1.1\r\n").into_bytes(), Reject::TargetTooLong),
        (format!("GET /{long}{long}").into_bytes(), Reject::TargetTooLong),
        (
            format!("GET /{}", "a".repeat(REQUEST_LINE_BYTES_MAX)).into_bytes(),
            Reject::TargetTooLong,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n".to_vec(), Reject::BareLf),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec(), Reject::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n".to_vec(), Reject::BareLf),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n".to_vec(), Reject::BareCr),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(), Reject::ObsFold),
        (b"GET / HTTP/1.1\r\nAccept: a\r\n\r\n".to_vec(), Reject::HostMissing),
        (b"GET http://a/ HTTP/1.1\r\n\r\n".to_vec(), Reject::HostMissing),
        (
            b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            Reject::TransferEncodingIn10,
        ),
        (with_line(&format!("X: {}", "a".repeat(REQUEST_HEAD_BYTES_MAX))), Reject::HeadTooLarge),
        (with_line(&"X: 1\r\n".repeat(REQUEST_FIELDS_MAX + 1)), Reject::TooManyFields),
    ];
    vectors.extend(
        request_lines()
            .map(|(line, reject)| (format!("{line}\r\nHost: a\r\n\r\n").into_bytes(), reject)),
    );
    vectors.extend(bad_lines().map(|(line, reject)| (with_line(line), reject)));
    vectors.extend(bad_hosts().map(|host| {
        (format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n").into_bytes(), Reject::BadHost)
    }));
    vectors
}

fn request_lines() -> impl Iterator<Item = (&'static str, Reject)> {
    [
        ("GET  / HTTP/1.1", Reject::RequestLineSpace),
        ("GET /  HTTP/1.1", Reject::RequestLineSpace),
        ("GET / HTTP/1.1 ", Reject::RequestLineSpace),
        ("GET\t/\tHTTP/1.1", Reject::RequestLineSpace),
        ("GET /a b HTTP/1.1", Reject::RequestLineSpace),
        ("GET / HTTP/1.1 x", Reject::RequestLineSpace),
        ("GET", Reject::RequestLine),
        ("GET / HTTP/1.1x", Reject::RequestLine),
        ("GET / HTTP/1", Reject::RequestLine),
        ("GET / HTTP/01.1", Reject::RequestLine),
        ("GET / http/1.1", Reject::RequestLine),
        ("GET / HTP/1.1", Reject::RequestLine),
        ("G(T / HTTP/1.1", Reject::RequestLine),
        ("GET / HTTP/0.9", Reject::Version),
        ("GET / HTTP/1.2", Reject::Version),
        ("GET / HTTP/2.0", Reject::Version),
        ("GET / HTTP/3.0", Reject::Version),
        ("get / HTTP/1.1", Reject::UnknownMethod),
        ("PROPFIND / HTTP/1.1", Reject::UnknownMethod),
        ("CONNECT a:443 HTTP/1.1", Reject::Connect),
        ("GET a HTTP/1.1", Reject::BadTarget),
        ("GET * HTTP/1.1", Reject::BadTarget),
        ("OPTIONS ** HTTP/1.1", Reject::BadTarget),
        ("GET a:443 HTTP/1.1", Reject::BadTarget),
        ("GET ftp://a/ HTTP/1.1", Reject::BadTarget),
        ("GET http:///x HTTP/1.1", Reject::BadTarget),
        ("GET http://u@a/ HTTP/1.1", Reject::BadTarget),
        ("GET http://a:99999/ HTTP/1.1", Reject::BadTarget),
        ("GET http://a\\b/ HTTP/1.1", Reject::BadTarget),
        ("GET /a\\b HTTP/1.1", Reject::BadTarget),
        ("GET /\u{e9} HTTP/1.1", Reject::BadTarget),
        ("GET /\0 HTTP/1.1", Reject::BadTarget),
        ("GET /\x7f HTTP/1.1", Reject::BadTarget),
        ("GET /<a> HTTP/1.1", Reject::BadTarget),
        ("GET /?\" HTTP/1.1", Reject::BadTarget),
        ("GET /a#b HTTP/1.1", Reject::TargetFragment),
        ("GET http://a/#b HTTP/1.1", Reject::TargetFragment),
    ]
    .into_iter()
}

fn bad_lines() -> impl Iterator<Item = (&'static str, Reject)> {
    [
        // Lengths
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Reject::LengthAndTransferEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", Reject::LengthAndTransferEncoding),
        ("Transfer-Encoding: \r\nContent-Length: 0", Reject::LengthAndTransferEncoding),
        ("Content-Length: 5\r\nContent-Length: 5", Reject::LengthDoubled),
        ("Content-Length: 5\r\ncontent-length: 6", Reject::LengthDoubled),
        ("Content-Length: 5, 5", Reject::LengthDoubled),
        ("Content-Length: 5,", Reject::LengthDoubled),
        ("Content-Length:", Reject::BadLength),
        ("Content-Length: +5", Reject::BadLength),
        ("Content-Length: -5", Reject::BadLength),
        ("Content-Length: 0x5", Reject::BadLength),
        ("Content-Length: 5 5", Reject::BadLength),
        ("Content-Length: 5.0", Reject::BadLength),
        ("Content-Length: 5_0", Reject::BadLength),
        ("Content-Length: 1e3", Reject::BadLength),
        ("Content-Length: \u{0665}", Reject::BadLength),
        ("Content-Length: 18446744073709551616", Reject::BadLength),
        ("Content-Length: 99999999999999999999999999", Reject::BadLength),
        // Transfer codings
        ("Transfer-Encoding:", Reject::BadTransferEncoding),
        ("Transfer-Encoding: identity", Reject::BadTransferEncoding),
        ("Transfer-Encoding: gzip", Reject::BadTransferEncoding),
        ("Transfer-Encoding: xchunked", Reject::BadTransferEncoding),
        ("Transfer-Encoding: \"chunked\"", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked;q=1", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked,", Reject::BadTransferEncoding),
        ("Transfer-Encoding: ,chunked", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked, chunked", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked, gzip", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked, identity", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Reject::BadTransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-encoding: x", Reject::BadTransferEncoding),
        ("Transfer-Encoding: gzip, chunked", Reject::UnknownTransferCoding),
        ("Transfer-Encoding: identity, chunked", Reject::UnknownTransferCoding),
        // Fields
        ("Transfer-Encoding : chunked", Reject::SpaceBeforeColon),
        ("Content-Length\t: 5", Reject::SpaceBeforeColon),
        ("X: a\r\n b", Reject::ObsFold),
        ("X: a\r\n\tb", Reject::ObsFold),
        ("X: a\r\n ", Reject::ObsFold),
        (": a", Reject::EmptyFieldName),
        ("a", Reject::BadFieldName),
        ("a b: c", Reject::BadFieldName),
        ("Transfer-Encoding\0: chunked", Reject::BadFieldName),
        ("Content_Length\u{a0}: 5", Reject::BadFieldName),
        ("a(b): c", Reject::BadFieldName),
        ("\u{b}Content-Length: 5", Reject::BadFieldName),
        ("X: a\0b", Reject::BadFieldValue),
        ("X: \0", Reject::BadFieldValue),
        ("X: a\x7f", Reject::BadFieldValue),
        ("X: a\x01", Reject::BadFieldValue),
        ("Transfer-Encoding: \x0bchunked", Reject::BadFieldValue),
        ("Transfer-Encoding: chunked\x0c", Reject::BadFieldValue),
        ("X: a\rb", Reject::BareCr),
        ("X: a\r\r", Reject::BareCr),
        // Host and expectation
        ("Host: a", Reject::HostDoubled),
        ("hOST: b", Reject::HostDoubled),
        ("Expect: 200-ok", Reject::Expectation),
        ("Expect: 100-continue, x", Reject::Expectation),
        ("Expect: 100-continue\r\nExpect: y", Reject::Expectation),
    ]
    .into_iter()
}

fn bad_hosts() -> impl Iterator<Item = &'static str> {
    ["", " ", " a b", " a,b", " a/b", " u@a", " a:x", " [::1", " a\u{e9}", " a:70000", " a?b"]
        .into_iter()
}

#[test]
fn every_rejection_has_its_vectors() {
    let vectors = vectors();
    for (input, reject) in &vectors {
        let text = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
        assert_eq!(decode(input), Err(*reject), "{text:?}");
    }
    for (reject, ..) in Reject::TABLE {
        assert!(vectors.iter().any(|(_, r)| *r == reject), "no vector for {reject:?}");
    }
}

#[test]
fn rejections_do_not_depend_on_how_bytes_are_cut() {
    for (input, reject) in vectors() {
        let mut decoder = RequestDecoder::new();
        let outcome = (0..=input.len()).find_map(|n| decoder.handle_bytes(&input[..n]).err());
        assert_eq!(outcome, Some(reject), "{:?}", String::from_utf8_lossy(&input));
        assert_eq!(decoder.handle_bytes(&input), Err(reject), "it stays rejected");
        assert!(decoder.request(&input).is_none());
    }
}

#[test]
fn accepted_requests_say_what_they_are() {
    let input = b"\r\nPOST /crawl/stream?x=1&y=?%20 HTTP/1.1\r\nHost: a.example:8080\r\n\
        Content-Length: 0012\r\nConnection: foo, Close\r\nX-Empty:\r\nExpect: 100-Continue\r\n\r\n{";
    let mut decoder = RequestDecoder::new();
    let len = decoder.handle_bytes(input).unwrap().unwrap();
    assert_eq!(len, input.len() - 1);
    let request = decoder.request(input).unwrap();
    assert_eq!(request.method(), Method::Post);
    assert_eq!(request.target_form(), TargetForm::Origin);
    assert_eq!(request.path(), "/crawl/stream");
    assert_eq!(request.query(), Some("x=1&y=?%20"));
    assert_eq!(request.host(), Some("a.example:8080"));
    assert_eq!(request.framing(), Framing::Length(12));
    assert_eq!(request.field("x-empty"), Some(b"".as_slice()));
    assert!(!request.keep_alive());
    assert!(request.expects_continue());
    assert_eq!(request.head_len(), len);
    assert_eq!(request.fields().len(), 5);
}

#[test]
fn target_forms() {
    let cases = [
        ("OPTIONS * HTTP/1.1", TargetForm::Asterisk, "*", None, "a"),
        ("GET http://b.example HTTP/1.1", TargetForm::Absolute, "/", None, "b.example"),
        ("GET http://b:1/x?y HTTP/1.1", TargetForm::Absolute, "/x", Some("y"), "b:1"),
        ("GET https://b?y HTTP/1.1", TargetForm::Absolute, "/", Some("y"), "b"),
        ("GET /? HTTP/1.1", TargetForm::Origin, "/", Some(""), "a"),
        ("GET //x/../y|z HTTP/1.1", TargetForm::Origin, "//x/../y|z", None, "a"),
    ];
    for (line, form, path, query, host) in cases {
        let input = format!("{line}\r\nHost: a\r\n\r\n");
        let mut decoder = RequestDecoder::new();
        assert_eq!(decoder.handle_bytes(input.as_bytes()), Ok(Some(input.len())), "{line}");
        let request = decoder.request(input.as_bytes()).unwrap();
        let found = (request.target_form(), request.path(), request.query(), request.host());
        assert_eq!(found, (form, path, query, Some(host)), "{line}");
    }
}

#[test]
fn keep_alive_follows_the_version() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, field, keep_alive) in cases {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
        let mut decoder = RequestDecoder::new();
        decoder.handle_bytes(input.as_bytes()).unwrap().unwrap();
        let request = decoder.request(input.as_bytes()).unwrap();
        assert_eq!(request.keep_alive(), keep_alive, "{version} {field}");
    }
}

#[test]
fn version_10_needs_no_host_and_has_no_expectations() {
    let input = b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: what\r\n\r\n";
    let mut decoder = RequestDecoder::new();
    decoder.handle_bytes(input).unwrap().unwrap();
    let request = decoder.request(input).unwrap();
    assert_eq!((request.host(), request.expects_continue()), (None, false));
    assert!(request.has_body());
}

#[test]
fn an_expectation_without_a_body_waits_for_nothing() {
    let input = with_line("Expect: 100-continue\r\nContent-Length: 0");
    let mut decoder = RequestDecoder::new();
    decoder.handle_bytes(&input).unwrap().unwrap();
    assert!(!decoder.request(&input).unwrap().expects_continue());
}

#[test]
fn upgrades_need_both_fields() {
    for (fields, wanted) in [
        ("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket", true),
        ("Connection: keep-alive\r\nUpgrade: websocket", false),
        ("Connection: upgrade\r\nUpgrade: h2c", false),
    ] {
        let input = with_line(fields);
        let mut decoder = RequestDecoder::new();
        decoder.handle_bytes(&input).unwrap().unwrap();
        assert_eq!(decoder.request(&input).unwrap().wants_upgrade("websocket"), wanted, "{fields}");
    }
}

#[test]
fn a_reset_decoder_takes_the_next_request_and_keeps_its_table() {
    let input = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut decoder = RequestDecoder::new();
    let len = decoder.handle_bytes(input).unwrap().unwrap();
    let capacity = decoder.spans.capacity();
    decoder.reset();
    let rest = &input[len..];
    assert_eq!(decoder.handle_bytes(rest), Ok(Some(rest.len())));
    assert_eq!(decoder.request(rest).unwrap().path(), "/2");
    assert_eq!(decoder.spans.capacity(), capacity);
}

#[test]
fn a_dripped_head_costs_linear_work() {
    let head = with_line(&format!("X: {}", "a".repeat(10_000)));
    let mut decoder = RequestDecoder::new();
    for n in 0..head.len() {
        assert_eq!(decoder.handle_bytes(&head[..n]), Ok(None));
    }
    assert_eq!(decoder.handle_bytes(&head), Ok(Some(head.len())));
    // Each byte once, and a carriage return at the end of the buffer once more.
    assert!(decoder.scanner.work_bytes <= head.len() + 16, "{}", decoder.scanner.work_bytes);
}

#[test]
fn a_head_of_the_full_size_is_taken() {
    let shell = with_line("X: ").len();
    let head = with_line(&format!("X: {}", "a".repeat(REQUEST_HEAD_BYTES_MAX - shell)));
    assert_eq!(head.len(), REQUEST_HEAD_BYTES_MAX);
    assert_eq!(decode(&head), Ok(Some(head.len())));
    let head = with_line(&format!("X: {}", "a".repeat(REQUEST_HEAD_BYTES_MAX - shell + 1)));
    assert_eq!(decode(&head), Err(Reject::HeadTooLarge));
}

#[test]
fn a_target_of_the_full_size_is_taken() {
    let target = "a".repeat(REQUEST_TARGET_BYTES_MAX - 1);
    let head = format!("OPTIONS /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(decode(head.as_bytes()), Ok(Some(head.len())));
    let head = format!("OPTIONS /{target}a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(decode(head.as_bytes()), Err(Reject::TargetTooLong));
}

fn piece() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r\n",
        "Host: a",
        "\r",
        "\n",
        " ",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        ":",
        "\0",
        "X: y",
        "Expect: 100-continue",
        "\t",
        "é",
        "\r\n\r\n",
        "Connection: close",
        "Host",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn cutting_anywhere_changes_nothing(
        pieces in prop::collection::vec(piece(), 0..12),
        good_start: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let start = if good_start { "GET / HTTP/1.1\r\nHost: a\r\n" } else { "" };
        let input = format!("{start}{}", pieces.concat()).into_bytes();
        let whole = decode(&input);
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        ends.push(input.len());
        ends.sort_unstable();
        let mut decoder = RequestDecoder::new();
        let mut outcome = Ok(None);
        for end in ends {
            outcome = decoder.handle_bytes(&input[..end]);
            if outcome != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(outcome, whole);
    }

    #[test]
    fn the_field_parser_and_its_twin_agree(lines in prop::collection::vec("[ -~\t\u{0}\u{7f}é:]{0,12}", 1..4)) {
        let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        let block = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>() + "\r\n";
        let parsed = parse_fields(block.as_bytes(), 0..block.len(), &mut Vec::new());
        prop_assert_eq!(parsed.is_err(), first_bad_line(block.as_bytes()).is_some(), "{:?}", block);
    }
}
