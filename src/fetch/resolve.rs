//! Names to addresses. The look-ups are made on the control thread ([`run`]); each core keeps its
//! own cache, with the records' TTL, and asks for a name once however many fetches wait for it.
//!
//! A core's question carries the mailbox that its answer goes to, so control knows nothing of
//! cores. Literal addresses never come here, and `localhost` is answered on the spot (RFC 6761
//! §6.3). What a name resolves to is no permission to dial it: that is the egress guard's.

mod desk;

use crate::limits::{
    DNS_ADDRESSES_MAX, DNS_CACHE_ENTRIES_MAX, DNS_FLIGHTS_MAX, DNS_TTL_MAX_S, DNS_TTL_MIN_S,
};
use desk::Desk;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverOpts};
use hickory_resolver::net::NetError;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How long a failure is remembered: long enough for one stream's many URLs on a dead name.
const NEGATIVE_TTL: Duration = Duration::from_secs(3);
/// A question that has had no answer for so long is asked again for the next fetch.
const FLIGHT_MAX: Duration = Duration::from_secs(10);

/// A name to look up, from a core to control.
pub struct Question {
    /// In ASCII, lower case, without a trailing dot.
    pub name: String,
    /// Who asks, of those among whom look-ups are shared out.
    pub owner: u64,
    /// Closed once nobody waits for the answer any more.
    pub wanted: oneshot::Receiver<()>,
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
        send(&self.reply, self.name, outcome);
    }
}

fn send(
    reply: &uring::mailbox::Sender<Answer>,
    name: String,
    outcome: Result<(Vec<IpAddr>, Duration), String>,
) {
    let _ = reply.try_send(Answer { name, outcome });
}

/// A name's addresses in the order in which to try them, or why there are none.
pub type Outcome = Result<Rc<[IpAddr]>, Rc<str>>;

/// The cores' end and control's end of the questions, `capacity` of which may wait.
#[must_use]
pub fn channel(capacity: usize) -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(capacity)
}

/// Control's part: looks up what is asked for, with the system's configuration (`resolv.conf`,
/// `hosts`), until every core's [`Resolver`] is gone. A look-up takes `timeout` at most, and ends when
/// nobody waits for it any more. Runs on a tokio `current_thread` runtime.
///
/// # Errors
/// The system's configuration cannot be read; nothing is answered then.
pub async fn run(questions: mpsc::Receiver<Question>, timeout: Duration) -> Result<(), NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    set(builder.options_mut());
    serve(questions, builder.build()?, timeout).await;
    Ok(())
}

fn set(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
}

async fn serve(
    mut questions: mpsc::Receiver<Question>,
    resolver: TokioResolver,
    timeout: Duration,
) {
    let (mut desk, mut under_way, mut owners) = (Desk::default(), JoinSet::new(), HashMap::new());
    loop {
        while let Some(question) = desk.next() {
            let owner = question.owner;
            let task = under_way.spawn(attend(question, resolver.clone(), timeout));
            owners.insert(task.id(), owner);
        }
        tokio::select! {
            question = questions.recv() => match question {
                Some(question) => desk.put(question),
                // Nobody is left who could want an answer.
                None => return,
            },
            Some(over) = under_way.join_next_with_id() => {
                let id = match over {
                    Ok((id, ())) => id,
                    Err(panicked) => panicked.id(),
                };
                if let Some(owner) = owners.remove(&id) {
                    desk.done(owner);
                }
            }
        }
    }
}

