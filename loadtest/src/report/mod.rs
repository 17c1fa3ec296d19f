//! What a run found out, for people (table, live line, HTML) and for programs (JSON and
//! HdrHistogram's text formats).

pub(crate) mod hdr;
pub(crate) mod html;
pub(crate) mod live;
pub(crate) mod model;
mod svg;
pub(crate) mod table;

use crate::num;

/// Microseconds as people read them: `850 µs`, `12.3 ms`, `1.25 s`.
pub(crate) fn time(micros: u64) -> String {
    let value = micros as f64;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", value / 1e3),
        10_000..100_000 => format!("{:.1} ms", value / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", value / 1e3),
        1_000_000..10_000_000 => format!("{:.2} s", value / 1e6),
        _ => format!("{:.1} s", value / 1e6),
    }
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    let value = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..10_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.1} GB", value / 1e9),
    }
}

/// A count with thousands set apart.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

/// A rate per second.
pub(crate) fn rate(value: f64) -> String {
    if value >= 100.0 { count(num::round_u64(value)) } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(time(850), "850 µs");
        assert_eq!(time(12_345), "12.3 ms");
        assert_eq!(time(1_250_000), "1.25 s");
        assert_eq!(bytes(20_500), "20.5 kB");
        assert_eq!(count(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(rate(99.94), "99.9");
    }
}
