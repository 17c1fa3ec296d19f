//! The order in which pages come, against slow and obvious twins.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use proptest::prelude::*;

fn whose(client: &str, line: u128) -> Whose {
    Whose { client: client.into(), line: Line::Stream(Ulid(line)) }
}

/// A lane that has one page at a time.
struct Bench {
    turns: Turns<(Whose, u64)>,
    /// Microseconds that each line has had.
    had: HashMap<Whose, u64>,
    served: Vec<Whose>,
}

impl Bench {
    fn new() -> Self {
        Self { turns: Turns::default(), had: HashMap::new(), served: Vec::new() }
    }

    fn push(&mut self, whose: &Whose, micros: u64, pages: usize) {
        (0..pages).for_each(|_| self.turns.push(whose, (whose.clone(), micros)));
    }

    fn serve(&mut self) -> bool {
        let Some((turn, (whose, micros))) = self.turns.pop() else { return false };
        self.turns.settle(turn, Duration::from_micros(micros));
        *self.had.entry(whose.clone()).or_default() += micros;
        self.served.push(whose);
        true
    }
}

#[test]
fn a_newcomer_comes_before_a_crowd_of_one() {
    let mut bench = Bench::new();
    let (crowd, good) = (whose("a", 1), whose("b", 2));
    bench.push(&crowd, 1_000_000, 200);
    (0..5).for_each(|_| assert!(bench.serve()));
    bench.push(&good, 2_000, 10);
    (0..10).for_each(|_| assert!(bench.serve()));
    assert!(bench.served[5..].iter().all(|whose| *whose == good), "{:?}", bench.served);
}

#[test]
fn many_streams_are_no_more_than_their_client() {
    let mut bench = Bench::new();
    (0..64).for_each(|line| bench.push(&whose("a", line), 1_000_000, 4));
    (0..3).for_each(|_| assert!(bench.serve()));
    bench.push(&whose("b", 100), 2_000, 1);
    assert!(bench.serve());
    assert_eq!(&*bench.served[3].client, "b");
}

#[test]
fn who_goes_and_comes_back_is_not_new() {
    let mut bench = Bench::new();
    let (steady, comes) = (whose("", 1), whose("", 2));
    bench.push(&steady, 10_000, 1_000);
    // One long page after the other, each brought when the last is done.
    for _ in 0..300 {
        if !bench.turns.has(&comes) {
            bench.push(&comes, 500_000, 1);
        }
        assert!(bench.serve());
    }
    let [steady, comes] = [&steady, &comes].map(|whose| bench.had[whose]);
    assert!(comes <= steady + 2 * 500_000, "{comes} beside {steady}");
}

#[test]
fn what_is_withdrawn_does_not_come_and_leaves_nobody_behind() {
    let mut bench = Bench::new();
    let (one, other) = (whose("a", 1), whose("a", 2));
    bench.push(&one, 1, 5);
    bench.push(&other, 1, 1);
    assert_eq!(bench.turns.withdraw(&one, |_| true), 5);
    assert_eq!(bench.turns.withdraw(&one, |_| true), 0);
    assert_eq!(bench.turns.len(), 1);
    assert!(bench.serve());
    assert_eq!(bench.served, [other]);
    assert!(!bench.serve());
    assert!(bench.turns.clients.clocks.is_empty() && bench.turns.lines.is_empty());
}

