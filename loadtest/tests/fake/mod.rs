//! A small blocking stand-in for the streaming API, written apart from the client it tests. It
//! keeps every stream in a list, answers resumes from it, and can break one rule.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The server; its threads end with the process.
pub(crate) struct Fake {
    /// Where it listens.
    pub(crate) url: String,
}

struct State {
    fault: &'static str,
    next: AtomicU64,
    streams: Mutex<HashMap<String, Vec<String>>>,
}

impl Fake {
    /// Starts it with one rule to break, or none.
    pub(crate) fn start(fault: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { fault, next: AtomicU64::new(1), streams: Mutex::default() });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&state, stream.unwrap()));
            }
        });
        Self { url }
    }
}

/// The events of a new stream.
fn events(state: &State, request: &str) -> (String, Vec<String>) {
    let id = format!("S{}", state.next.fetch_add(1, Ordering::Relaxed));
    let total = request.matches("http://o/").count();
    let mut lines = vec![format!(
        "{{\"type\":\"metadata\",\"seq\":0,\"stream_id\":\"{id}\",\"total_urls\":{total}}}"
    )];
    for index in 0..total {
        let index_sent = if state.fault == "index" && index == 2 { 0 } else { index };
        lines.push(format!(
            "{{\"type\":\"result\",\"seq\":{},\"index\":{index_sent},\"result\":{{\"text\":\"ü\\n\"}}}}",
            index + 1
        ));
    }
    lines.push(format!(
        "{{\"type\":\"summary\",\"seq\":{},\"successful\":{total},\"failed\":0,\"cancelled\":0}}",
        total + 1
    ));
    match state.fault {
        "lose" => {
            lines.remove(3);
        }
        "double" => lines.insert(3, lines[3].clone()),
        "cut" => {
            lines.pop();
        }
        _ => {}
    }
    state.streams.lock().unwrap().insert(id.clone(), lines.clone());
    (id, lines)
}

/// The events of a known stream behind a position.
fn replay(state: &State, id: &str, after: usize) -> Vec<String> {
    state.streams.lock().unwrap()[id][after + 1..].to_vec()
}

fn serve(state: &State, mut stream: TcpStream) {
    let mut bytes = Vec::new();
    while let Some((head, body)) = request(&mut stream, &mut bytes) {
        if head.starts_with("GET /crawl/ws") {
            return websocket(state, stream, bytes, &head);
        }
        let (id, lines) = if let Some(rest) = head.strip_prefix("GET /streams/") {
            let (id, rest) = rest.split_once("/events?after=").unwrap();
            let after = rest.split(' ').next().unwrap().parse().unwrap();
            (id.to_owned(), replay(state, id, after))
        } else {
            events(state, &body)
        };
        let sse = head.contains("text/event-stream");
        let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for line in lines {
            let seq = line.split("\"seq\":").nth(1).unwrap().split([',', '}']).next().unwrap();
            let text = if sse {
                format!("id: {id}.{seq}\nevent: x\ndata: {line}\n\n: beat\n\n")
            } else {
                format!("{line}\n{{\"type\":\"heartbeat\"}}\n")
            };
            // Nothing ephemeral may follow the last event.
            let text = if line.contains("summary") && !sse { format!("{line}\n") } else { text };
            out.extend_from_slice(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
        }
        out.extend_from_slice(b"0\r\n\r\n");
        for part in out.chunks(700) {
            if stream.write_all(part).is_err() {
                return;
            }
        }
    }
}

fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |value| value.parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
                bytes.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        let mut some = [0; 4096];
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&some[..read]),
        }
    }
}

fn websocket(state: &State, mut stream: TcpStream, mut bytes: Vec<u8>, head: &str) {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).unwrap();
    while let Some(op) = frame(&mut stream, &mut bytes) {
        let op: serde_json::Value = serde_json::from_str(&op).unwrap();
        let lines = if op["op"] == "resume" {
            let after = usize::try_from(op["after"].as_u64().unwrap()).unwrap();
            replay(state, op["stream_id"].as_str().unwrap(), after)
        } else {
            events(state, &op["data"].to_string()).1
        };
        for line in lines {
            let mut out = vec![0x89, 0, 0x81];
            match u8::try_from(line.len()) {
                Ok(len @ 0..=125) => out.push(len),
                _ => {
                    out.push(126);
                    out.extend_from_slice(&u16::try_from(line.len()).unwrap().to_be_bytes());
                }
            }
            out.extend_from_slice(line.as_bytes());
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }
}

/// The next masked text frame; pongs are passed over.
fn frame(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if bytes.len() >= 6 {
            assert!(bytes[1] & 0x80 != 0, "a client masks");
            let (len, start) = match bytes[1] & 0x7f {
                126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                len => (usize::from(len), 2),
            };
            if bytes.len() >= start + 4 + len {
                let mask = bytes[start..start + 4].to_vec();
                let payload: Vec<u8> = bytes[start + 4..start + 4 + len]
                    .iter()
                    .enumerate()
                    .map(|(i, byte)| byte ^ mask[i % 4])
                    .collect();
                let opcode = bytes[0] & 0x0f;
                bytes.drain(..start + 4 + len);
                if opcode == 1 {
                    return Some(String::from_utf8(payload).unwrap());
                }
                continue;
            }
        }
        let mut some = [0; 4096];
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&some[..read]),
        }
    }
}
