//! Dates as pages write them, to ISO 8601.

/// The date, or date and time, that `text` starts with, as ISO 8601: `2024-03-05`,
/// `2024-03-05T10:00:00`, `2024-03-05T10:00:00+01:00`.
///
/// Understands ISO 8601 and its neighbours (`2024/3/5`, `20240305`, `2024年3月5日`), RFC 9110 dates,
/// day and month in words of seven languages in either order, `5.3.2024`, and Unix times in seconds
/// or milliseconds. `3/5/2024` is read as month and day unless the first number is over 12.
pub(crate) fn iso(text: &str) -> Option<String> {
    let text = text.trim();
    let text = &text[..text.floor_char_boundary(100)];
    unix(text).or_else(|| {
        let tokens = tokens(text);
        let (date, used) = date(&tokens)?;
        let (y, m, d) = date;
        let mut out = format!("{y:04}-{m:02}-{d:02}");
        if let Some(time) = time(text.get(used..).unwrap_or("")) {
            out.push('T');
            out.push_str(&time);
        }
        Some(out)
    })
}

/// The date in a path as `/2024/03/05/`.
pub(crate) fn in_path(url: &str) -> Option<String> {
    let parts: Vec<&str> = url.split('?').next()?.split('/').collect();
    parts.windows(3).find_map(|w| {
        let number = |s: &str, len: usize| {
            (s.len() <= len && !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()))
                .then(|| s.parse().ok())
                .flatten()
        };
        let (y, m, d) = (number(w[0], 4)?, number(w[1], 2)?, number(w[2], 2)?);
        valid(y, m, d).then(|| format!("{y:04}-{m:02}-{d:02}"))
    })
}

type Date = (u32, u32, u32);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    /// A number with its count of digits.
    Number(u32, usize),
    Word(&'a str),
    Mark(char),
}

/// Tokens with the offset behind each.
fn tokens(text: &str) -> Vec<(Token<'_>, usize)> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run = |test: fn(char) -> bool| rest.find(|c| !test(c)).unwrap_or(rest.len());
        let (token, len) = if first.is_ascii_digit() {
            let len = run(|c| c.is_ascii_digit());
            (Token::Number(rest[..len].parse().unwrap_or(u32::MAX), len), len)
        } else if first.is_alphabetic() && !matches!(first, '年' | '月' | '日') {
            let len = run(char::is_alphabetic);
            (Token::Word(&rest[..len]), len)
        } else {
            (Token::Mark(first), first.len_utf8())
        };
        rest = &rest[len..];
        if !matches!(token, Token::Mark(c) if c.is_whitespace() || c == ',') {
            out.push((token, text.len() - rest.len()));
        }
    }
    out
}

