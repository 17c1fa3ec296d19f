//! Points in time as text: RFC 3339 for events, IMF-fixdate (RFC 9110 §5.6.7) for `Date`.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];

/// `2026-01-15T10:30:00.000Z`.
#[must_use]
pub fn rfc3339_millis(at: SystemTime) -> [u8; 24] {
    let civil = Civil::from(at);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    digits(&mut out[0..4], civil.year);
    digits(&mut out[5..7], civil.month);
    digits(&mut out[8..10], civil.day);
    digits(&mut out[11..13], civil.hour);
    digits(&mut out[14..16], civil.minute);
    digits(&mut out[17..19], civil.second);
    digits(&mut out[20..23], civil.millis);
    out
}

/// `Thu, 15 Jan 2026 10:30:00 GMT`.
#[must_use]
pub fn imf_fixdate(at: SystemTime) -> [u8; 29] {
    let civil = Civil::from(at);
    let mut out = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    out[0..3].copy_from_slice(DAYS[civil.weekday]);
    digits(&mut out[5..7], civil.day);
    out[8..11].copy_from_slice(MONTHS[(civil.month - 1) as usize]);
    digits(&mut out[12..16], civil.year);
    digits(&mut out[17..19], civil.hour);
    digits(&mut out[20..22], civil.minute);
    digits(&mut out[23..25], civil.second);
    out
}

/// A UTC date and time of the proleptic Gregorian calendar.
struct Civil {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    millis: u32,
    weekday: usize,
}

impl From<SystemTime> for Civil {
    /// Days to a date by the 400-year cycle that starts on 1 March 0000, so that leap days come last.
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let secs = since.as_secs();
        let (days, second_of_day) = (secs / 86_400, narrow(secs % 86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * day_of_year + 2) / 153;
        let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
        Self {
            year: narrow(era * 400 + year_of_era + u64::from(month <= 2)),
            month: narrow(month),
            day: narrow(day_of_year - (153 * month_index + 2) / 5 + 1),
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            millis: since.subsec_millis(),
            weekday: (days % 7) as usize,
        }
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn digits(out: &mut [u8], mut value: u32) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(secs: u64, millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(secs * 1000 + millis)
    }

    #[test]
    fn known_dates() {
        assert_eq!(&rfc3339_millis(at(0, 0)), b"1970-01-01T00:00:00.000Z");
        assert_eq!(&rfc3339_millis(at(951_827_696, 7)), b"2000-02-29T12:34:56.007Z");
        assert_eq!(&rfc3339_millis(at(1_768_473_000, 999)), b"2026-01-15T10:30:00.999Z");
        // RFC 9110 §5.6.7's own example.
        assert_eq!(&imf_fixdate(at(784_111_777, 0)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&imf_fixdate(at(1_768_473_000, 0)), b"Thu, 15 Jan 2026 10:30:00 GMT");
    }
}
