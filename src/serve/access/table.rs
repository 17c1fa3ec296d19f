//! How many of something each client address has: connections, requests under way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shards of the table, so that cores seldom meet at a lock.
const SHARDS: usize = 64;

/// What counts as one client address: an IPv4 address, or the /64 that an IPv6 address is in, which
/// is what one subscriber has at least (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u128);

impl AddressKey {
    /// The key of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(four) => Self(four.to_ipv6_mapped().to_bits()),
            IpAddr::V6(six) => Self(six.to_bits() & !u128::from(u64::MAX)),
        }
    }

    /// The key as a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }

    /// Which of `shards` it belongs to. An attacker may choose addresses that share one: then the
    /// lock is busier, no more.
    pub(super) fn shard(self, shards: usize) -> usize {
        let folded = (self.0 >> 64) ^ self.0;
        let mixed = (folded ^ (folded >> 16) ^ (folded >> 32)) % shards as u128;
        usize::try_from(mixed).unwrap_or_default()
    }
}

/// Counts by address; an address of which there is nothing takes no memory, so the table is as large
/// as what is counted.
#[derive(Debug)]
pub struct Counts {
    shards: Vec<Mutex<HashMap<AddressKey, usize>>>,
}

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    counts: Arc<Counts>,
    address: AddressKey,
}

impl Counts {
    /// A table of zeros.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() })
    }

    /// Counts one more where the address has fewer than `most`; 0 is no limit, and nothing is counted.
    pub fn enter(
        self: &Arc<Self>,
        address: AddressKey,
        most: usize,
    ) -> Result<Option<Counted>, Full> {
        if most == 0 {
            return Ok(None);
        }
        let mut shard = self.shard(address);
        let count = shard.entry(address).or_default();
        if *count >= most {
            return Err(Full);
        }
        *count += 1;
        drop(shard);
        Ok(Some(Counted { counts: Arc::clone(self), address }))
    }

    fn shard(&self, address: AddressKey) -> MutexGuard<'_, HashMap<AddressKey, usize>> {
        self.shards[address.shard(SHARDS)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address has as many as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.counts.shard(self.address);
        if let Some(count) = shard.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn what_ends_makes_room_and_leaves_nothing_behind() {
        let counts = Counts::new();
        let address = AddressKey::of("192.0.2.1".parse().unwrap());
        let other = AddressKey::of("192.0.2.2".parse().unwrap());
        let first = counts.enter(address, 2).unwrap();
        let second = counts.enter(address, 2).unwrap();
        assert_eq!(counts.enter(address, 2).unwrap_err(), Full);
        assert!(counts.enter(other, 2).is_ok() && counts.enter(address, 0).unwrap().is_none());
        drop(first);
        drop(counts.enter(address, 2).unwrap());
        drop(second);
        assert!(counts.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
