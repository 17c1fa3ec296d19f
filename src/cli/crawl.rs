//! `forebay crawl`: one crawl without a server to set up; NDJSON on stdout.

use super::client;
use super::seen::Seen;
use crate::config::Config;
use crate::server::Server;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

/// What to crawl and how.
#[derive(Debug, Args)]
pub struct CrawlArgs {
    /// URLs to fetch; `-` reads them from stdin, one a line.
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    /// Fetches at a time.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Milliseconds for one page.
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds for the whole crawl.
    #[arg(long, value_name = "MS")]
    pub deadline_ms: Option<u64>,
    /// Results as they come (completion) or as the URLs were given (input).
    #[arg(long, value_name = "ORDER", value_parser = ["completion", "input"])]
    pub order: Option<String>,
    /// What documents hold.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = ["markdown", "text", "links", "metadata"])]
    pub formats: Vec<String>,
    /// Redirects to follow.
    #[arg(long, value_name = "N")]
    pub redirects: Option<u32>,
}

/// Exit status when a URL has no document.
const SOME_FAILED: u8 = 1;
/// Exit status when the request was refused, or the crawl could not be begun or ended.
const REFUSED: u8 = 2;

/// Runs the command. Exit status 0: each URL has its document; 1: some have not; 2: refused.
///
/// # Errors
/// What stopped it before its end.
pub fn run(args: CrawlArgs, config: Config) -> Result<ExitCode, String> {
    let urls = read_urls(&args.urls).map_err(|error| format!("can't read URLs: {error}"))?;
    let server = start(config)?;
    let body = request_body(&urls, &args);
    let outcome = stream(server.addr(), &body).map_err(|error| error.to_string());
    server.stop(Duration::ZERO);
    outcome
}

/// Starts the server for a command of ours: on loopback, on a port of its own.
pub(super) fn start(mut config: Config) -> Result<Server, String> {
    config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Nobody but this process comes there, in plain HTTP and without a key.
    config.auth_keys_file = None;
    (config.tls_cert, config.tls_key) = (None, None);
    config.proxy_protocol = false;
    let server = Server::start(config).map_err(|error| error.to_string())?;
    server.wait_ready().map_err(|error| error.to_string())?;
    Ok(server)
}

fn read_urls(given: &[String]) -> io::Result<Vec<String>> {
    let mut urls = Vec::new();
    for url in given {
        if url == "-" {
            let lines: io::Result<Vec<String>> = io::stdin().lock().lines().collect();
            let lines = lines?;
            let wanted = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
            urls.extend(wanted.map(str::to_owned));
        } else {
            urls.push(url.clone());
        }
    }
    Ok(urls)
}

fn request_body(urls: &[String], args: &CrawlArgs) -> Vec<u8> {
    use bytes::{BufMut, BytesMut};
    let mut options: Vec<(&str, String)> = Vec::new();
    let mut number = |name, value: Option<u64>| {
        options.extend(value.map(|value| (name, value.to_string())));
    };
    number("concurrency", args.concurrency.map(u64::from));
    number("timeout_ms", args.timeout_ms);
    number("deadline_ms", args.deadline_ms);
    number("redirects", args.redirects.map(u64::from));
    if let Some(order) = &args.order {
        options.push(("order", format!("\"{order}\"")));
    }
    if !args.formats.is_empty() {
        options.push(("formats", format!("[\"{}\"]", args.formats.join("\",\""))));
    }
    let mut out = BytesMut::from(&b"{\"urls\":["[..]);
    for (at, url) in urls.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        crate::proto::json::string(&mut out, url);
    }
    let options: Vec<String> =
        options.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    out.put_slice(format!("],\"options\":{{{}}}}}", options.join(",")).as_bytes());
    out.to_vec()
}

fn stream(addr: SocketAddr, body: &[u8]) -> io::Result<ExitCode> {
    let mut answer = client::send(addr, "POST", "/crawl/stream", "application/json", body)?;
    if answer.status != 200 {
        let text = answer.rest()?;
        eprintln!("{}", String::from_utf8_lossy(&text));
        return Ok(ExitCode::from(REFUSED));
    }
    let bar = io::stderr().is_terminal().then(bar);
    let mut stdout = io::stdout().lock();
    let mut status = ExitCode::from(REFUSED);
    while let Some(line) = answer.line()? {
        match Seen::read(&line) {
            Some(Seen::Metadata { total_urls, .. }) => {
                bar.iter().for_each(|bar| bar.set_length(total_urls));
            }
            Some(Seen::Result { result }) => bar.iter().for_each(|bar| {
                bar.inc(1);
                bar.set_message(result.url.clone());
            }),
            Some(Seen::Summary { failed, cancelled, .. }) => {
                let whole = failed + cancelled == 0;
                status = if whole { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) };
            }
            _ => {}
        }
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    bar.iter().for_each(ProgressBar::finish_and_clear);
    Ok(status)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}")
        .expect("the template is ours");
    ProgressBar::new(0).with_style(style)
}
