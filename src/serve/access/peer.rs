//! The other end of a connection that asks for many things: a WebSocket's client. What each of its ops
//! takes of the limits is what a request would take; each op that works or looks at work has its line
//! in the audit log.

use super::Access;
use super::audit::{Asked, Entry, Op};
use super::keys::{Key, Scope};
use super::table::AddressKey;
use super::visit::{check_bytes, refuse_over, refuse_pressed};
use crate::error::ApiError;
use crate::observe::request_id::RequestId;
use crate::observe::traceparent::TraceContext;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A key, where there is one, and the reading of the keys file that it was found in.
pub type Found = (Option<Arc<Key>>, u64);

/// See the module.
#[derive(Debug)]
pub struct Peer {
    access: Arc<Access>,
    address: IpAddr,
    /// The key that the connection was opened with, as it is known now: its limits hold for what is
    /// begun here.
    key: Option<Arc<Key>>,
    /// The reading of the keys file that `key` was found in.
    seen: u64,
    /// The client's own id for the request that opened the connection.
    pub request_id: Option<RequestId>,
    /// Where that stands in its client's trace.
    pub trace: Option<Box<TraceContext>>,
    /// The target of that request.
    target: Option<Box<str>>,
}

/// An op that is noted once it is over.
#[derive(Debug)]
pub struct Noted {
    op: &'static str,
    asked: Asked,
    begun: Instant,
}

/// What came of an op.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// `ok`, `aborted`, or the code of its refusal.
    pub word: &'a str,
    /// The status that an answer over HTTP would have had.
    pub status: u16,
    /// The stream that it was about.
    pub stream_id: Option<&'a str>,
    /// Bytes of the messages that answered it, before compression.
    pub bytes: u64,
}

impl Peer {
    /// Whoever the key belongs to, at that address.
    #[must_use]
    pub fn new(
        access: Arc<Access>,
        address: IpAddr,
        (key, seen): Found,
        target: Option<Box<str>>,
    ) -> Self {
        Self { access, address, key, seen, request_id: None, trace: None, target }
    }

