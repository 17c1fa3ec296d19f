//! API keys: how they look, how they are stored, and which one a request brought.
//!
//! A key is `fb_` and 64 hexadecimal digits: 256 bits from the system's random source. It is stored
//! as its SHA-256 and nothing slower: a password hash is there to make guessing costly where what
//! is guessed has few bits, and 2^256 guesses are out of reach at any speed, while a slow hash would
//! let anybody burn a core with made-up keys. Nothing else than such a key is ever hashed, so a weak
//! one that somebody chose can't get in even if its hash is put into the file.

use super::quota::{KeyLimits, KeyQuota};
use crate::limits::{API_KEYS_FILE_BYTES_MAX, API_KEYS_MAX};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use std::collections::HashSet;
use std::fmt;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every key begins with, so that leak scanners find it.
const PREFIX: &str = "fb_";
/// Random bytes of a key.
const RANDOM_BYTES: usize = 32;
/// What a digest is written after.
const HASH_PREFIX: &str = "sha256:";
/// Bytes of a key's name.
const NAME_BYTES_MAX: usize = 64;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Fetch pages: crawls, searches, streams.
    Crawl,
    /// `POST /extract`.
    Extract,
    /// What changes the server: `POST /admin/reload`, `GET /latency?reset`.
    Admin,
    /// What the server says of itself: `/metrics`, `/latency`, `/healthz`.
    Metrics,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Crawl, Self::Extract, Self::Admin, Self::Metrics];

    /// The name in the file and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crawl => "crawl",
            Self::Extract => "extract",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// In front of a key among the subprotocols of a WebSocket: a browser can send no other field of its
/// own there. It is never agreed on, so it is in no answer.
pub const OFFERED_PREFIX: &str = "fb.key.";

/// What a request brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// The digest of something that looks like a key.
    Digest([u8; 32]),
    /// Something that can't be a key, or two different ones.
    Malformed,
}

impl Credential {
    /// Of the values of `Authorization` and `X-API-Key`, and of the subprotocols that a WebSocket
    /// offers (see [`OFFERED_PREFIX`]). Two that differ are refused: a proxy may have looked at the one
    /// and we at the other.
    pub fn of<'a>(
        authorization: impl Iterator<Item = &'a [u8]>,
        api_key: impl Iterator<Item = &'a [u8]>,
        offered: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let bearer = authorization.map(|value| match value.split_first_chunk::<7>() {
            // RFC 9110 §11.1: a scheme's name has no case. RFC 6750 §2.1.
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
                token.trim_ascii_start()
            }
            _ => b"",
        });
        let offered = offered.filter_map(|name| name.strip_prefix(OFFERED_PREFIX.as_bytes()));
        let mut all = bearer.chain(api_key).chain(offered).map(digest_of);
        let Some(first) = all.next() else { return Self::None };
        match first {
            Some(found) if all.all(|other| other == first) => Self::Digest(found),
            _ => Self::Malformed,
        }
    }
}

/// Whether a text has the form of a key.
#[must_use]
pub fn looks_like_key(text: &str) -> bool {
    digest_of(text.as_bytes()).is_some()
}

/// The digest of a text that has the form of a key.
fn digest_of(text: &[u8]) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(PREFIX.as_bytes())?;
    let hexadecimal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * RANDOM_BYTES || !digits.iter().all(hexadecimal) {
        return None;
    }
    digest(&SHA256, text).as_ref().try_into().ok()
}

/// One key of the file.
#[derive(Debug)]
pub struct Key {
    /// What the operator calls it; for logs.
    pub name: Arc<str>,
    /// Whose its requests are, and the streams that they start: its digest, so that a key that is
    /// replaced under the same name is another one, and the same key is the same on every node.
    pub principal: Arc<str>,
    digest: [u8; 32],
    scopes: Vec<Scope>,
    /// What it may use, and has used.
    pub quota: Arc<KeyQuota>,
}

impl Key {
    /// What it is found by.
    pub(super) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether it may be used for that.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Why a keys file can't be used; never holds anything of its contents but names.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It can't be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// What it says makes no sense.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: String,
    },
}

