//! Idle connections of one core, kept to be used again (RFC 9112 §9.3). Without IO: it holds
//! connections of any kind, and closes one by dropping it.

use crate::fetch::egress::CheckedAddr;
use crate::fetch::target::Origin;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections to one origin.
    pub per_origin: usize,
    /// Idle connections of the core.
    pub total: usize,
    /// Time after which an idle connection is closed.
    pub idle: Duration,
}

/// Idle connections by origin.
#[derive(Debug)]
pub struct Pool<C> {
    limits: PoolLimits,
    origins: HashMap<Origin, Vec<Idle<C>>>,
    total: usize,
}

#[derive(Debug)]
struct Idle<C> {
    conn: C,
    addr: CheckedAddr,
    until: Instant,
}

impl<C> Pool<C> {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        Self { limits, origins: HashMap::new(), total: 0 }
    }

    /// The connection to `origin` that was used last and whose address is one of `approved`: those
    /// that the name stands for now, and that the guard lets pass now.
    pub fn take(&mut self, origin: &Origin, approved: &[CheckedAddr], now: Instant) -> Option<C> {
        let idle = self.origins.get_mut(origin)?;
        let before = idle.len();
        idle.retain(|c| c.until > now);
        let taken = idle.iter().rposition(|c| approved.contains(&c.addr)).map(|at| idle.remove(at));
        self.total -= before - idle.len();
        if idle.is_empty() {
            self.origins.remove(origin);
        }
        taken.map(|idle| idle.conn)
    }

    /// Keeps a connection that has just become idle; above a limit the one that has been idle the
    /// longest makes room.
    pub fn put(&mut self, origin: &Origin, addr: CheckedAddr, conn: C, now: Instant) {
        if self.limits.per_origin == 0 || self.limits.total == 0 {
            return;
        }
        if self.total >= self.limits.total {
            self.drop_oldest();
        }
        if !self.origins.contains_key(origin) {
            self.origins.insert(origin.clone(), Vec::new());
        }
        let idle = self.origins.get_mut(origin).expect("inserted above");
        if idle.len() >= self.limits.per_origin {
            idle.remove(0);
            self.total -= 1;
        }
        idle.push(Idle { conn, addr, until: now + self.limits.idle });
        self.total += 1;
    }

    /// Closes what has been idle for too long; when to call again, if anything is left.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.origins.retain(|_, idle| {
            let before = idle.len();
            idle.retain(|c| c.until > now);
            self.total -= before - idle.len();
            !idle.is_empty()
        });
        // The oldest of an origin stands first.
        self.origins.values().filter_map(|idle| idle.first()).map(|c| c.until).min()
    }

    /// Idle connections.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.total
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.origins.clear();
        self.total = 0;
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .origins
            .iter()
            .min_by_key(|(_, idle)| idle.first().map(|c| c.until))
            .map(|(origin, _)| origin.clone());
        let Some(origin) = oldest else { return };
        let Some(idle) = self.origins.get_mut(&origin) else { return };
        idle.remove(0);
        self.total -= 1;
        if idle.is_empty() {
            self.origins.remove(&origin);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::fetch::egress::Egress;
    use crate::fetch::target::Target;

    const LIMITS: PoolLimits =
        PoolLimits { per_origin: 2, total: 3, idle: Duration::from_secs(10) };

    fn origin(url: &str) -> Origin {
        Target::parse(url).unwrap().origin().clone()
    }

    fn addr(last: u8) -> CheckedAddr {
        let guard = Egress::new(&[], &[], &[80]).unwrap();
        guard.check("a.test", ([8, 8, 8, last], 80).into()).unwrap()
    }

    #[test]
    fn gives_back_the_youngest_to_an_approved_address() {
        let (mut pool, now) = (Pool::new(LIMITS), Instant::now());
        let a = origin("http://a.test/");
        pool.put(&a, addr(1), "old", now);
        pool.put(&a, addr(2), "young", now);
        assert_eq!(pool.take(&a, &[addr(3)], now), None, "the name has moved");
        assert_eq!(pool.take(&a, &[addr(1), addr(2)], now), Some("young"));
        assert_eq!(pool.take(&a, &[addr(1), addr(2)], now), Some("old"));
        assert_eq!(pool.take(&a, &[addr(1)], now), None);
        assert!(pool.is_empty());
    }

    #[test]
    fn origins_do_not_mix() {
        let (mut pool, now) = (Pool::new(LIMITS), Instant::now());
        pool.put(&origin("http://a.test/"), addr(1), 1, now);
        for other in ["https://a.test:80/", "http://b.test/", "http://a.test:8080/"] {
            assert_eq!(pool.take(&origin(other), &[addr(1)], now), None);
        }
    }

    #[test]
    fn limits_hold_and_the_oldest_goes() {
        let (mut pool, now) = (Pool::new(LIMITS), Instant::now());
        let (a, b) = (origin("http://a.test/"), origin("http://b.test/"));
        let tick = |n| now + Duration::from_secs(n);
        for n in 0..3 {
            pool.put(&a, addr(1), n, tick(n));
        }
        assert_eq!(pool.len(), 2);
        pool.put(&b, addr(1), 10, tick(3));
        pool.put(&b, addr(1), 11, tick(4));
        assert_eq!(pool.len(), 3);
        assert_eq!(pool.take(&a, &[addr(1)], tick(4)), Some(2));
        assert_eq!(pool.take(&a, &[addr(1)], tick(4)), None, "1 was the oldest of all");
    }

    #[test]
    fn idle_time_ends() {
        let (mut pool, now) = (Pool::new(LIMITS), Instant::now());
        let (a, b) = (origin("http://a.test/"), origin("http://b.test/"));
        pool.put(&a, addr(1), 1, now);
        pool.put(&b, addr(1), 2, now + Duration::from_secs(1));
        assert_eq!(pool.handle_timeout(now), Some(now + LIMITS.idle));
        let next = pool.handle_timeout(now + LIMITS.idle);
        assert_eq!((next, pool.len()), (Some(now + LIMITS.idle + Duration::from_secs(1)), 1));
        assert_eq!(pool.take(&b, &[addr(1)], now + LIMITS.idle * 2), None);
        assert_eq!((pool.handle_timeout(now), pool.len()), (None, 0));
    }
}
