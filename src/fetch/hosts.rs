//! What the process knows of its hosts, shared by all cores: their turns ([`pacing`]) and their
//! robots.txt. Kept behind many short locks; nothing is waited for, computed or sent under one.
//!
//! Who has to wait leaves a [`Wake`] behind: the mailbox of its core and a number there. A word that
//! finds the mailbox full is lost, so whoever waits looks by itself now and then.
//!
//! [`pacing`]: crate::fetch::pacing

use crate::error::{PageCode, PageError};
use crate::fetch::pacing::{Asker, HostPace, Turn};
use crate::fetch::robots::Robots;
use crate::limits::{
    HOSTS_MAX, ROBOTS_CACHE_BYTES_MAX, ROBOTS_RECONNECT, ROBOTS_RETRY, ROBOTS_TIMEOUT, ROBOTS_TTL,
};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Locks for turns: two cores rarely want the same one at the same time.
const PACE_SHARDS: usize = 64;
/// Locks for robots.txt files.
const ROBOTS_SHARDS: usize = 8;
/// Bytes that an entry of the robots cache costs beside its file.
const ENTRY_BYTES: usize = 256;

/// How somebody on a core is told to look again.
#[derive(Clone)]
pub(crate) struct Wake {
    /// The core's mailbox.
    pub(crate) to: uring::mailbox::Sender<u64>,
    /// Who it is there.
    pub(crate) ticket: u64,
}

impl Wake {
    fn ring(self) {
        // Closed: its core has ended. Full: it will look by itself.
        let _ = self.to.try_send(self.ticket);
    }
}

/// What a host's robots.txt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rules {
    /// It was read, or there is none, which allows everything.
    Read(Arc<Robots>),
    /// It could not be had: nothing of the host may be fetched (RFC 9309 §2.3.1.4), and this is why.
    Unreachable(PageError),
}

/// What to do about a host's robots.txt.
pub(crate) enum Ask {
    /// This is it.
    Known(Rules),
    /// Fetch it and [`Hosts::put_rules`] it, then ask again: nobody else does.
    Fetch,
    /// Ask again when woken.
    Wait,
}

enum Entry {
    Known { rules: Rules, until: Instant },
    Fetching { since: Instant, stale: Option<Arc<Robots>>, waiting: Vec<Wake> },
}

#[derive(Default)]
struct RobotsShard {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

/// See the module.
pub(crate) struct Hosts {
    hasher: RandomState,
    paces: Vec<Mutex<HashMap<String, HostPace<Wake>>>>,
    robots: Vec<Mutex<RobotsShard>>,
    /// Requests that one host takes at once.
    places: u32,
}

impl Hosts {
    pub(crate) fn new(places: u32) -> Self {
        Self {
            hasher: RandomState::new(),
            paces: (0..PACE_SHARDS).map(|_| Mutex::default()).collect(),
            robots: (0..ROBOTS_SHARDS).map(|_| Mutex::default()).collect(),
            places,
        }
    }

    /// As [`HostPace::handle_ask`], for the host of that key.
    pub(crate) fn ask_turn(&self, host: &str, asker: Asker<Wake>) -> (u64, Turn) {
        let now = Instant::now();
        let mut shard = self.pace_shard(host);
        if !shard.contains_key(host) {
            make_room(&mut shard, now);
            shard.insert(host.to_owned(), HostPace::default());
        }
        let pace = shard.get_mut(host).expect("inserted above");
        pace.handle_ask(now, self.places, asker)
    }

    /// As [`HostPace::handle_look`].
    pub(crate) fn look(&self, host: &str, place: u64) -> Turn {
        let now = Instant::now();
        let turn = {
            let mut shard = self.pace_shard(host);
            let Some(pace) = shard.get_mut(host) else { return Turn::Refused(now) };
            pace.handle_look(now, self.places, place)
        };
        if matches!(turn, Turn::Go | Turn::Refused(_)) {
            self.change(host, |_| ()); // the next one is the first now
        }
        turn
    }

    /// As [`HostPace::handle_leave`].
    pub(crate) fn leave(&self, host: &str, place: u64) {
        self.change(host, |pace| pace.handle_leave(place));
    }

    /// As [`HostPace::handle_end`].
    pub(crate) fn end_turn(&self, host: &str) {
        self.change(host, HostPace::handle_end);
    }

    /// As [`HostPace::handle_hold`].
    pub(crate) fn hold(&self, host: &str, until: Instant) {
        let late = {
            let mut shard = self.pace_shard(host);
            let Some(pace) = shard.get_mut(host) else { return };
            pace.handle_hold(until);
            pace.poll_late(Instant::now())
        };
        late.into_iter().for_each(Wake::ring);
    }

    /// Requests under way to a host.
    #[cfg(test)]
    pub(crate) fn under_way(&self, host: &str) -> u32 {
        self.pace_shard(host).get(host).map_or(0, HostPace::under_way)
    }

