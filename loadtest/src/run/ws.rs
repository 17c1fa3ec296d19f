//! One request and its events over WebSocket (API: `{"op":"crawl","id":…,"data":…}`).

use crate::http::ws::{Message, Opcode, WsDecoder, accept_of, encode, new_key};
use crate::run::conn::Conn;
use crate::run::context::{Arrival, Context, class};
use crate::run::exchange::{Observer, finish, read_head};
use crate::run::tally::Metric;
use std::time::Instant;

/// Connects and shakes hands (RFC 6455 §4.1).
///
/// # Errors
/// The class of the failure.
pub(crate) async fn connect(context: &Context) -> Result<Conn, String> {
    let mut conn = context.connect().await?;
    let key = new_key(&mut context.rng.borrow_mut());
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: crawl.v1\r\nSec-WebSocket-Key: {key}\r\n",
        context.group.path, context.group.host,
    );
    for (name, value) in &context.group.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    conn.send(request.as_bytes()).await.map_err(|error| class("write", &error))?;
    let (head, _) = read_head(&mut conn).await?;
    if head.start[1] != "101" {
        return Err(format!("handshake status {}", head.start[1]));
    }
    if head.field("sec-websocket-accept") != Some(accept_of(&key).as_str()) {
        return Err("handshake with a wrong accept key".to_owned());
    }
    conn.ws = Some(WsDecoder::default());
    Ok(conn)
}

/// Sends a frame under a fresh mask.
async fn send(
    context: &Context,
    conn: &mut Conn,
    opcode: Opcode,
    payload: &[u8],
) -> Result<(), String> {
    let [a, b, c, d, ..] = context.rng.borrow_mut().next_u64().to_le_bytes();
    let mut frame = Vec::with_capacity(payload.len() + 14);
    encode(opcode, payload, [a, b, c, d], &mut frame);
    conn.send(&frame).await.map_err(|error| class("write", &error))
}

/// The next text message and when it was there; pings are answered on the way.
pub(crate) async fn next_text(
    context: &Context,
    conn: &mut Conn,
) -> Result<(Vec<u8>, Instant), String> {
    loop {
        let decoder = conn.ws.as_mut().ok_or("no WebSocket")?;
        // The decoder is taken out, because the bytes are borrowed from the same connection.
        let mut taken = std::mem::take(decoder);
        let step = taken.take(conn.unread()).map_err(|error| format!("malformed frame: {error}"));
        conn.ws = Some(taken);
        let Some((bytes, message)) = step? else {
            if conn.fill().await.map_err(|error| class("read", &error))? == 0 {
                return Err("closed without a close frame".to_owned());
            }
            continue;
        };
        conn.consume(bytes);
        match message {
            Some(Message { opcode: Opcode::Text, payload }) => {
                return Ok((payload, Instant::now()));
            }
            Some(Message { opcode: Opcode::Ping, payload }) => {
                send(context, conn, Opcode::Pong, &payload).await?;
            }
            Some(Message { opcode: Opcode::Close, payload }) => {
                let code = match payload[..] {
                    [a, b, ..] => u16::from_be_bytes([a, b]),
                    _ => 1005,
                };
                return Err(format!("close frame {code}"));
            }
            Some(Message { opcode: Opcode::Binary, .. }) => {
                return Err("a binary message".to_owned());
            }
            Some(_) | None => {}
        }
    }
}

/// One arrival: a crawl from its request to its last event.
///
/// # Errors
/// The class of the failure.
pub(crate) async fn run(
    context: &Context,
    slot: &mut Option<Conn>,
    arrival: Arrival,
) -> Result<(), String> {
    if context.group.new_connection {
        *slot = None;
    }
    let sent = Instant::now();
    let mut observer = Observer::new(context, arrival, sent);
    let mut conn = match slot.take() {
        Some(conn) => conn,
        None => connect(context).await?,
    };
    let data = context.group.body.render(arrival.n);
    let op = format!("{{\"op\":\"crawl\",\"id\":\"{}\",\"data\":{data}}}", arrival.n);
    send(context, &mut conn, Opcode::Text, op.as_bytes()).await?;
    let mut first = true;
    let mut cut = None;
    while !observer.check.is_over() {
        let (message, now) = next_text(context, &mut conn).await?;
        if std::mem::take(&mut first) && context.measures(&arrival) {
            context.record_since(Metric::Ttfb, arrival.intended, now);
            context.record_since(Metric::TtfbService, sent, now);
        }
        if let Some(cut) = cut.take() {
            context.record_since(Metric::Resume, cut, now);
        }
        observer.handle_event(&message, now)?;
        if observer.wants_cut() {
            context.count_bytes(&mut conn);
            conn.reset();
            cut = Some(Instant::now());
            observer.handle_cut();
            conn = connect(context).await?;
            let resume = format!(
                "{{\"op\":\"resume\",\"id\":\"{}\",\"stream_id\":\"{}\",\"after\":{}}}",
                arrival.n,
                observer.check.stream_id.as_deref().unwrap_or_default(),
                observer.check.last_seq().unwrap_or(0),
            );
            send(context, &mut conn, Opcode::Text, resume.as_bytes()).await?;
        }
    }
    context.count_bytes(&mut conn);
    *slot = Some(conn);
    observer.finish()?;
    finish(context, arrival, sent);
    Ok(())
}