/// Every key.
#[derive(Debug, Default)]
pub struct Keys(Vec<Arc<Key>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOfKeys {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    hash: String,
    scopes: Vec<Scope>,
    requests_per_min: Option<u32>,
    urls_per_min: Option<u32>,
    bytes_per_min: Option<u64>,
    concurrency: Option<usize>,
    streams: Option<usize>,
    connections: Option<usize>,
}

impl Entry {
    /// The limits that it names; the others are the server's.
    fn limits(&self, defaults: &KeyLimits) -> KeyLimits {
        KeyLimits {
            requests_per_min: self.requests_per_min.unwrap_or(defaults.requests_per_min),
            urls_per_min: self.urls_per_min.unwrap_or(defaults.urls_per_min),
            bytes_per_min: self.bytes_per_min.unwrap_or(defaults.bytes_per_min),
            concurrency: self.concurrency.unwrap_or(defaults.concurrency),
            streams: self.streams.unwrap_or(defaults.streams),
            connections: self.connections.unwrap_or(defaults.connections),
        }
    }
}

impl Keys {
    /// Reads a keys file. A key that `before` has, too, goes on with what it has used, if its limits
    /// are the same.
    ///
    /// # Errors
    /// An unreadable file or entry; the message says which.
    pub fn load(path: &Path, defaults: &KeyLimits, before: &Self) -> Result<Self, KeysError> {
        let io = |error| KeysError::Io { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(io)?;
        let mut text = String::new();
        file.take(API_KEYS_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
        Self::parse(&text, defaults, before)
            .map_err(|what| KeysError::Content { path: path.to_owned(), what })
    }

    /// Reads a keys file's text.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str, defaults: &KeyLimits, before: &Self) -> Result<Self, String> {
        if text.len() as u64 > API_KEYS_FILE_BYTES_MAX {
            return Err(format!("at most {API_KEYS_FILE_BYTES_MAX} bytes"));
        }
        let file: FileOfKeys = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            // A message may quote what it did not expect, and that may be somebody's key.
            let what = Some(error.message()).filter(|message| !message.contains(PREFIX));
            format!("line {line}: {}", what.unwrap_or("not what is expected here"))
        })?;
        if file.key.is_empty() || file.key.len() > API_KEYS_MAX {
            return Err(format!("1 to {API_KEYS_MAX} entries [[key]]"));
        }
        let (mut names, mut digests) = (HashSet::new(), HashSet::new());
        let mut keys = Vec::with_capacity(file.key.len());
        for entry in file.key {
            check_name(&entry.name)?;
            let digest = read_hash(&entry.hash)
                .ok_or_else(|| format!("key {}: hash is sha256: and 64 digits", entry.name))?;
            if entry.scopes.is_empty() {
                return Err(format!("key {}: scopes names at least one", entry.name));
            }
            if !names.insert(entry.name.clone()) || !digests.insert(digest) {
                return Err(format!("key {}: its name or hash stands there twice", entry.name));
            }
            let limits = entry.limits(defaults);
            let known = before.0.iter().find(|key| key.digest == digest);
            let quota = match known.filter(|key| *key.quota.limits() == limits) {
                Some(key) => Arc::clone(&key.quota),
                None => Arc::new(KeyQuota::new(limits)),
            };
            let principal = format!("{HASH_PREFIX}{}", Hex(&digest)).into();
            let (name, scopes) = (entry.name.into(), entry.scopes);
            keys.push(Arc::new(Key { name, principal, digest, scopes, quota }));
        }
        Ok(Self(keys))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key with that digest. Looks at every byte of every key, whatever it finds: how long it
    /// takes says nothing of how near a guess came.
    #[must_use]
    pub fn find(&self, digest: &[u8; 32]) -> Option<&Arc<Key>> {
        let mut found = None;
        for key in &self.0 {
            let pairs = key.digest.iter().zip(digest);
            let difference = pairs.fold(0, |all, (ours, theirs)| all | black_box(ours ^ theirs));
            if black_box(difference) == 0 {
                found = Some(key);
            }
        }
        found
    }
}

/// A fresh key and its entry in the keys file: the first is shown once and kept nowhere.
///
/// # Errors
/// A name that can't be one, no scope, or a system without random numbers.
pub fn generate(name: &str, scopes: &[Scope]) -> Result<(String, String), String> {
    check_name(name)?;
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random numbers")?;
    let key = format!("{PREFIX}{}", Hex(&random));
    let digest = digest_of(key.as_bytes()).ok_or("a fresh key has the form of a key")?;
    let scopes: Vec<String> =
        scopes.iter().map(|scope| format!("\"{}\"", scope.as_str())).collect();
    if scopes.is_empty() {
        return Err("at least one scope".to_owned());
    }
    let entry = format!(
        "[[key]]\nname = \"{name}\"\nhash = \"{HASH_PREFIX}{}\"\nscopes = [{}]\n",
        Hex(&digest),
        scopes.join(", ")
    );
    Ok((key, entry))
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(format!("a key's name has 1 to {NAME_BYTES_MAX} letters, digits or -_.@"));
    }
    Ok(())
}