    /// Requests under way to all hosts, and hosts with somebody in line or under way.
    pub(crate) fn busy(&self) -> (u64, usize) {
        let (mut under_way, mut hosts) = (0, 0);
        for shard in &self.paces {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for pace in shard.values().filter(|pace| !pace.is_idle()) {
                under_way += u64::from(pace.under_way());
                hosts += 1;
            }
        }
        (under_way, hosts)
    }

    /// Changes a host's pace and wakes who is first afterwards.
    fn change(&self, host: &str, change: impl FnOnce(&mut HostPace<Wake>)) {
        let wake = {
            let mut shard = self.pace_shard(host);
            let Some(pace) = shard.get_mut(host) else { return };
            change(pace);
            let wake = pace.poll_wake();
            if pace.is_forgettable(Instant::now()) {
                shard.remove(host);
            }
            wake
        };
        if let Some(wake) = wake {
            wake.ring();
        }
    }

    /// What is known of the robots.txt of `site` (scheme, host and port), or who has to fetch it. Who waits
    /// is woken by `wake`, which is kept: given once, not each time that somebody looks.
    pub(crate) fn ask_rules(&self, site: &str, wake: Option<&Wake>) -> Ask {
        let now = Instant::now();
        let mut shard = self.robots_shard(site);
        let stale = match shard.entries.get_mut(site) {
            Some(Entry::Known { rules, until }) if now < *until => {
                return Ask::Known(rules.clone());
            }
            // §2.4: a file that can't be had anew may be used for longer.
            Some(Entry::Known { rules: Rules::Read(robots), .. }) => Some(Arc::clone(robots)),
            // Its core may have ended: then somebody else tries.
            Some(Entry::Fetching { since, waiting, .. }) if now < *since + ROBOTS_TIMEOUT * 2 => {
                waiting.extend(wake.cloned());
                return Ask::Wait;
            }
            Some(Entry::Fetching { stale, .. }) => stale.take(),
            _ => None,
        };
        shard.remove(site);
        let flight = Entry::Fetching { since: now, stale, waiting: Vec::new() };
        shard.insert(site, flight, now);
        Ask::Fetch
    }

    /// What a fetch of a robots.txt came to; wakes who waits for it.
    pub(crate) fn put_rules(&self, site: &str, fetched: Result<Robots, PageError>) {
        let now = Instant::now();
        let mut shard = self.robots_shard(site);
        let (stale, waiting) = match shard.remove(site) {
            Some(Entry::Fetching { stale, waiting, .. }) => (stale, waiting),
            _ => (None, Vec::new()),
        };
        let (rules, ttl) = match (fetched, stale) {
            (Ok(robots), _) => (Rules::Read(Arc::new(robots)), ROBOTS_TTL),
            (Err(_), Some(stale)) => (Rules::Read(stale), ROBOTS_RETRY),
            (Err(error), None) => {
                let answered = error.code == PageCode::RobotsDisallowed;
                let ttl = if answered { ROBOTS_RETRY } else { ROBOTS_RECONNECT };
                (Rules::Unreachable(error), ttl)
            }
        };
        shard.insert(site, Entry::Known { rules, until: now + ttl }, now);
        drop(shard);
        waiting.into_iter().for_each(Wake::ring);
    }

    fn pace_shard(&self, host: &str) -> MutexGuard<'_, HashMap<String, HostPace<Wake>>> {
        let at = self.shard_of(host, PACE_SHARDS);
        self.paces[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn robots_shard(&self, site: &str) -> MutexGuard<'_, RobotsShard> {
        let at = self.shard_of(site, ROBOTS_SHARDS);
        self.robots[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_of(&self, key: &str, shards: usize) -> usize {
        let hash = self.hasher.hash_one(key) % shards as u64;
        usize::try_from(hash).expect("less than the number of shards")
    }
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").field("places", &self.places).finish_non_exhaustive()
    }
}

/// Forgets hosts when there are too many: first those whose times have passed, then all that nobody
/// wants anything of.
fn make_room(shard: &mut HashMap<String, HostPace<Wake>>, now: Instant) {
    const PER_SHARD: usize = HOSTS_MAX / PACE_SHARDS;
    if shard.len() >= PER_SHARD {
        shard.retain(|_, pace| !pace.is_forgettable(now));
    }
    if shard.len() >= PER_SHARD {
        shard.retain(|_, pace| !pace.is_idle());
    }
}

impl Entry {
    fn bytes(&self, site: &str) -> usize {
        let robots = match self {
            Self::Known { rules: Rules::Read(robots), .. } => Some(robots),
            Self::Fetching { stale, .. } => stale.as_ref(),
            Self::Known { .. } => None,
        };
        ENTRY_BYTES + site.len() + robots.map_or(0, |robots| robots.weight())
    }
}

impl RobotsShard {
    fn remove(&mut self, site: &str) -> Option<Entry> {
        let entry = self.entries.remove(site)?;
        self.bytes -= entry.bytes(site);
        Some(entry)
    }

