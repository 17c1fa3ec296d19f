//! A page as it lies in Redis: written by one node, read by another, and trusted by none.
//!
//! `FBP1`, a byte of flags, the page's key, the length of the body, the first 16 bytes of its SHA-256,
//! and the body, compressed by zstd where that pays. What is shorter, longer, of another version, under
//! another key or not what the hash says is no page. The hash finds accidents, not malice, so the
//! document is checked again as the guest's answer was ([`Check`]) before it goes into any stream.

use super::Ttls;
use super::entry::{Entry, Validators};
use super::freshness::Freshness;
use super::key::Key;
use crate::error::{PageCode, PageError, Stage};
use crate::limits::URL_BYTES_MAX;
use crate::proto::events::{About, CacheUse, Document, PageResult};
use crate::proto::text::Text;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 4] = b"FBP2";
/// Flag: the body is compressed.
const ZSTD: u8 = 1;
/// Bytes before the body: the same for no two pages.
pub const HEAD_BYTES: usize = 4 + 1 + 16 + 4 + HASH_BYTES;
const HASH_BYTES: usize = 16;
/// Fast rather than small: the control thread does it.
const LEVEL: i32 = 1;
/// Bodies below it are stored as they are.
const COMPRESS_BYTES_MIN: usize = 512;
/// Bytes that a body may have beside its document.
const FACTS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a document's score.
const QUALITY_BYTES_MAX: usize = 32;

/// Whether bytes are one JSON value that may stand in a line of a stream.
pub type Check = fn(&[u8]) -> bool;

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What pages' ages are counted by.
    pub instant: Instant,
    /// What nodes agree on.
    pub wall: SystemTime,
}

