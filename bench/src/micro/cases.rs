//! What is measured. A case returns what it made as one number; what it must be is found in a slow and
//! obvious way before.

use super::Run;
use crate::{Failure, pages};
use bytes::{Bytes, BytesMut};
use forebay::config::Config;
use forebay::crawl::request;
use forebay::error::{PageCode, PageError, Stage};
use forebay::extract::{self, Extractor, Input, Ticker};
use forebay::observe::hist::{Epoch, Recorder};
use forebay::observe::series::{Endpoint, Key, Measure};
use forebay::proto::chunked::{ChunkedDecoder, Strictness};
use forebay::proto::events::{self, Counts, Document, Event, PageResult};
use forebay::proto::h1::{AnswerBody, Connection, RequestDecoder, Timeouts};
use forebay::proto::ws;
use forebay::serve::transport::{Encoder, Transport};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use ulid::Ulid;
use uring::ring::{BufferConfig, Frame, Ring};
use uring::{Gather, arena, mailbox};

/// One benchmark.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Whether it can be counted under valgrind in reasonable time.
    pub(crate) countable: bool,
    /// The benchmark, and its checksum.
    pub(super) make: fn() -> Result<(Run, u64), Failure>,
}

const fn case(
    name: &'static str,
    what: &'static str,
    make: fn() -> Result<(Run, u64), Failure>,
) -> Case {
    Case { name, what, countable: true, make }
}

/// All of them.
pub(crate) const CASES: [Case; 15] = [
    case("h1-head", "parse a browser's request head of 13 fields", h1_head),
    case("h1-livez", "a keep-alive GET /livez: parse, answer's head, back to idle", h1_livez),
    case("chunked", "decode 64 KiB in chunks of 4 KiB", chunked),
    case("ws-message", "take a masked text message of 4 KiB", ws_message),
    case("ws-frame", "write the frame head of a message of 20 kB", ws_frame),
    case("event-result", "write a result event around its document", event_result),
    case("ndjson", "frame that event as a chunk with a line", ndjson),
    case("sse", "frame it as a chunk with a Server-Sent Event", sse),
    case("ring", "64 frames through a connection's backpressure ring", ring),
    case("mailbox", "64 letters through a mailbox, nobody asleep", mailbox_letters),
    case("arena", "64 buffers of four sizes out of the arena, filled, and back", arena_buffers),
    case("histogram", "record one time", histogram),
    case("crawl-request", "read and check a crawl of 10 URLs", crawl_request),
    case("guest-native", "extract a page of 20 kB, native", guest_native),
    Case {
        name: "guest-wasm",
        what: "extract it in a fresh sandbox",
        countable: false,
        make: guest_wasm,
    },
];

