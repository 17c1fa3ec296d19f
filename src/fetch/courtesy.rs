//! What a fetch owes its host before it sends anything: what robots.txt says, and the host's turn.
//! A core's end of [`hosts`](crate::fetch::hosts).

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::egress::CheckedAddr;
use crate::fetch::hosts::{Ask, Hosts, Rules, Wake};
use crate::fetch::nodes;
use crate::fetch::pacing::{self, Asker};
use crate::fetch::robots::{self, Check, Parser, Robots};
use crate::fetch::target::{Origin, Target};
use crate::fetch::track::Track;
use crate::fetch::{FetchRequest, FetchShared, Fetched, Fetcher, Kind};
use crate::limits::{
    RETRY_AFTER_MAX, ROBOTS_BYTES_MAX, ROBOTS_REDIRECTS_MAX, ROBOTS_TIMEOUT, TURNS_WAITING_MAX,
};
use crate::local::Notify;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use uring::time::{timeout, timeout_at};

/// How often whoever waits looks by itself: only for a word that was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Letters that may wait for one core.
const LETTERS_MAX: usize = 4096;

/// Who waits on this core, by the numbers that other cores know them by.
pub(crate) struct Waiters {
    mailbox: uring::mailbox::Sender<u64>,
    waiting: Rc<RefCell<HashMap<u64, Rc<Notify>>>>,
    next: Cell<u64>,
}

/// One who waits; forgotten when dropped.
struct Waiter<'w> {
    waiters: &'w Waiters,
    ticket: u64,
    notify: Rc<Notify>,
}

impl Waiters {
    /// Starts the task that takes the core's letters; it ends when the last sender is gone.
    pub(crate) fn new() -> Self {
        let (mailbox, mut letters) = uring::mailbox::channel(LETTERS_MAX);
        let waiting = Rc::<RefCell<HashMap<u64, Rc<Notify>>>>::default();
        let woken = Rc::clone(&waiting);
        drop(uring::spawn(async move {
            while let Some(ticket) = letters.recv().await {
                if let Some(notify) = woken.borrow().get(&ticket) {
                    notify.notify();
                }
            }
        }));
        Self { mailbox, waiting, next: Cell::new(0) }
    }

    fn join(&self) -> Result<Waiter<'_>, PageError> {
        if self.waiting.borrow().len() >= TURNS_WAITING_MAX {
            return Err(throttled("too many fetches wait for their hosts already"));
        }
        let ticket = self.next.replace(self.next.get().wrapping_add(1));
        let notify = Rc::<Notify>::default();
        self.waiting.borrow_mut().insert(ticket, Rc::clone(&notify));
        Ok(Waiter { waiters: self, ticket, notify })
    }
}

impl Waiter<'_> {
    fn wake(&self) -> Wake {
        Wake { to: self.waiters.mailbox.clone(), ticket: self.ticket }
    }

    /// Until it is woken, or until `at`.
    async fn wait_until(&self, at: Instant) {
        let _ = timeout_at(at, self.notify.notified()).await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.waiting.borrow_mut().remove(&self.ticket);
    }
}

/// A place in a host's line; left when dropped.
struct InLine<'h> {
    hosts: &'h Hosts,
    host: &'h str,
    place: u64,
    gone: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if !self.gone {
            self.hosts.leave(self.host, self.place);
        }
    }
}

/// What a turn is a turn at.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// A host and port.
    Host,
    /// An address, by whatever names.
    Address,
    /// Anything at all.
    All,
}

impl FetchShared {
    fn turns(&self, line: Line) -> &Hosts {
        match line {
            Line::Host => &self.hosts,
            Line::Address => &self.addresses,
            Line::All => &self.all,
        }
    }
}

/// The right to have one request under way to a host, an address, or at all; given back when dropped.
pub(crate) struct Turn {
    shared: Arc<FetchShared>,
    line: Line,
    /// Which host or address.
    host: String,
}

/// What a hop holds while it uses an address: its turn there, and one of all that there are. One
/// address at a time, the last one's.
pub(crate) struct AtAddress {
    held: RefCell<Option<Using>>,
    deadline: Instant,
}

struct Using {
    ip: IpAddr,
    _turns: (Option<Turn>, Turn),
}

impl AtAddress {
    /// None yet, for a hop that must be over by then.
    pub(crate) const fn new(deadline: Instant) -> Self {
        Self { held: RefCell::new(None), deadline }
    }
}

