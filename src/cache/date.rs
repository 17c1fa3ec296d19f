//! Reading an HTTP-date (RFC 9110 §5.6.7), in all three forms that a recipient must take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The time that an HTTP-date names; `None` where it is none, or before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    if text.len() > 64 || !text.is_ascii() {
        return None;
    }
    let mut parts = text.split([' ', ',', '-']).filter(|part| !part.is_empty());
    let mut next = || parts.next();
    let (_weekday, first, second, third, fourth) = (next()?, next()?, next()?, next()?, next()?);
    let fifth = next();
    if next().is_some() {
        return None;
    }
    let (day, month, year, clock) = match fifth {
        // `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`
        Some("GMT") => (first, second, third, fourth),
        // `Sun Nov  6 08:49:37 1994`
        None => (second, first, fourth, third),
        Some(_) => return None,
    };
    let month = MONTHS.iter().position(|name| month.eq_ignore_ascii_case(name))? + 1;
    let year = match (year.len(), number(year)?) {
        (4, year) => year,
        // RFC 9110 §5.6.7: two digits that seem far in the future are of the century before.
        (2, year) if year < 70 => year + 2000,
        (2, year) => year + 1900,
        _ => return None,
    };
    let day = number(day).filter(|day| (1..=31).contains(day))?;
    let mut clock = clock.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before(year, month as u64, day);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn number(text: &str) -> Option<u64> {
    let plain = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years that begin in March have their
/// leap day last.
const fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_index = (month + 9) % 12;
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::timestamp::imf_fixdate;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms_of_the_standard_are_one_time() {
        let expected = Some(UNIX_EPOCH + Duration::from_secs(784_111_777));
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in
            ["", "0", "-1", "now", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nov 1969 08:49:37 GMT"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_is_written(seconds in 0..4_000_000_000_u64) {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            let text = String::from_utf8(imf_fixdate(at).to_vec()).expect("ASCII");
            prop_assert_eq!(parse(&text), Some(at));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,40}", parts in "[A-Za-z]{3},? [0-9]{1,5}[ -][A-Z][a-z]{2}[ -][0-9]{1,5} [0-9:]{1,12} GMT") {
            let _ = parse(&text);
            let _ = parse(&parts);
        }
    }
}
