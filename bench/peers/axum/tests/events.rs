//! The peer's events hold what API §3 promises, on every transport: `loadtest` checks them as it
//! checks Forebay's. And a result has the same fields.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use forebay_loadtest::cli::run_from;
use forebay_loadtest::origin::{Origin, OriginConfig};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Peer {
    child: Child,
    addr: String,
}

impl Peer {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay-peer-axum"))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, addr }
    }

    fn post(&self, path: &str, content_type: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(&self.addr).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `loadtest run` with these flags; 0 when every request was answered and no rule was broken.
fn load(peer: &Peer, flags: &[&str]) -> u8 {
    let url = format!("http://{}", peer.addr);
    let common = ["loadtest", "run", "--check-full", "--closed", "4", "--url", &url];
    run_from(common.iter().chain(flags).map(OsString::from))
}

#[test]
fn every_transport_holds_the_invariants() {
    let peer = Peer::start();
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let fresh = format!("http://{}/page/{{{{n}}}}?size=3000&encoding=auto", origin.addr());
    let same = format!("http://{}/page/1?size=3000", origin.addr());
    let broken = format!("http://{}/error?rate=0.5&n={{{{n}}}}", origin.addr());
    let lost = format!("http://{}/reset?at=body&n={{{{n}}}}", origin.addr());
    for transport in ["ndjson", "sse", "ws"] {
        for crawl in [&fresh, &same, &broken, &lost] {
            let flags = ["-n", "12", "--urls", "7", "--transport", transport, "--crawl", crawl];
            let more = ["--option", "concurrency=3", "--option", "progress_ms=10"];
            assert_eq!(load(&peer, &[&flags[..], &more].concat()), 0, "{transport} {crawl}");
        }
        let ordered = ["-n", "4", "--urls", "9", "--transport", transport, "--crawl", &fresh];
        assert_eq!(load(&peer, &[&ordered[..], &["--option", "order=input"]].concat()), 0);
        let late = ["-n", "2", "--urls", "5", "--transport", transport];
        let slow = format!("http://{}/stall?at=head&n={{{{n}}}}", origin.addr());
        let deadline = ["--crawl", &slow, "--option", "deadline_ms=300"];
        assert_eq!(load(&peer, &[&late[..], &deadline].concat()), 0, "{transport} deadline");
    }
}

#[test]
fn a_result_has_the_fields_of_the_api() {
    let peer = Peer::start();
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let body = format!("{{\"urls\":[\"http://{}/page/3?size=2000\"]}}", origin.addr());
    let json = "application/json";
    peer.post("/crawl/stream", json, &body);
    let answer = peer.post("/crawl/stream", json, &body);
    let lines = answer.split("\r\n\r\n").nth(1).unwrap().lines();
    let events: Vec<serde_json::Value> =
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["metadata", "result", "summary"]);
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mut fields = "url final_url status from_cache cache gate_decision quality_score \
                      processing_time_ms timings_us bytes document error cache_key"
        .split_whitespace()
        .collect::<Vec<_>>();
    fields.sort_unstable();
    let mut told = keys(&events[1]["result"]);
    told.sort_unstable();
    assert_eq!(told, fields);
    assert_eq!(events[1]["result"]["from_cache"], true);
    assert_eq!(events[1]["result"]["gate_decision"], "cached");
    assert_eq!(keys(&events[1]["result"]["timings_us"]).len(), 10);
    assert_eq!(keys(&events[1]["result"]["document"]).len(), 11);
    assert_eq!(events[2]["from_cache"], 1);
}

#[test]
fn whole_answers_and_refusals() {
    let peer = Peer::start();
    let page = "<html><body><article><h1>T</h1><p>Some words of text.</p></article></body></html>";
    let answer = peer.post("/extract?url=http://a.example/", "text/html", page);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"document\":{\"title\""), "{answer}");
    for (body, code) in [
        ("{", "invalid_json"),
        ("{\"urls\":[]}", "validation_error"),
        ("{\"urls\":[\"x\"]}", "invalid_url"),
        ("{\"urls\":[\"http://a\"],\"y\":1}", "unknown_field"),
    ] {
        let answer = peer.post("/crawl/stream", "application/json", body);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(code), "{answer}");
    }
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let body = format!("{{\"urls\":[\"http://{}/page/3\"]}}", origin.addr());
    let answer = peer.post("/crawl", "application/json", &body);
    assert!(answer.contains("{\"metadata\":{") && answer.contains("],\"summary\":{"), "{answer}");
}