async fn attend(question: Question, resolver: TokioResolver, timeout: Duration) {
    let Question { name, wanted, reply, .. } = question;
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(timeout, look_up(&resolver, &name)) => outcome,
        // The sender is dropped, never used.
        _ = wanted => return,
    };
    send(&reply, name, outcome.unwrap_or_else(|_| Err(reason(&NetError::Timeout))));
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
    askers: Cell<usize>,
    /// Says that it is wanted for as long as it is there.
    _wanted: oneshot::Sender<()>,
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
    /// control. Waits without a deadline of its own: the caller has one. Dropping it is fine, and ends
    /// the look-up where nobody else waits for it. `owner` is whose look-up it is: nobody has more than
    /// [`DNS_LOOKUPS_PER_OWNER_MAX`](crate::limits::DNS_LOOKUPS_PER_OWNER_MAX) under way at once.
    ///
    /// # Errors
    /// One sentence on why there are none.
    pub async fn resolve(&self, name: &str, owner: u64) -> Outcome {
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(Rc::from([Ipv4Addr::LOCALHOST.into(), IpAddr::V6(Ipv6Addr::LOCALHOST)]));
        }
        let now = Instant::now();
        if let Some(known) = self.0.cache.borrow_mut().get(name, now) {
            return known;
        }
        let asker = Asker::new(&self.0, name, self.0.join_or_ask(name, owner, now)?);
        let flight = &asker.flight;
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

/// One who waits for a look-up; the last to leave ends it.
struct Asker<'i> {
    inner: &'i Inner,
    name: &'i str,
    flight: Rc<Flight>,
}

impl<'i> Asker<'i> {
    fn new(inner: &'i Inner, name: &'i str, flight: Rc<Flight>) -> Self {
        flight.askers.set(flight.askers.get() + 1);
        Self { inner, name, flight }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let left = self.flight.askers.get() - 1;
        self.flight.askers.set(left);
        if left > 0 {
            return;
        }
        let mut flights = self.inner.flights.borrow_mut();
        if flights.get(self.name).is_some_and(|known| Rc::ptr_eq(known, &self.flight)) {
            flights.remove(self.name);
        }
    }
}

