//! The synthetic web: an HTTP/1.1 origin whose every answer follows from its seed, the path and
//! the query, so that a test can demand any size, latency, framing, coding or fault, and then ask
//! what was seen. The grammar is `grammar.txt`, which the origin also serves at `/`.

mod conn;
mod control;
mod encode;
mod faults;
mod files;
mod pages;
mod routes;
mod script;
mod stats;

/// What tests of other modules check their codecs against.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::script::chunked;
}

pub use stats::{PathStats, Stats};

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Bytes of generated bodies that are kept.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Connections waiting to be accepted.
const BACKLOG: u32 = 4096;

/// How to start an [`Origin`].
#[derive(Clone, Debug)]
pub struct OriginConfig {
    /// Address to listen on; port 0 takes a free one.
    pub addr: SocketAddr,
    /// What all pages, draws and faults follow from.
    pub seed: u64,
    /// Folder served under `/files/`.
    pub dir: Option<PathBuf>,
    /// What `/robots.txt` says at first: `allow`, `deny`, `private`, `crawl-delay:N`, `404`, `500`,
    /// `slow`, `huge` or `reset`.
    pub robots: String,
    /// Threads that serve.
    pub threads: usize,
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            dir: None,
            robots: "allow".to_owned(),
            threads: 1,
        }
    }
}

/// A running synthetic origin; dropping it closes its listener and connections.
#[derive(Debug)]
pub struct Origin {
    runtime: Option<Runtime>,
    addr: SocketAddr,
    web: Arc<Web>,
}

impl Origin {
    /// Listens and serves on threads of its own.
    ///
    /// # Errors
    /// When the address can't be bound, a thread can't be started, or `robots` is no mode.
    pub fn start(config: OriginConfig) -> io::Result<Self> {
        let robots = routes::robots_mode(&config.robots).map_err(io::Error::other)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("origin")
            .enable_all()
            .build()?;
        let web = Arc::new(Web {
            seed: config.seed,
            dir: config.dir,
            robots: Mutex::new(robots),
            bodies: Bodies::default(),
            ledger: stats::Ledger::default(),
        });
        let listener = {
            let _guard = runtime.enter();
            let socket = if config.addr.is_ipv4() {
                tokio::net::TcpSocket::new_v4()?
            } else {
                tokio::net::TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.bind(config.addr)?;
            socket.listen(BACKLOG)?
        };
        let addr = listener.local_addr()?;
        runtime.spawn(accept(Arc::clone(&web), listener));
        Ok(Self { runtime: Some(runtime), addr, web })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it saw so far, with every target; the same as `GET /_stats`.
    pub fn stats(&self) -> Stats {
        self.web.ledger.snapshot(Some(""))
    }

    /// Sets the counts to zero; the same as `GET /_reset`.
    pub fn reset(&self) {
        self.web.ledger.reset();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(web: Arc<Web>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(conn::serve(Arc::clone(&web), stream));
            }
            // Out of descriptors: let connections end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Web {
    seed: u64,
    dir: Option<PathBuf>,
    robots: Mutex<String>,
    bodies: Bodies,
    ledger: stats::Ledger,
}

impl Web {
    fn robots(&self) -> String {
        self.robots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_robots(&self, mode: String) {
        *self.robots.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }
}

/// Generated bodies by what they follow from; all are dropped when they take too much.
#[derive(Debug, Default)]
struct Bodies(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bodies: HashMap<String, Arc<[u8]>>,
    bytes: usize,
}

impl Bodies {
    fn get_or_make(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Arc<[u8]>, String> {
        if let Some(body) = self.0.lock().unwrap_or_else(PoisonError::into_inner).bodies.get(key) {
            return Ok(Arc::clone(body));
        }
        let body: Arc<[u8]> = make()?.into();
        let kept = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + body.len() > BODIES_BYTES_MAX {
            *kept = Kept::default();
        }
        kept.bytes += body.len();
        kept.bodies.insert(key.to_owned(), Arc::clone(&body));
        Ok(body)
    }
}
