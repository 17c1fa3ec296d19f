//! When to stop asking a Redis that does not do its work, and when to ask again.
//!
//! Closed: everything is asked. After too many failures the breaker opens: nothing is asked, so
//! nothing waits. When its pause is over it is half open: a few probes are made by the keeper, none by
//! a request; all of them have to go well, then it closes. Each time they don't, the pause doubles.
//!
//! Without IO and clock; whoever owns it hands it the time.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const IN_A_ROW_MAX: u32 = 5;
/// Answers that are looked back on; half of them failed opens it, too.
const WINDOW: u32 = 32;
/// Answers that there must be before that half counts.
const SEEN_MIN: u32 = 16;
/// Probes that have to go well, one after the other.
const PROBES: u32 = 3;
/// The first pause; what a restart of Redis costs at least.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: so long after it is well again, a Redis is used again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// Probes.
    HalfOpen,
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// The last answers, the newest in the lowest bit; 1: failed.
    window: u32,
    seen: u32,
    in_a_row: u32,
    probes_left: u32,
    pause: Duration,
    until: Instant,
    opened: u64,
}

impl Breaker {
    /// An open breaker whose pause is over: the first thing is a probe.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            state: State::Open,
            window: 0,
            seen: 0,
            in_a_row: 0,
            probes_left: PROBES,
            pause: PAUSE_MIN,
            until: now,
            opened: 0,
        }
    }

    /// What it lets through now.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// How often it has opened.
    #[must_use]
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// Something was asked while the breaker was closed, and has come to its end.
    pub fn handle_answer(&mut self, now: Instant, good: bool) {
        if self.state != State::Closed {
            return; // it was asked before the breaker opened, and tells nothing new
        }
        self.window = self.window << 1 | u32::from(!good);
        self.seen = (self.seen + 1).min(WINDOW);
        self.in_a_row = if good { 0 } else { self.in_a_row + 1 };
        let half = self.seen >= SEEN_MIN && self.window.count_ones() * 2 >= self.seen;
        if self.in_a_row >= IN_A_ROW_MAX || half && !good {
            self.open(now);
        }
    }

    /// What was asked can't be asked any more, as after the end of a connection: opens at once.
    pub fn handle_broken(&mut self, now: Instant) {
        if self.state == State::Closed {
            self.open(now);
        }
    }

    /// Whether it is time for a probe; [`Breaker::handle_probe`] must follow.
    pub fn poll_probe(&mut self, now: Instant) -> bool {
        if self.state == State::Open && now >= self.until {
            self.state = State::HalfOpen;
            self.probes_left = PROBES;
        }
        self.state == State::HalfOpen
    }

    /// A probe has come to its end.
    pub fn handle_probe(&mut self, now: Instant, good: bool) {
        if self.state != State::HalfOpen {
            return;
        }
        if !good {
            self.state = State::Open;
            self.until = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return;
        }
        self.probes_left -= 1;
        if self.probes_left == 0 {
            self.state = State::Closed;
            self.pause = PAUSE_MIN;
            (self.window, self.seen, self.in_a_row) = (0, 0, 0);
        }
    }

    /// When [`Breaker::poll_probe`] is to be asked again; `None` while it is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.state != State::Closed).then_some(self.until)
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open;
        self.until = now + self.pause;
        self.opened += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        for _ in 0..PROBES {
            assert!(breaker.poll_probe(now));
            breaker.handle_probe(now, true);
        }
        assert_eq!(breaker.state(), State::Closed);
        breaker
    }

    #[test]
    fn it_begins_with_probes_and_closes_when_all_are_good() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.poll_probe(now));
        breaker.handle_probe(now, true);
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.handle_probe(now, false);
        assert_eq!(breaker.state(), State::Open);
        assert!(!breaker.poll_probe(now));
        assert!(breaker.poll_probe(now + PAUSE_MIN));
        closed(now);
    }

    #[test]
    fn failures_in_a_row_open_it_and_scattered_ones_do_not() {
        let now = Instant::now();
        let mut breaker = closed(now);
        for n in 0..1000 {
            breaker.handle_answer(now, n % 3 > 0);
        }
        assert_eq!(breaker.state(), State::Closed, "a third fails");
        for _ in 0..IN_A_ROW_MAX {
            breaker.handle_answer(now, false);
        }
        assert_eq!((breaker.state(), breaker.opened()), (State::Open, 1));
        assert_eq!(breaker.poll_timeout(), Some(now + PAUSE_MIN));
    }

    #[test]
    fn half_of_the_last_answers_open_it() {
        let now = Instant::now();
        let mut breaker = closed(now);
        for n in 0..SEEN_MIN {
            assert_eq!(breaker.state(), State::Closed);
            breaker.handle_answer(now, n % 2 == 0);
        }
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn a_broken_connection_opens_it_at_once_and_pauses_double_up_to_a_limit() {
        let mut now = Instant::now();
        let mut breaker = closed(now);
        breaker.handle_broken(now);
        breaker.handle_broken(now);
        assert_eq!(breaker.opened(), 1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let due = breaker.poll_timeout().expect("it is open");
            pauses.push(due - now);
            now = due;
            assert!(breaker.poll_probe(now));
            breaker.handle_probe(now, false);
        }
        assert_eq!(pauses[..4], [1, 1, 2, 4].map(|n| PAUSE_MIN * n));
        assert_eq!(pauses[7], PAUSE_MAX);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Answer(bool),
        Broken,
        Probe(bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => any::<bool>().prop_map(Step::Answer),
            1 => Just(Step::Broken),
            3 => any::<bool>().prop_map(Step::Probe),
            2 => (0_u64..3000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: it never closes but by good probes, never probes before its pause is
        /// over, and three good probes always close it, at most the longest pause away.
        #[test]
        fn it_heals_and_never_by_chance(steps in proptest::collection::vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut breaker = closed(now);
            for step in steps {
                let before = breaker.state();
                match step {
                    Step::Answer(good) => {
                        breaker.handle_answer(now, good);
                        prop_assert!(before == State::Closed || breaker.state() == before);
                    }
                    Step::Broken => {
                        breaker.handle_broken(now);
                        prop_assert!(breaker.state() != State::Closed);
                    }
                    Step::Probe(good) => {
                        let due = breaker.poll_timeout();
                        let probes = breaker.poll_probe(now);
                        prop_assert_eq!(probes, due.is_some_and(|due| now >= due || before == State::HalfOpen));
                        if probes {
                            breaker.handle_probe(now, good);
                        }
                    }
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                }
            }
            if breaker.state() != State::Closed {
                now += PAUSE_MAX;
                while breaker.poll_probe(now) {
                    breaker.handle_probe(now, true);
                }
            }
            prop_assert_eq!(breaker.state(), State::Closed);
        }
    }
}
