//! How long a client may take, as data: when the next limit runs out, and what to do then.

use std::time::{Duration, Instant};

use super::{Body, Connection, State};
use crate::limits::BODY_BYTES_PER_S_MIN;

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a head, from its first byte; and for the first byte of a new connection.
    pub head: Duration,
    /// For a body, plus one second for each [`BODY_BYTES_PER_S_MIN`] bytes received; and for
    /// reading away a body.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a write to make any progress.
    pub write_stall: Duration,
    /// For the client to close after the last answer.
    pub linger: Duration,
}

/// Which of [`Timeouts`] runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is a field of Timeouts, described there")]
pub enum Timeout {
    Head,
    Body,
    Idle,
    WriteStall,
    Linger,
}

/// What to do at a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing has run out: wait for [`Connection::poll_timeout`].
    Wait,
    /// Answer with [`super::Refusal::Timeout`] (408).
    Refuse(Timeout),
    /// Close the socket; the state is [`State::Closed`].
    Close(Timeout),
}

impl Connection {
    /// When to call [`Self::handle_timeout`] unless something happens before, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timeout)> {
        let reading = match self.state {
            State::Idle if self.is_new => Some((self.timeouts.head, Timeout::Head)),
            State::Idle => Some((self.timeouts.idle, Timeout::Idle)),
            State::Head if !self.refused => Some((self.timeouts.head, Timeout::Head)),
            State::Body if !self.refused => Some((self.body_timeout(), Timeout::Body)),
            State::Drain => Some((self.timeouts.body, Timeout::Body)),
            State::Linger => Some((self.timeouts.linger, Timeout::Linger)),
            _ => None,
        };
        // A time beyond what an `Instant` can hold never comes.
        let at = |since: Instant, (after, timeout): (Duration, Timeout)| {
            since.checked_add(after).map(|at| (at, timeout))
        };
        let reading = reading.and_then(|reading| at(self.since, reading));
        let writing = self
            .writing_since
            .filter(|_| self.state != State::Closed)
            .and_then(|since| at(since, (self.timeouts.write_stall, Timeout::WriteStall)));
        [reading, writing].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Time has passed. A read and a write may run out together: call it until it says to wait.
    pub fn handle_timeout(&mut self, now: Instant) -> Action {
        let Some((_, timeout)) = self.poll_timeout().filter(|(at, _)| *at <= now) else {
            return Action::Wait;
        };
        match (timeout, self.state) {
            (Timeout::Head, State::Head) | (Timeout::Body, State::Body) => {
                self.refused = true;
                Action::Refuse(timeout)
            }
            _ => {
                self.enter(State::Closed, now);
                Action::Close(timeout)
            }
        }
    }

    /// A slow client that keeps sending gets as long as the slowest rate takes.
    fn body_timeout(&self) -> Duration {
        let received = match &self.body {
            Body::Reading(reader) => reader.received_bytes(),
            Body::Done | Body::Unread { .. } => 0,
        };
        self.timeouts.body.saturating_add(Duration::from_secs(received / BODY_BYTES_PER_S_MIN))
    }
}
