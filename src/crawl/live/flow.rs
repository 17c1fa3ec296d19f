//! How much a stream has under way: when pages begin, and when the crawl waits for its readers.

use super::Live;
use crate::crawl::mesh::PageJob;
use crate::crawl::node::Node;
use crate::observe::metrics::Counter;
use crate::observe::trace::Mark;
use crate::proto::events::PageResult;
use crate::stream::machine::Machine;
use crate::stream::state::State;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Pages under way of a stream of which no page's size is known yet; each result doubles them. A page
/// may be a thousand times what is guessed.
const PAGES_UNSEEN: u32 = 8;

/// URLs of a stream that is too small to be held back by that.
const PAGES_FEW: u32 = 16;

impl Live {
    /// Pauses a stream whose readers are behind, or lets it go on; how many bytes it may still write.
    pub(super) fn hold_or_go_on(&self, node: &Rc<Node>, machine: &mut Machine) -> usize {
        let waiting = machine.held_bytes();
        self.stream.set_held(waiting);
        self.event_bytes.set(self.event_bytes.get().max(machine.came().1));
        // A result that waits for an earlier one can be read as little as one that waits for readers.
        let behind = self.stream.with_log(|log| log.behind()) + waiting;
        let flushing = machine.state() == State::Flushing;
        let (left, held) = match &self.background {
            Some(background) => {
                let left = background.room().saturating_sub(waiting);
                (left, left == 0 || flushing && left < 2 * self.event_bytes.get())
            }
            None => {
                let room = unread_room(node);
                let most = if flushing { room / 4 } else { room / 2 };
                (room.saturating_sub(behind), behind >= most || self.stream.starved())
            }
        };
        let (before, paused) = (machine.state(), held);
        machine.handle_watermark(paused);
        self.stream.set_paused(machine.state() == State::Flushing);
        match (before, machine.state()) {
            (State::Active, State::Flushing) => {
                node.observe.count(Counter::StreamsPaused);
                self.note(Mark::Paused, behind as u64);
            }
            (State::Flushing, State::Active) => self.note(Mark::Resumed, behind as u64),
            _ => {}
        }
        left
    }

    /// Starts the pages that may start, up to the first that the cache has: then there is an event
    /// to write (`true`) before it is known what else may start.
    pub(super) fn start_pages(&self, node: &Rc<Node>, machine: &mut Machine, room: usize) -> bool {
        let pages_max =
            self.background.as_ref().map_or(u32::MAX, |background| background.pages_max());
        // Each page in flight will add an event: what they may add together has to fit, too.
        while machine.in_flight() < pages_max
            && (machine.in_flight() == 0
                || (machine.in_flight() as usize + 1) * self.event_bytes.get() < room)
        {
            let Some(index) = machine.next_dispatch() else { break };
            let url = machine.url(index).clone();
            if self.beyond.as_ref().is_some_and(|beyond| beyond.lists_only()) {
                let page = Box::new(PageResult::listed(url));
                machine.poll_dispatch();
                machine.handle_result(Instant::now(), index, page);
                return true;
            }
            let key = self.ask.key(&url);
            // Of a page whose links are followed more is needed than its result.
            let principal = &self.stream.birth.principal;
            let hit = if self.follows() { None } else { self.ask.hit(node, key, principal) };
            if let Some(stored) = hit {
                machine.poll_dispatch();
                machine.handle_cached(Instant::now(), index, stored);
                return true;
            }
            if machine.in_flight() >= pages_unseen_max(machine) {
                break;
            }
            machine.poll_dispatch();
            self.stream.note(|trace, now| trace.url(now, index as usize, Mark::UrlStarted, 0));
            node.dispatch(PageJob {
                stream: Arc::clone(&self.stream),
                url,
                key,
                index,
                options: Arc::clone(&self.options),
                since: machine.started(),
                deadline: machine.deadline(),
            });
        }
        false
    }
}

/// Pages that may be under way, by how many have shown their size. Those in the cache don't count.
fn pages_unseen_max(machine: &Machine) -> u32 {
    let few = machine.counts().total <= u64::from(PAGES_FEW);
    let first = if few { PAGES_FEW } else { PAGES_UNSEEN };
    first << machine.came().0.min(16)
}

/// Bytes of the log that may wait for readers. The other half of the window stays with events that
/// were sent already: a client that was cut off may not have got them.
fn unread_room(node: &Node) -> usize {
    node.shared.config.replay_bytes_max / 2
}
