//! What all measurements of one invocation share: the cores, the origin, what the server can do.

use crate::Failure;
use crate::flags::Flags;
use crate::http;
use crate::process::{self, Process, Side, binary, scratch};
use std::cell::Cell;
use std::path::PathBuf;

/// The flags that [`Env::new`] reads.
pub(crate) const FLAGS: [&str; 6] =
    ["--rounds", "--seconds", "--connections", "--server-cpu", "--client-cpu", "--forebay-flags"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Env {
    /// Blocks of four runs.
    pub(crate) rounds: usize,
    /// Seconds of load in each run.
    pub(crate) seconds: f64,
    /// Streams or idle connections where a scenario has many.
    pub(crate) connections: usize,
    server_cpu: usize,
    pub(crate) client_cpu: usize,
    /// Further flags of the server.
    forebay_flags: Vec<String>,
    origin: Process,
    /// Forebay's answer to `GET /livez`, for the echo to send.
    answer: PathBuf,
    /// Whether it answers a page that it has had before out of a cache.
    pub(crate) caches: bool,
    /// Whether it has `/crawl/ws`.
    pub(crate) websockets: bool,
    /// Streams per second that are half of what the slower side takes; found out once.
    pub(crate) half_load: Cell<Option<f64>>,
}

impl Env {
    /// Starts the origin and asks a Forebay what it can do.
    ///
    /// # Errors
    /// When there are not two CPUs, or a binary is missing or does not come up.
    pub(crate) fn new(flags: &Flags) -> Result<Self, Failure> {
        let cpus = process::cpus()?;
        let [client, .., server] = cpus[..] else {
            return Err("two CPUs are needed: one for the server, one for its load".into());
        };
        let server_cpu = flags.get("--server-cpu", server)?;
        let client_cpu = flags.get("--client-cpu", client)?;
        let words = flags.text("--forebay-flags").unwrap_or_default().split_whitespace();
        let origin = Process::start(
            client_cpu,
            &binary("loadtest")?,
            &["origin", "--addr", "127.0.0.1:0"],
            "",
        )?;
        let mut env = Self {
            rounds: flags.get("--rounds", 3)?,
            seconds: flags.get("--seconds", 3.0)?,
            connections: flags.get("--connections", 1000)?,
            server_cpu,
            client_cpu,
            forebay_flags: words.map(str::to_owned).collect(),
            origin,
            answer: scratch("answer"),
            caches: false,
            websockets: false,
            half_load: Cell::new(None),
        };
        env.probe()?;
        Ok(env)
    }

    fn probe(&mut self) -> Result<(), Failure> {
        // The echo is told Forebay's bytes, and Forebay is asked what it can do.
        std::fs::write(&self.answer, b"")?;
        let server = self.start(Side::Forebay)?;
        std::fs::write(&self.answer, http::keep_alive_answer(server.addr, "/livez")?)?;
        self.caches = self.is_cached(&server)?;
        self.websockets = http::takes_websockets(server.addr, "/crawl/ws")?;
        Ok(())
    }

    /// Whether a page asked for twice comes out of the cache the second time.
    fn is_cached(&self, server: &Process) -> Result<bool, Failure> {
        let body = self.crawl_body(&[self.page("/page/1?size=2000")], &[]);
        http::post(server.addr, "/crawl/stream", &body)?;
        let again = http::post(server.addr, "/crawl/stream", &body)?;
        if !again.body().contains("\"successful\":1") {
            return Err(format!("the server can't crawl the origin: {}", again.body()).into());
        }
        Ok(again.body().contains("\"from_cache\":true"))
    }

    /// Starts a server or peer on the server's core.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start(&self, side: Side) -> Result<Process, Failure> {
        let cpu = self.server_cpu;
        match side {
            Side::Forebay => self.forebay(&[]),
            Side::Axum => {
                Process::start(cpu, &binary("forebay-peer-axum")?, &["--listen", "127.0.0.1:0"], "")
            }
            Side::Epoll | Side::Ring => {
                let driver = if side == Side::Epoll { "epoll" } else { "ring" };
                let answer = self.answer.to_string_lossy();
                let args = [driver, "--listen", "127.0.0.1:0", "--answer", &answer];
                Process::start(cpu, &binary("forebay-peer-echo")?, &args, "")
            }
        }
    }

    /// Starts a server with more flags on the server's core.
    ///
    /// # Errors
    /// As [`Env::start`].
    pub(crate) fn forebay(&self, more: &[&str]) -> Result<Process, Failure> {
        let mut args = vec!["serve", "--listen", "127.0.0.1:0"];
        args.extend(["--egress-allow", "127.0.0.0/8", "--fetch-ttfb-timeout-ms", "600000"]);
        args.extend(self.forebay_flags.iter().map(|flag| &**flag));
        args.extend(more);
        Process::start(self.server_cpu, &binary("forebay")?, &args, "ready: ")
    }

    /// A URL of the origin.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("http://{}{path}", self.origin.addr)
    }

    /// The body of a crawl. robots.txt is left out on both sides.
    pub(crate) fn crawl_body(&self, urls: &[String], options: &[(&str, &str)]) -> String {
        let urls: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
        let options: String =
            options.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
        format!("{{\"urls\":[{}],\"options\":{{\"robots\":\"ignore\"{options}}}}}", urls.join(","))
    }

    /// What is measured on what, for the head of a report.
    pub(crate) fn describe(&self) -> String {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!(
            "kernel {}, server on CPU {}, load and origin on CPU {}, {} rounds of A B B A, {} s each\n\
             each figure: median (least … largest); a ratio is Forebay's over the peer's",
            kernel.trim(),
            self.server_cpu,
            self.client_cpu,
            self.rounds,
            self.seconds
        )
    }
}
