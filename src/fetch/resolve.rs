//! Names to addresses. The look-ups are made on the control thread ([`run`]); each core keeps its
//! own cache, with the records' TTL, and asks for a name once however many fetches wait for it.
//!
//! A core's question carries the mailbox that its answer goes to, so control knows nothing of
//! cores. Literal addresses never come here, and `localhost` is answered on the spot (RFC 6761
//! §6.3). What a name resolves to is no permission to dial it: that is the egress guard's.

use crate::limits::{
    DNS_ADDRESSES_MAX, DNS_CACHE_ENTRIES_MAX, DNS_FLIGHTS_MAX, DNS_LOOKUPS_MAX, DNS_TTL_MAX_S,
    DNS_TTL_MIN_S,
};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// How long a failure is remembered: long enough for one stream's many URLs on a dead name.
const NEGATIVE_TTL: Duration = Duration::from_secs(3);
/// A question that has had no answer for so long is asked again for the next fetch.
const FLIGHT_MAX: Duration = Duration::from_secs(10);

/// A name to look up, from a core to control.
pub struct Question {
    /// In ASCII, lower case, without a trailing dot.
    pub name: String,
    /// Where the answer goes.
    pub reply: uring::mailbox::Sender<Answer>,
}

/// What control found out.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The question's name.
    pub name: String,
    /// The addresses with the time that they are good for, or one sentence on why there are none.
    pub outcome: Result<(Vec<IpAddr>, Duration), String>,
}

impl Question {
    /// Sends the answer. One that its core has no room for is dropped; the fetches that wait for
    /// it meet their deadline.
    pub fn answer(self, outcome: Result<(Vec<IpAddr>, Duration), String>) {
        let _ = self.reply.try_send(Answer { name: self.name, outcome });
    }
}

/// A name's addresses in the order in which to try them, or why there are none.
pub type Outcome = Result<Rc<[IpAddr]>, Rc<str>>;

/// The cores' end and control's end of the questions, `capacity` of which may wait.
#[must_use]
pub fn channel(capacity: usize) -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(capacity)
}

/// Control's part: looks up what is asked for, with the system's configuration (`resolv.conf`,
/// `hosts`), until every core's [`Resolver`] is gone. Runs on a tokio `current_thread` runtime.
///
/// # Errors
/// The system's configuration cannot be read; nothing is answered then.
pub async fn run(mut questions: mpsc::Receiver<Question>) -> Result<(), NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    let resolver = builder.build()?;
    let places = Arc::new(Semaphore::new(DNS_LOOKUPS_MAX));
    while let Some(question) = questions.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let resolver = resolver.clone();
        tokio::spawn(async move {
            let outcome = look_up(&resolver, &question.name).await;
            question.answer(outcome);
            drop(place);
        });
    }
    Ok(())
}

async fn look_up(resolver: &TokioResolver, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    // The final dot keeps the search list of resolv.conf away from what a URL names.
    let found = resolver.lookup_ip(format!("{name}.")).await.map_err(|error| reason(&error))?;
    let addresses = found.iter().take(DNS_ADDRESSES_MAX * 2).collect();
    Ok((addresses, found.valid_until().saturating_duration_since(Instant::now())))
}

fn reason(error: &NetError) -> String {
    match error {
        _ if error.is_nx_domain() => "the name does not exist".to_owned(),
        _ if error.is_no_records_found() => "the name has no addresses".to_owned(),
        NetError::Timeout => "the name servers did not answer in time".to_owned(),
        _ => "the name servers gave no usable answer".to_owned(),
    }
}

/// A core's resolver. Cheap to clone; made on the core that uses it.
#[derive(Clone)]
pub struct Resolver(Rc<Inner>);

struct Inner {
    questions: mpsc::Sender<Question>,
    reply: uring::mailbox::Sender<Answer>,
    cache: RefCell<Cache>,
    flights: RefCell<HashMap<String, Rc<Flight>>>,
}

