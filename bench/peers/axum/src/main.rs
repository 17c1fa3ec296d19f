//! The same job as Forebay's on axum and tokio, as one would write it today and as fast as that goes:
//! what `bench compare` measures against. The README of `bench/` says what it leaves out.

mod crawl;
mod events;
mod fetch;
mod handlers;
mod page;
mod request;
mod ws;

use axum::serve::ListenerExt;
use fetch::HttpClient;
use mimalloc::MiMalloc;
use moka::future::Cache;
use page::Page;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

/// Bytes of documents that the cache holds.
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
/// What an entry weighs beside its document.
const ENTRY_BYTES: usize = 512;
const CACHE_TTL: Duration = Duration::from_secs(3600);

/// What all requests share.
struct App {
    client: HttpClient,
    cache: Cache<u64, Arc<Page>>,
    /// As many turns as there are CPUs: more extractions at once would only take turns anyway.
    lanes: Arc<Semaphore>,
}

impl App {
    fn new(cpus: usize) -> Self {
        let cache = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|_, page: &Arc<Page>| {
                let bytes = page.document.get().len() + page.final_url.len() + ENTRY_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .time_to_live(CACHE_TTL)
            .build();
        Self { client: fetch::client(), cache, lanes: Arc::new(Semaphore::new(cpus)) }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let listen = match &args[..] {
        [] => "127.0.0.1:8081",
        [flag, addr] if flag == "--listen" => addr,
        _ => {
            eprintln!("usage: forebay-peer-axum [--listen ADDR:PORT]");
            return ExitCode::from(2);
        }
    };
    match run(listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-peer-axum: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(listen: &str) -> std::io::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // On one CPU the single-threaded runtime is the faster one: no work stealing, fewer wake-ups.
    let mut builder = if cpus == 1 {
        Builder::new_current_thread()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(cpus);
        builder
    };
    builder.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        println!("listening on http://{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let listener = listener.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        let router = handlers::router(Arc::new(App::new(cpus)));
        // No graceful shutdown: it would cost each connection a wait of its own.
        axum::serve(listener, router).await
    })
}
