//! One request and what comes back, over HTTP: a plain answer, or a stream of events that is
//! checked as it comes and may be cut and resumed.

use crate::events::{EventHead, LineSplitter, StreamCheck};
use crate::http::body::BodyDecoder;
use crate::http::head::Head;
use crate::http::sse::SseParser;
use crate::run::conn::Conn;
use crate::run::context::{Arrival, Context, class};
use crate::run::scenario::Transport;
use crate::run::tally::Metric;
use std::time::Instant;

/// How the events of a stream are delimited.
#[derive(Debug)]
enum Feed {
    Lines(LineSplitter),
    Sse(SseParser),
    /// WebSocket messages come whole.
    Messages,
}

/// Watches one stream of events.
#[derive(Debug)]
pub(crate) struct Observer<'a> {
    context: &'a Context,
    arrival: Arrival,
    sent: Instant,
    measured: bool,
    feed: Feed,
    /// The rules.
    pub(crate) check: StreamCheck,
    last_durable: Option<Instant>,
    first_result: bool,
    events: u64,
    cut_at: Option<u64>,
    cuts_left: u64,
}

impl<'a> Observer<'a> {
    /// Watches the stream that this arrival starts.
    pub(crate) fn new(context: &'a Context, arrival: Arrival, sent: Instant) -> Self {
        let mut observer = Self {
            context,
            arrival,
            sent,
            measured: context.measures(&arrival),
            feed: Feed::Messages,
            check: StreamCheck::default(),
            last_durable: None,
            first_result: false,
            events: 0,
            cut_at: None,
            cuts_left: context.group.cut.map_or(0, |cut| cut.times),
        };
        observer.begin_connection();
        observer
    }

    /// A connection begins: its framing starts anew, and the next cut is drawn.
    pub(crate) fn begin_connection(&mut self) {
        self.feed = match self.context.group.transport {
            Transport::Sse => Feed::Sse(SseParser::default()),
            Transport::Ws => Feed::Messages,
            Transport::Ndjson | Transport::Http => Feed::Lines(LineSplitter::default()),
        };
        self.last_durable = None;
        self.cut_at = self.context.group.cut.filter(|_| self.cuts_left > 0).map(|cut| {
            // Uniform around the mean, at least one event: the metadata carries the id.
            self.events + 1 + self.context.rng.borrow_mut().below(2 * cut.after)
        });
    }

    /// Whether the connection is to be cut now.
    pub(crate) fn wants_cut(&self) -> bool {
        !self.check.is_over()
            && self.check.stream_id.is_some()
            && self.cut_at.is_some_and(|at| self.events >= at)
    }

    /// The connection was cut; what comes next is a resume.
    pub(crate) fn handle_cut(&mut self) {
        self.cuts_left = self.cuts_left.saturating_sub(1);
        self.check.handle_resume();
        self.context.count(|tally| tally.counts.cuts += 1);
        self.begin_connection();
    }