impl Now {
    /// This moment.
    #[must_use]
    pub fn read() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// Writes a page; `None` for one whose document is larger than `document_bytes_max`, or whose time is
/// over. With it comes for how long it may be kept.
#[must_use]
pub fn write(
    key: Key,
    entry: &Entry,
    document_bytes_max: usize,
    now: Now,
) -> Option<(Vec<u8>, Duration)> {
    let left = entry.ttl.checked_sub(now.instant.saturating_duration_since(entry.since))?;
    if left.as_millis() == 0 || entry.bytes() > document_bytes_max {
        return None;
    }
    let body = body(entry, now);
    let packed = (body.len() >= COMPRESS_BYTES_MIN)
        .then(|| zstd::bulk::compress(&body, LEVEL).ok())
        .flatten()
        .filter(|packed| packed.len() < body.len() / 8 * 7);
    Some((seal(key, &body, packed.as_deref())?, left))
}

/// A body behind its head, compressed where it is.
pub(super) fn seal(key: Key, body: &[u8], packed: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEAD_BYTES + packed.unwrap_or(body).len());
    out.extend_from_slice(MAGIC);
    out.push(if packed.is_some() { ZSTD } else { 0 });
    out.extend_from_slice(&key.number().to_be_bytes());
    out.extend_from_slice(&u32::try_from(body.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&hash(body));
    out.extend_from_slice(packed.unwrap_or(body));
    Some(out)
}

/// Reads what [`write`] wrote; `None` for anything else, and for what is too old for `ttls`.
#[must_use]
pub fn read(
    bytes: &[u8],
    key: Key,
    ttls: &Ttls,
    document_bytes_max: usize,
    check: Check,
    now: Now,
) -> Option<Entry> {
    let mut head = Reader(bytes);
    if head.take(4)? != MAGIC {
        return None;
    }
    let flags = head.u8()?;
    let same = u128::from_be_bytes(*head.take(16)?.first_chunk()?) == key.number();
    let length = usize::try_from(head.u32()?).ok()?;
    let expected = head.take(HASH_BYTES)?;
    if !same || flags & !ZSTD != 0 || length > document_bytes_max + FACTS_BYTES_MAX {
        return None;
    }
    let body = match flags {
        // Its length was checked: no more is ever written than that.
        ZSTD => zstd::bulk::decompress(head.0, length).ok()?,
        _ => head.0.to_vec(),
    };
    if body.len() != length || hash(&body) != *expected {
        return None;
    }
    entry(&Bytes::from(body), key, ttls, check, now)
}

fn body(entry: &Entry, now: Now) -> Vec<u8> {
    let page = entry.page("".into(), CacheUse::Hit);
    let age = now.instant.saturating_duration_since(entry.since);
    let since = now.wall.checked_sub(age).unwrap_or(UNIX_EPOCH);
    let mut out = Writer(Vec::with_capacity(entry.bytes() + 512));
    out.duration(since.duration_since(UNIX_EPOCH).unwrap_or_default());
    out.duration(entry.ttl);
    out.u64(u64::from(page.status));
    out.u64(page.wire_bytes);
    out.u64(page.body_bytes);
    out.optional(page.final_url.as_deref());
    out.optional(entry.validators.etag.as_deref());
    out.optional(entry.validators.last_modified.as_deref());
    out.0.push(u8::from(entry.freshness.never));
    out.0.push(u8::from(entry.freshness.lifetime.is_some()));
    out.duration(entry.freshness.lifetime.unwrap_or_default());
    out.duration(entry.freshness.age);
    out.0.push(u8::from(page.error.is_some()));
    if let Some(error) = &page.error {
        out.bytes(error.code.as_str().as_bytes());
        out.bytes(error.stage.as_str().as_bytes());
        out.bytes(error.message.as_bytes());
    }
    out.0.push(u8::from(page.document.is_some()));
    if let Some(document) = &page.document {
        out.bytes(&document.quality);
        out.bytes(&document.json);
    }
    out.0.push(u8::from(page.about.is_some()));
    if let Some(about) = &page.about {
        out.0.extend([u8::from(about.noindex), u8::from(about.nofollow)]);
        out.optional(about.canonical.as_deref());
        out.u64(about.links.len() as u64);
        about.links.iter().for_each(|link| out.bytes(link.as_bytes()));
    }
    out.0
}

fn entry(body: &Bytes, key: Key, ttls: &Ttls, check: Check, now: Now) -> Option<Entry> {
    let mut from = Reader(body);
    let since = UNIX_EPOCH.checked_add(from.duration()?)?;
    let ttl = from.duration()?;
    let status = u16::try_from(from.u64()?).ok().filter(|status| *status < 1000)?;
    let (wire_bytes, body_bytes) = (from.u64()?, from.u64()?);
    let final_url = from.optional()?;
    let validators = Validators { etag: from.optional()?, last_modified: from.optional()? };
    let never = from.flag()?;
    let (with_lifetime, lifetime) = (from.flag()?, from.duration()?);
    let lifetime = with_lifetime.then_some(lifetime);
    let freshness = Freshness { never, lifetime, age: from.duration()? };
    let error = if from.flag()? { Some(from.error()?) } else { None };
    let document = if from.flag()? { Some(from.document(body, check)?) } else { None };
    let about = if from.flag()? { Some(Arc::new(from.about()?)) } else { None };
    if !from.0.is_empty() || document.is_some() == error.is_some() {
        return None;
    }
    // Our own settings count, too; and a node whose clock is ahead makes nothing younger.
    let code = error.as_ref().map(|error| error.code);
    let ttl = ttl.min(ttls.of(status, false, code));
    let age = now.wall.duration_since(since).unwrap_or_default();
    if age >= ttl {
        return None;
    }
    let since = now.instant.checked_sub(age)?;
    let page = PageResult {
        url: "".into(),
        final_url,
        status,
        cache: CacheUse::Hit,
        timings: crate::timings::Timings::default(),
        wire_bytes,
        body_bytes,
        document,
        error,
        cache_key: key.number(),
        about,
        ready: None,
    };
    Some(Entry::new(&page, validators, freshness, ttl, since))
}

fn hash(body: &[u8]) -> [u8; HASH_BYTES] {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    *digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
}

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// In milliseconds.
    fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
    }

    fn bytes(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).expect("pages are far smaller");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
    }

    fn optional(&mut self, value: Option<&str>) {
        self.0.push(u8::from(value.is_some()));
        self.bytes(value.unwrap_or_default().as_bytes());
    }
}