    fn insert(&mut self, site: &str, entry: Entry, now: Instant) {
        const PER_SHARD: usize = ROBOTS_CACHE_BYTES_MAX / ROBOTS_SHARDS;
        if self.bytes >= PER_SHARD {
            self.retain(|entry| !matches!(entry, Entry::Known { until, .. } if *until <= now));
        }
        if self.bytes >= PER_SHARD {
            // All are good: every other one goes, so that a full cache is swept rarely.
            let mut keep = false;
            self.retain(|entry| {
                keep = !keep;
                keep || matches!(entry, Entry::Fetching { .. })
            });
        }
        self.bytes += entry.bytes(site);
        self.entries.insert(site.to_owned(), entry);
    }

    fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|site, entry| {
            let kept = keep(entry);
            *bytes -= if kept { 0 } else { entry.bytes(site) };
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;
    use std::time::Duration;

    fn wake() -> (Wake, uring::mailbox::Receiver<u64>) {
        let (to, receiver) = uring::mailbox::channel(16);
        (Wake { to, ticket: 7 }, receiver)
    }

    fn asker(wake: &Wake) -> Asker<Wake> {
        let deadline = Instant::now() + Duration::from_secs(60);
        Asker { wake: wake.clone(), interval: Duration::ZERO, deadline }
    }

    #[test]
    fn a_freed_place_wakes_the_next_and_nothing_is_kept() {
        let (hosts, (wake, mut woken)) = (Hosts::new(1), wake());
        assert_eq!(hosts.ask_turn("a:80", asker(&wake)).1, Turn::Go);
        assert_eq!(hosts.ask_turn("b:80", asker(&wake)).1, Turn::Go, "another host");
        let (place, turn) = hosts.ask_turn("a:80", asker(&wake));
        assert_eq!((turn, hosts.busy()), (Turn::InLine, (2, 2)));
        hosts.end_turn("a:80");
        assert_eq!(woken.try_recv(), Some(7));
        assert_eq!((hosts.look("a:80", place), hosts.under_way("a:80")), (Turn::Go, 1));
        hosts.end_turn("a:80");
        hosts.end_turn("b:80");
        assert_eq!(hosts.busy(), (0, 0));
        assert!(hosts.paces.iter().all(|shard| shard.lock().is_ok_and(|shard| shard.is_empty())));
    }

    #[test]
    fn one_asker_fetches_the_rules_and_all_get_them() {
        let (hosts, (wake, mut woken)) = (Hosts::new(1), wake());
        assert!(matches!(hosts.ask_rules("http://a", Some(&wake)), Ask::Fetch));
        assert!(matches!(hosts.ask_rules("http://a", Some(&wake)), Ask::Wait));
        assert!(matches!(hosts.ask_rules("https://a", Some(&wake)), Ask::Fetch), "another site");
        hosts.put_rules("http://a", Ok(Robots::default()));
        assert_eq!((woken.try_recv(), woken.try_recv()), (Some(7), None));
        let known = hosts.ask_rules("http://a", Some(&wake));
        assert!(matches!(known, Ask::Known(Rules::Read(robots)) if *robots == Robots::default()));
        let error = PageError::new(PageCode::RobotsDisallowed, Stage::Pace, "503");
        hosts.put_rules("https://a", Err(error.clone()));
        let known = hosts.ask_rules("https://a", Some(&wake));
        assert!(matches!(known, Ask::Known(Rules::Unreachable(known)) if known == error));
    }

    #[test]
    fn a_file_that_cannot_be_had_anew_is_used_for_longer() {
        let (hosts, (wake, _woken)) = (Hosts::new(1), wake());
        let old = Robots::read(b"User-agent: *\nDisallow: /old");
        hosts.put_rules("http://a", Ok(old.clone()));
        for entry in hosts.robots_shard("http://a").entries.values_mut() {
            if let Entry::Known { until, .. } = entry {
                *until = Instant::now();
            }
        }
        assert!(matches!(hosts.ask_rules("http://a", Some(&wake)), Ask::Fetch));
        let error = PageError::new(PageCode::ConnectFailed, Stage::Connect, "down");
        hosts.put_rules("http://a", Err(error));
        let known = hosts.ask_rules("http://a", Some(&wake));
        assert!(matches!(known, Ask::Known(Rules::Read(robots)) if *robots == old));
    }

    #[test]
    fn the_robots_cache_is_bounded_by_bytes() {
        let hosts = Hosts::new(1);
        let large = Robots::read("User-agent: *\nDisallow: /x\n".repeat(4000).as_bytes());
        for n in 0..ROBOTS_CACHE_BYTES_MAX / large.weight() * 2 {
            hosts.put_rules(&format!("http://{n}"), Ok(large.clone()));
        }
        let bytes = |shard: &RobotsShard| {
            let sum: usize = shard.entries.iter().map(|(site, entry)| entry.bytes(site)).sum();
            assert_eq!(sum, shard.bytes);
            sum
        };
        let locked = hosts.robots.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner));
        let total: usize = locked.map(|shard| bytes(&shard)).sum();
        assert!(
            total <= ROBOTS_CACHE_BYTES_MAX + ROBOTS_SHARDS * (large.weight() + 512),
            "{total}"
        );
        assert!(total > ROBOTS_CACHE_BYTES_MAX / 4, "{total}");
    }
}