    /// Takes body bytes.
    fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        let now = Instant::now();
        let mut result = Ok(());
        // Taken out meanwhile, because its events go to the same observer.
        let mut feed = std::mem::replace(&mut self.feed, Feed::Messages);
        // What was read beyond a cut counts as never received.
        let mut take = |json: &[u8], id: Option<&str>| {
            if result.is_ok() && !self.wants_cut() {
                result = self.handle_event(json, now).and_then(|()| self.check_id(id));
            }
        };
        let fed = match &mut feed {
            Feed::Lines(lines) => lines.feed(bytes, |line| take(line, None)),
            Feed::Sse(parser) => {
                parser.feed(bytes, |event| take(event.data.as_bytes(), Some(&event.id)))
            }
            Feed::Messages => {
                take(bytes, None);
                Ok(())
            }
        };
        self.feed = feed;
        fed.and(result)
    }

    /// The id of an event-stream event names its stream, so that a browser resumes the right one.
    fn check_id(&self, id: Option<&str>) -> Result<(), String> {
        let named = id.and_then(|id| id.rsplit_once('.')).map(|(stream, _)| stream);
        match (named, self.check.stream_id.as_deref()) {
            (Some(named), Some(own)) if named != own => {
                Err(format!("event id of another stream: {named} in {own}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub(crate) fn handle_event(&mut self, json: &[u8], now: Instant) -> Result<(), String> {
        let head = EventHead::parse(json, self.context.group.whole)
            .map_err(|error| format!("event is no JSON object: {error}"))?;
        if head.kind == "error" && head.seq.is_none() {
            let code = head.error.map_or_else(String::new, |error| error.code);
            return Err(format!("error event {code}"));
        }
        self.events += 1;
        let new = self.check.handle_event(&head);
        if !self.measured {
            return Ok(());
        }
        let is_result = head.kind == "result";
        let mut tally = self.context.tally.borrow_mut();
        tally.counts.events += 1;
        if new && head.is_durable() {
            tally.counts.durable += 1;
            tally.counts.results += u64::from(is_result);
            if let Some(last) = self.last_durable.replace(now) {
                tally.record(Metric::Gap, now.saturating_duration_since(last));
            }
        }
        if is_result && !std::mem::replace(&mut self.first_result, true) {
            let from_intended = now.saturating_duration_since(self.arrival.intended);
            tally.record(Metric::Ttfr, from_intended);
            tally.record(Metric::TtfrService, now.saturating_duration_since(self.sent));
        }
        Ok(())
    }

    /// The stream is over for this client: counts what it was.
    ///
    /// # Errors
    /// What was wrong with it.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        if let Feed::Lines(lines) = &self.feed
            && lines.leftover() > 0
        {
            return Err("last line without line feed".to_owned());
        }
        self.check.handle_end();
        let check = &self.check;
        if self.measured {
            self.context.count(|tally| {
                tally.counts.streams += u64::from(check.is_over());
                tally.counts.replayed += check.replayed;
                tally.counts.gap_events += check.gap_events;
                tally.counts.violations += check.violation_count();
                for (rule, times) in &check.violations {
                    *tally.violations.entry((*rule).to_owned()).or_default() += times;
                }
                if let Some(last) = &check.last {
                    let failed = last.failed.unwrap_or(0) + last.cancelled.unwrap_or(0);
                    tally.counts.pages_ok += last.successful.unwrap_or(0);
                    tally.counts.pages_failed += failed;
                }
            });
        }
        if let Some((rule, _)) = check.violations.iter().next() {
            return Err(format!("stream broke a rule: {rule} (stream {:?})", check.stream_id));
        }
        match &check.last {
            Some(last) if last.kind == "error" => {
                let code = last.error.as_ref().map_or("?", |error| error.code.as_str());
                Err(format!("error event {code}"))
            }
            _ => Ok(()),
        }
    }
}

/// A response up to where it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When its first byte came.
    pub(crate) first_byte: Instant,
    /// The connection may serve another request.
    pub(crate) keep: bool,
    /// It was left on purpose before its end.
    pub(crate) cut: bool,
    /// The start of the body of a 4xx or 5xx.
    pub(crate) refused: Option<String>,
}

/// Reads a response; its body goes to the observer where there is one.
///
/// # Errors
/// The class of the failure. `early close` alone means that not a byte came.
pub(crate) async fn read_answer(
    conn: &mut Conn,
    bodiless: bool,
    mut observer: Option<&mut Observer<'_>>,
) -> Result<Answer, String> {
    let (head, first_byte) = read_head(conn).await?;
    let status = head.status().map_err(|error| format!("malformed head: {error}"))?;
    let mut body = BodyDecoder::of(&head, status, bodiless)
        .map_err(|error| format!("malformed head: {error}"))?;
    let keep = !head.has_token("connection", "close") && !body.is_until_close();
    let mut refused = Vec::new();
    while !body.is_done() {
        let mut failed = None;
        let taken = body.feed(conn.unread(), |part| match &mut observer {
            Some(observer) if status == 200 => {
                failed = observer.handle_bytes(part).err().or(failed.take())
            }
            _ if status >= 400 && refused.len() < 300 => refused.extend_from_slice(part),
            _ => {}
        });
        conn.consume(taken.map_err(|error| format!("malformed body: {error}"))?);
        if let Some(failure) = failed {
            return Err(failure);
        }
        if observer.as_ref().is_some_and(|observer| observer.wants_cut()) {
            return Ok(Answer { status, first_byte, keep: false, cut: true, refused: None });
        }
        if !body.is_done() && conn.fill().await.map_err(|error| class("read", &error))? == 0 {
            if body.is_until_close() {
                break;
            }
            return Err("closed within the body".to_owned());
        }
    }
    let refused = (status >= 400).then(|| String::from_utf8_lossy(&refused).trim().to_owned());
    Ok(Answer { status, first_byte, keep, cut: false, refused })
}

/// Reads heads up to the final one, and the time of the first byte.
pub(crate) async fn read_head(conn: &mut Conn) -> Result<(Head, Instant), String> {
    let mut first_byte = None;
    loop {
        let mut from = 0;
        let head = loop {
            match Head::parse(conn.unread(), from) {
                Ok(Some(head)) => break head,
                Ok(None) => from = conn.unread().len(),
                Err(error) => return Err(format!("malformed head: {error}")),
            }
            let read = conn.fill().await.map_err(|error| class("read", &error))?;
            if read == 0 {
                let early = conn.unread().is_empty() && first_byte.is_none();
                return Err(if early { "early close" } else { "closed within the head" }.to_owned());
            }
            first_byte.get_or_insert_with(Instant::now);
        };
        conn.consume(head.len);
        let interim =
            head.status().is_ok_and(|status| (100..200).contains(&status) && status != 101);
        if !interim {
            return Ok((head, first_byte.unwrap_or_else(Instant::now)));
        }
    }
}

/// One arrival over HTTP, on the worker's connection or a new one.
///
/// # Errors
/// The class of the failure.
pub(crate) async fn run(
    context: &Context,
    slot: &mut Option<Conn>,
    arrival: Arrival,
) -> Result<(), String> {
    let group = &context.group;
    if group.new_connection {
        *slot = None;
    }
    let sent = Instant::now();
    let mut observer =
        (group.transport != Transport::Http).then(|| Observer::new(context, arrival, sent));
    let mut answer = ask(context, slot, arrival.n, observer.as_mut()).await?;
    if context.measures(&arrival) {
        context.record_since(Metric::Ttfb, arrival.intended, answer.first_byte);
        context.record_since(Metric::TtfbService, sent, answer.first_byte);
        context.count(|tally| *tally.statuses.entry(answer.status).or_default() += 1);
    }
    while let Some(observer) = observer.as_mut().filter(|_| answer.cut) {
        answer = resume(context, slot, observer).await?;
    }
    if !answer.keep {
        *slot = None;
    }
    if let Some(text) = answer.refused {
        return Err(format!("status {}: {text}", answer.status));
    }
    observer.map_or(Ok(()), Observer::finish)?;
    finish(context, arrival, sent);
    Ok(())
}

/// Records a request that ended well.
pub(crate) fn finish(context: &Context, arrival: Arrival, sent: Instant) {
    if context.measures(&arrival) {
        let now = Instant::now();
        context.record_since(Metric::Latency, arrival.intended, now);
        context.record_since(Metric::Service, sent, now);
        context.count(|tally| tally.counts.ok += 1);
    }
}

/// Sends request `n`. A kept connection that the server had closed meanwhile is replaced once, as
/// every HTTP client does.
async fn ask(
    context: &Context,
    slot: &mut Option<Conn>,
    n: u64,
    mut observer: Option<&mut Observer<'_>>,
) -> Result<Answer, String> {
    let bodiless = context.group.method == "HEAD";
    loop {
        let mut conn = match slot.take() {
            Some(conn) => conn,
            None => context.connect().await?,
        };
        let reused = conn.reused;
        let bytes = context.with_request(n, <[u8]>::to_vec);
        let answer = match conn.send(&bytes).await {
            Ok(()) => read_answer(&mut conn, bodiless, observer.as_deref_mut()).await,
            Err(error) => Err(class("write", &error)),
        };
        context.count_bytes(&mut conn);
        match answer {
            Ok(answer) => {
                conn.reused = true;
                if answer.cut {
                    conn.reset();
                } else {
                    *slot = Some(conn);
                }
                return Ok(answer);
            }
            Err(failure)
                if reused
                    && matches!(
                        failure.as_str(),
                        "early close" | "write broken pipe" | "read reset" | "write reset"
                    ) => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// Takes a cut stream up again over a new connection.
async fn resume(
    context: &Context,
    slot: &mut Option<Conn>,
    observer: &mut Observer<'_>,
) -> Result<Answer, String> {
    let cut = Instant::now();
    observer.handle_cut();
    let mut conn = context.connect().await?;
    let accept = match context.group.transport {
        Transport::Sse => "text/event-stream",
        _ => "application/x-ndjson",
    };
    let mut request = format!(
        "GET /streams/{}/events?after={} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n",
        observer.check.stream_id.as_deref().unwrap_or_default(),
        observer.check.last_seq().unwrap_or(0),
        context.group.host,
    );
    for (name, value) in &context.group.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    conn.send(request.as_bytes()).await.map_err(|error| class("write", &error))?;
    let answer = read_answer(&mut conn, false, Some(observer)).await;
    context.count_bytes(&mut conn);
    let answer = answer.map_err(|failure| format!("resume {failure}"))?;
    if let Some(text) = answer.refused {
        return Err(format!("resume status {}: {text}", answer.status));
    }
    context.record_since(Metric::Resume, cut, answer.first_byte);
    if answer.cut {
        conn.reset();
    } else {
        conn.reused = true;
        *slot = Some(conn);
    }
    Ok(answer)
}
