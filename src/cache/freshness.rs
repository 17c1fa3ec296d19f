//! For how long an origin lets its answer be used: RFC 9111, as a shared cache reads it.
//!
//! A request asks for this with `"freshness":"http"`. `Vary` needs no second key: all that we send
//! and that could vary is in the key already; only `Vary: *` matches nothing.

use super::date;
use std::time::{Duration, SystemTime};

/// The fields of a response that speak of caching.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// `Cache-Control`.
    pub cache_control: &'a str,
    /// `Vary`.
    pub vary: &'a str,
    /// `Expires`.
    pub expires: Option<&'a str>,
    /// `Date`.
    pub date: Option<&'a str>,
    /// `Age`.
    pub age: Option<&'a str>,
}

/// What they come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Never to be used without asking: `no-store`, `private`, `no-cache`, `Vary: *`, or an answer
    /// to credentials that nobody else may have.
    pub never: bool,
    /// How long the answer is fresh, counted from its making; `None` where the origin doesn't say.
    pub lifetime: Option<Duration>,
    /// How old it was when it came (RFC 9111 §4.2.3).
    pub age: Duration,
}

/// The directives that matter to us.
#[derive(Debug, Default)]
struct Directives {
    never: bool,
    /// RFC 9111 §3.5: what lets a shared cache keep an answer to `Authorization`.
    shareable: bool,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
}

impl Freshness {
    /// Reads the fields of an answer that came at `now`, `delay` after it was asked for.
    #[must_use]
    pub fn read(
        fields: &Fields<'_>,
        now: SystemTime,
        delay: Duration,
        with_credentials: bool,
    ) -> Self {
        let told = Directives::read(fields.cache_control);
        let made = fields.date.and_then(date::parse);
        // RFC 9111 §4.2.1: s-maxage, then max-age, then Expires; a value that is none is in the past.
        let expires = || {
            let expires = date::parse(fields.expires?);
            let from = made.unwrap_or(now);
            Some(expires.and_then(|at| at.duration_since(from).ok()).unwrap_or_default())
        };
        // RFC 9111 §4.2.3
        let apparent = made.and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        let given = fields.age.and_then(|text| seconds(text.trim()));
        Self {
            never: told.never
                || fields.vary.split(',').any(|name| name.trim() == "*")
                || with_credentials && !told.shareable,
            lifetime: told.s_maxage.or(told.max_age).or_else(expires),
            age: apparent.max(given.unwrap_or_default() + delay),
        }
    }

    /// Whether the answer is fresh by its origin's word, so long after it came.
    #[must_use]
    pub fn holds(&self, since: Duration) -> bool {
        !self.never && self.lifetime.is_none_or(|lifetime| self.age + since < lifetime)
    }
}

impl Directives {
    fn read(text: &str) -> Self {
        let mut told = Self::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            // Of a directive that comes twice, the shorter time counts (RFC 9111 §4.2.1).
            let shorter = |before: Option<Duration>| {
                let time = seconds(value.trim().trim_matches('"')).unwrap_or_default();
                Some(before.map_or(time, |before| before.min(time)))
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "private" | "no-cache" => told.never = true,
                "public" | "must-revalidate" => told.shareable = true,
                "max-age" => told.max_age = shorter(told.max_age),
                "s-maxage" => {
                    told.shareable = true;
                    told.s_maxage = shorter(told.s_maxage);
                }
                _ => {}
            }
        }
        told
    }
}

/// Delta-seconds (RFC 9111 §1.2.2): more than fits is 2^31.
fn seconds(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let most = 1 << 31;
    Some(Duration::from_secs(text.parse().unwrap_or(most).min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn read(fields: &Fields<'_>) -> Freshness {
        Freshness::read(fields, now(), Duration::ZERO, false)
    }

    fn control(text: &str) -> Freshness {
        read(&Fields { cache_control: text, ..Fields::default() })
    }

    fn lifetime_s(freshness: Freshness) -> Option<u64> {
        freshness.lifetime.map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn the_lifetime_is_what_counts_most() {
        assert_eq!(lifetime_s(control("")), None);
        assert_eq!(lifetime_s(control("max-age=60")), Some(60));
        assert_eq!(lifetime_s(control("Max-Age=\"60\" , S-MaxAge=5")), Some(5));
        assert_eq!(lifetime_s(control("max-age=60, max-age=7")), Some(7));
        assert_eq!(lifetime_s(control("max-age=x")), Some(0));
        assert_eq!(lifetime_s(control("max-age=-5")), Some(0));
        assert_eq!(lifetime_s(control("max-age=99999999999999999999")), Some(1 << 31));
        let expires = |expires, date| Fields { expires: Some(expires), date, ..Fields::default() };
        let later = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(lifetime_s(read(&expires(later, None))), Some(60));
        let date = Some("Sun, 06 Nov 1994 08:49:07 GMT");
        assert_eq!(lifetime_s(read(&expires(later, date))), Some(90));
        assert_eq!(lifetime_s(read(&expires("0", date))), Some(0));
        let both = Fields { cache_control: "max-age=5", ..expires(later, date) };
        assert_eq!(lifetime_s(read(&both)), Some(5));
    }

    #[test]
    fn an_answer_was_old_when_it_came() {
        let aged = Fields { cache_control: "max-age=60", age: Some("50"), ..Fields::default() };
        let freshness = read(&aged);
        assert!(freshness.holds(Duration::from_secs(9)));
        assert!(!freshness.holds(Duration::from_secs(10)));
        let dated = Fields { age: None, date: Some("Sun, 06 Nov 1994 08:48:47 GMT"), ..aged };
        assert!(read(&dated).holds(Duration::from_secs(9)));
        assert!(!read(&dated).holds(Duration::from_secs(10)));
    }

    #[test]
    fn some_answers_are_nobody_elses() {
        for text in ["no-store", "max-age=9, private", "no-cache=\"Set-Cookie\"", "No-Cache"] {
            assert!(!control(text).holds(Duration::ZERO), "{text}");
        }
        assert!(!read(&Fields { vary: "accept, *", ..Fields::default() }).holds(Duration::ZERO));
        assert!(read(&Fields { vary: "Accept", ..Fields::default() }).holds(Duration::ZERO));
        let secret = |text| {
            let fields = Fields { cache_control: text, ..Fields::default() };
            Freshness::read(&fields, now(), Duration::ZERO, true).holds(Duration::ZERO)
        };
        assert_eq!(
            [secret("max-age=9"), secret("public"), secret("s-maxage=9")],
            [false, true, true]
        );
    }

    proptest! {
        #[test]
        fn any_fields_are_read_without_a_panic(text in "\\PC{0,40}", other in "[a-z=0-9,\" -]{0,40}") {
            let fields = Fields {
                cache_control: &other,
                vary: &text,
                expires: Some(&text),
                date: Some(&other),
                age: Some(&text),
            };
            let _ = read(&fields).holds(Duration::from_secs(u64::from(u32::MAX)));
        }
    }
}