    /// The key that it has.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<Key>> {
        self.key.as_ref()
    }

    /// Whether its key is still one that may crawl; one whose limits have changed has the new ones from
    /// now on.
    pub fn stands(&mut self) -> bool {
        self.access.renew(&mut self.key, &mut self.seen)
            && self.key.as_ref().is_none_or(|key| key.has(Scope::Crawl))
    }

    /// Takes what a request would: one of the address' and one of the key's, while the key has bytes
    /// left. `works`: memory is asked for, too.
    ///
    /// # Errors
    /// `rate_limited` or `overloaded`, with the time to come back.
    pub async fn admit(&self, works: bool) -> Result<(), ApiError> {
        let address = AddressKey::of(self.address);
        let by_rate = self.access.requests.as_ref().map(|rate| rate.take(address));
        refuse_over(by_rate, "this address sends too many requests")?;
        if let Some(key) = &self.key {
            if let Some(cluster) = self.access.cluster.get() {
                key.catch_up(cluster).await;
            }
            refuse_over(key.quota.take_request(), "this key sends too many requests")?;
            check_bytes(key)?;
        }
        if works { refuse_pressed(&self.access) } else { Ok(()) }
    }

    /// What was let through counts on every node.
    pub fn tell_nodes(&self) {
        if let (Some(key), Some(cluster)) = (&self.key, self.access.cluster.get()) {
            key.tell(cluster);
        }
    }

    /// Pays for bytes that were sent.
    pub fn charge(&self, now: Instant, bytes: usize) {
        if let Some(key) = &self.key {
            key.quota.charge(now, bytes as u64);
            self.tell_nodes();
        }
    }

    /// How long nothing more is sent of streams, because the key has used up its bytes.
    #[must_use]
    pub fn overdrawn(&self, now: Instant) -> Option<Duration> {
        self.key.as_ref()?.quota.overdrawn(now)
    }

    /// Begins a line of the audit log; none where there is no log.
    pub fn begin_note<'a>(
        &self,
        op: &'static str,
        urls: impl ExactSizeIterator<Item = &'a str>,
        begun: Instant,
    ) -> Option<Noted> {
        self.access.audit.as_ref()?;
        Some(Noted { op, asked: Asked::of(urls), begun })
    }

    /// Writes the line of an op that is over; `false` where it was dropped.
    pub fn note(&self, noted: Option<Noted>, outcome: &Outcome<'_>) -> bool {
        let (Some(audit), Some(noted)) = (&self.access.audit, noted) else { return true };
        let trace_id = self.trace.as_deref().map(TraceContext::trace_id_text);
        let entry = Entry {
            at: SystemTime::now(),
            op: Some(Op { name: noted.op, stream_id: outcome.stream_id }),
            request_id: self.request_id.as_ref().map(RequestId::as_str),
            trace_id: trace_id.as_deref(),
            key: self.key.as_ref().map(|key| &*key.name),
            address: self.address,
            method: None,
            target: self.target.as_deref(),
            urls: &noted.asked,
            status: outcome.status,
            outcome: outcome.word,
            bytes: outcome.bytes,
            took: noted.begun.elapsed(),
        };
        audit.write(entry.line())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::config::Config;
    use crate::error::ApiCode;
    use crate::serve::access::keys::{Credential, Keys, generate};
    use crate::serve::access::quota::KeyLimits;
    use std::sync::atomic::Ordering;
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("nothing is waited for without a cluster"),
        }
    }

    #[test]
    fn an_op_takes_what_a_request_takes_and_asks_for_memory_where_it_works() {
        let config = Config { address_requests_per_min: 3, ..Config::default() };
        let access = Arc::new(Access::start(&config).unwrap());
        let peer = Peer::new(Arc::clone(&access), [127, 0, 0, 1].into(), (None, 0), None);
        access.pressed.store(true, Ordering::Relaxed);
        assert_eq!(now(peer.admit(true)).unwrap_err().code, ApiCode::Overloaded);
        assert!(now(peer.admit(false)).is_ok() && now(peer.admit(false)).is_ok());
        let refused = now(peer.admit(false)).unwrap_err();
        assert_eq!(refused.code, ApiCode::RateLimited);
        assert!(refused.retry_after.is_some());
    }

    #[test]
    fn a_key_stands_until_it_is_gone_or_may_not_crawl_and_has_its_new_limits() {
        let (secret, crawl) = generate("a", &[Scope::Crawl]).unwrap();
        let keys = |text: &str| Keys::parse(text, &KeyLimits::default(), &Keys::default()).unwrap();
        let config = Config::default();
        let mut access = Access::start(&config).unwrap();
        access.keys = Some(super::super::Reloaded::new(std::path::PathBuf::new(), keys(&crawl)));
        let access = Arc::new(access);
        let none = std::iter::empty;
        let brought = Credential::of(none(), std::iter::once(secret.as_bytes()), none());
        let Credential::Digest(digest) = brought else { panic!("it has the form of a key") };
        let key = access.keys.as_ref().unwrap().now.load().find(&digest).cloned();
        assert!(key.is_some());
        let mut peer = Peer::new(Arc::clone(&access), [127, 0, 0, 1].into(), (key, 0), None);
        let mut after = |text: &str| {
            access.put_keys(Arc::new(keys(text)));
            peer.stands().then(|| peer.key().unwrap().quota.limits().streams)
        };
        assert_eq!(after(&format!("{crawl}streams = 7\n")), Some(7));
        assert_eq!(after(&crawl.replace("\"crawl\"", "\"metrics\"")), None);
        assert_eq!(after(&crawl), Some(0));
        let (_, other) = generate("b", &[Scope::Crawl]).unwrap();
        assert_eq!(after(&other), None);
    }
}