impl Turn {
    /// What the host answered: with 429 or 503 it may ask to be left alone (RFC 6585 §4, RFC 9110
    /// §15.6.4).
    pub(crate) fn handle_answer(&self, status: u16, retry_after: Option<&str>) {
        if !matches!(status, 429 | 503) {
            return;
        }
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let after = retry_after.and_then(|value| pacing::retry_after(value, unix.as_secs()));
        if let Some(after) = after {
            let after = after.min(RETRY_AFTER_MAX);
            self.shared.hosts.hold(&self.host, Instant::now() + after);
            if let Some(cluster) = self.shared.cluster.get() {
                nodes::hold(cluster, &self.host, after);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.turns(self.line).end_turn(&self.host);
    }
}

impl Fetcher {
    /// Asks robots.txt and waits for the host's turn, in [`Stage::Pace`].
    pub(crate) async fn courtesy(
        &self,
        request: &FetchRequest<'_>,
        target: &Target,
        track: &Track<'_>,
    ) -> Result<Turn, PageError> {
        track.enter(Stage::Pace);
        let mut interval = self.shared.config.host_interval;
        if request.robots {
            let agent = request.user_agent.unwrap_or(&self.shared.config.user_agent);
            let agent = robots::token(agent.as_bytes());
            let delay = self.ask_robots(target, agent, request.owner).await?;
            interval = interval.max(delay.unwrap_or_default());
        }
        let turn = self.turn(target.origin(), interval, request.deadline).await?;
        self.turn_among_nodes(&turn.host, interval, request.deadline).await?;
        Ok(turn)
    }

    /// Whether robots.txt lets `agent` have the target; the delay that it asks for.
    async fn ask_robots(
        &self,
        target: &Target,
        agent: &str,
        owner: u64,
    ) -> Result<Option<Duration>, PageError> {
        let robots = self.rules(&site(target.origin()), owner).await?;
        let mut check = Check::new(&robots, agent, target.path_and_query());
        loop {
            match check.step(&robots) {
                Some(true) => return Ok(robots.crawl_delay(agent)),
                Some(false) => {
                    let message = format!("robots.txt of {} disallows it", target.host());
                    return Err(disallowed(message));
                }
                None => uring::yield_now().await,
            }
        }
    }

    /// A site's robots.txt, once it is known.
    async fn rules(&self, site: &str, owner: u64) -> Result<Arc<Robots>, PageError> {
        let waiter = self.waiters.join()?;
        let mut wake = Some(waiter.wake());
        loop {
            match self.shared.hosts.ask_rules(site, wake.as_ref()) {
                Ask::Known(Rules::Read(robots)) => return Ok(robots),
                Ask::Known(Rules::Unreachable(error)) => return Err(error),
                Ask::Fetch => self.spawn_robots_fetch(site, owner),
                Ask::Wait => {
                    wake = None;
                    waiter.wait_until(Instant::now() + LOOK_EVERY).await;
                }
            }
        }
    }

    /// Where a URL's host says that its sitemaps are, or where one usually is; nowhere, where its
    /// robots.txt can't be had. In normal form.
    pub async fn sitemaps(&self, url: &str, owner: u64) -> Vec<String> {
        let Ok(target) = Target::parse(url) else { return Vec::new() };
        let site = site(target.origin());
        let known = timeout(ROBOTS_TIMEOUT, self.rules(&site, owner)).await;
        let Ok(Ok(robots)) = known else { return Vec::new() };
        let usual = [format!("{site}/sitemap.xml")];
        let told = robots.sitemaps().iter().map(|url| &**url);
        let usual = usual.iter().map(String::as_str).filter(|_| robots.sitemaps().is_empty());
        let targets = told.chain(usual).filter_map(|url| Target::parse(url).ok());
        targets.map(|target| target.as_str().to_owned()).collect()
    }

    /// Fetches a robots.txt in a task of its own: whoever asked first may leave before it is there.
    fn spawn_robots_fetch(&self, site: &str, owner: u64) {
        let (fetcher, site) = (self.me.clone(), site.to_owned());
        // A type of its own: this fetch is a fetch that never asks for a robots.txt again.
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            let Some(fetcher) = fetcher.upgrade() else { return };
            let fetched = fetcher.fetch_robots(&site, owner).await;
            fetcher.shared.hosts.put_rules(&site, fetched);
        });
        drop(uring::spawn(task));
    }

    async fn fetch_robots(&self, site: &str, owner: u64) -> Result<Robots, PageError> {
        let request = FetchRequest {
            url: &format!("{site}/robots.txt"),
            deadline: Instant::now() + ROBOTS_TIMEOUT,
            // One byte more tells the reader that it was cut.
            max_body_bytes: ROBOTS_BYTES_MAX as u64 + 1,
            redirects: ROBOTS_REDIRECTS_MAX,
            user_agent: None,
            headers: &[],
            known: None,
            robots: false,
            post: None,
            owner,
        };
        let body = match self.fetch_as(&request, Kind::Robots).await {
            Ok(fetched) => rules_of(fetched)?,
            // §2.3.1.2: more redirects than these may be taken for a file that is not there.
            Err(failure) if failure.error.code == PageCode::TooManyRedirects => Vec::new(),
            Err(failure) => return Err(unreachable_by(&failure.error)),
        };
        let mut parser = Parser::new(&body);
        while !parser.step() {
            uring::yield_now().await;
        }
        Ok(parser.finish())
    }

