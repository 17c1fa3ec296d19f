//! `Idempotency-Key`s among nodes: who claims one first has it everywhere, for as long as its stream can
//! be read. Without Redis, or where it does not answer, a key is known on its own node only.

use super::node::Node;
use super::request::Options;
use crate::cluster::{Does, Link};
use crate::stream::idempotency::{Claim, Fingerprint};
use redis::cmd;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use ulid::Ulid;

/// How long a claim may take.
const PATIENCE: Duration = Duration::from_millis(250);
/// What a stream may take to end beside its deadline and its window.
const SLACK: Duration = Duration::from_secs(60);

/// Who has the key already, or nobody: then it is taken.
const CLAIM: &str = "local held = redis.call('GET', KEYS[1]) \
     if held then return held end \
     redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return ''";
/// Frees a key, if it is still held so.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     return redis.call('DEL', KEYS[1]) end return 0";

/// The wish to begin a stream by a key.
#[derive(Debug, Clone)]
pub struct Wish {
    principal: Arc<str>,
    key: Box<str>,
    request: Fingerprint,
    stream: Ulid,
    /// The key's name in Redis.
    name: String,
    /// What it is held by there.
    holder: String,
}

impl Wish {
    /// The wish to begin `stream` by a key.
    #[must_use]
    pub fn new(principal: Arc<str>, key: &str, request: &Fingerprint, stream: Ulid) -> Self {
        // Neither holds a zero byte, so no two pairs read the same.
        let both = format!("{principal}\0{key}");
        let digest = ring::digest::digest(&ring::digest::SHA256, both.as_bytes());
        let name = format!("idempotency:{}", hex(digest.as_ref()));
        let holder = format!("{} {stream}", hex(request));
        Self { principal, key: key.into(), request: *request, stream, name, holder }
    }

    /// Claims the key, here and then on all nodes.
    pub async fn claim(&self, node: &Node, options: &Options) -> Claim {
        let keys = &node.shared.keys;
        let claim = match keys.claim(&self.principal, &self.key, &self.request, self.stream) {
            Claim::New => self.claim_everywhere(node, options).await,
            known => return known,
        };
        if claim != Claim::New {
            keys.release(&self.principal, &self.key, self.stream);
        }
        claim
    }

    async fn claim_everywhere(&self, node: &Node, options: &Options) -> Claim {
        let cluster = &node.shared.cluster;
        if !cluster.takes() {
            return Claim::New;
        }
        let lives = Duration::from_millis(options.deadline_ms)
            + Duration::from_secs(options.resume_window_s)
            + SLACK;
        let wish = self.clone();
        let asked = cluster.ask(PATIENCE, move |link: Link| async move {
            let mut eval = cmd("EVAL");
            eval.arg(CLAIM).arg(1).arg(link.key(&wish.name)).arg(&wish.holder);
            let millis = u64::try_from(lives.as_millis()).unwrap_or(u64::MAX);
            link.ask::<String>(Does::Write, eval.arg(millis)).await
        });
        asked.await.map_or(Claim::New, |held| self.judge(&held))
    }

    /// The stream was not begun after all.
    pub fn release(self, node: &Node) {
        node.shared.keys.release(&self.principal, &self.key, self.stream);
        self.release_everywhere(node);
    }

    fn release_everywhere(self, node: &Node) {
        // One that can't be freed ends by itself.
        let _ = node.shared.cluster.tell(PATIENCE, move |link| async move {
            let mut eval = cmd("EVAL");
            eval.arg(RELEASE).arg(1).arg(link.key(&self.name)).arg(self.holder);
            let _ = link.ask::<i64>(Does::Write, &eval).await;
        });
    }

    fn judge(&self, held: &str) -> Claim {
        let parts = |text: &str| {
            let (request, stream) = text.split_once(' ')?;
            Some((request.to_owned(), Ulid::from_string(stream).ok()?))
        };
        match (parts(held), parts(&self.holder)) {
            (Some((request, stream)), Some((own, ours))) if stream != ours => {
                if request == own {
                    Claim::Same(stream)
                } else {
                    Claim::Conflict
                }
            }
            // Nobody, ourselves, or something that is none of our words.
            _ => Claim::New,
        }
    }
}

/// Frees the key of a stream that can't be read any more, here and on all nodes.
pub(super) fn forget(node: &Node, principal: &Arc<str>, key: &str, stream: Ulid) {
    if let Some(request) = node.shared.keys.release(principal, key, stream) {
        Wish::new(Arc::clone(principal), key, &request, stream).release_everywhere(node);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a String can't fail");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_somebody_elses_stream_or_another_request() {
        let (one, two) = (Ulid(1), Ulid(2));
        let ours = Wish::new("ann".into(), "k", &[1; 32], one);
        assert_eq!(ours.judge(""), Claim::New);
        assert_eq!(ours.judge(&ours.holder), Claim::New);
        assert_eq!(ours.judge("odd"), Claim::New);
        let same = Wish::new("ann".into(), "k", &[1; 32], two);
        assert_eq!(ours.judge(&same.holder), Claim::Same(two));
        let other = Wish::new("ann".into(), "k", &[2; 32], two);
        assert_eq!(ours.judge(&other.holder), Claim::Conflict);
        assert_eq!(ours.name, other.name);
        assert_ne!(ours.name, Wish::new("bob".into(), "k", &[1; 32], one).name);
    }
}
