//! What a cache wants of a fetch: to ask whether a known page still holds (RFC 9110 §13), and the
//! fields that say how long an answer may be kept (RFC 9111).

use super::target::Target;
use super::{FetchRequest, field};

/// A page that is known already, and what its origin knows it by.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The URL that answered: only a request for it asks about the known page.
    pub url: &'a str,
    /// Its `ETag`.
    pub etag: Option<&'a str>,
    /// Its `Last-Modified`.
    pub last_modified: Option<&'a str>,
}

/// The fields of a response that a cache goes by, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caching {
    /// `Cache-Control`, all of them joined.
    pub cache_control: String,
    /// `Vary`, all of them joined.
    pub vary: String,
    /// `Expires`.
    pub expires: Option<String>,
    /// `Date`.
    pub date: Option<String>,
    /// `Age`.
    pub age: Option<String>,
}

/// Bytes of one such field that are looked at.
const FIELD_BYTES_MAX: usize = 1024;

impl Caching {
    pub(super) fn of(fields: impl Fn(&str) -> Vec<Vec<u8>>) -> Self {
        let joined = |name: &str| {
            let mut all = String::new();
            for value in fields(name) {
                let value = String::from_utf8_lossy(&value);
                if all.len() + value.len() < FIELD_BYTES_MAX {
                    all.push_str(if all.is_empty() { "" } else { "," });
                    all.push_str(&value);
                }
            }
            all
        };
        let one = |name: &str| {
            let first = fields(name).into_iter().next()?;
            String::from_utf8(first).ok().filter(|value| value.len() <= FIELD_BYTES_MAX)
        };
        Self {
            cache_control: joined("cache-control"),
            vary: joined("vary"),
            expires: one("expires"),
            date: one("date"),
            age: one("age"),
        }
    }
}

impl<'a> FetchRequest<'a> {
    /// The fields that make the request for `target` a conditional one; none where the client gave
    /// such fields of its own, whose answers are its own to read.
    pub(super) fn conditions(&self, target: &Target) -> [Option<(&'static str, &'a str)>; 2] {
        let Some(known) = self.known.filter(|known| known.url == target.as_str()) else {
            return [None, None];
        };
        let names = ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since"];
        let own = |(name, _): &(String, String)| names.iter().any(|n| name.eq_ignore_ascii_case(n));
        if self.headers.iter().any(own) {
            return [None, None];
        }
        // RFC 9110 §13.1.3: an origin that knows entity tags leaves the date aside.
        let sendable = |value: &&str| field::check("if-none-match", value).is_ok();
        [
            known.etag.filter(sendable).map(|tag| ("If-None-Match", tag)),
            known.last_modified.filter(sendable).map(|date| ("If-Modified-Since", date)),
        ]
    }

    /// Whether a status says that the known page still holds.
    pub(super) fn not_modified(&self, target: &Target, status: u16) -> bool {
        status == 304 && self.conditions(target).iter().any(Option::is_some)
    }
}