#[test]
fn a_turn_that_is_open_counts_by_the_last_one() {
    let mut turns = Turns::default();
    let (long, short) = (whose("a", 1), whose("b", 1));
    (0..3).for_each(|_| turns.push(&long, "long"));
    let (turn, _) = turns.pop().unwrap();
    turns.settle(turn, Duration::from_secs(1));
    let (open, _) = turns.pop().unwrap();
    // Before the second is settled the present is where it began: the newcomer is before the third.
    turns.push(&short, "short");
    turns.push(&short, "short");
    let (next, job) = turns.pop().unwrap();
    assert_eq!(job, "short");
    turns.settle(next, Duration::from_millis(1));
    assert_eq!(turns.pop().unwrap().1, "short");
    turns.settle(open, Duration::from_secs(1));
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u8, u32),
    Pop,
    Settle,
    Withdraw(u8, u8, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..3, 0_u8..3, 1_u32..2_000_000).prop_map(|(c, l, t)| Step::Push(c, l, t)),
        3 => Just(Step::Pop),
        3 => Just(Step::Settle),
        1 => (0_u8..3, 0_u8..3, 0_u32..5).prop_map(|(c, l, n)| Step::Withdraw(c, l, n)),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Beside a slow, obvious list: everything comes once, in its line's order, but what was withdrawn;
    /// and who is done is forgotten.
    #[test]
    fn every_page_comes_once_and_in_order(steps in steps()) {
        let mut turns = Turns::default();
        let mut twin: Vec<(Whose, u32, u32)> = Vec::new();
        let (mut open, mut number) = (VecDeque::new(), 0);
        let line = |client: u8, line: u8| whose(&client.to_string(), u128::from(line));
        for step in steps.into_iter().chain((0..2_000).map(|n| [Step::Pop, Step::Settle][n % 2].clone())) {
            match step {
                Step::Push(c, l, micros) => {
                    number += 1;
                    turns.push(&line(c, l), (number, micros));
                    twin.push((line(c, l), number, micros));
                }
                Step::Pop => match turns.pop() {
                    Some((turn, (number, micros))) => {
                        let at = twin.iter().position(|(whose, ..)| *whose == turn.whose);
                        let (_, first, _) = twin.remove(at.unwrap());
                        prop_assert_eq!(first, number, "first come, first served in a line");
                        open.push_back((turn, micros));
                    }
                    None => prop_assert!(twin.is_empty()),
                },
                Step::Settle => if let Some((turn, micros)) = open.pop_front() {
                    turns.settle(turn, Duration::from_micros(u64::from(micros)));
                },
                Step::Withdraw(c, l, n) => {
                    let before = twin.len();
                    let meant = |job: u32| job % 5 == n;
                    twin.retain(|(whose, job, _)| *whose != line(c, l) || !meant(*job));
                    let gone = turns.withdraw(&line(c, l), |(job, _)| meant(*job));
                    prop_assert_eq!(gone, before - twin.len());
                }
            }
            prop_assert_eq!(turns.len(), twin.len());
            prop_assert_eq!(turns.is_empty(), twin.is_empty());
            prop_assert!(twin.iter().all(|(whose, ..)| turns.has(whose)));
        }
        prop_assert!(twin.is_empty() && open.is_empty());
        prop_assert!(turns.clients.clocks.is_empty() && turns.lines.is_empty());
    }

    /// Lines that always have something get the same time, to within a page of each and of the longest.
    #[test]
    fn the_time_is_shared_evenly(
        costs in proptest::collection::vec(1_000_u64..1_000_000, 2..6),
        per_client: bool,
    ) {
        let mut bench = Bench::new();
        let all: Vec<_> = (0..costs.len())
            .map(|n| if per_client { whose(&n.to_string(), 0) } else { whose("", n as u128) })
            .collect();
        let longest = *costs.iter().max().unwrap();
        while bench.had.values().sum::<u64>() < 20 * longest {
            for (whose, micros) in all.iter().zip(&costs) {
                if !bench.turns.has(whose) {
                    bench.push(whose, *micros, 2);
                }
            }
            prop_assert!(bench.serve());
        }
        let had = |whose| bench.had.get(whose).copied().unwrap_or(0);
        let (least, most) = (all.iter().map(had).min(), all.iter().map(had).max());
        prop_assert!(most.unwrap() <= least.unwrap() + 2 * longest, "{:?}", bench.had);
    }
}
