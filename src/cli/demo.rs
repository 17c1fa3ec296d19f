//! `forebay demo`: the main job on a machine with nothing else: an origin of our own, the server, a crawl.

use super::client;
use super::crawl::start;
use super::seen::{Seen, SeenResult};
use crate::config::Config;
use crate::demo::Origin;
use bytes::{BufMut, BytesMut};
use clap::Args;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How to show it.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print the events as they come, one JSON object a line.
    #[arg(long)]
    pub raw: bool,
}

/// Runs the command; exit status 0 when the stream came to its end.
///
/// # Errors
/// What stopped it.
pub fn run(args: &DemoArgs, mut config: Config) -> Result<ExitCode, String> {
    let origin = Origin::start().map_err(|error| format!("can't start the origin: {error}"))?;
    config.egress_allow.push(origin.addr().to_string());
    let server = start(config)?;
    let urls = origin.urls();
    if !args.raw {
        println!(
            "A synthetic web of {} pages listens on http://{}, Forebay on http://{} ({} cores, {}).\n\
             POST /crawl/stream, each event as it arrives:\n",
            urls.len(),
            origin.addr(),
            server.addr(),
            server.cores(),
            server.runtime.driver,
        );
    }
    let finished = show(server.addr(), origin.addr(), &urls, args.raw).map_err(|e| e.to_string());
    if !args.raw {
        println!("\nLatency, by stage of a page and by endpoint:\n\n{}", server.latency_table());
    }
    server.stop(Duration::ZERO);
    match finished? {
        true => Ok(ExitCode::SUCCESS),
        false => Err("the stream ended without its summary".to_owned()),
    }
}

fn show(addr: SocketAddr, origin: SocketAddr, urls: &[String], raw: bool) -> io::Result<bool> {
    let mut body = BytesMut::from(&b"{\"urls\":["[..]);
    for (at, url) in urls.iter().enumerate() {
        if at > 0 {
            body.put_u8(b',');
        }
        crate::proto::json::string(&mut body, url);
    }
    body.put_slice(b"]}");
    let begun = Instant::now();
    let mut answer = client::send(addr, "POST", "/crawl/stream", "application/json", &body)?;
    let prefix = format!("http://{origin}");
    let mut finished = false;
    let mut stdout = io::stdout().lock();
    while let Some(line) = answer.line()? {
        if raw {
            stdout.write_all(&line)?;
            stdout.write_all(b"\n")?;
        }
        let seen = Seen::read(&line);
        finished |= matches!(seen, Some(Seen::Summary { .. }));
        if !raw && let Some(text) = seen.and_then(|seen| describe(&seen, &prefix)) {
            writeln!(stdout, "{:>7.1} ms  {text}", begun.elapsed().as_secs_f64() * 1e3)?;
        }
        stdout.flush()?;
    }
    Ok(finished)
}

fn describe(seen: &Seen, prefix: &str) -> Option<String> {
    Some(match seen {
        Seen::Metadata { total_urls, stream_id } => {
            format!("metadata  stream {stream_id}, {total_urls} URLs")
        }
        Seen::Result { result } => describe_result(result, prefix),
        Seen::Summary {
            successful,
            failed,
            cancelled,
            status,
            ttfr_ms,
            total_processing_time_ms,
        } => {
            let first = ttfr_ms.map_or("none".to_owned(), |ms| format!("{ms} ms"));
            format!(
                "summary   {status}: {successful} successful, {failed} failed, {cancelled} cancelled; \
                 first result {first}, all {total_processing_time_ms} ms"
            )
        }
        Seen::Error { error } => format!("error     {}: {}", error.code, error.message),
        Seen::Other => return None,
    })
}

fn describe_result(result: &SeenResult, prefix: &str) -> String {
    let path = result.url.strip_prefix(prefix).unwrap_or(&result.url);
    let spent = result.processing_time_ms;
    match (&result.document, &result.error) {
        (Some(document), _) => format!(
            "result    {} {path:<28} {spent:>5} ms  quality {:.2}  {:>6} words  {}",
            result.status,
            result.quality_score,
            document.word_count,
            document.title.as_deref().unwrap_or("(no title)"),
        ),
        (None, Some(error)) => {
            format!("result    --- {path:<28} {spent:>5} ms  {}: {}", error.code, error.message)
        }
        (None, None) => {
            format!("result    {} {path:<28} {spent:>5} ms  no document", result.status)
        }
    }
}
