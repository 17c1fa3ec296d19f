//! One connection of the origin: read a head, find its script, play it, watch for the client
//! going away meanwhile.

use crate::http::head::Head;
use crate::http::target::Target;
use crate::num::to_usize;
use crate::origin::routes::{self, Request};
use crate::origin::script::{Script, Step};
use crate::origin::stats::{Outcome, SeenRequest};
use crate::origin::{Web, control};
use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Bytes of a request body that are read away; above it the connection closes after the answer.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long a connection may idle between requests.
const IDLE: Duration = Duration::from_secs(600);

/// Serves a connection to its end.
pub(crate) async fn serve(web: Arc<Web>, mut stream: TcpStream) {
    web.ledger.connected();
    let _open = Open(&web);
    let mut read = Vec::new();
    while let Ok(Some(head)) = next_head(&web, &mut stream, &mut read).await {
        let drained = drain_body(&head, &mut stream, &mut read).await;
        match answer(&web, &mut stream, head).await {
            Ok(true) if drained => {}
            _ => break,
        }
    }
}

struct Open<'a>(&'a Web);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.ledger.disconnected();
    }
}

async fn next_head(
    web: &Web,
    stream: &mut TcpStream,
    read: &mut Vec<u8>,
) -> io::Result<Option<Head>> {
    let mut from = 0;
    loop {
        match Head::parse(read, from) {
            Ok(Some(head)) => {
                read.drain(..head.len);
                return Ok(Some(head));
            }
            Ok(None) => from = read.len(),
            Err(message) => {
                web.ledger.malformed();
                let reply = crate::origin::script::Reply::text(400, message);
                let script = reply.script(&routes::plain_shape(), false, false);
                let _ = play(web, stream, script).await;
                return Ok(None);
            }
        }
        match timeout(IDLE, stream.read_buf(read)).await {
            Ok(Ok(0)) | Err(_) => return Ok(None),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// Reads away the body of a request; false when the connection can't be used again.
async fn drain_body(head: &Head, stream: &mut TcpStream, read: &mut Vec<u8>) -> bool {
    if head.field("transfer-encoding").is_some() {
        return false;
    }
    let Ok(length) = head.content_length() else { return false };
    let length = length.unwrap_or(0);
    if length > BODY_BYTES_MAX {
        return false;
    }
    let length = to_usize(length);
    while read.len() < length {
        match stream.read_buf(read).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    read.drain(..length);
    true
}

/// Answers one request; whether the connection goes on.
async fn answer(web: &Arc<Web>, stream: &mut TcpStream, head: Head) -> io::Result<bool> {
    let target = Target::parse(&head.start[1]);
    if target.path.starts_with("/_") {
        let keep = !head.has_token("connection", "close");
        let script = control::route(web, &target, keep).await;
        let keep = script.keep;
        return play(web, stream, script).await.map(|()| keep);
    }
    let started = web.ledger.begin(SeenRequest {
        method: head.start[0].clone(),
        target: head.start[1].clone(),
        fields: head.fields.clone(),
    });
    let request = Request { head, target, hit: started.hit };
    let script = if routes::is_heavy(&request) {
        let web = Arc::clone(web);
        tokio::task::spawn_blocking(move || routes::route(&web, &request))
            .await
            .unwrap_or_else(|_| Script::default())
    } else {
        routes::route(web, &request)
    };
    let keep = script.keep;
    let played = play(web, stream, script).await;
    let outcome = if played.is_ok() { Outcome::Completed } else { Outcome::Aborted };
    web.ledger.end(&started, outcome);
    played.map(|()| keep)
}

async fn play(web: &Web, stream: &mut TcpStream, script: Script) -> io::Result<()> {
    let mut steps = script.steps.into_iter().peekable();
    while let Some(step) = steps.next() {
        match step {
            Step::Write(first) => match steps.peek() {
                // A head and its body leave in one send.
                Some(Step::Write(second)) if first.len() + second.len() < 64 * 1024 => {
                    let joined = [&first[..], &second[..]].concat();
                    steps.next();
                    write(web, stream, &joined).await?;
                }
                _ => write(web, stream, &first).await?,
            },
            Step::Paced { bytes, bytes_per_s } => {
                let (bytes, per_tick, tick) = routes::paced(bytes, bytes_per_s);
                for part in bytes.chunks(per_tick) {
                    write(web, stream, part).await?;
                    wait(stream, tick).await?;
                }
            }
            Step::Repeat { unit, times, pause } => {
                for _ in 0..times {
                    write(web, stream, &unit).await?;
                    if pause > Duration::ZERO {
                        wait(stream, pause).await?;
                    }
                }
            }
            Step::Wait(duration) => wait(stream, duration).await?,
            Step::Reset => {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            }
        }
    }
    Ok(())
}

async fn write(web: &Web, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let sent = stream.write(left).await?;
        if sent == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        web.ledger.wrote(sent);
        left = &left[sent..];
    }
    Ok(())
}

/// Waits, unless the client closes its side: that ends the answer at once, as a server that
/// watches its clients would.
async fn wait(stream: &TcpStream, duration: Duration) -> io::Result<()> {
    tokio::select! {
        () = sleep(duration) => Ok(()),
        error = hung_up(stream) => Err(error),
    }
}

async fn hung_up(stream: &TcpStream) -> io::Error {
    let mut byte = [0];
    match stream.peek(&mut byte).await {
        Ok(0) => ErrorKind::ConnectionAborted.into(),
        // A pipelined request waits, so its client is there.
        Ok(_) => pending().await,
        Err(error) => error,
    }
}