/// A look-up under way, with those who wait for it.
struct Flight {
    since: Instant,
    outcome: RefCell<Option<Outcome>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Resolver {
    /// A resolver that asks through `questions`; starts the task that takes the answers, which
    /// ends with the last clone.
    ///
    /// # Panics
    /// When called off a core's loop.
    #[must_use]
    pub fn new(questions: mpsc::Sender<Question>) -> Self {
        let (reply, mut answers) = uring::mailbox::channel(DNS_FLIGHTS_MAX);
        let (cache, flights) = (RefCell::default(), RefCell::default());
        let inner = Rc::new(Inner { questions, reply, cache, flights });
        let weak: Weak<Inner> = Rc::downgrade(&inner);
        // Detached: it ends when the resolver and the last question are gone.
        drop(uring::spawn(async move {
            while let Some(answer) = answers.recv().await {
                let Some(inner) = weak.upgrade() else { break };
                inner.handle_answer(answer, Instant::now());
            }
        }));
        Self(inner)
    }

    /// The addresses of `name` (ASCII, lower case, no trailing dot), from the cache or from
    /// control. Waits without a deadline of its own: the caller has one. Dropping it is fine.
    ///
    /// # Errors
    /// One sentence on why there are none.
    pub async fn resolve(&self, name: &str) -> Outcome {
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(Rc::from([Ipv4Addr::LOCALHOST.into(), IpAddr::V6(Ipv6Addr::LOCALHOST)]));
        }
        let now = Instant::now();
        if let Some(known) = self.0.cache.borrow_mut().get(name, now) {
            return known;
        }
        let flight = self.0.join_or_ask(name, now)?;
        poll_fn(|cx| {
            if let Some(outcome) = flight.outcome.borrow().as_ref() {
                return Poll::Ready(outcome.clone());
            }
            let mut waiting = flight.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl Inner {
    fn join_or_ask(&self, name: &str, now: Instant) -> Result<Rc<Flight>, Rc<str>> {
        let mut flights = self.flights.borrow_mut();
        if let Some(flight) = flights.get(name)
            && now.saturating_duration_since(flight.since) < FLIGHT_MAX
        {
            return Ok(Rc::clone(flight));
        }
        if flights.len() >= DNS_FLIGHTS_MAX {
            flights.retain(|_, f| now.saturating_duration_since(f.since) < FLIGHT_MAX);
        }
        let question = Question { name: name.to_owned(), reply: self.reply.clone() };
        if flights.len() >= DNS_FLIGHTS_MAX {
            return Err(Rc::from("the resolver has too much to do"));
        }
        self.questions.try_send(question).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the resolver has too much to do",
            mpsc::error::TrySendError::Closed(_) => "the resolver is not running",
        })?;
        let flight = Rc::new(Flight {
            since: now,
            outcome: RefCell::default(),
            waiting: RefCell::default(),
        });
        flights.insert(name.to_owned(), Rc::clone(&flight));
        Ok(flight)
    }

    fn handle_answer(&self, answer: Answer, now: Instant) {
        let (outcome, ttl): (Outcome, _) = match answer.outcome {
            Ok((addresses, _)) if addresses.is_empty() => {
                (Err(Rc::from("the name has no addresses")), NEGATIVE_TTL)
            }
            Ok((addresses, ttl)) => {
                let (min, max) =
                    (Duration::from_secs(DNS_TTL_MIN_S), Duration::from_secs(DNS_TTL_MAX_S));
                (Ok(interleave(&addresses).into()), ttl.clamp(min, max))
            }
            Err(reason) => (Err(Rc::from(reason)), NEGATIVE_TTL),
        };
        self.cache.borrow_mut().put(&answer.name, outcome.clone(), now + ttl, now);
        if let Some(flight) = self.flights.borrow_mut().remove(&answer.name) {
            *flight.outcome.borrow_mut() = Some(outcome);
            flight.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Outcomes until their time; bounded.
#[derive(Default)]
struct Cache(HashMap<String, (Outcome, Instant)>);

impl Cache {
    fn get(&mut self, name: &str, now: Instant) -> Option<Outcome> {
        let (outcome, until) = self.0.get(name)?;
        if *until > now {
            return Some(outcome.clone());
        }
        self.0.remove(name);
        None
    }

    fn put(&mut self, name: &str, outcome: Outcome, until: Instant, now: Instant) {
        if self.0.len() >= DNS_CACHE_ENTRIES_MAX {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() >= DNS_CACHE_ENTRIES_MAX {
            // All alive: half of them go, whichever, so that full caches are swept rarely.
            let mut keep = false;
            self.0.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        self.0.insert(name.to_owned(), (outcome, until));
    }
}

/// The order in which addresses are tried: families in turn (RFC 8305 §4), IPv4 first because a
/// host without working IPv6 is the commoner one; no address twice, at most [`DNS_ADDRESSES_MAX`].
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v4 = addresses.iter().filter(|a| a.is_ipv4());
    let mut v6 = addresses.iter().filter(|a| a.is_ipv6());
    let mut order: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    loop {
        let (a, b) = (v4.next(), v6.next());
        if a.is_none() && b.is_none() {
            break;
        }
        for address in [a, b].into_iter().flatten() {
            if !order.contains(address) {
                order.push(*address);
            }
        }
    }
    order.truncate(DNS_ADDRESSES_MAX);
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let addresses = ["::1", "::2", "::3", "1.1.1.1", "1.1.1.1", "2.2.2.2"].map(ip);
        let order = interleave(&addresses);
        let expected = ["1.1.1.1", "::1", "::2", "2.2.2.2", "::3"].map(ip);
        assert_eq!(order, expected);
        let many: Vec<IpAddr> = (0..99).map(|n| Ipv4Addr::new(1, 1, 1, n).into()).collect();
        assert_eq!(interleave(&many).len(), DNS_ADDRESSES_MAX);
        assert!(interleave(&[]).is_empty());
    }

    #[test]
    fn control_answers_from_the_hosts_file() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (questions, asked) = channel(1);
        let (reply, mut answers) = uring::mailbox::channel(1);
        let ask = async move {
            let name = "localhost".to_owned();
            questions.send(Question { name, reply }).await.unwrap_or_else(|_| panic!("closed"));
            loop {
                if let Some(answer) = answers.try_recv() {
                    break answer;
                }
                tokio::task::yield_now().await;
            }
        };
        let (ran, answer) = runtime.block_on(async { tokio::join!(run(asked), ask) });
        ran.unwrap();
        assert_eq!(answer.name, "localhost");
        assert!(answer.outcome.unwrap().0.iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn the_cache_forgets_on_time_and_stays_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let found: Outcome = Ok(Rc::from([ip("1.1.1.1")]));
        let later = now + Duration::from_secs(1);
        cache.put("a.test", found.clone(), later, now);
        assert_eq!(cache.get("a.test", now), Some(found.clone()));
        assert_eq!(cache.get("a.test", later), None);
        for n in 0..DNS_CACHE_ENTRIES_MAX * 3 {
            cache.put(&format!("{n}.test"), found.clone(), later, now);
            assert!(cache.0.len() <= DNS_CACHE_ENTRIES_MAX);
        }
        assert!(cache.get(&format!("{}.test", DNS_CACHE_ENTRIES_MAX * 3 - 1), now).is_some());
    }
}