    /// Waits for a turn at a host: `host_throttled` where it can't come before the deadline.
    async fn turn(
        &self,
        origin: &Origin,
        interval: Duration,
        deadline: Instant,
    ) -> Result<Turn, PageError> {
        let host = format!("{}:{}", origin.host, origin.port);
        self.turn_in(Line::Host, host, &origin.host, (interval, deadline)).await
    }

    /// Waits for a turn at the address that is about to be used, and for one of all, in [`Stage::Pace`],
    /// unless the hop has them; those for another address are given back first. `host_throttled` where
    /// they can't come before the deadline. Where a proxy resolves names nobody here knows the address.
    pub(crate) async fn turn_at(
        &self,
        at: Option<&AtAddress>,
        addr: CheckedAddr,
        track: &Track<'_>,
    ) -> Result<(), PageError> {
        let Some(at) = at else { return Ok(()) };
        let ip = addr.addr().ip().to_canonical();
        if at.held.borrow().as_ref().is_some_and(|held| held.ip == ip) {
            return Ok(());
        }
        drop(at.held.take());
        track.enter(Stage::Pace);
        let terms = (Duration::ZERO, at.deadline);
        let here = match ip.is_unspecified() {
            true => None,
            false => {
                let who = "the host's address";
                Some(self.turn_in(Line::Address, ip.to_string(), who, terms).await?)
            }
        };
        // The narrower first: who waits for a busy address must not keep others from theirs.
        let any = self.turn_in(Line::All, String::new(), "this server", terms).await?;
        at.held.replace(Some(Using { ip, _turns: (here, any) }));
        Ok(())
    }

    async fn turn_in(
        &self,
        line: Line,
        host: String,
        who: &str,
        (interval, deadline): (Duration, Instant),
    ) -> Result<Turn, PageError> {
        let waiter = self.waiters.join()?;
        let hosts = self.shared.turns(line);
        let (place, mut turn) =
            hosts.ask_turn(&host, Asker { wake: waiter.wake(), interval, deadline });
        let mut in_line = InLine { hosts, host: &host, place, gone: false };
        loop {
            let look_at = match turn {
                pacing::Turn::Go => {
                    in_line.gone = true;
                    break;
                }
                pacing::Turn::Refused(at) => {
                    in_line.gone = true;
                    let wait = at.saturating_duration_since(Instant::now()).as_secs_f64();
                    let message =
                        format!("{who} takes the next request in {wait:.1} s, which is too late");
                    return Err(throttled(message));
                }
                pacing::Turn::Until(at) => at,
                pacing::Turn::InLine => Instant::now() + LOOK_EVERY,
            };
            waiter.wait_until(look_at.min(deadline)).await;
            if Instant::now() >= deadline {
                let message = format!("{who} was busy for all of the page's time");
                return Err(throttled(message));
            }
            turn = hosts.look(&host, place);
        }
        drop(in_line);
        Ok(Turn { shared: Arc::clone(&self.shared), line, host })
    }
}

/// Scheme, host and port as a URL has them: whose robots.txt it is (RFC 9309 §2.3).
fn site(origin: &Origin) -> String {
    let (scheme, host, port) = (origin.scheme.as_str(), &origin.host, origin.port);
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

/// The file's bytes; none where there is no file, which allows everything.
fn rules_of(fetched: Fetched) -> Result<Vec<u8>, PageError> {
    match fetched.status {
        200..300 => Ok(fetched.body),
        // §2.3.1.4: the server is in trouble, so everything is disallowed. 429 says as much.
        429 | 500.. => {
            let message = format!(
                "robots.txt answers {}, so nothing of the host may be fetched for now",
                fetched.status
            );
            Err(disallowed(message))
        }
        // §2.3.1.3
        _ => Ok(Vec::new()),
    }
}

/// §2.3.1.4: a network error is no permission. The page's error is the one that it would most likely
/// have had itself, where there is such a one.
fn unreachable_by(error: &PageError) -> PageError {
    let message = format!("robots.txt: {}", error.message);
    match error.code {
        PageCode::DnsFailed
        | PageCode::ConnectFailed
        | PageCode::ConnectTimeout
        | PageCode::TlsFailed
        | PageCode::ReadTimeout
        | PageCode::HttpMalformed => PageError::new(error.code, error.stage, message),
        PageCode::UrlTimeout => PageError::new(PageCode::ReadTimeout, error.stage, message),
        _ => disallowed(message),
    }
}

fn disallowed(message: impl Into<String>) -> PageError {
    PageError::new(PageCode::RobotsDisallowed, Stage::Pace, message)
}

pub(super) fn throttled(message: impl Into<String>) -> PageError {
    PageError::new(PageCode::HostThrottled, Stage::Pace, message)
}
