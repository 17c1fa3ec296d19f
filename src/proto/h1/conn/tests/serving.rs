//! A whole server in miniature around [`Connection`]: it echoes bodies. What it answers must not
//! depend on how the bytes came.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Instant;

use proptest::prelude::*;

use super::TIMEOUTS;
use crate::proto::h1::{
    Answer, AnswerBody, Connection, Event, Refusal, State, WantBodyError, write_chunk,
    write_last_chunk,
};

/// What goes out, and what a server keeps between reads.
struct Server {
    connection: Connection,
    now: Instant,
    wire: Vec<u8>,
    buf: Vec<u8>,
    path: String,
    body: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let now = Instant::now();
        let connection = Connection::new(now, TIMEOUTS);
        let (wire, buf, body) = (Vec::new(), Vec::new(), Vec::new());
        Self { connection, now, wire, buf, path: String::new(), body }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        while let Some(consumed) = self.turn() {
            self.buf.drain(..consumed);
        }
    }

    /// One event; gives what to drop from the buffer, or nothing when more is needed.
    fn turn(&mut self) -> Option<usize> {
        match self.connection.handle_bytes(self.now, &self.buf) {
            Ok(Event::Request { head_len }) => {
                let request = self.connection.request(&self.buf).unwrap();
                self.path = request.path().to_owned();
                self.body.clear();
                if self.path != "/unread" {
                    self.want_body();
                }
                self.answer_if_ready();
                Some(head_len)
            }
            Ok(Event::Body(step)) => {
                self.body.extend_from_slice(&self.buf[step.data.clone()]);
                self.answer_if_ready();
                Some(step.consumed)
            }
            Ok(Event::Drop { consumed }) => {
                (consumed > 0 || self.connection.state() == State::Idle).then_some(consumed)
            }
            Ok(Event::NeedMore | Event::Busy | Event::Closed) => None,
            Err(refusal) => {
                self.refuse(refusal);
                Some(0)
            }
        }
    }

    fn want_body(&mut self) {
        match self.connection.want_body(self.now, 20) {
            Ok(interim) => self.wire.extend_from_slice(interim.unwrap_or_default()),
            Err(WantBodyError::Refused(refusal)) => self.refuse(refusal),
            Err(WantBodyError::Illegal(illegal)) => panic!("{illegal}"),
        }
    }

    fn answer_if_ready(&mut self) {
        if self.connection.state() == State::Request {
            let body = if self.path == "/stream" {
                AnswerBody::Stream
            } else {
                AnswerBody::Length(self.body.len() as u64)
            };
            let answer = self.start(200, body);
            self.send(answer);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.body.clear();
        let answer = self.start(refusal.code().status(), AnswerBody::Length(0));
        self.send(answer);
    }

    fn start(&mut self, status: u16, body: AnswerBody) -> Answer {
        self.connection.start_answer(self.now, &mut self.wire, status, body, None, &[]).unwrap()
    }

    fn send(&mut self, answer: Answer) {
        if answer.head_only {
        } else if answer.is_chunked() {
            write_chunk(&mut self.wire, &self.body);
            write_last_chunk(&mut self.wire);
        } else {
            self.wire.extend_from_slice(&self.body);
        }
        self.connection.finish_answer(self.now).unwrap();
    }
}

/// What goes out when the input comes in pieces that end there.
fn serve(input: &[u8], ends: &[usize]) -> (String, State) {
    let mut server = Server::new();
    let mut at = 0;
    for &end in ends {
        server.read(&input[at..end]);
        at = end;
    }
    (String::from_utf8(server.wire).unwrap(), server.connection.state())
}

#[test]
fn a_conversation() {
    let input = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi\
        HEAD /b HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n\
        POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let expected = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
        HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n\
        HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(serve(input, &[input.len()]), (expected.to_owned(), State::Linger));
    let dripped: Vec<_> = (1..=input.len()).collect();
    assert_eq!(serve(input, &dripped), (expected.to_owned(), State::Linger));
}

proptest! {
    #[test]
    fn answers_do_not_depend_on_how_bytes_are_cut(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /stream HTTP/1.0\r\n\r\n",
            "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n", "\r\n", "5", "x", "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n",
        ]), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let input = pieces.concat().into_bytes();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        ends.push(input.len());
        ends.sort_unstable();
        prop_assert_eq!(serve(&input, &ends), serve(&input, &[input.len()]));
    }
}
