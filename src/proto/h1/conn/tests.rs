#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::BODY_BYTES_PER_S_MIN;
use crate::proto::chunked::Step;
use crate::proto::h1::BadField;

const TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(10),
    body: Duration::from_secs(20),
    idle: Duration::from_secs(60),
    write_stall: Duration::from_secs(30),
    linger: Duration::from_secs(2),
};
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";

/// Every way from one state to another.
const TRANSITIONS: [(State, State); 22] = [
    (State::Idle, State::Head),
    (State::Idle, State::Request),
    (State::Idle, State::Closed),
    (State::Head, State::Request),
    (State::Head, State::Answer),
    (State::Head, State::Closed),
    (State::Request, State::Body),
    (State::Request, State::Answer),
    (State::Request, State::Upgraded),
    (State::Request, State::Closed),
    (State::Body, State::Request),
    (State::Body, State::Answer),
    (State::Body, State::Closed),
    (State::Answer, State::Idle),
    (State::Answer, State::Drain),
    (State::Answer, State::Linger),
    (State::Answer, State::Closed),
    (State::Drain, State::Idle),
    (State::Drain, State::Linger),
    (State::Drain, State::Closed),
    (State::Linger, State::Closed),
    (State::Upgraded, State::Closed),
];

fn connection() -> (Connection, Instant) {
    let now = Instant::now();
    (Connection::new(now, TIMEOUTS), now)
}

/// A connection that was given the head of one request.
fn with_request(head: &[u8]) -> (Connection, Instant) {
    let (mut connection, now) = connection();
    let event = connection.handle_bytes(now, head).unwrap();
    assert_eq!(event, Event::Request { head_len: head.len() });
    (connection, now)
}

fn answer(connection: &mut Connection, now: Instant, body: AnswerBody) -> (Answer, String) {
    let mut wire = Vec::new();
    let answer = connection.start_answer(now, &mut wire, 200, body, None, &[]).unwrap();
    (answer, String::from_utf8(wire).unwrap())
}

/// Answers 204 and gives the state that follows.
fn answered(connection: &mut Connection, now: Instant) -> State {
    answer(connection, now, AnswerBody::None);
    connection.finish_answer(now).unwrap()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (mut connection, now) = connection();
    let input = [GET, b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", GET].concat();
    let mut rest = input.as_slice();
    let mut paths = Vec::new();
    while connection.state() == State::Idle {
        let Event::Request { head_len } = connection.handle_bytes(now, rest).unwrap() else {
            panic!("the buffer holds whole requests");
        };
        paths.push(connection.request(rest).unwrap().path().to_owned());
        rest = &rest[head_len..];
        assert_eq!(connection.handle_bytes(now, rest), Ok(Event::Busy));
        answered(&mut connection, now);
    }
    assert_eq!(paths, ["/", "/2"], "nothing is served behind a close");
    assert_eq!(connection.state(), State::Linger);
}

#[test]
fn a_body_is_read_when_it_is_wanted() {
    let (mut connection, now) = with_request(POST);
    assert_eq!(connection.want_body(now, 5), Ok(None));
    assert_eq!(connection.handle_bytes(now, b""), Ok(Event::NeedMore));
    let step = Step { consumed: 2, data: 0..2, done: false };
    assert_eq!(connection.handle_bytes(now, b"ab"), Ok(Event::Body(step)));
    let step = Step { consumed: 3, data: 0..3, done: true };
    assert_eq!(connection.handle_bytes(now, b"cdeGET"), Ok(Event::Body(step)));
    assert_eq!(connection.state(), State::Request);
    assert_eq!(connection.want_body(now, 5), Ok(None), "there is no second body");
    assert_eq!(answered(&mut connection, now), State::Idle);
}

#[test]
fn the_interim_answer_is_given_only_when_the_body_is_wanted() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let (mut connection, now) = with_request(head);
    assert_eq!(connection.want_body(now, 5), Ok(Some(CONTINUE)));
    let (mut connection, now) = with_request(head);
    let (_, wire) = answer(&mut connection, now, AnswerBody::Length(0));
    assert!(wire.contains("Connection: close\r\n"), "the body may come or not: {wire}");
    assert_eq!(connection.finish_answer(now), Ok(State::Linger));
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let (mut connection, now) = with_request(POST);
    let refusal = Refusal::Body(BodyError::TooLarge { bytes_max: 4 });
    assert_eq!(connection.want_body(now, 4), Err(WantBodyError::Refused(refusal)));
    assert_eq!(refusal.code().status(), 413);
    assert_eq!(answered(&mut connection, now), State::Linger);
}

