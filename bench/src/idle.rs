//! `bench idle`: what a connection costs that says nothing, all of user space, and what it is made of.

use crate::compare::{Env, FLAGS};
use crate::crowd::{self, Crowd, Kind};
use crate::flags::Flags;
use crate::process::{Process, Side};
use crate::ratio::{Limit, Spread};
use crate::usage::Memory;
use crate::{ALLOCATOR, Failure, Outcome, http, server};
use stats_alloc::Region;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of user space that an idle connection may cost; the budget.
pub(crate) const LIMIT: Limit = Limit::AtMost(2048.0);
/// Connections before the first look: they make what is made once.
const WARM: usize = 64;
/// Connections to a server in this process, whose heap is counted to the byte.
const COUNTED: usize = 1000;

/// What one idle connection costs, in bytes.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    /// Resident, files included.
    resident: f64,
    /// Resident, what no file backs: the figure that the budget is about.
    pub(crate) anonymous: f64,
}

/// What a heap holds for one idle connection, in bytes.
#[derive(Debug)]
struct Heap {
    in_use: f64,
    /// Of that, the arena's slabs, whether their buffers are in use or not.
    arena: f64,
    /// Of the arena, buffers that are in use.
    buffers: f64,
}

/// Prints figures of every kind of connection, and of the peer's for comparison.
pub(crate) fn run(args: &[String]) -> Outcome {
    let mut given = args.to_vec();
    if !given.iter().any(|flag| flag == "--connections") {
        given.extend(["--connections".to_owned(), "10000".to_owned()]);
    }
    let env = Env::new(&Flags::parse(&given, &FLAGS)?)?;
    let mut within = true;
    for (name, kind) in kinds(&env) {
        let Some(kind) = kind else {
            println!("{name}: skipped, the server has no /crawl/ws");
            continue;
        };
        let ours = measure(&env, Side::Forebay, &kind)?;
        let heap = count(&kind)?;
        let verdict = LIMIT.judge(&Spread::exactly(ours.anonymous));
        println!(
            "{name}: {} connections, {:.0} bytes each ({LIMIT}: {verdict}), resident with files {:.0}",
            ours.connections, ours.anonymous, ours.resident
        );
        println!(
            "  heap of a server in this process: {:.0} bytes in use each, of which arena {:.0} \
             (buffers in use {:.0})",
            heap.in_use, heap.arena, heap.buffers
        );
        let theirs = measure(&env, Side::Axum, &kind)?;
        println!("  axum: {} connections, {:.0} bytes each", theirs.connections, theirs.anonymous);
        within &= kind != Kind::KeepAlive || ours.anonymous <= 2048.0;
    }
    Ok(within)
}

/// The kinds, each with its name; a WebSocket only where the server takes them.
fn kinds(env: &Env) -> [(&'static str, Option<Kind>); 3] {
    [
        ("keep-alive", Some(Kind::KeepAlive)),
        ("SSE stream that waits for its page", Some(Kind::Sse(waiting(env)))),
        ("WebSocket", env.websockets.then_some(Kind::WebSocket)),
    ]
}

/// A crawl whose page does not come, and which has nothing to say meanwhile.
fn waiting(env: &Env) -> String {
    let options = [("progress_ms", "0"), ("timeout_ms", "600000"), ("deadline_ms", "3600000")];
    env.crawl_body(&[env.page("/stall?at=head&for=1h")], &options)
}

/// Measures a process of its own with as many connections as asked for, or as descriptors allow.
///
/// # Errors
/// When the connections can't be made or are not answered.
pub(crate) fn measure(env: &Env, side: Side, kind: &Kind) -> Result<Idle, Failure> {
    let server = env.start(side)?;
    // A stream needs a second descriptor of the server, for its fetch.
    let each = if matches!(kind, Kind::Sse(_)) { 2 } else { 1 };
    let count = env.connections.min((crowd::connections_max() - WARM) / each);
    let _warm = Crowd::gather(server.addr, kind.clone(), WARM)?;
    let before = resting(&server)?;
    let crowd = Crowd::gather(server.addr, kind.clone(), count)?;
    let after = resting(&server)?;
    let per = |after: u64, before: u64| after.saturating_sub(before) as f64 / crowd.len() as f64;
    Ok(Idle {
        connections: crowd.len(),
        resident: per(after.rss, before.rss),
        anonymous: per(after.anonymous, before.anonymous),
    })
}

fn resting(server: &Process) -> Result<Memory, Failure> {
    crowd::settle(server.pid())?;
    Memory::of(server.pid())
}

/// Counts the heap of a server in this process. The clients' side holds nothing on it but a table of
/// descriptors, which is taken off.
fn count(kind: &Kind) -> Result<Heap, Failure> {
    let server = server::start(1)?;
    let _warm = Crowd::gather(server.addr(), kind.clone(), WARM)?;
    let rest = || std::thread::sleep(Duration::from_secs(1));
    rest();
    let (slabs, buffers) = arena(server.addr())?;
    rest();
    let region = Region::new(ALLOCATOR);
    let crowd = Crowd::gather(server.addr(), kind.clone(), COUNTED)?;
    rest();
    let change = region.change();
    let own = COUNTED * size_of::<std::net::TcpStream>();
    let (slabs_after, buffers_after) = arena(server.addr())?;
    drop(crowd);
    server.stop(Duration::ZERO);
    let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    // Reallocations are in both, by what they added or took.
    let in_use = signed(change.bytes_allocated) - signed(change.bytes_deallocated) - signed(own);
    let per = |bytes: f64| bytes / COUNTED as f64;
    Ok(Heap {
        in_use: per(in_use as f64),
        arena: per(slabs_after - slabs),
        buffers: per(buffers_after - buffers),
    })
}

/// Bytes of the arena's slabs, and of its buffers in use, as the server's own metrics tell.
fn arena(addr: SocketAddr) -> Result<(f64, f64), Failure> {
    let text = http::get(addr, "/metrics")?.body();
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        let bytes = lines.filter_map(|line| {
            let class = line.split("buffer_bytes=\"").nth(1)?.split('"').next()?;
            let number = line.rsplit(' ').next()?;
            Some(class.parse::<f64>().ok()? * number.parse::<f64>().ok()?)
        });
        bytes.sum()
    };
    Ok((sum("forebay_arena_buffers_capacity{"), sum("forebay_arena_buffers_in_use{")))
}
