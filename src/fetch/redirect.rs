//! Redirects: a policy without IO. Every hop's target is checked like a client's URL, and goes
//! through the egress guard like one.
//!
//! - 301, 302, 303, 307 and 308 with a `Location` are followed (RFC 9110 §15.4). A fetch is a
//!   `GET` and stays one. 300 and 304, and a redirect without `Location`, are final answers.
//! - Above the limit, which may be 0, or when a URL comes up again, the fetch ends with
//!   `too_many_redirects`: there is no cookie jar, so a second visit cannot end otherwise than the
//!   first.
//! - From https to http is refused unless allowed: it would show the reader's path in clear.
//! - Across origins the client's fields that may hold a secret (`Authorization`, `Cookie`, `X-API-Key`
//!   and all that logs would hide) are dropped, for good: a later hop back to the first origin does
//!   not bring them back.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::target::{Scheme, Target};
use crate::observe::redact::is_secret_field;

/// What to do with a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is the answer.
    Final,
    /// Fetch this instead.
    Follow(Target),
}

/// The redirects of one fetch.
#[derive(Debug)]
pub struct Redirects {
    limit: u32,
    downgrade_allowed: bool,
    /// Every URL fetched so far; at most `limit + 1` of them.
    seen: Vec<String>,
    crossed_origin: bool,
}

impl Redirects {
    /// The policy for a fetch that starts at `start` and follows at most `limit` redirects.
    #[must_use]
    pub fn new(start: &Target, limit: u32, downgrade_allowed: bool) -> Self {
        let seen = vec![start.as_str().to_owned()];
        Self { limit, downgrade_allowed, seen, crossed_origin: false }
    }

    /// `from` was answered with `status` and these `Location` field values.
    ///
    /// # Errors
    /// The redirect must not be followed: `too_many_redirects`, `blocked_egress` (scheme,
    /// downgrade) or `http_malformed` (no usable URL).
    pub fn handle_response(
        &mut self,
        from: &Target,
        status: u16,
        locations: &[&[u8]],
    ) -> Result<Next, PageError> {
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Ok(Next::Final);
        }
        let Some((location, others)) = locations.split_first() else { return Ok(Next::Final) };
        if others.iter().any(|other| other != location) {
            return Err(malformed("the redirect has more than one Location"));
        }
        let location = std::str::from_utf8(location)
            .map_err(|_| malformed("the redirect's Location is not UTF-8"))?;
        let target = from
            .join(location)
            .map_err(|error| malformed(&format!("the redirect's Location: {error}")))?;
        self.check(from, &target)?;
        self.crossed_origin |= from.origin() != target.origin();
        self.seen.push(target.as_str().to_owned());
        Ok(Next::Follow(target))
    }

    /// Whether a request field that the client gave may go to the current hop.
    #[must_use]
    pub fn may_send(&self, field: &str) -> bool {
        !(self.crossed_origin && is_secret_field(field))
    }

    /// Redirects followed so far.
    #[must_use]
    pub fn hops(&self) -> usize {
        self.seen.len() - 1
    }

    fn check(&self, from: &Target, target: &Target) -> Result<(), PageError> {
        let downgrade =
            from.origin().scheme == Scheme::Https && target.origin().scheme == Scheme::Http;
        if downgrade && !self.downgrade_allowed {
            let message = "the redirect leads from https to http";
            return Err(PageError::new(PageCode::BlockedEgress, Stage::Ttfb, message));
        }
        let too_many =
            |message| Err(PageError::new(PageCode::TooManyRedirects, Stage::Ttfb, message));
        if self.seen.iter().any(|seen| seen == target.as_str()) {
            return too_many("the redirects form a loop".to_owned());
        }
        if self.hops() >= self.limit as usize {
            return too_many(format!("more than {} redirects", self.limit));
        }
        Ok(())
    }
}

