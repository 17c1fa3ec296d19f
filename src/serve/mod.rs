//! Inbound: accept, one connection, routes, answers.

pub mod access;
pub mod arrive;
pub mod ask;
pub mod conn;
pub mod console;
pub mod docs;
pub mod guard;
pub mod handle;
mod jobs;
pub mod mcp;
pub mod openapi;
pub mod pages;
pub mod reply;
pub mod route;
pub mod sender;
mod slow;
pub mod socket;
mod spans;
pub mod streams;
pub mod tls;
pub mod transport;
mod warm;
pub mod ws;

use crate::config::Config;
use crate::crawl::mesh::Message;
use crate::crawl::node::Node;
use crate::jobs::Jobs;
use crate::local::Notify;
use crate::observe::metrics::{Counter, Reject};
use crate::observe::sparing::Sparing;
use crate::proto::h1::Timeouts;
use crate::stream::machine::Ending;
use access::Access;
use arrive::{Turned, arrive};
use conn::Conn;
use pages::Site;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uring::mailbox::Receiver;
use uring::net::{TcpListener, TcpStream};
use uring::{Gate, Pass};

/// How long the loop rests when there are no descriptors for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How often that is told, on each core.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(1);
/// What a client gets that is one too many, before anything of it is read.
const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// What a client gets whose address has too many connections.
const TOO_MANY_OF_ONE: &str = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// What a connection needs beside its core's node.
#[derive(Clone)]
pub struct Serving {
    /// Who may do what.
    pub access: Arc<Access>,
    /// Background jobs.
    pub jobs: Arc<Jobs>,
    /// The console and the API's description.
    pub site: Arc<Site>,
}

/// The connections of one core.
struct Connections {
    serving: Serving,
    gate: Gate,
    /// One flag for each, raised when the server stops; by the connection's number.
    drains: RefCell<HashMap<u64, Rc<Notify>>>,
    next: Cell<u64>,
    /// How long clients may take; shared by all connections that came since the settings last changed.
    timeouts: RefCell<Rc<Timeouts>>,
}

impl Connections {
    fn timeouts(&self, config: &Config) -> Rc<Timeouts> {
        let (now, mut known) = (conn::timeouts(config), self.timeouts.borrow_mut());
        if **known != now {
            *known = Rc::new(now);
        }
        Rc::clone(&known)
    }
}

/// Serves a core: its listener, its mailbox and its connections, until it has drained.
pub async fn run(
    node: Rc<Node>,
    serving: Serving,
    listener: TcpListener,
    mailbox: Receiver<Message>,
    grace: Duration,
) {
    let connections = Rc::new(Connections {
        serving,
        gate: Gate::new(),
        drains: RefCell::default(),
        next: Cell::new(0),
        timeouts: RefCell::new(Rc::new(conn::timeouts(&node.shared.config))),
    });
    let letters = Rc::clone(&node);
    drop(uring::spawn(async move { letters.serve(mailbox).await }));
    warm::core(&node);
    let (mut key_changes, told) =
        (connections.serving.access.key_changes(), Rc::clone(&connections));
    drop(uring::spawn(async move {
        while key_changes.recv().await.is_some() {
            // Sockets whose key is gone close; all others go on.
            told.drains.borrow().values().for_each(|news| news.notify());
        }
    }));
    let accepting = accept(Rc::clone(&node), listener.clone(), Rc::clone(&connections));
    drop(uring::spawn(accepting));
    let until = node.drained_at().await;
    listener.stop();
    connections.drains.borrow().values().for_each(|drain| drain.notify());
    let over = async {
        connections.gate.drained().await;
        node.background.drained().await;
    };
    if uring::time::timeout_at(until, over).await.is_err() {
        node.end_all(Ending::Drained);
        // The last events still have to reach their clients.
        let _ = uring::time::timeout(grace, connections.gate.drained()).await;
    }
    node.drained_everywhere(until).await;
    node.quiesced(Instant::now() + grace).await;
}

async fn accept(node: Rc<Node>, listener: TcpListener, connections: Rc<Connections>) {
    let said = Sparing::default();
    loop {
        match listener.accept().await {
            Ok(Some(socket)) => serve_one(&node, socket, &connections),
            Ok(None) => return,
            Err(error) => {
                // Who is not accepted waits in the backlog; without the pause the loop would spin.
                if let Some(more) = said.admit(Instant::now(), ACCEPT_TOLD_EVERY) {
                    tracing::warn!(more, "can't accept: {error}");
                }
                uring::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve_one(node: &Rc<Node>, socket: TcpStream, connections: &Rc<Connections>) {
    let accepted = Instant::now();
    let pass = connections.gate.enter();
    let open = node.shared.connections.fetch_add(1, Ordering::Relaxed);
    let counted = Counted { node: Rc::clone(node), _pass: pass };
    if open >= node.shared.config.connections_max {
        node.observe.count(Counter::ConnectionsRejected(Reject::Connections));
        drop(uring::spawn(async move {
            let _ = uring::time::timeout(ACCEPT_PAUSE, socket.write_all(TOO_MANY)).await;
            drop(counted);
        }));
        return;
    }
    node.observe.count(Counter::ConnectionsAccepted);
    let drain = Rc::<Notify>::default();
    let number = connections.next.replace(connections.next.get() + 1);
    connections.drains.borrow_mut().insert(number, Rc::clone(&drain));
    let open = Open { counted, number, connections: Rc::clone(connections) };
    let node = Rc::clone(node);
    drop(uring::spawn(async move {
        let serving = open.connections.serving.clone();
        let access = Arc::clone(&serving.access);
        let upgraded = match Box::pin(arrive(&access, &node.shared.config, socket)).await {
            Ok(arrival) => {
                let timeouts = open.connections.timeouts(&node.shared.config);
                Conn::new(node, serving, arrival, timeouts, accepted).run(&drain).await
            }
            Err(turned) => {
                turn_away(&node, &access, turned).await;
                None
            }
        };
        if let Some(upgraded) = upgraded {
            // In a task of its own: HTTP's is larger, and a WebSocket may be idle for long.
            drop(uring::spawn(async move {
                ws::run(upgraded, drain).await;
                drop(open);
            }));
        }
    }));
}

async fn turn_away(node: &Rc<Node>, access: &Access, turned: Turned) {
    let Turned::Away(reason, socket) = turned else { return };
    node.observe.count(Counter::ConnectionsRejected(reason));
    // Who expects TLS could make nothing of it.
    if access.tls().is_none() {
        let _ = uring::time::timeout(ACCEPT_PAUSE, socket.write_all(TOO_MANY_OF_ONE)).await;
    }
}

/// A connection that counts against the process' limit.
struct Counted {
    node: Rc<Node>,
    _pass: Pass,
}

/// A connection that is served.
struct Open {
    counted: Counted,
    number: u64,
    connections: Rc<Connections>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.drains.borrow_mut().remove(&self.number);
        self.counted.node.observe.count(Counter::ConnectionsClosed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