#[test]
fn a_small_unread_body_is_drained_and_the_connection_kept() {
    let (mut connection, now) = with_request(POST);
    assert_eq!(answered(&mut connection, now), State::Drain);
    assert_eq!(connection.handle_bytes(now, b"ab"), Ok(Event::Drop { consumed: 2 }));
    assert_eq!(connection.state(), State::Drain);
    assert_eq!(connection.handle_bytes(now, b"cdeGET"), Ok(Event::Drop { consumed: 3 }));
    assert_eq!(connection.state(), State::Idle);

    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut connection, now) = with_request(chunked);
    assert_eq!(answered(&mut connection, now), State::Drain);
    assert_eq!(
        connection.handle_bytes(now, b"1\r\na\r\n0\r\n\r\nGET"),
        Ok(Event::Drop { consumed: 11 })
    );
    assert_eq!(connection.state(), State::Idle);
}

#[test]
fn a_large_or_broken_unread_body_ends_the_connection() {
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", DRAIN_BYTES_MAX + 1);
    let (mut connection, now) = with_request(head.as_bytes());
    let (answer, _) = answer(&mut connection, now, AnswerBody::Length(0));
    assert!(!answer.keep_alive);
    assert_eq!(connection.finish_answer(now), Ok(State::Linger));

    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut connection, now) = with_request(chunked);
    assert_eq!(answered(&mut connection, now), State::Drain);
    assert_eq!(connection.handle_bytes(now, b"x"), Ok(Event::Drop { consumed: 0 }));
    assert_eq!(connection.state(), State::Linger);

    let (mut connection, now) = with_request(chunked);
    answered(&mut connection, now);
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
    let chunks = usize::try_from(DRAIN_BYTES_MAX).unwrap() / 0x1000 + 2;
    for _ in 0..chunks {
        connection.handle_bytes(now, &chunk).unwrap();
    }
    assert_eq!(connection.state(), State::Linger, "an endless body is not read for ever");

    let (mut connection, now) = with_request(chunked);
    connection.want_body(now, u64::MAX).unwrap();
    assert_eq!(answered(&mut connection, now), State::Drain, "an early answer");
    for _ in 0..chunks {
        connection.handle_bytes(now, &chunk).unwrap();
    }
    assert_eq!(connection.state(), State::Linger, "whatever the route would have taken");
}

#[test]
fn a_refused_head_is_answered_and_the_connection_closed() {
    let (mut connection, now) = connection();
    let refusal = connection.handle_bytes(now, b"GET / HTTP/9.9\r\n").unwrap_err();
    assert_eq!((refusal, refusal.code().status()), (Refusal::Head(Reject::Version), 505));
    let (answer, wire) = answer(&mut connection, now, AnswerBody::Length(0));
    assert!(!answer.keep_alive && wire.contains("Connection: close\r\n"));
    assert_eq!(connection.finish_answer(now), Ok(State::Linger));
    assert_eq!(connection.handle_bytes(now, b"junk"), Ok(Event::Drop { consumed: 4 }));
    connection.handle_eof(now).unwrap();
    assert_eq!(connection.handle_bytes(now, b""), Ok(Event::Closed));
}

#[test]
fn a_broken_body_is_answered_and_the_connection_closed() {
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut connection, now) = with_request(chunked);
    connection.want_body(now, 100).unwrap();
    let refusal = connection.handle_bytes(now, b"x\r\n").unwrap_err();
    assert_eq!(refusal.code().status(), 400);
    assert_eq!(answered(&mut connection, now), State::Linger);
}

