//! Turns at one host, for the whole process: how many requests may be under way, and how far apart
//! they start. A policy without IO, clock or lock; `hosts` shares one among the cores.
//!
//! Whoever wants a turn stands in line. Only the first in line looks at the clock; it is woken when
//! a place becomes free, and everyone is when the host asks to be left alone (`Retry-After`). A turn
//! that could not come before its asker's deadline is refused at once, so nobody waits in vain.
//!
//! The starts are those of GCRA without a burst: each moves the next one by its interval, and time
//! that passes unused earns nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One host's turns. `W`: how a waiting asker is woken.
#[derive(Debug)]
pub struct HostPace<W> {
    under_way: u32,
    /// When the next request may start.
    next: Option<Instant>,
    /// Until when the host wants to be left alone.
    held_until: Option<Instant>,
    /// Who waits, by place: the lowest is the first.
    line: BTreeMap<u64, Waiting<W>>,
    /// The place of whoever asks next.
    place: u64,
    /// The intervals of all who wait, together.
    intervals: Duration,
}

#[derive(Debug)]
struct Waiting<W> {
    asker: Asker<W>,
    /// It has been woken and has not looked since.
    woken: bool,
}

/// Who wants a turn, and on which terms.
#[derive(Debug, Clone)]
pub struct Asker<W> {
    /// How it is told to look again.
    pub wake: W,
    /// Time from this request's start to the next one's.
    pub interval: Duration,
    /// After this a turn is of no use.
    pub deadline: Instant,
}

/// What an asker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Start now; [`HostPace::handle_end`] must follow.
    Go,
    /// Look again at this time, or when woken.
    Until(Instant),
    /// Look again when woken.
    InLine,
    /// Not before the deadline: the earliest time that is known of. It waits no longer.
    Refused(Instant),
}

impl<W> Default for HostPace<W> {
    fn default() -> Self {
        Self {
            under_way: 0,
            next: None,
            held_until: None,
            line: BTreeMap::new(),
            place: 0,
            intervals: Duration::ZERO,
        }
    }
}

impl<W: Clone> HostPace<W> {
    /// Asks for a turn at a host that takes `places` requests at once. Unless it may go or is
    /// refused, the asker is in line, at the place that comes back, until it looks again or leaves.
    pub fn handle_ask(&mut self, now: Instant, places: u32, asker: Asker<W>) -> (u64, Turn) {
        let earliest = self.earliest(now) + self.intervals;
        let place = self.place;
        if earliest > asker.deadline {
            return (place, Turn::Refused(earliest));
        }
        self.place += 1;
        self.intervals += asker.interval;
        self.line.insert(place, Waiting { asker, woken: false });
        (place, self.handle_look(now, places, place))
    }

    /// The asker at a place looks whether it may start.
    pub fn handle_look(&mut self, now: Instant, places: u32, place: u64) -> Turn {
        let earliest = self.earliest(now);
        let first = self.line.first_key_value().map(|(first, _)| *first);
        let Some(waiting) = self.line.get_mut(&place) else {
            return Turn::Refused(earliest); // it is not in line
        };
        waiting.woken = false;
        let (interval, deadline) = (waiting.asker.interval, waiting.asker.deadline);
        if earliest > deadline {
            self.handle_leave(place);
            return Turn::Refused(earliest);
        }
        if first != Some(place) {
            return Turn::InLine;
        }
        if earliest > now {
            return Turn::Until(earliest);
        }
        if self.under_way >= places {
            return Turn::InLine;
        }
        self.under_way += 1;
        self.next = Some(now + interval);
        self.handle_leave(place);
        Turn::Go
    }

    /// An asker leaves the line.
    pub fn handle_leave(&mut self, place: u64) {
        if let Some(left) = self.line.remove(&place) {
            self.intervals = self.intervals.saturating_sub(left.asker.interval);
        }
    }

    /// A request that went is over.
    pub fn handle_end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The host wants to be left alone until then (RFC 9110 §10.2.3).
    pub fn handle_hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// Who is to look now: the first in line, unless it has been told already. To be asked after
    /// every `handle_*`.
    pub fn poll_wake(&mut self) -> Option<W> {
        let mut first = self.line.first_entry()?;
        if std::mem::replace(&mut first.get_mut().woken, true) {
            return None;
        }
        Some(first.get().asker.wake.clone())
    }

    /// Everyone who can't go before its deadline any more: they are to look, too. To be asked after
    /// [`HostPace::handle_hold`].
    pub fn poll_late(&mut self, now: Instant) -> Vec<W> {
        let earliest = self.earliest(now);
        let late = self.line.values_mut().filter(|w| !w.woken && w.asker.deadline < earliest);
        late.map(|w| {
            w.woken = true;
            w.asker.wake.clone()
        })
        .collect()
    }

