//! `/crawl/ws` (API §4): many streams on one socket, all polled by the socket's own task.

use crate::App;
use crate::crawl::Crawl;
use crate::events::{Encoder, Transport};
use crate::request::{CrawlRequest, Order, Refused};
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::sink::SinkExt;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Time between pings.
const PING: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Op<'a> {
    op: &'a str,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

pub(crate) async fn upgrade(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["crawl.v1"]).on_upgrade(move |socket| serve(app, socket))
}

#[derive(Default)]
struct Streams {
    running: SelectAll<BoxStream<'static, Vec<Utf8Bytes>>>,
    cancels: HashMap<String, Arc<Notify>>,
}

async fn serve(app: Arc<App>, socket: WebSocket) {
    let (mut sink, mut source) = socket.split();
    let mut streams = Streams::default();
    let mut pings = tokio::time::interval(PING);
    loop {
        let mut batch = tokio::select! {
            Some(batch) = streams.running.next() => batch,
            message = source.next() => match message {
                Some(Ok(Message::Text(text))) => streams.handle(&app, &text),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            _ = pings.tick() => {
                if sink.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        // Whatever is ready leaves with it in one flush.
        while batch.len() < 64
            && let Some(Some(more)) = streams.running.next().now_or_never()
        {
            batch.extend(more);
        }
        for text in batch {
            if sink.feed(Message::Text(text)).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

impl Streams {
    /// Does what a client asks for; what comes back is said at once.
    fn handle(&mut self, app: &Arc<App>, text: &str) -> Vec<Utf8Bytes> {
        let refused = match serde_json::from_str::<Op<'_>>(text) {
            Ok(op) => match self.run(app, &op) {
                Ok(answer) => return answer,
                Err(refused) => (op.id, refused),
            },
            Err(error) => (None, error.into()),
        };
        let (id, Refused { message, .. }) = refused;
        let error = json!({"type": "error", "id": id, "error": {
            "code": "bad_message", "message": message, "retryable": false, "status": 400,
        }});
        vec![error.to_string().into()]
    }

    fn run(&mut self, app: &Arc<App>, op: &Op<'_>) -> Result<Vec<Utf8Bytes>, Refused> {
        let refuse = |message: &str| Refused { code: "bad_message", message: message.to_owned() };
        match op.op {
            "crawl" => {
                let id = op.id.clone().ok_or_else(|| refuse("a crawl needs an id"))?;
                let data = op.data.ok_or_else(|| refuse("a crawl needs data"))?;
                let request: CrawlRequest = serde_json::from_str(data.get())?;
                self.start(app, id, request.check()?);
                Ok(Vec::new())
            }
            "cancel" => {
                let cancel = op.id.as_deref().and_then(|id| self.cancels.remove(id));
                cancel.ok_or_else(|| refuse("there is no such stream"))?.notify_one();
                Ok(Vec::new())
            }
            "ping" => Ok(vec![Utf8Bytes::from_static("{\"type\":\"pong\"}")]),
            "ack" | "credit" | "status" => Ok(Vec::new()),
            _ => Err(refuse("unknown op")),
        }
    }

    fn start(&mut self, app: &Arc<App>, id: String, request: CrawlRequest) {
        if self.running.is_empty() {
            self.cancels.clear();
        }
        let cancel = Arc::new(Notify::new());
        self.cancels.insert(id.clone(), Arc::clone(&cancel));
        let crawl = Crawl::new(app, request, None, Order::Completion);
        let encoder = Encoder::new(Transport::Ws(id));
        let state = (crawl, encoder, cancel);
        self.running.push(Box::pin(stream::unfold(state, |mut state| async move {
            let (crawl, encoder, cancel) = &mut state;
            let more = tokio::select! {
                biased;
                more = crawl.next(encoder) => more,
                () = cancel.notified() => {
                    crawl.cancel(encoder);
                    true
                }
            };
            let batch = encoder.take_messages();
            more.then_some((batch, state))
        })));
    }
}