impl Inner {
    fn join_or_ask(&self, name: &str, owner: u64, now: Instant) -> Result<Rc<Flight>, Rc<str>> {
        let mut flights = self.flights.borrow_mut();
        if let Some(flight) = flights.get(name)
            && now.saturating_duration_since(flight.since) < FLIGHT_MAX
        {
            return Ok(Rc::clone(flight));
        }
        if flights.len() >= DNS_FLIGHTS_MAX {
            flights.retain(|_, f| now.saturating_duration_since(f.since) < FLIGHT_MAX);
        }
        let (keep, wanted) = oneshot::channel();
        let question = Question { name: name.to_owned(), owner, wanted, reply: self.reply.clone() };
        if flights.len() >= DNS_FLIGHTS_MAX {
            return Err(Rc::from("the resolver has too much to do"));
        }
        self.questions.try_send(question).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the resolver has too much to do",
            mpsc::error::TrySendError::Closed(_) => "the resolver is not running",
        })?;
        let flight = Rc::new(Flight {
            since: now,
            askers: Cell::new(0),
            _wanted: keep,
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
    use crate::limits::DNS_LOOKUPS_PER_OWNER_MAX;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;

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

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Waits for an answer without a loop.
    async fn answer(answers: &mut uring::mailbox::Receiver<Answer>) -> Answer {
        loop {
            if let Some(answer) = answers.try_recv() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn control_answers_from_the_hosts_file() {
        let (questions, asked) = channel(1);
        let (reply, mut answers) = uring::mailbox::channel(1);
        let (_keep, wanted) = oneshot::channel();
        let ask = async move {
            let question = Question { name: "localhost".to_owned(), owner: 1, wanted, reply };
            questions.send(question).await.unwrap_or_else(|_| panic!("closed"));
            answer(&mut answers).await
        };
        let running = run(asked, Duration::from_secs(5));
        let (ran, answer) = runtime().block_on(async { tokio::join!(running, ask) });
        ran.unwrap();
        assert_eq!(answer.name, "localhost");
        assert!(answer.outcome.unwrap().0.iter().all(IpAddr::is_loopback));
    }

    /// A name server that answers for `good.test`, says nothing of any other zone, and counts what it
    /// is asked of those.
    async fn name_server(socket: tokio::net::UdpSocket, unanswered: Rc<Cell<usize>>) {
        let mut query = [0; 512];
        loop {
            let (bytes, client) = socket.recv_from(&mut query).await.unwrap();
            let question = &query[12..bytes];
            let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
            if !question[..end].windows(9).any(|window| window == b"\x04good\x04tes") {
                unanswered.set(unanswered.get() + 1);
                continue;
            }
            let address = question[end - 3] == 1;
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(address), 0, 0, 0, 0]);
            answer.extend(&question[..end]);
            if address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            }
            socket.send_to(&answer, client).await.unwrap();
        }
    }

    /// RFC 1035 by hand: one stream asks for hundreds of names that nobody answers for.
    #[test]
    fn silence_costs_who_asks_for_it_and_ends_when_nobody_waits() {
        let timeout = Duration::from_secs(30);
        let (questions, asked) = channel(1024);
        runtime().block_on(tokio::task::LocalSet::new().run_until(async move {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut connection = ConnectionConfig::udp();
            connection.port = socket.local_addr().unwrap().port();
            let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
            server.connections = vec![connection];
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            set(builder.options_mut());
            builder.options_mut().timeout = timeout;
            let unanswered = Rc::<Cell<usize>>::default();
            tokio::task::spawn_local(name_server(socket, Rc::clone(&unanswered)));
            let serving = serve(asked, builder.build().unwrap(), timeout);
            let serving = tokio::task::spawn_local(serving);
            let (reply, mut answers) = uring::mailbox::channel(1024);
            let ask = |owner: u64, name: String| {
                let (keep, wanted) = oneshot::channel();
                let question = Question { name, owner, wanted, reply: reply.clone() };
                questions.try_send(question).unwrap_or_else(|_| panic!("full"));
                keep
            };
            let silent: Vec<_> = (0..500).map(|n| ask(1, format!("n{n}.silent.test"))).collect();
            let kept = ask(2, "a.good.test".to_owned());
            let good = tokio::time::timeout(timeout / 2, answer(&mut answers)).await.unwrap();
            assert_eq!(good.name, "a.good.test");
            assert_eq!(good.outcome.unwrap().0, [ip("192.0.2.1")]);
            drop(kept);
            // Two questions of each name, A and AAAA, of as many names as may be under way.
            assert!(unanswered.get() <= 2 * DNS_LOOKUPS_PER_OWNER_MAX, "{}", unanswered.get());
            // Its asker leaves, and comes back with a name that is answered.
            drop(silent);
            let _kept = ask(1, "b.good.test".to_owned());
            let good = tokio::time::timeout(timeout / 2, answer(&mut answers)).await.unwrap();
            assert_eq!(good.name, "b.good.test");
            drop(questions);
            serving.await.unwrap();
        }));
    }

    #[test]
    fn the_last_who_waits_ends_a_look_up() {
        let (questions, mut asked) = channel(4);
        let driver = uring::probe::Driver::Epoll;
        let core =
            uring::core::spawn(uring::core::CoreConfig::new(0, driver), move || async move {
                let resolver = Resolver::new(questions);
                let closed = |question: &mut Question| {
                    let closed = oneshot::error::TryRecvError::Closed;
                    matches!(question.wanted.try_recv(), Err(error) if error == closed)
                };
                let soon = Duration::from_millis(1);
                let _ = uring::time::timeout(soon, async {
                    let one = uring::time::timeout(soon, resolver.resolve("a.test", 1));
                    let two = resolver.resolve("a.test", 2);
                    uring::select2(one, std::pin::pin!(two)).await
                })
                .await;
                let mut question = asked.try_recv().unwrap();
                assert_eq!((&*question.name, question.owner), ("a.test", 1));
                assert!(asked.try_recv().is_err(), "asked once for both");
                assert!(closed(&mut question) && resolver.0.flights.borrow().is_empty());
                let again = uring::time::timeout(soon, resolver.resolve("a.test", 1)).await;
                assert!(again.is_err() && asked.try_recv().is_ok(), "asked anew");
            });
        core.unwrap().join().unwrap();
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
