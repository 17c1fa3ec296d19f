//! Conversions between the few number types in use, each saturating instead of cutting.

use std::time::Duration;

/// The nearest whole number at or above zero; not-a-number counts as zero.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float-to-integer `as` saturates, which is what this function promises"
)]
pub(crate) fn round_u64(value: f64) -> u64 {
    value.round() as u64
}

/// A length from outside as an index; saturates where `usize` is smaller.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// An index or length as a counter.
pub(crate) fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Whole microseconds of a duration, rounded to the nearest.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from((duration.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)
}

/// A duration of so many seconds; zero for a negative or absurd one.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}
