//! A histogram's counts as a short run of bytes: what an interval and a [`Snapshot`] are made of.
//!
//! A dense histogram of our range takes 94 KB, yet five seconds of traffic touch a few hundred of
//! its slots. [`Counts`] lists only those, ascending, as LEB128 pairs (difference to the value
//! before, count): 3 to 5 bytes a slot. It is immutable and shared, so copying it into a snapshot
//! is a reference count.
//!
//! [`Snapshot`]: super::Snapshot

use std::iter::Peekable;
use std::sync::Arc;

/// Recorded values and their counts, ascending by value; values are slot values of one histogram
/// layout, so equal slots of several recorders have equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Option<Arc<[u8]>>);

impl Counts {
    /// Packs ascending (value in µs, count) pairs.
    pub(super) fn pack(pairs: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut bytes = Vec::new();
        let mut last = 0;
        for (value, count) in pairs {
            debug_assert!(value >= last, "slots come in ascending order");
            put_varint(&mut bytes, value - last);
            put_varint(&mut bytes, count);
            last = value;
        }
        if bytes.is_empty() { Self(None) } else { Self(Some(bytes.into())) }
    }

    /// The (value in µs, count) pairs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut rest = self.0.as_deref().unwrap_or_default();
        let mut last = 0;
        std::iter::from_fn(move || {
            let step = take_varint(&mut rest)?;
            let count = take_varint(&mut rest)?;
            last += step;
            Some((last, count))
        })
    }

    /// The sum of both.
    #[must_use]
    pub(super) fn merged(&self, other: &Self) -> Self {
        if other.0.is_none() {
            return self.clone();
        }
        Self::pack(Merge { left: self.iter().peekable(), right: other.iter().peekable() })
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Heap bytes of the packed pairs.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |bytes| bytes.len())
    }
}

struct Merge<L: Iterator, R: Iterator> {
    left: Peekable<L>,
    right: Peekable<R>,
}

impl<L, R> Iterator for Merge<L, R>
where
    L: Iterator<Item = (u64, u64)>,
    R: Iterator<Item = (u64, u64)>,
{
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        match (self.left.peek(), self.right.peek()) {
            (Some(left), Some(right)) if left.0 == right.0 => {
                let ((value, more), (_, count)) = (self.left.next()?, self.right.next()?);
                Some((value, count.saturating_add(more)))
            }
            (Some(left), Some(right)) if left.0 < right.0 => self.left.next(),
            (_, Some(_)) => self.right.next(),
            _ => self.left.next(),
        }
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f).to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pack(map: &BTreeMap<u64, u64>) -> Counts {
        Counts::pack(map.iter().map(|(&value, &count)| (value, count)))
    }

    proptest! {
        #[test]
        fn packing_loses_nothing_and_merging_adds(
            left in proptest::collection::btree_map(0u64..4_000_000_000, 1u64..u64::MAX / 2, 0..50),
            right in proptest::collection::btree_map(0u64..3_000, 1u64..u64::MAX / 2, 0..50),
        ) {
            prop_assert!(pack(&left).iter().eq(left.iter().map(|(&v, &c)| (v, c))));
            let mut sum = left.clone();
            for (value, count) in &right {
                *sum.entry(*value).or_default() += count;
            }
            prop_assert_eq!(pack(&left).merged(&pack(&right)), pack(&sum));
        }
    }
}