    /// Whether nothing is under way and nobody waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way == 0 && self.line.is_empty()
    }

    /// Whether nothing would be lost with it.
    #[must_use]
    pub fn is_forgettable(&self, now: Instant) -> bool {
        self.is_idle() && self.earliest(now) <= now
    }

    /// Requests under way.
    #[must_use]
    pub const fn under_way(&self) -> u32 {
        self.under_way
    }

    fn earliest(&self, now: Instant) -> Instant {
        now.max(self.next.unwrap_or(now)).max(self.held_until.unwrap_or(now))
    }
}

/// The time of a `Retry-After` from now (RFC 9110 §10.2.3): seconds, or an HTTP date, which `now`
/// on the wall clock turns into seconds.
#[must_use]
pub fn retry_after(value: &str, now_unix_s: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = http_date(value)?;
    Some(Duration::from_secs(at.saturating_sub(now_unix_s)))
}

/// Seconds since 1970 of an `IMF-fixdate` (RFC 9110 §5.6.7), the form that everyone sends:
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split(' ');
    let (_, day, month, year) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (time, zone) = (parts.next()?, parts.next()?);
    if zone != "GMT" || parts.next().is_some() {
        return None;
    }
    let number = |digits: &str, len: usize, max: u64| {
        let good = digits.len() == len && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|n| good && *n <= max)
    };
    let (day, year) = (number(day, 2, 31)?, number(year, 4, 9999).filter(|y| *y >= 1970)?);
    let month = u64::try_from(MONTHS.iter().position(|m| *m == month)?).ok()? + 1;
    let mut clock = time.split(':');
    let (h, m, s) = (clock.next()?, clock.next()?, clock.next()?);
    let seconds = number(h, 2, 23)? * 3600 + number(m, 2, 59)? * 60 + number(s, 2, 60)?;
    // Days since 1970 of a Gregorian date, with the year starting in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day.checked_sub(1)?;
    Some((days - 719_468) * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    fn asker(wake: u32, interval: Duration, deadline: Instant) -> Asker<u32> {
        Asker { wake, interval, deadline }
    }

    /// Asks as number `n`, which is its place, too, where nobody was refused before.
    fn ask(pace: &mut HostPace<u32>, now: Instant, places: u32, asker: Asker<u32>) -> Turn {
        pace.handle_ask(now, places, asker).1
    }

    #[test]
    fn places_are_handed_on_in_order() {
        let (mut pace, now) = (HostPace::default(), Instant::now());
        let one = |n| asker(n, Duration::ZERO, now + S * 9);
        assert_eq!(ask(&mut pace, now, 2, one(0)), Turn::Go);
        assert_eq!(ask(&mut pace, now, 2, one(1)), Turn::Go);
        assert_eq!(ask(&mut pace, now, 2, one(2)), Turn::InLine);
        assert_eq!(ask(&mut pace, now, 2, one(3)), Turn::InLine);
        pace.handle_end();
        assert_eq!(pace.poll_wake(), Some(2));
        assert_eq!(pace.poll_wake(), None, "once");
        assert_eq!(pace.handle_look(now, 2, 3), Turn::InLine, "not before the first");
        assert_eq!(pace.handle_look(now, 2, 2), Turn::Go);
        assert_eq!(pace.under_way(), 2);
        pace.handle_leave(3);
        pace.handle_end();
        pace.handle_end();
        assert_eq!((pace.poll_wake(), pace.is_forgettable(now)), (None, true));
    }

    #[test]
    fn starts_are_an_interval_apart_and_unused_time_earns_nothing() {
        let (mut pace, now) = (HostPace::default(), Instant::now());
        let one = |n| asker(n, S, now + S * 60);
        assert_eq!(ask(&mut pace, now, 9, one(0)), Turn::Go);
        assert_eq!(ask(&mut pace, now, 9, one(1)), Turn::Until(now + S));
        assert_eq!(ask(&mut pace, now, 9, one(2)), Turn::InLine);
        assert_eq!(pace.handle_look(now + S / 2, 9, 1), Turn::Until(now + S));
        assert_eq!(pace.handle_look(now + S * 5, 9, 1), Turn::Go);
        assert_eq!(pace.poll_wake(), Some(2));
        assert_eq!(pace.handle_look(now + S * 5, 9, 2), Turn::Until(now + S * 6));
        assert_eq!(pace.handle_look(now + S * 6, 9, 2), Turn::Go);
        pace.handle_end();
        assert!(!pace.is_forgettable(now + S * 6), "the next one still has to wait");
    }

    #[test]
    fn what_cannot_come_in_time_is_refused_at_once() {
        let (mut pace, now) = (HostPace::default(), Instant::now());
        assert_eq!(ask(&mut pace, now, 9, asker(0, S * 5, now + S)), Turn::Go);
        let refused = ask(&mut pace, now, 9, asker(9, S, now + S * 4));
        assert_eq!(refused, Turn::Refused(now + S * 5));
        let one = asker(1, S, now + S * 5);
        assert_eq!(ask(&mut pace, now, 9, one), Turn::Until(now + S * 5));
        let behind = ask(&mut pace, now, 9, asker(9, S, now + S * 5));
        assert_eq!(behind, Turn::Refused(now + S * 6), "the one before it counts");
        // The host asks for quiet: who cannot wait so long is told, and refused when it looks.
        pace.handle_hold(now + S * 30);
        assert_eq!(pace.poll_late(now), [1]);
        assert_eq!(pace.handle_look(now, 9, 1), Turn::Refused(now + S * 30));
        assert_eq!(pace.poll_wake(), None);
        pace.handle_hold(now + S * 3);
        let held = ask(&mut pace, now, 9, asker(9, S, now + S * 29));
        assert_eq!(held, Turn::Refused(now + S * 30), "a shorter hold ends no longer one");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let s = |n| Some(Duration::from_secs(n));
        assert_eq!(retry_after("120", 0), s(120));
        assert_eq!(retry_after(" 0 ", 0), s(0));
        assert_eq!(retry_after("99999999999999999999999", 0), s(u64::MAX));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_700), s(77));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 884_111_777), s(0));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT", 0), s(0));
        assert_eq!(retry_after("Thu, 29 Feb 2024 12:00:00 GMT", 0), s(1_709_208_000));
        for odd in ["", "-1", "1.5", "soon", "Sun, 06 Nov 1994", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(retry_after(odd, 0), None, "{odd}");
        }
    }

    /// What happens to a host, at random.
    #[derive(Debug, Clone)]
    enum Step {
        Ask { interval: u64, patience: u64 },
        Look(usize),
        Leave(usize),
        End,
        Hold(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..50, 0_u64..500)
                .prop_map(|(interval, patience)| Step::Ask { interval, patience }),
            (0_usize..8).prop_map(Step::Look),
            (0_usize..8).prop_map(Step::Leave),
            Just(Step::End),
            (0_u64..200).prop_map(Step::Hold),
            (0_u64..100).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: never more under way than there are places, never two starts closer
        /// than the first one's interval, no start while held or too late, and whoever may go is
        /// the one who is woken.
        #[test]
        fn no_order_of_events_breaks_the_promises(steps in proptest::collection::vec(step(), 1..120)) {
            let (start, places) = (Instant::now(), 3);
            let ms = Duration::from_millis;
            let (mut pace, mut now) = (HostPace::default(), start);
            let (mut held, mut last) = (start, None::<(Instant, Duration)>);
            let mut line: Vec<(u64, Asker<u32>)> = Vec::new();
            let (mut running, mut name) = (0_u32, 0_u32);
            for step in steps {
                let mut looked = None;
                match step {
                    Step::Ask { interval, patience } => {
                        name += 1;
                        let asker = asker(name, ms(interval), now + ms(patience));
                        let (place, turn) = pace.handle_ask(now, places, asker.clone());
                        looked = Some((asker.clone(), turn));
                        line.push((place, asker));
                    }
                    Step::Look(at) if at < line.len() => {
                        let (place, asker) = line[at].clone();
                        looked = Some((asker, pace.handle_look(now, places, place)));
                    }
                    Step::Leave(at) if at < line.len() => {
                        pace.handle_leave(line.remove(at).0);
                    }
                    Step::End if running > 0 => {
                        running -= 1;
                        pace.handle_end();
                    }
                    Step::Hold(time) => {
                        held = held.max(now + ms(time));
                        pace.handle_hold(now + ms(time));
                    }
                    Step::Pass(time) => now += ms(time),
                    _ => {}
                }
                if let Some((asker, turn)) = looked {
                    match turn {
                        Turn::Go => {
                            prop_assert_eq!(line[0].1.wake, asker.wake, "in order");
                            prop_assert!(now >= held && now <= asker.deadline);
                            if let Some((at, interval)) = last {
                                prop_assert!(now >= at + interval);
                            }
                            last = Some((now, asker.interval));
                            running += 1;
                            line.remove(0);
                        }
                        Turn::Refused(at) => {
                            prop_assert!(at > asker.deadline);
                            line.retain(|(_, other)| other.wake != asker.wake);
                        }
                        Turn::Until(at) => prop_assert!(at > now && at <= asker.deadline),
                        Turn::InLine => {}
                    }
                }
                prop_assert!(pace.under_way() <= places);
                prop_assert_eq!(pace.under_way(), running);
                // The first in line is woken unless it knows already.
                if let Some(woken) = pace.poll_wake() {
                    prop_assert_eq!(woken, line[0].1.wake);
                }
                prop_assert_eq!(pace.is_idle(), running == 0 && line.is_empty());
            }
        }
    }
}
