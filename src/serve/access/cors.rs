//! Requests that a browser sends for a page of another origin (Fetch standard, "CORS protocol").
//!
//! What no browser sends has no `Origin` and is none of this. What has one must come from an origin
//! that the operator named, or from this server itself. All other requests are refused, not merely
//! answered without permission to read: a page that the operator's browser happens to show could
//! otherwise start crawls on an open server behind his firewall, or on his own machine.

use crate::limits::CORS_ORIGINS_MAX;
use bytes::Bytes;

/// Request fields that a page may set.
const ALLOWED_FIELDS: &str = "Authorization, X-API-Key, Content-Type, Accept, Idempotency-Key, Last-Event-ID, X-Request-ID, traceparent, tracestate";
/// Answer fields that a page may read, beside those that it always may.
const EXPOSED_FIELDS: &str =
    "X-Stream-ID, X-Request-ID, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate, Allow";
/// Seconds for which a browser may remember a preflight's answer.
const MAX_AGE_S: &str = "600";

/// Origins that may ask.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    any: bool,
    origins: Vec<Bytes>,
}

/// What a request's `Origin` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// There is none, or it is our own.
    #[default]
    Same,
    /// One that may ask: the value of `Access-Control-Allow-Origin`.
    Allowed(Bytes),
    /// Another one.
    Refused,
}

impl Cors {
    /// Reads `https://app.example.com`, or `*` for every origin.
    ///
    /// # Errors
    /// A sentence about the first that is no origin, or that there are too many.
    pub fn new(origins: &[String]) -> Result<Self, String> {
        if origins.len() > CORS_ORIGINS_MAX {
            return Err(format!(
                "expected at most {CORS_ORIGINS_MAX} origins, found {}",
                origins.len()
            ));
        }
        let mut cors = Self::default();
        for origin in origins {
            match origin.as_str() {
                "*" => cors.any = true,
                text if is_origin(text) => cors.origins.push(Bytes::from(text.to_owned())),
                text => return Err(format!("{text:?} is no origin")),
            }
        }
        Ok(cors)
    }

    /// Whether any origin may ask.
    #[must_use]
    pub fn is_off(&self) -> bool {
        !self.any && self.origins.is_empty()
    }

    /// Judges a request. `ours`: whether `Host` names this server, and not what somebody points at our
    /// address (DNS rebinding).
    #[must_use]
    pub fn judge(&self, origin: Option<&[u8]>, host: Option<&str>, ours: bool) -> Verdict {
        let Some(origin) = origin else { return Verdict::Same };
        if self.any {
            return Verdict::Allowed(Bytes::from_static(b"*"));
        }
        if let Some(known) = self.origins.iter().find(|known| known[..] == *origin) {
            return Verdict::Allowed(known.clone());
        }
        let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
        let same = |host: &str| {
            ours && authority.is_some_and(|own| own.eq_ignore_ascii_case(host.as_bytes()))
        };
        if host.is_some_and(same) { Verdict::Same } else { Verdict::Refused }
    }

    /// Whether a browser sends it for a page of another origin without saying of which: a picture, a
    /// frame, a link (Fetch Metadata Request Headers, `Sec-Fetch-Site`). Such a page can't read the
    /// answer, but the work would be done.
    #[must_use]
    pub fn is_foreign(&self, verdict: &Verdict, site: Option<&[u8]>) -> bool {
        !self.any && *verdict == Verdict::Same && matches!(site, Some(b"cross-site" | b"same-site"))
    }

    /// The fields of any answer to that verdict.
    pub fn fields(&self, verdict: &Verdict, out: &mut Vec<(&'static str, Bytes)>) {
        if let Verdict::Allowed(origin) = verdict {
            out.push(("Access-Control-Allow-Origin", origin.clone()));
            out.push((
                "Access-Control-Expose-Headers",
                Bytes::from_static(EXPOSED_FIELDS.as_bytes()),
            ));
        }
        if !self.is_off() && !self.any {
            // A cache must not give one origin's answer to another.
            out.push(("Vary", Bytes::from_static(b"Origin")));
        }
    }

    /// The further fields of the answer to a preflight.
    pub fn preflight(methods: &'static str, out: &mut Vec<(&'static str, Bytes)>) {
        for (name, value) in [
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", ALLOWED_FIELDS),
            ("Access-Control-Max-Age", MAX_AGE_S),
        ] {
            out.push((name, Bytes::from_static(value.as_bytes())));
        }
    }
}

/// An origin as a browser writes it (RFC 6454 §6.2): scheme, host, port, no path.
fn is_origin(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        let origins: Vec<String> = origins.iter().map(|text| (*text).to_owned()).collect();
        Cors::new(&origins).unwrap()
    }

    fn judge(origins: &[&str], origin: &str, host: &str, ours: bool) -> Verdict {
        cors(origins).judge(Some(origin.as_bytes()), Some(host), ours)
    }

    #[test]
    fn only_named_origins_and_our_own_may_ask() {
        let app = "https://app.example.com";
        assert_eq!(judge(&[app], app, "api:1", true), Verdict::Allowed(Bytes::from(app)));
        assert_eq!(judge(&["*"], "null", "api", false), Verdict::Allowed(Bytes::from("*")));
        for other in [
            "https://app.example.com:8443",
            "http://app.example.com",
            "null",
            "https://APP.example.com",
            "https://app.example.com.evil",
            "",
        ] {
            assert_eq!(judge(&[app], other, "api:1", true), Verdict::Refused, "{other}");
        }
        assert_eq!(judge(&[], "http://127.0.0.1:8080", "127.0.0.1:8080", true), Verdict::Same);
        assert_eq!(judge(&[], "http://[::1]:80", "[::1]:80", true), Verdict::Same);
        assert_eq!(judge(&[], "https://api", "API", true), Verdict::Same);
        assert_eq!(Cors::default().judge(None, None, true), Verdict::Same);
    }

    #[test]
    fn a_name_pointed_at_us_is_not_ours() {
        assert_eq!(
            judge(&[], "http://evil.example:8080", "evil.example:8080", false),
            Verdict::Refused
        );
        assert_eq!(judge(&[], "http://evil.example", "127.0.0.1:8080", true), Verdict::Refused);
    }

    #[test]
    fn a_page_elsewhere_that_does_not_say_where_is_told_by_its_browser() {
        let (none, app) = (cors(&[]), Verdict::Allowed(Bytes::from("https://app.example.com")));
        for site in [&b"cross-site"[..], b"same-site"] {
            assert!(none.is_foreign(&Verdict::Same, Some(site)));
            assert!(!none.is_foreign(&app, Some(site)), "it was named");
            assert!(!cors(&["*"]).is_foreign(&Verdict::Same, Some(site)));
        }
        for own in [None, Some(&b"same-origin"[..]), Some(b"none")] {
            assert!(!none.is_foreign(&Verdict::Same, own));
        }
    }

    #[test]
    fn what_is_no_origin_is_told() {
        for text in [
            "example.com",
            "https://a/",
            "https://a/b",
            "ftp://a",
            "https://A",
            "https://u@a",
            "https://a:443",
        ] {
            assert!(Cors::new(&[text.to_owned()]).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_for_one_origin_says_so_to_caches() {
        let cors = Cors::new(&["https://a".to_owned()]).unwrap();
        let mut fields = Vec::new();
        cors.fields(&Verdict::Same, &mut fields);
        assert_eq!(fields, [("Vary", Bytes::from("Origin"))]);
        let mut none = Vec::new();
        Cors::default().fields(&Verdict::Refused, &mut none);
        assert!(none.is_empty() && Cors::default().is_off());
    }
}
