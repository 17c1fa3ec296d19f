//! The way to the core's lane: pages wait here, on the loop, and are handed over one by one in fair
//! turns ([`Turns`]); the lane itself has hardly more than the page that it works on. So whoever
//! brings a hundred pages that take a second each does not make everybody else wait for them.

use super::Node;
use crate::crawl::lane::{Handed, Owed};
use crate::crawl::mesh::{LaneJob, LaneReply};
use crate::crawl::turns::{Turn, Turns, Whose};
use crate::error::PageCode;
use crate::local::Slot;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use uring::lane::{Lane, LaneStats};

/// Pages that a lane has at a time: the one that it works on and the next, so that it does not wait
/// for the loop between two.
pub const LANE_PAGES_MAX: usize = 2;

/// See the module.
pub(super) struct Desk {
    lane: Lane<Handed>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    turns: Turns<usize>,
    /// Pages that wait or are in the lane, by their numbers.
    tickets: HashMap<usize, Ticket>,
    ticket_next: usize,
    /// Pages in the lane: its places are given back when it answers, not before.
    in_lane: usize,
}

struct Ticket {
    /// Who waits for the answer, if anybody does.
    slot: Option<Rc<Slot<LaneReply>>>,
    place: Place,
}

enum Place {
    Waits(LaneJob),
    InLane(Turn),
}

impl Desk {
    pub(super) fn new(lane: Lane<Handed>) -> Self {
        Self { lane, state: RefCell::default() }
    }
}

/// A page on its way through the lane. Dropped, nobody wants its document any more: it leaves where the
/// lane has not taken it up.
pub struct Extraction {
    node: Rc<Node>,
    whose: Whose,
    ticket: usize,
    slot: Rc<Slot<LaneReply>>,
}

impl Extraction {
    /// Waits for the lane's answer, which comes once.
    pub async fn reply(&self) -> LaneReply {
        self.slot.take().await
    }

    /// Takes the page back; `false` where the lane has it already and will answer.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let mut state = self.node.desk.state.borrow_mut();
        let State { turns, tickets, .. } = &mut *state;
        match tickets.get(&self.ticket) {
            Some(Ticket { place: Place::InLane(_), .. }) => false,
            Some(Ticket { place: Place::Waits(_), .. }) => {
                turns.withdraw(&self.whose, |ticket| *ticket == self.ticket);
                tickets.remove(&self.ticket);
                true
            }
            None => true,
        }
    }
}

impl Drop for Extraction {
    fn drop(&mut self) {
        if !self.withdraw()
            && let Some(ticket) = self.node.desk.state.borrow_mut().tickets.get_mut(&self.ticket)
        {
            ticket.slot = None;
        }
    }
}

impl Node {
    /// Has the lane extract a page when its turn comes.
    #[must_use = "a page that nobody waits for is not extracted"]
    pub fn extract(self: &Rc<Self>, whose: Whose, mut job: LaneJob) -> Extraction {
        // The guest reads no more, so no more waits.
        if let Some(Some(extractor)) = self.shared.extractor.get() {
            keep(&mut job.body, extractor.body_bytes_read());
        }
        let slot = Rc::<Slot<LaneReply>>::default();
        let mut state = self.desk.state.borrow_mut();
        let number = state.ticket_next;
        state.ticket_next = number.wrapping_add(1);
        let ticket = Ticket { slot: Some(Rc::clone(&slot)), place: Place::Waits(job) };
        state.tickets.insert(number, ticket);
        state.turns.push(&whose, number);
        drop(state);
        self.feed_lane();
        Extraction { node: Rc::clone(self), whose, ticket: number, slot }
    }

    /// Whether as many pages wait for the lane as may, and one of `whose` is among them: then it can
    /// come back later without losing anything by it.
    #[must_use]
    pub fn lane_is_full_for(&self, whose: &Whose) -> bool {
        let state = self.desk.state.borrow();
        state.turns.len() >= self.shared.config.extract_queue_max && state.turns.has(whose)
    }

    /// The lane has finished a page.
    pub(super) fn handle_extracted(&self, number: usize, reply: LaneReply) {
        let mut state = self.desk.state.borrow_mut();
        let Some(Ticket { slot, place }) = state.tickets.remove(&number) else { return };
        if let Place::InLane(turn) = place {
            state.in_lane -= 1;
            state.turns.settle(turn, reply.used);
        }
        drop(state);
        self.traps.set(self.traps.get() + u64::from(reply.outcome.is_err()));
        if let Some(slot) = slot {
            slot.fill(reply);
        }
        self.feed_lane();
    }

    fn feed_lane(&self) {
        let mut state = self.desk.state.borrow_mut();
        let State { turns, tickets, in_lane, .. } = &mut *state;
        while *in_lane < LANE_PAGES_MAX
            && let Some((turn, number)) = turns.pop()
        {
            let ticket = tickets.get_mut(&number).expect("a page that waits has a ticket");
            let place = std::mem::replace(&mut ticket.place, Place::InLane(turn));
            let Place::Waits(job) = place else { unreachable!("a page has one turn") };
            let to = self.shared.mesh[self.index].clone();
            let owed = Owed::new(to, number, job.submitted);
            match self.desk.lane.try_submit(Handed { job, owed }) {
                Ok(()) => *in_lane += 1,
                // The lane has as many places as it is given pages, so only one that has ended refuses.
                Err(refused) => {
                    let Handed { job, owed } = refused.into_inner();
                    owed.forgive();
                    let Some(Ticket { slot, place }) = tickets.remove(&number) else { continue };
                    if let Place::InLane(turn) = place {
                        turns.settle(turn, Duration::ZERO);
                    }
                    let message = "the extraction lane has ended";
                    let reply = job.refuse(PageCode::ExtractFailed, message);
                    if let Some(slot) = slot {
                        slot.fill(reply);
                    }
                }
            }
        }
    }

    /// What the lane did so far; as waiting count those that wait on the loop, too.
    pub(in crate::crawl) fn lane_stats(&self) -> LaneStats {
        let mut stats = self.desk.lane.stats();
        stats.queued += self.desk.state.borrow().turns.len();
        stats
    }
}

/// Keeps the first `bytes_max` bytes, and no more memory than they need.
fn keep(body: &mut Vec<u8>, bytes_max: usize) {
    body.truncate(bytes_max);
    if body.capacity() > body.len() + body.len() / 4 {
        body.shrink_to_fit();
    }
}