/// The first date and the offset behind it.
fn date(tokens: &[(Token<'_>, usize)]) -> Option<(Date, usize)> {
    use Token::{Mark, Number, Word};
    (0..tokens.len()).find_map(|at| {
        let token = |n: usize| tokens.get(at + n).map(|t| t.0);
        let (date, len) = match (token(0)?, token(1), token(2), token(3), token(4)) {
            (Number(n, 8), ..) => ((n / 10_000, n / 100 % 100, n % 100), 1),
            (
                Number(y, 4),
                Some(Mark('-' | '/' | '.' | '年')),
                Some(Number(m, _)),
                Some(Mark('-' | '/' | '.' | '月')),
                Some(Number(d, _)),
            ) => ((y, m, d), 5),
            (
                Number(d, 1 | 2),
                Some(Mark('.')),
                Some(Number(m, 1 | 2)),
                Some(Mark('.')),
                Some(Number(y, 4)),
            ) => ((y, m, d), 5),
            (
                Number(a, 1 | 2),
                Some(Mark('/' | '-')),
                Some(Number(b, 1 | 2)),
                Some(Mark('/' | '-')),
                Some(Number(y, 4)),
            ) => (if a > 12 { (y, b, a) } else { (y, a, b) }, 5),
            (Word(name), Some(Number(d, 1 | 2)), Some(Number(y, 4)), ..) => {
                ((y, month(name)?, d), 3)
            }
            (Word(name), Some(Number(_, 1 | 2) | Mark('.')), Some(Word(_) | Number(..)), ..) => {
                word_first(name, &[token(1), token(2), token(3)])?
            }
            (Number(d, 1 | 2), ..) => day_first(d, &tokens[at + 1..])?,
            _ => return None,
        };
        valid(date.0, date.1, date.2).then(|| (date, tokens[at + len - 1].1))
    })
}

/// `Mar. 5 2024`, `March 5th 2024`.
fn word_first(name: &str, rest: &[Option<Token<'_>>; 3]) -> Option<(Date, usize)> {
    let m = month(name)?;
    match rest {
        [Some(Token::Mark('.')), Some(Token::Number(d, 1 | 2)), Some(Token::Number(y, 4))]
        | [Some(Token::Number(d, 1 | 2)), Some(Token::Word(_)), Some(Token::Number(y, 4))] => {
            Some(((*y, m, *d), 4))
        }
        _ => None,
    }
}

/// `5 March 2024`, `5. März 2024`, `5th of March 2024`, `5 de marzo de 2024`, `05-Mar-2024`.
fn day_first(day: u32, rest: &[(Token<'_>, usize)]) -> Option<(Date, usize)> {
    let mut found = None;
    for (n, (token, _)) in rest.iter().enumerate().take(6) {
        match (token, found) {
            (Token::Word(name), None) => match month(name) {
                Some(m) => found = Some(m),
                None if matches!(*name, "st" | "nd" | "rd" | "th" | "of" | "de" | "er") => {}
                None => return None,
            },
            (Token::Word("de" | "del") | Token::Mark('.' | '-' | '/'), _) => {}
            (Token::Number(y, 4), Some(m)) => return Some(((*y, m, day), n + 2)),
            _ => return None,
        }
    }
    None
}

/// English, German, French, Spanish, Italian, Portuguese and Dutch, whole or cut to three letters.
fn month(name: &str) -> Option<u32> {
    const MONTHS: [(u32, &str); 12] = [
        (1, "jan january januar janvier enero ene gennaio gen janeiro januari"),
        (2, "feb february februar février fév févr febrero febbraio fevereiro fev februari"),
        (3, "mar march märz mär mrz mars marzo março maart mrt"),
        (4, "apr april avril avr abril abr aprile"),
        (5, "may mai mayo maggio mag maio mei"),
        (6, "jun june juni juin junio giugno giu junho"),
        (7, "jul july juli juillet juil julio luglio lug julho"),
        (8, "aug august août aoû agosto ago augustus"),
        (9, "sep sept september septembre septiembre settembre set setembro"),
        (10, "oct october oktober okt octobre octubre ottobre ott outubro out"),
        (11, "nov november novembre noviembre novembro"),
        (12, "dec december dezember dez décembre déc diciembre dic dicembre dezembro"),
    ];
    let name = name.to_lowercase();
    MONTHS.iter().find(|(_, names)| names.split(' ').any(|n| n == name)).map(|(n, _)| *n)
}

fn valid(y: u32, m: u32, d: u32) -> bool {
    let leap = y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let days = match m {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1900..2200).contains(&y) && (1..=days).contains(&d)
}

/// `T10:00`, ` 10:00:05.123+0100`, ` 10:00 GMT`; seconds are added, fractions are dropped.
fn time(text: &str) -> Option<String> {
    let text = text.trim_start_matches(['T', 't', ' ', ',']);
    let (hour, rest) = two(text)?;
    let (minute, rest) = two(rest.strip_prefix(':')?)?;
    let (second, rest) = rest.strip_prefix(':').and_then(two).unwrap_or((0, rest));
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = rest.strip_prefix(['.', ',']).unwrap_or(rest);
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    Some(format!("{hour:02}:{minute:02}:{second:02}{}", offset(rest).unwrap_or_default()))
}

fn offset(text: &str) -> Option<String> {
    if ["Z", "z", "GMT", "UTC"].iter().any(|name| text.starts_with(name)) {
        return Some("Z".to_owned());
    }
    let sign = text.chars().next().filter(|c| matches!(c, '+' | '-'))?;
    let (hour, rest) = two(&text[1..])?;
    let minute = two(rest.strip_prefix(':').unwrap_or(rest)).map_or(0, |(m, _)| m);
    (hour <= 14 && minute < 60).then(|| format!("{sign}{hour:02}:{minute:02}"))
}

/// One or two digits.
fn two(text: &str) -> Option<(u32, &str)> {
    let len = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    Some((text[..len].parse().ok()?, &text[len..]))
}

/// Unix time of 10 digits (seconds) or 13 (milliseconds).
fn unix(text: &str) -> Option<String> {
    if !text.bytes().all(|b| b.is_ascii_digit()) || !matches!(text.len(), 10 | 13) {
        return None;
    }
    let seconds: i64 = text[..10].parse().ok()?;
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (y, m, d) = civil(days);
    Some(format!(
        "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    ))
}

/// The proleptic Gregorian date of a day since 1970, by counting 400-year eras from March 1st.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_pages_write_them() {
        for (text, want) in [
            ("2024-03-05", "2024-03-05"),
            ("2024-03-05T10:00:01.250Z", "2024-03-05T10:00:01Z"),
            ("2024-03-05T10:00:00+0100", "2024-03-05T10:00:00+01:00"),
            ("2024-03-05 10:00", "2024-03-05T10:00:00"),
            ("2024/3/5", "2024-03-05"),
            ("20240305", "2024-03-05"),
            ("2024年3月5日 08:09", "2024-03-05"),
            ("Tue, 05 Mar 2024 10:00:00 GMT", "2024-03-05T10:00:00Z"),
            ("Tuesday, March 5, 2024", "2024-03-05"),
            ("Mar. 5, 2024", "2024-03-05"),
            ("March 5th, 2024 10:30", "2024-03-05T10:30:00"),
            ("5th of March 2024", "2024-03-05"),
            ("5. März 2024", "2024-03-05"),
            ("5 de marzo de 2024", "2024-03-05"),
            ("05-Mar-2024", "2024-03-05"),
            ("Published: 5.3.2024, 9:05", "2024-03-05T09:05:00"),
            ("3/5/2024", "2024-03-05"),
            ("25/3/2024", "2024-03-25"),
            ("1709632800", "2024-03-05T10:00:00Z"),
            ("1709632800123", "2024-03-05T10:00:00Z"),
        ] {
            assert_eq!(iso(text).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "yesterday", "2024", "2023-02-29", "31.4.2024", "99999999", "v1.2.3", "水"]
        {
            assert_eq!(iso(text), None, "{text}");
        }
        let long = "9".repeat(1_000_000);
        assert_eq!(iso(&long), None);
    }

    #[test]
    fn a_path_may_tell_the_day() {
        assert_eq!(in_path("https://e.com/2024/03/05/a").as_deref(), Some("2024-03-05"));
        assert_eq!(in_path("https://e.com/2024/13/05/a"), None);
        assert_eq!(in_path("https://e.com/a?x=/2024/03/05/"), None);
    }
}