#[test]
fn half_closed_clients_are_answered() {
    let (mut connection, now) = connection();
    let input = [GET, GET].concat();
    connection.handle_bytes(now, &input).unwrap();
    connection.handle_eof(now).unwrap();
    assert!(!connection.wants_read(0));
    assert_eq!(answered(&mut connection, now), State::Idle);
    let event = connection.handle_bytes(now, GET).unwrap();
    assert_eq!(event, Event::Request { head_len: GET.len() }, "the pipelined one as well");
    assert_eq!(answered(&mut connection, now), State::Idle);
    assert_eq!(connection.handle_bytes(now, b""), Ok(Event::Closed));

    let (mut connection, now) = with_request(POST);
    connection.want_body(now, 5).unwrap();
    assert_eq!(connection.handle_eof(now), Err(Refusal::Body(BodyError::Truncated)));
    assert_eq!(answered(&mut connection, now), State::Closed);
}

#[test]
fn answers_to_old_clients_and_to_head() {
    let (mut connection, now) = with_request(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let (streamed, wire) = answer(&mut connection, now, AnswerBody::Stream);
    assert!(!streamed.is_chunked() && !streamed.keep_alive);
    assert_eq!(wire, "HTTP/1.1 200 OK\r\n\r\n", "the end of the connection ends it");

    let (mut connection, now) = with_request(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let (_, wire) = answer(&mut connection, now, AnswerBody::Length(2));
    assert_eq!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(connection.finish_answer(now), Ok(State::Idle));

    let (mut connection, now) = with_request(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, wire) = answer(&mut connection, now, AnswerBody::Length(2));
    assert!(head.head_only);
    assert_eq!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
}

#[test]
fn upgrades_leave_http() {
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut connection, now) = with_request(head);
    let mut wire = Vec::new();
    let bad = connection.start_upgrade(now, &mut wire, "websocket", None, &[("X", b"a\r\nb")]);
    assert_eq!(bad, Err(AnswerError::Field(BadField)));
    assert!(wire.is_empty());
    connection.start_upgrade(now, &mut wire, "websocket", None, &[("X", b"y")]).unwrap();
    let expected = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n";
    assert_eq!(String::from_utf8(wire).unwrap(), expected);
    assert_eq!(connection.handle_bytes(now, b"\x81\x00"), Ok(Event::Busy));
    assert!(!connection.wants_read(0), "who reads is the other protocol's concern");

    let (mut connection, now) = with_request(POST);
    assert!(connection.start_upgrade(now, &mut Vec::new(), "x", None, &[]).is_err());
}

#[test]
fn timeouts_are_data() {
    let (mut connection, now) = connection();
    let at = |s| now + Duration::from_secs(s);
    assert_eq!(connection.poll_timeout(), Some((at(10), Timeout::Head)));
    connection.handle_bytes(at(5), b"GET").unwrap();
    assert_eq!(connection.poll_timeout(), Some((at(15), Timeout::Head)));
    connection.handle_bytes(at(14), b"GET /").unwrap();
    assert_eq!(connection.handle_timeout(at(14)), Action::Wait);
    assert_eq!(connection.handle_timeout(at(15)), Action::Refuse(Timeout::Head));
    assert_eq!(connection.poll_timeout(), None, "it has run out once");
    let (answer, _) = answer(&mut connection, at(15), AnswerBody::Length(0));
    assert!(!answer.keep_alive);
    assert_eq!(connection.finish_answer(at(16)), Ok(State::Linger));
    assert_eq!(connection.poll_timeout(), Some((at(18), Timeout::Linger)));
    assert_eq!(connection.handle_timeout(at(18)), Action::Close(Timeout::Linger));
    assert_eq!((connection.state(), connection.poll_timeout()), (State::Closed, None));
}

#[test]
fn idle_and_body_timeouts() {
    let (mut connection, now) = with_request(GET);
    let at = |s| now + Duration::from_secs(s);
    assert_eq!(connection.poll_timeout(), None, "the route has its own deadline");
    answered(&mut connection, at(1));
    assert_eq!(connection.poll_timeout(), Some((at(61), Timeout::Idle)));
    assert_eq!(connection.handle_timeout(at(61)), Action::Close(Timeout::Idle));

    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n";
    let (mut connection, now) = with_request(head);
    let at = |s| now + Duration::from_secs(s);
    connection.want_body(now, 1 << 20).unwrap();
    let half = vec![0; usize::try_from(BODY_BYTES_PER_S_MIN * 7).unwrap()];
    connection.handle_bytes(at(3), &half).unwrap();
    assert_eq!(connection.poll_timeout(), Some((at(27), Timeout::Body)), "progress buys time");
    assert_eq!(connection.handle_timeout(at(27)), Action::Refuse(Timeout::Body));
    assert_eq!(answered(&mut connection, at(27)), State::Linger);
}

#[test]
fn a_client_that_never_reads_is_cut() {
    let (mut connection, now) = with_request(GET);
    let at = |s| now + Duration::from_secs(s);
    answer(&mut connection, now, AnswerBody::Stream);
    connection.handle_write(now, true);
    connection.handle_write(at(20), true);
    assert_eq!(connection.poll_timeout(), Some((at(50), Timeout::WriteStall)));
    connection.handle_write(at(21), false);
    assert_eq!(connection.poll_timeout(), None);
    connection.handle_write(at(30), true);
    assert_eq!(connection.handle_timeout(at(60)), Action::Close(Timeout::WriteStall));
    assert_eq!(connection.state(), State::Closed);
}

#[test]
fn a_server_that_stops_closes_behind_the_answer() {
    let (mut connection, now) = with_request(GET);
    assert_eq!(connection.close_soon(now), State::Request);
    let (answer, _) = answer(&mut connection, now, AnswerBody::Length(0));
    assert!(!answer.keep_alive);
    assert_eq!(connection.finish_answer(now), Ok(State::Linger));
    let (mut idle, now) = self::connection();
    assert_eq!(idle.close_soon(now), State::Closed);
}

#[test]
fn reading_ahead_is_bounded() {
    let (mut connection, now) = with_request(GET);
    assert!(connection.wants_read(PIPELINE_BYTES_MAX - 1));
    assert!(!connection.wants_read(PIPELINE_BYTES_MAX));
    answered(&mut connection, now);
    assert!(connection.wants_read(PIPELINE_BYTES_MAX));
    connection.abort(now);
    assert!(!connection.wants_read(0));
}

#[test]
fn lingering_is_bounded() {
    let (mut connection, now) = with_request(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(answered(&mut connection, now), State::Linger);
    let junk = vec![0; 64 * 1024];
    let reads = (0..).take_while(|_| connection.handle_bytes(now, &junk) != Ok(Event::Closed));
    assert!(reads.take(100).count() <= 17);
    assert_eq!(connection.state(), State::Closed);
}

/// A connection in the given state.
fn in_state(state: State) -> (Connection, Instant) {
    let (mut connection, now) = with_request(POST);
    match state {
        State::Idle => return self::connection(),
        State::Head => {
            let (mut connection, now) = self::connection();
            connection.handle_bytes(now, b"GET").unwrap();
            return (connection, now);
        }
        State::Request => {}
        State::Body => {
            let _ = connection.want_body(now, 5);
        }
        State::Answer => {
            let _ = answer(&mut connection, now, AnswerBody::None);
        }
        State::Drain => {
            let _ = answered(&mut connection, now);
        }
        State::Linger => {
            connection.close_soon(now);
            answered(&mut connection, now);
        }
        State::Upgraded => {
            let (mut connection, now) = with_request(GET);
            connection.start_upgrade(now, &mut Vec::new(), "x", None, &[]).unwrap();
            return (connection, now);
        }
        State::Closed => connection.abort(now),
    }
    assert_eq!(connection.state(), state);
    (connection, now)
}

const STATES: [State; 9] = [
    State::Idle,
    State::Head,
    State::Request,
    State::Body,
    State::Answer,
    State::Drain,
    State::Linger,
    State::Upgraded,
    State::Closed,
];

#[test]
fn illegal_calls_are_refused_and_change_nothing() {
    for state in STATES {
        let illegal = |call| Illegal { call, state };
        let (mut connection, now) = in_state(state);
        if state != State::Request {
            let refused = connection.want_body(now, 5);
            assert_eq!(refused, Err(WantBodyError::Illegal(illegal("want_body"))));
            let refused = connection.start_upgrade(now, &mut Vec::new(), "x", None, &[]);
            assert_eq!(refused, Err(AnswerError::Illegal(illegal("start_upgrade"))));
        }
        if !matches!(state, State::Request | State::Body) {
            let mut wire = Vec::new();
            let refused = connection.start_answer(now, &mut wire, 200, AnswerBody::None, None, &[]);
            assert_eq!(refused, Err(AnswerError::Illegal(illegal("start_answer"))));
            assert!(wire.is_empty());
        }
        if state != State::Answer {
            assert_eq!(connection.finish_answer(now), Err(illegal("finish_answer")));
        }
        assert_eq!(connection.state(), state);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Bytes(usize),
    WantBody,
    Answer(u8),
    Finish,
    Eof,
    Later(u64),
    Write(bool),
    Stop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_usize..60).prop_map(Op::Bytes),
        3 => Just(Op::WantBody),
        4 => (0_u8..3).prop_map(Op::Answer),
        4 => Just(Op::Finish),
        1 => Just(Op::Eof),
        1 => (0_u64..40).prop_map(Op::Later),
        1 => any::<bool>().prop_map(Op::Write),
        1 => Just(Op::Stop),
    ]
}

proptest! {
    #[test]
    fn no_order_of_calls_leaves_the_diagram(
        wire in prop::collection::vec(prop::sample::select(vec![
            GET, POST, b"hello", b"\r\n", b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n",
        ]), 0..8),
        ops in prop::collection::vec(op(), 0..60),
    ) {
        let wire = wire.concat();
        let (mut connection, mut now) = connection();
        let (mut start, mut end) = (0, 0);
        for op in ops {
            let before = connection.state();
            match op {
                Op::Bytes(more) => {
                    end = (end + more).min(wire.len());
                    match connection.handle_bytes(now, &wire[start..end]) {
                        Ok(Event::Request { head_len }) => start += head_len,
                        Ok(Event::Body(step)) => start += step.consumed,
                        Ok(Event::Drop { consumed }) => start += consumed,
                        _ => {}
                    }
                    prop_assert!(start <= end);
                }
                Op::WantBody => {
 let _ = connection.want_body(now, 100);
}
                Op::Answer(body) => {
                    let body = [AnswerBody::None, AnswerBody::Length(3), AnswerBody::Stream][usize::from(body)];
                    let _ = connection.start_answer(now, &mut Vec::new(), 200, body, None, &[]);
                }
                Op::Finish => {
 let _ = connection.finish_answer(now);
}
                Op::Eof => {
 let _ = connection.handle_eof(now);
}
                Op::Later(seconds) => {
                    now += Duration::from_secs(seconds);
                    // Two may run out in one wait: a read and a write.
                    let fired = (0..3).find(|_| connection.handle_timeout(now) == Action::Wait);
                    prop_assert!(fired.is_some(), "a timeout fires once");
                    let next = connection.poll_timeout();
                    prop_assert!(next.is_none_or(|(at, _)| at > now));
                }
                Op::Write(pending) => connection.handle_write(now, pending),
                Op::Stop => {
 let _ = connection.close_soon(now);
}
            }
            let after = connection.state();
            prop_assert!(before == after || TRANSITIONS.contains(&(before, after)), "{before:?} {after:?}");
        }
    }
}

mod serving;
