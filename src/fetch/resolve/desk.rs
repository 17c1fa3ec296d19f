//! Whose look-up comes next. Without IO: a name server that never answers holds places for seconds, and
//! whoever asked for its names must not hold all of them.

use super::Question;
use crate::limits::{DNS_LOOKUPS_MAX, DNS_LOOKUPS_PER_OWNER_MAX};
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot::error::TryRecvError;

/// Questions that wait, by their owner. The owners take turns; each has so many look-ups under way at
/// most, and all together so many.
#[derive(Default)]
pub(super) struct Desk {
    waiting: HashMap<u64, VecDeque<Question>>,
    /// Owners of which a question waits and may be looked up, each once.
    turns: VecDeque<u64>,
    under_way: HashMap<u64, usize>,
    total: usize,
}

impl Desk {
    /// Takes a question in.
    pub(super) fn put(&mut self, question: Question) {
        let owner = question.owner;
        let line = self.waiting.entry(owner).or_default();
        line.push_back(question);
        if line.len() == 1 && self.has_place(owner) {
            self.turns.push_back(owner);
        }
    }

    /// The next question to look up; [`Desk::done`] when that is over. Those that nobody waits for any
    /// more are dropped.
    pub(super) fn next(&mut self) -> Option<Question> {
        while self.total < DNS_LOOKUPS_MAX {
            let owner = self.turns.pop_front()?;
            let Some(line) = self.waiting.get_mut(&owner) else { continue };
            let question = line.pop_front();
            let more = !line.is_empty();
            if !more {
                self.waiting.remove(&owner);
            }
            let wanted = |question: &mut Question| {
                !matches!(question.wanted.try_recv(), Err(TryRecvError::Closed))
            };
            let question = question.and_then(|mut it| wanted(&mut it).then_some(it));
            if question.is_some() {
                *self.under_way.entry(owner).or_default() += 1;
                self.total += 1;
            }
            if more && self.has_place(owner) {
                self.turns.push_back(owner);
            }
            if question.is_some() {
                return question;
            }
        }
        None
    }

    /// A look-up of this owner is over.
    pub(super) fn done(&mut self, owner: u64) {
        let had_place = self.has_place(owner);
        if let Some(count) = self.under_way.get_mut(&owner) {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.under_way.remove(&owner);
            }
        }
        if !had_place && self.waiting.contains_key(&owner) {
            self.turns.push_back(owner);
        }
    }

    fn has_place(&self, owner: u64) -> bool {
        self.under_way.get(&owner).is_none_or(|count| *count < DNS_LOOKUPS_PER_OWNER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    /// A question, and what keeps it wanted.
    fn question(owner: u64, name: &str) -> (Question, oneshot::Sender<()>) {
        let (keep, wanted) = oneshot::channel();
        let (reply, _) = uring::mailbox::channel(1);
        (Question { name: name.to_owned(), owner, wanted, reply }, keep)
    }

    #[test]
    fn owners_take_turns_and_none_takes_all_places() {
        let mut desk = Desk::default();
        let mut kept = Vec::new();
        for (owner, count) in [(1, DNS_LOOKUPS_MAX * 2), (2, 3)] {
            for n in 0..count {
                let (question, keep) = question(owner, &n.to_string());
                desk.put(question);
                kept.push(keep);
            }
        }
        let next = |desk: &mut Desk| std::iter::from_fn(|| desk.next()).collect::<Vec<_>>();
        let first = next(&mut desk);
        let owners: Vec<_> = first.iter().take(6).map(|it| it.owner).collect();
        assert_eq!(owners, [1, 2, 1, 2, 1, 2]);
        assert_eq!(first.len(), DNS_LOOKUPS_PER_OWNER_MAX + 3);
        let (late, _keep) = question(3, "late");
        desk.put(late);
        assert_eq!(desk.next().map(|it| it.owner), Some(3), "at once");
        assert!(desk.next().is_none());
        desk.done(1);
        assert_eq!(desk.next().map(|it| it.owner), Some(1));
        assert!(desk.next().is_none());
    }

    #[test]
    fn places_are_bounded_and_the_unwanted_take_none() {
        let mut desk = Desk::default();
        let mut kept = Vec::new();
        for owner in 0..DNS_LOOKUPS_MAX as u64 * 2 {
            let (question, keep) = question(owner, "a");
            desk.put(question);
            kept.extend((owner % 2 == 0).then_some(keep));
        }
        let taken: Vec<_> = std::iter::from_fn(|| desk.next()).collect();
        assert_eq!(taken.len(), DNS_LOOKUPS_MAX);
        assert!(taken.iter().all(|it| it.owner % 2 == 0));
        assert!(desk.next().is_none());
        taken.iter().for_each(|it| desk.done(it.owner));
        assert!(desk.next().is_none() && desk.total == 0 && desk.under_way.is_empty());
        assert!(desk.waiting.is_empty() && desk.turns.is_empty());
    }
}