fn read_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(HASH_PREFIX).filter(|digits| digits.len() == 64)?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(digest)
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn load(text: &str) -> Result<Keys, String> {
        Keys::parse(text, &KeyLimits::default(), &Keys::default())
    }

    fn brought(authorization: &[&str], api_key: &[&str]) -> Credential {
        let bytes = |text: &&'static str| text.as_bytes();
        let leak = |texts: &[&str]| -> Vec<&'static str> {
            texts.iter().map(|text| &*Box::leak(text.to_string().into_boxed_str())).collect()
        };
        let (one, other) = (leak(authorization), leak(api_key));
        Credential::of(one.iter().map(bytes), other.iter().map(bytes), std::iter::empty())
    }

    #[test]
    fn a_socket_may_offer_its_key_beside_its_subprotocol() {
        let (key, _) = generate("a", &[Scope::Crawl]).unwrap();
        let (other, _) = generate("b", &[Scope::Crawl]).unwrap();
        let offer = |names: &[&str], api_key: Option<&str>| {
            let names = names.iter().map(|name| name.as_bytes());
            Credential::of(std::iter::empty(), api_key.into_iter().map(str::as_bytes), names)
        };
        let mine = format!("{OFFERED_PREFIX}{key}");
        let digest = brought(&[], &[&key]);
        assert_eq!(offer(&["crawl.v1"], None), Credential::None);
        assert_eq!(offer(&["crawl.v1", &mine], None), digest);
        assert_eq!(offer(&["crawl.v1", &mine], Some(&key)), digest);
        for (names, api_key) in [
            (&[&mine[..]][..], Some(&other[..])),
            (&[&mine, &format!("{OFFERED_PREFIX}{other}")], None),
            (&[&format!("{mine}0")], None),
            (&[OFFERED_PREFIX], None),
        ] {
            assert_eq!(offer(names, api_key), Credential::Malformed);
        }
    }

    #[test]
    fn a_fresh_key_opens_its_own_entry_and_no_other() {
        let (key, entry) = generate("ci", &[Scope::Crawl, Scope::Metrics]).unwrap();
        let (other, _) = generate("ci", &[Scope::Crawl]).unwrap();
        assert!(!entry.contains(&key) && key != other);
        let keys = load(&entry).unwrap();
        let find = |text: &str| match brought(&[], &[text]) {
            Credential::Digest(digest) => keys.find(&digest).cloned(),
            _ => None,
        };
        let found = find(&key).unwrap();
        assert_eq!(&*found.name, "ci");
        assert!(found.has(Scope::Crawl) && !found.has(Scope::Extract));
        assert!(find(&other).is_none() && find(&key[..key.len() - 1]).is_none());
    }

    #[test]
    fn a_request_brings_one_key_in_either_field() {
        let (key, _) = generate("a", &[Scope::Crawl]).unwrap();
        let (other, _) = generate("b", &[Scope::Crawl]).unwrap();
        let (bearer, small) = (format!("Bearer {key}"), format!("bearer  {key}"));
        assert_eq!(brought(&[], &[]), Credential::None);
        let digest = brought(&[], &[&key]);
        assert!(matches!(digest, Credential::Digest(_)));
        assert_eq!(brought(&[&bearer], &[]), digest);
        assert_eq!(brought(&[&small], &[&key]), digest);
        for (authorization, api_key) in [
            (&["Basic abc"][..], &[][..]),
            (&[&bearer], &[&other[..]]),
            (&["Bearer"], &[]),
            (&["Bearer "], &[]),
            (&[], &["hunter2"]),
            (&[], &[&key.to_uppercase()]),
            (&[], &[&format!("{key}0")]),
            (&[&format!("Basic {key}")], &[]),
        ] {
            assert_eq!(brought(authorization, api_key), Credential::Malformed);
        }
    }

    #[test]
    fn mistakes_are_named_without_the_secret() {
        let (key, entry) = generate("a", &[Scope::Crawl]).unwrap();
        let twice = format!("{entry}{entry}");
        for (text, expected) in [
            ("", "[[key]]"),
            (&twice, "twice"),
            (&entry.replace("sha256:", "md5:"), "sha256"),
            (&entry.replace("\"crawl\"", ""), "at least one"),
            (&entry.replace("crawl", "everything"), "line 4"),
            (&entry.replace("name = \"a\"", "name = \"a b\""), "name"),
            (&format!("{entry}burst = 3\n"), "burst"),
            (&format!("{entry}key = \"{key}"), "line 5"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
            assert!(!error.contains(&key));
        }
        assert!(generate("", &[Scope::Crawl]).is_err() && generate("a", &[]).is_err());
    }

    #[test]
    fn a_reload_keeps_what_a_key_has_used() {
        let (_, entry) = generate("a", &[Scope::Crawl]).unwrap();
        let before = load(&entry).unwrap();
        let same = Keys::parse(&entry, &KeyLimits::default(), &before).unwrap();
        assert!(Arc::ptr_eq(&before.0[0].quota, &same.0[0].quota));
        let changed = format!("{entry}concurrency = 3\n");
        let changed = Keys::parse(&changed, &KeyLimits::default(), &before).unwrap();
        assert!(!Arc::ptr_eq(&before.0[0].quota, &changed.0[0].quota));
        assert_eq!(changed.0[0].quota.limits().concurrency, 3);
    }
}