fn malformed(message: &str) -> PageError {
    PageError::new(PageCode::HttpMalformed, Stage::Ttfb, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn target(url: &str) -> Target {
        Target::parse(url).unwrap()
    }

    fn step(
        policy: &mut Redirects,
        from: &str,
        status: u16,
        location: &str,
    ) -> Result<String, PageCode> {
        match policy.handle_response(&target(from), status, &[location.as_bytes()]) {
            Ok(Next::Follow(target)) => Ok(target.as_str().to_owned()),
            Ok(Next::Final) => Ok("final".to_owned()),
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn only_redirects_with_a_location_are_followed() {
        for status in [200, 204, 300, 304, 305, 306, 309, 399, 404, 500] {
            let mut policy = Redirects::new(&target("http://a.test/"), 5, false);
            assert_eq!(step(&mut policy, "http://a.test/", status, "/x"), Ok("final".into()));
        }
        for status in [301, 302, 303, 307, 308] {
            let start = target("http://a.test/p/");
            let mut policy = Redirects::new(&start, 5, false);
            assert_eq!(policy.handle_response(&start, status, &[]), Ok(Next::Final));
            assert_eq!(
                step(&mut policy, start.as_str(), status, "x"),
                Ok("http://a.test/p/x".into())
            );
            assert_eq!(policy.hops(), 1);
        }
    }

    #[test]
    fn the_limit_holds_and_may_be_zero() {
        let mut policy = Redirects::new(&target("http://a.test/0"), 2, false);
        assert!(step(&mut policy, "http://a.test/0", 302, "/1").is_ok());
        assert!(step(&mut policy, "http://a.test/1", 302, "/2").is_ok());
        let third = step(&mut policy, "http://a.test/2", 302, "/3");
        assert_eq!(third, Err(PageCode::TooManyRedirects));
        let mut none = Redirects::new(&target("http://a.test/0"), 0, false);
        assert_eq!(step(&mut none, "http://a.test/0", 302, "/1"), Err(PageCode::TooManyRedirects));
    }

    #[test]
    fn a_loop_ends_at_once() {
        let mut policy = Redirects::new(&target("http://a.test/"), 20, false);
        let to_itself = step(&mut policy, "http://a.test/", 301, "#fragment");
        assert_eq!(to_itself, Err(PageCode::TooManyRedirects));
        assert!(step(&mut policy, "http://a.test/", 301, "/b").is_ok());
        let back = step(&mut policy, "http://a.test/b", 301, "http://A.test:80");
        assert_eq!(back, Err(PageCode::TooManyRedirects));
    }

    #[test]
    fn from_https_to_http_only_where_allowed() {
        let start = target("https://a.test/");
        let mut policy = Redirects::new(&start, 5, false);
        let down = step(&mut policy, "https://a.test/", 302, "http://a.test/");
        assert_eq!(down, Err(PageCode::BlockedEgress));
        let mut lax = Redirects::new(&start, 5, true);
        assert!(step(&mut lax, "https://a.test/", 302, "http://a.test/").is_ok());
        let mut up = Redirects::new(&target("http://a.test/"), 5, false);
        assert!(step(&mut up, "http://a.test/", 302, "https://a.test/").is_ok());
    }

    #[test]
    fn credentials_stay_at_their_origin_for_good() {
        let mut policy = Redirects::new(&target("http://a.test/"), 5, false);
        assert!(step(&mut policy, "http://a.test/", 302, "/same").is_ok());
        assert!(policy.may_send("Authorization"));
        assert!(step(&mut policy, "http://a.test/same", 302, "http://a.test:8080/").is_ok());
        for field in [
            "Authorization",
            "cookie",
            "PROXY-Authorization",
            "X-API-Key",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "X-CSRF-Token",
            "Api_Key",
        ] {
            assert!(!policy.may_send(field), "{field}");
        }
        for field in ["Accept-Language", "Referer", "X-Requested-With", "traceparent"] {
            assert!(policy.may_send(field), "{field}");
        }
        assert!(step(&mut policy, "http://a.test:8080/", 302, "http://a.test/back").is_ok());
        assert!(!policy.may_send("Cookie"), "back home is no proof");
    }

    #[test]
    fn a_location_that_is_no_url_is_malformed() {
        let start = target("http://a.test/");
        for location in ["ftp://a.test/", "http://u@b.test/", "javascript:1", "//127.1/", "\\\\b"] {
            let mut policy = Redirects::new(&start, 5, false);
            let outcome = step(&mut policy, "http://a.test/", 302, location);
            assert_eq!(outcome, Err(PageCode::HttpMalformed), "{location}");
        }
        let mut policy = Redirects::new(&start, 5, false);
        assert!(policy.handle_response(&start, 302, &[b"/a", b"/b"]).is_err(), "two of them");
        assert!(policy.handle_response(&start, 302, &[b"/\xff"]).is_err(), "not UTF-8");
        assert!(policy.handle_response(&start, 302, &[b"/a", b"/a"]).is_ok(), "twice the same");
    }
}