/// Takes parts off the front; `None` where there is too little.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().copied().map(u64::from_be_bytes)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_millis)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok().filter(|text| text.len() <= FACTS_BYTES_MAX)
    }

    /// What goes into fields of requests again: without anything that could end one.
    fn optional(&mut self) -> Option<Option<String>> {
        let there = self.flag()?;
        let text = self.text().filter(|text| !text.contains(char::is_control))?;
        Some(there.then(|| text.to_owned()))
    }

    fn error(&mut self) -> Option<PageError> {
        let (code, stage) = (self.text()?, self.text()?);
        let code = PageCode::ALL.into_iter().find(|known| known.as_str() == code)?;
        let stage = Stage::ALL.into_iter().find(|known| known.as_str() == stage)?;
        Some(PageError::new(code, stage, self.text()?))
    }

    /// A URL as the extractor writes them: no more than printable ASCII.
    fn url(&mut self) -> Option<&'a str> {
        let fits = |url: &&str| {
            url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic())
        };
        self.text().filter(fits)
    }

    fn about(&mut self) -> Option<About> {
        let (noindex, nofollow) = (self.flag()?, self.flag()?);
        let named = self.flag()?;
        let canonical = self.url().map(Text::from).filter(|_| named);
        // The count is only believed as far as there are bytes.
        let count = self.u64()?;
        let links = (0..count).map(|_| self.url().map(Text::from)).collect::<Option<Vec<_>>>()?;
        Some(About { noindex, nofollow, canonical, links: links.into() })
    }

    fn document(&mut self, body: &Bytes, check: Check) -> Option<Document> {
        let (quality, json) = (self.bytes()?, self.bytes()?);
        let score: f64 = std::str::from_utf8(quality).ok()?.parse().ok()?;
        let score = (0.0..=1.0).contains(&score) && quality.len() <= QUALITY_BYTES_MAX;
        let good = score && check(quality) && json.first() == Some(&b'{') && check(json);
        good.then(|| Document { json: body.slice_ref(json), quality: body.slice_ref(quality) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::key::Keyer;
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(100);
    const MAX: usize = 1 << 20;

    fn key() -> Key {
        Keyer::new("test").key("a")
    }

    fn ttls() -> Ttls {
        Ttls { success: TTL, redirect: TTL, client_error: TTL, server_error: TTL, error: TTL }
    }

    fn check(bytes: &[u8]) -> bool {
        serde_json::from_slice::<serde_json::Value>(bytes).is_ok()
    }

    fn page(text: &str) -> PageResult {
        let json = format!("{{\"text\":\"{text}\"}}");
        PageResult {
            final_url: Some("http://a.test/".to_owned()),
            status: 200,
            wire_bytes: 7,
            body_bytes: 9,
            cache_key: key().number(),
            document: Some(Document { json: json.into(), quality: Bytes::from_static(b"0.5") }),
            error: None,
            about: Some(Arc::new(About {
                nofollow: true,
                canonical: Some("http://a.test/c".into()),
                links: ["http://a.test/1".into(), "http://b.test/2".into()].into(),
                ..About::default()
            })),
            ..PageResult::failed("".into(), PageError::new(PageCode::Cancelled, Stage::Queue, ""))
        }
    }

    fn entry_of(page: &PageResult, since: Instant) -> Entry {
        let validators = Validators { etag: Some("\"1\"".to_owned()), last_modified: None };
        let freshness =
            Freshness { never: false, lifetime: Some(TTL), age: Duration::from_secs(3) };
        Entry::new(page, validators, freshness, TTL, since)
    }

    fn read_back(bytes: &[u8], now: Now) -> Option<Entry> {
        read(bytes, key(), &ttls(), MAX, check, now)
    }

    fn same(one: &Entry, other: &Entry) {
        let shown = |entry: &Entry| format!("{:?}", entry.page("u".into(), CacheUse::Hit));
        assert_eq!(shown(one), shown(other));
        let about = |entry: &Entry| entry.page("".into(), CacheUse::Hit).about;
        assert_eq!(about(one), about(other));
        assert_eq!(one.validators, other.validators);
        assert_eq!(one.freshness, other.freshness);
        assert_eq!(one.ttl, other.ttl);
    }

    #[test]
    fn a_page_comes_back_as_it_was_small_or_large_good_or_failed() {
        let now = Now::read();
        let failed = PageResult {
            document: None,
            error: Some(PageError::new(PageCode::DnsFailed, Stage::Dns, "no such name")),
            ..page("")
        };
        for page in [page("short"), page(&"long ".repeat(10_000)), failed] {
            let entry = entry_of(&page, now.instant);
            let (bytes, left) = write(key(), &entry, MAX, now).unwrap();
            assert_eq!(left, TTL);
            same(&read_back(&bytes, now).unwrap(), &entry);
        }
        let (bytes, _) =
            write(key(), &entry_of(&page(&"x ".repeat(20_000)), now.instant), MAX, now).unwrap();
        assert!(bytes.len() < 5_000, "it is compressed: {} bytes", bytes.len());
    }

    #[test]
    fn its_age_goes_on_and_its_time_ends() {
        let now = Now::read();
        let half = TTL / 2;
        let written = Now { instant: now.instant + half, wall: now.wall + half };
        let (bytes, left) = write(key(), &entry_of(&page("a"), now.instant), MAX, written).unwrap();
        assert_eq!(left, half);
        // Another node, with another monotonic clock.
        let there = Now { instant: now.instant + TTL * 5, wall: now.wall + half + half / 2 };
        let found = read_back(&bytes, there).unwrap();
        let age = there.instant - found.since;
        assert!(age.abs_diff(half + half / 2) < Duration::from_millis(2), "{age:?}");
        let over = Now { instant: there.instant, wall: now.wall + TTL };
        assert!(read_back(&bytes, over).is_none());
        let expired = Now { instant: now.instant + TTL, wall: now.wall + TTL };
        assert!(write(key(), &entry_of(&page("a"), now.instant), MAX, expired).is_none());
        // A node that trusts pages for less.
        let short = Ttls { success: half, ..ttls() };
        assert!(read(&bytes, key(), &short, MAX, check, there).is_none());
    }

    #[test]
    fn what_is_not_ours_is_no_page() {
        let now = Now::read();
        let entry = entry_of(&page(&"words ".repeat(500)), now.instant);
        let (bytes, _) = write(key(), &entry, MAX, now).unwrap();
        let other = Keyer::new("test").key("b");
        assert!(read(&bytes, other, &ttls(), MAX, check, now).is_none(), "another page's");
        assert!(read(&bytes, key(), &ttls(), MAX, |_| false, now).is_none(), "not to be shown");
        assert!(read(&bytes, key(), &ttls(), 0, check, now).is_some(), "facts have room");
        assert!(write(key(), &entry, 100, now).is_none(), "too large");
        for at in 0..bytes.len() {
            assert!(read_back(&bytes[..at], now).is_none(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            // Some bits of a packed body say nothing.
            if let Some(found) = read_back(&flipped, now) {
                same(&found, &entry);
                assert!(at >= HEAD_BYTES, "changed at {at}");
            }
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let now = Now::read();
        let zeros = vec![b' '; 64 << 20];
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.push(ZSTD);
        bytes.extend_from_slice(&key().number().to_be_bytes());
        for length in [1_u32 << 26, 100] {
            let mut bomb = bytes.clone();
            bomb.extend_from_slice(&length.to_be_bytes());
            bomb.extend_from_slice(&hash(&zeros));
            bomb.extend_from_slice(&zstd::bulk::compress(&zeros, 1).unwrap());
            assert!(read_back(&bomb, now).is_none());
        }
    }

    proptest! {
        /// Bytes with a right hash over a wrong body: malice, not accident.
        #[test]
        fn a_body_of_any_bytes_is_read_without_a_panic(
            change in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let now = Now::read();
            let mut body = body(&entry_of(&page("a"), now.instant), now);
            for (at, byte) in change {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            if let Some(entry) = entry(&Bytes::from(body), key(), &ttls(), check, now) {
                let page = entry.page("".into(), CacheUse::Hit);
                if let Some(document) = page.document {
                    prop_assert!(check(&document.json));
                }
            }
        }
    }
}