/// Bytes as a number: FNV-1a.
fn checksum(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const HEAD: &[u8] = b"GET /crawl/sse?url=http%3A%2F%2Fexample.com%2Fa HTTP/1.1\r\n\
    Host: forebay.example:8080\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0\r\n\
    Accept: text/event-stream\r\nsec-ch-ua-platform: \"Linux\"\r\nOrigin: http://forebay.example\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
    Referer: http://forebay.example/\r\nAccept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\r\n";

fn h1_head() -> Result<(Run, u64), Failure> {
    let fields = HEAD.split(|byte| *byte == b'\n').filter(|line| line.contains(&b':')).count();
    let expected = (HEAD.len() * 1000 + fields) as u64;
    let mut decoder = RequestDecoder::new();
    let run = move || {
        decoder.reset();
        let head = decoder.handle_bytes(HEAD).expect("a good head").expect("a whole head");
        let request = decoder.request(HEAD).expect("just read");
        (head * 1000 + request.fields().len()) as u64
    };
    Ok((Box::new(run), expected))
}

fn h1_livez() -> Result<(Run, u64), Failure> {
    const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const DATE: &[u8] = b"Thu, 15 Jan 2026 10:30:00 GMT";
    const FIELDS: [(&str, &[u8]); 1] = [("Content-Type", b"text/plain; charset=utf-8")];
    let second = Duration::from_secs(1);
    let timeouts =
        Timeouts { head: second, body: second, idle: second, write_stall: second, linger: second };
    let now = Instant::now();
    let mut connection = Connection::new(now, timeouts);
    let mut sink = Vec::with_capacity(1024);
    let mut exchange = move |sink: &mut Vec<u8>| {
        sink.clear();
        connection.handle_bytes(now, REQUEST).expect("a good request");
        let length = AnswerBody::Length(3);
        let answer = connection.start_answer(now, sink, 200, length, Some(DATE), &FIELDS);
        answer.expect("the answer's turn");
        connection.finish_answer(now).expect("the answer was started");
    };
    exchange(&mut sink);
    let mut told: Vec<&[u8]> = sink.split(|byte| *byte == b'\n').collect();
    told.sort_unstable();
    let mut expected: Vec<&[u8]> = vec![
        b"",
        b"\r",
        b"Content-Length: 3\r",
        b"Content-Type: text/plain; charset=utf-8\r",
        b"Date: Thu, 15 Jan 2026 10:30:00 GMT\r",
        b"HTTP/1.1 200 OK\r",
    ];
    expected.sort_unstable();
    if told != expected {
        let head = String::from_utf8_lossy(&sink);
        return Err(format!("h1-livez: an odd answer: {head}").into());
    }
    let length = sink.len() as u64;
    let run = move || {
        exchange(&mut sink);
        sink.len() as u64
    };
    Ok((Box::new(run), length))
}

fn chunked() -> Result<(Run, u64), Failure> {
    let data: Vec<u8> = (0..65_536_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut body = Vec::new();
    for chunk in data.chunks(4096) {
        body.extend_from_slice(b"1000\r\n");
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let run = move || {
        let mut decoder = ChunkedDecoder::new(Strictness::Strict, 1 << 20);
        let (mut at, mut bytes) = (0, 0);
        while !decoder.is_done() {
            let step = decoder.next(&body[at..]).expect("a good body");
            bytes += step.data.len();
            at += step.consumed;
        }
        bytes as u64
    };
    Ok((Box::new(run), data.len() as u64))
}

fn ws_message() -> Result<(Run, u64), Failure> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let text = "Water finds its level. ".repeat(200).into_bytes();
    let text = &text[..4096];
    // RFC 6455 §5.2 and §5.3, byte by byte.
    let mut frame = vec![0x81, 0xfe, 0x10, 0x00];
    frame.extend(MASK);
    frame.extend(text.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    let now = Instant::now();
    let mut session = ws::Session::new(now, ws::Config::default(), None);
    let mut input = vec![0; frame.len()];
    let expected = u64::from(text[4095]) + text.len() as u64 * 1000;
    let run = move || {
        // The session unmasks in place.
        input.copy_from_slice(&frame);
        let mut rest = &mut input[..];
        match session.handle_bytes(now, &mut rest) {
            Some(ws::Event::Text(payload)) => {
                payload.len() as u64 * 1000 + u64::from(payload[payload.len() - 1])
            }
            _ => 0,
        }
    };
    Ok((Box::new(run), expected))
}

fn ws_frame() -> Result<(Run, u64), Failure> {
    let mut session = ws::Session::new(Instant::now(), ws::Config::default(), None);
    let body = vec![b'x'; 20_000];
    // RFC 6455 §5.2: a final text frame, unmasked, with a length of 16 bits: 20,000 is 0x4e20.
    let expected = checksum(&[&[0x81, 126, 0x4e, 0x20]]);
    let run = move || {
        let parts: [&[u8]; 2] = [&body[..100], &body[100..]];
        let outgoing = session.send(ws::MessageKind::Text, &parts, &mut Vec::new());
        let outgoing = outgoing.expect("an open session");
        checksum(&[&outgoing.head])
    };
    Ok((Box::new(run), expected))
}

/// A page with a document of 20 kB, and its event.
fn page() -> (PageResult, Counts) {
    let json = format!("{{\"title\":\"A\",\"text\":\"{}\"}}", "x".repeat(20_000));
    let none = PageError::new(PageCode::Cancelled, Stage::Queue, "");
    let mut page = PageResult::failed("http://127.0.0.1:9000/page/1?size=20000".into(), none);
    page.final_url = Some(page.url.to_string());
    page.status = 200;
    page.document = Some(Document { json: json.into(), quality: Bytes::from_static(b"0.85") });
    page.error = None;
    page.cache_key = 0x9f2c;
    for (micros, stage) in Stage::ALL.into_iter().enumerate() {
        page.timings.add(stage, Duration::from_micros(micros as u64 * 111));
    }
    (page, Counts { total: 3, successful: 1, ..Counts::default() })
}

fn event() -> Event {
    let (page, counts) = page();
    events::result(&mut BytesMut::new(), 1, 0, &page, &counts)
}

fn event_result() -> Result<(Run, u64), Failure> {
    let event = event();
    let text = [&event.head[..], &event.body, &event.tail].concat();
    let read: serde_json::Value = serde_json::from_slice(&text)?;
    if read["result"]["document"]["text"].as_str().map(str::len) != Some(20_000)
        || read["result"]["timings_us"]["emit_wait"] != 999
        || read["result"]["cache_key"] != "00000000000000000000000000009f2c"
    {
        return Err("event-result: another event than was to be written".into());
    }
    let expected = checksum(&[&event.head, &event.tail]);
    let (page, counts) = page();
    let mut out = BytesMut::with_capacity(4096);
    let run = move || {
        let event = events::result(&mut out, 1, 0, &page, &counts);
        let sum = checksum(&[&event.head, &event.tail]);
        drop(event);
        out.reserve(4096);
        sum
    };
    Ok((Box::new(run), expected))
}

/// Frames an event again and again. All bytes of a first frame are compared with what they must be;
/// of the others, which are the same work again, the length.
fn framing(transport: Transport, before: &str, after: &str) -> Result<(Run, u64), Failure> {
    let event = event();
    let text =
        [before.as_bytes(), &event.head, &event.body, &event.tail, after.as_bytes()].concat();
    let expected = [format!("{:x}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat();
    let mut encoder = Encoder::new(transport, Ulid::from_parts(1, 2), true);
    let mut scratch = BytesMut::with_capacity(4096);
    let mut frames: VecDeque<Frame> = VecDeque::new();
    encoder.event(&mut scratch, &event, &mut frames);
    let mut ring = Ring::new(BufferConfig::default())?;
    for frame in frames.drain(..) {
        ring.push(frame).map_err(|refused| refused.to_string())?;
    }
    let (mut gather, mut bytes) = (Gather::new(), Vec::new());
    ring.poll_gather(&mut gather);
    gather.copy_to(&mut bytes);
    if bytes != expected {
        return Err("a framed event has other bytes than it should have".into());
    }
    let run = move || {
        encoder.event(&mut scratch, &event, &mut frames);
        let length = frames.iter().map(Frame::len).sum::<usize>();
        frames.clear();
        scratch.reserve(4096);
        length as u64
    };
    Ok((Box::new(run), expected.len() as u64))
}

fn ndjson() -> Result<(Run, u64), Failure> {
    framing(Transport::Ndjson, "", "\n")
}

fn sse() -> Result<(Run, u64), Failure> {
    let id = Ulid::from_parts(1, 2);
    framing(Transport::Sse, &format!("event: result\nid: {id}.1\ndata: "), "\n\n")
}

fn ring() -> Result<(Run, u64), Failure> {
    let mut ring = Ring::new(BufferConfig::default())?;
    let mut gather = Gather::new();
    let (body, now) = (Bytes::from(vec![b'x'; 1000]), Instant::now());
    let run = move || {
        for _ in 0..64 {
            let frame = Frame::new().with("head").with(body.clone()).with("tail");
            ring.push(frame).expect("a ring holds 64 frames");
        }
        let bytes = ring.poll_gather(&mut gather);
        gather.advance(bytes);
        ring.handle_sent(now, bytes, Duration::ZERO);
        if ring.is_empty() && gather.is_empty() { bytes as u64 } else { 0 }
    };
    Ok((Box::new(run), 64 * (4 + 1000 + 4)))
}

fn mailbox_letters() -> Result<(Run, u64), Failure> {
    let (sender, mut receiver) = mailbox::channel::<u64>(64);
    let run = move || {
        for letter in 0..64 {
            sender.try_send(letter).expect("64 letters fit");
        }
        std::iter::from_fn(|| receiver.try_recv()).sum()
    };
    Ok((Box::new(run), (0..64).sum()))
}

fn arena_buffers() -> Result<(Run, u64), Failure> {
    const SIZES: [usize; 4] = [400, 4000, 16_000, 60_000];
    let mut held = Vec::with_capacity(64);
    let run = move || {
        for n in 0..64 {
            let mut buffer = arena::alloc(SIZES[n % 4]);
            buffer.extend_from_slice(&[7; 100]);
            held.push(buffer);
        }
        held.drain(..).map(|buffer| buffer.len() as u64).sum()
    };
    Ok((Box::new(run), 6400))
}

fn histogram() -> Result<(Run, u64), Failure> {
    let mut recorder = Recorder::new(Epoch::now(), Instant::now());
    let key = Key::At(Endpoint::Livez, Measure::Ttfb);
    let mut time_us: u64 = 1;
    let run = move || {
        // Another bucket each time, as life has it.
        time_us = (time_us * 7919) % 100_003;
        recorder.record_micros(key, time_us);
        1
    };
    Ok((Box::new(run), 1))
}

fn crawl_request() -> Result<(Run, u64), Failure> {
    let urls: Vec<String> =
        (0..10).map(|n| format!("\"https://example.com/articles/2026/{n}?page=1\"")).collect();
    let body = format!(
        "{{\"urls\":[{}],\"options\":{{\"concurrency\":8,\"formats\":[\"text\"],\"order\":\"input\"}}}}",
        urls.join(",")
    );
    let config = Config::default();
    let run = move || {
        let mut bytes = body.clone().into_bytes();
        let request = request::parse_crawl(&mut bytes, &config).expect("a good request");
        (request.urls.len() * 1000) as u64 + u64::from(request.options.concurrency)
    };
    Ok((Box::new(run), 10_008))
}

const URL: &str = "https://example.com/a/b";

fn html() -> Result<String, Failure> {
    let pages = pages::generated(8);
    let page = pages.into_iter().find(|page| page.len() > 15_000);
    page.ok_or_else(|| "there is no page of that size".into())
}

fn guest_native() -> Result<(Run, u64), Failure> {
    let html = html()?;
    let extract = move || {
        let answer = forebay_extractor::extract(&html, URL, &forebay_extractor::Options::default());
        checksum(&[&answer])
    };
    let expected = {
        let answer =
            forebay_extractor::extract(&self::html()?, URL, &forebay_extractor::Options::default());
        let read: serde_json::Value = serde_json::from_slice(&answer)?;
        if read["document"]["word_count"].as_u64().is_none_or(|words| words < 100) {
            return Err("guest-native: the page's text was not found".into());
        }
        checksum(&[&answer])
    };
    Ok((Box::new(extract), expected))
}

/// The sandbox must answer what the same code answers natively.
fn guest_wasm() -> Result<(Run, u64), Failure> {
    let (_, expected) = guest_native()?;
    let html = html()?;
    let config = extract::ExtractConfig {
        cache_dir: extract::default_cache_dir(),
        ..extract::ExtractConfig::default()
    };
    let extractor = Extractor::load(&config)?;
    let ticker = Ticker::start(&extractor, Duration::from_millis(5))?;
    let mut worker = extractor.worker(uring::lane::thread_cpu_time);
    let options = extract::Options::default();
    let run = move || {
        let _ticking = &ticker;
        match worker.extract(&Input::new(html.as_bytes(), URL, &options)) {
            Ok(extracted) => checksum(&[&extracted.answer()]),
            Err(_) => 0,
        }
    };
    Ok((Box::new(run), expected))
}
