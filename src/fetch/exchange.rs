//! One hop: the host's turn, a request, its response, over HTTP/1.1 by the sans-IO codecs of
//! `proto::h1` or over HTTP/2.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::body::{self, Sink, is_whole_body, sniff_gate};
use crate::fetch::caching::Caching;
use crate::fetch::connect::{Connection, Opened, describe};
use crate::fetch::courtesy::AtAddress;
use crate::fetch::egress::CheckedAddr;
use crate::fetch::h2::{self, Link};
use crate::fetch::redirect::{Next, Redirects};
use crate::fetch::request::{self, Sent};
use crate::fetch::sniff::{ContentType, Gate};
use crate::fetch::target::Target;
use crate::fetch::tls::TlsError;
use crate::fetch::track::Track;
use crate::fetch::{FetchRequest, Fetched, Fetcher, Kind, count};
use crate::proto::h1::{Framing, ResponseDecoder};
use uring::time::timeout;

/// What a hop came to.
pub(crate) enum Hop {
    Answer(Box<Fetched>),
    Redirect(Box<Target>),
}

/// What is needed of a response's head once its body is read.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) content_type: ContentType,
    pub(crate) codings: String,
    locations: Vec<Vec<u8>>,
    etag: Option<String>,
    last_modified: Option<String>,
    retry_after: Option<String>,
    caching: Caching,
    robots_tag: Vec<Vec<u8>>,
}

/// Where a response's body comes from.
enum Source {
    Http1 { conn: Connection, inbox: Vec<u8>, framing: Framing, keep_alive: bool },
    Http2(h2::Incoming),
}

/// An exchange that broke before the response's head was complete.
pub(crate) struct Broken {
    /// Not one byte of a response came: on a pooled connection, a reason to ask again.
    pub(crate) silent: bool,
    pub(crate) error: PageError,
}

impl Fetcher {
    /// One hop: from the target's name to its response's end.
    pub(crate) async fn hop(
        &self,
        (request, kind): (&FetchRequest<'_>, Kind),
        target: &Target,
        redirects: &mut Redirects,
        track: &Track<'_>,
    ) -> Result<Hop, PageError> {
        let approved = self.approved(target, kind, track).await?;
        let fields = request::fields(&self.shared.config, request, kind, target, redirects)?;
        let turn = match kind {
            Kind::Page | Kind::File => Some(Box::pin(self.courtesy(request, target, track)).await?),
            Kind::Robots | Kind::Call => None,
        };
        // What the operator's own service is asked waits for nobody.
        let counted = kind != Kind::Call || self.shared.service.is_none();
        let at = counted.then(|| AtAddress::new(request.deadline));
        let sent = Sent { fields, post: request.post };
        let asked = Box::pin(self.ask(target, &approved, &sent, at.as_ref(), track));
        let (head, source) = asked.await?;
        track.answered(head.status);
        if let Some(turn) = &turn {
            turn.handle_answer(head.status, head.retry_after.as_deref());
        }
        let locations: Vec<&[u8]> = head.locations.iter().map(Vec::as_slice).collect();
        if let Next::Follow(next) = redirects.handle_response(target, head.status, &locations)? {
            self.leave(target, source);
            return Ok(Hop::Redirect(Box::new(next)));
        }
        self.answer((request, kind), target, redirects.hops(), head, source, track).await
    }

    /// Sends the request over the best connection that there is and reads the response's head.
    async fn ask(
        &self,
        target: &Target,
        approved: &[CheckedAddr],
        sent: &Sent<'_>,
        at: Option<&AtAddress>,
        track: &Track<'_>,
    ) -> Result<(Head, Source), PageError> {
        let again = |broken: Broken| {
            // RFC 9110 §9.2.2, RFC 9112 §9.3.1: the origin may close an idle connection at any
            // moment, and what we send may be repeated. The next connection is a fresh one.
            if !broken.silent {
                return Err(broken.error);
            }
            count(&self.stats.retried, 1);
            Ok(())
        };
        if let Some(link) = self.links.checkout(target.origin(), approved) {
            self.turn_at(at, link.addr(), track).await?;
            count(&self.stats.reused, 1);
            match self.ask_http2(&link, target, sent, track).await {
                Ok(answer) => return Ok(answer),
                Err(broken) => again(broken)?,
            }
        } else if let Some(conn) = self.checkout(target.origin(), approved) {
            self.turn_at(at, conn.addr(), track).await?;
            match self.ask_http1(conn, target, sent, track).await {
                Ok(answer) => return Ok(answer),
                Err(broken) => again(broken)?,
            }
        }
        match self.open(target, approved, at, track).await? {
            Opened::Http1(conn) => self.ask_http1(conn, target, sent, track).await,
            Opened::Http2(link) => self.ask_http2(&link, target, sent, track).await,
        }
        .map_err(|broken| broken.error)
    }

    async fn ask_http1(
        &self,
        mut conn: Connection,
        target: &Target,
        sent: &Sent<'_>,
        track: &Track<'_>,
    ) -> Result<(Head, Source), Broken> {
        track.enter(Stage::Ttfb);
        let bytes = request::http1(target, sent, conn.forwarded_by.as_ref())
            .map_err(|error| Broken { silent: false, error })?;
        let (mut inbox, mut decoder) = (Vec::new(), ResponseDecoder::new(false));
        let read = read_head(&mut conn, &bytes, &mut inbox, &mut decoder, track);
        match timeout(self.shared.config.ttfb_timeout, Box::pin(read)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(Broken { silent: false, error: unanswered() }),
        }
        let Some(response) = decoder.response(&inbox) else {
            let error = malformed(Stage::Ttfb, "the response has no head");
            return Err(Broken { silent: false, error });
        };
        let all = |name: &str| response.fields().all(name).map(<[u8]>::to_vec).collect();
        let head = Head::new(response.status(), all);
        let (framing, keep_alive) = (response.framing(), response.keep_alive());
        inbox.drain(..response.head_len());
        Ok((head, Source::Http1 { conn, inbox, framing, keep_alive }))
    }

    async fn ask_http2(
        &self,
        link: &Link,
        target: &Target,
        sent: &Sent<'_>,
        track: &Track<'_>,
    ) -> Result<(Head, Source), Broken> {
        track.enter(Stage::Ttfb);
        let request = h2::request(target, sent).map_err(|error| Broken { silent: false, error })?;
        match timeout(self.shared.config.ttfb_timeout, Box::pin(link.ask(request, track))).await {
            Ok(outcome) => {
                let (status, headers, incoming) = outcome?;
                let all = |name: &str| {
                    headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
                };
                Ok((Head::new(status, all), Source::Http2(incoming)))
            }
            Err(_) => Err(Broken { silent: false, error: unanswered() }),
        }
    }

    /// A response whose body nobody wants. One that is all here costs nothing to skip; for any other
    /// the connection, or its stream, goes.
    fn leave(&self, target: &Target, source: Source) {
        if let Source::Http1 { conn, inbox, framing, keep_alive: true } = source
            && is_whole_body(&inbox, framing)
        {
            self.recycle(target.origin(), conn);
        }
    }

    /// Reads the body of the answer, if it is a page's.
    async fn answer(
        &self,
        (request, kind): (&FetchRequest<'_>, Kind),
        target: &Target,
        hops: usize,
        head: Head,
        source: Source,
        track: &Track<'_>,
    ) -> Result<Hop, PageError> {
        let gate = match kind {
            Kind::Page => head.content_type.gate(),
            Kind::Robots | Kind::File | Kind::Call => Gate::Accept,
        };
        let success = (200..300).contains(&head.status);
        let empty = matches!(source, Source::Http1 { framing: Framing::None, .. });
        let (body, body_bytes) = if gate == Gate::Refuse && !empty {
            if success {
                let message = format!("{} is not a page", head.content_type.essence);
                return Err(PageError::new(PageCode::UnsupportedType, Stage::Ttfb, message));
            }
            (Vec::new(), 0) // the page of an error that is no page: the status is all there is
        } else {
            track.enter(Stage::Body);
            let kept = self.shared.config.page_bytes_kept;
            let sink = Sink::new(&head, kind, request, kept)?;
            self.read_body(target, source, sink, track).await?
        };
        let essence = match sniff_gate(gate, &head.content_type, &body) {
            Some(essence) => essence,
            None if success => {
                let message = "the body is not a page";
                return Err(PageError::new(PageCode::UnsupportedType, Stage::Body, message));
            }
            None => head.content_type.essence.clone(),
        };
        let not_modified = request.not_modified(target, head.status);
        let fetched = head.into_fetched(essence, body, hops);
        Ok(Hop::Answer(Box::new(Fetched { not_modified, body_bytes, ..fetched })))
    }

    async fn read_body(
        &self,
        target: &Target,
        source: Source,
        mut sink: Sink<'_>,
        track: &Track<'_>,
    ) -> Result<(Vec<u8>, u64), PageError> {
        let idle = self.shared.config.body_idle_timeout;
        let whole = match source {
            Source::Http1 { mut conn, mut inbox, framing, keep_alive } => {
                let whole =
                    body::read_http1(&mut conn, &mut inbox, framing, &mut sink, idle, track)
                        .await?;
                // What follows a whole body was not asked for: such a connection is not used again.
                if whole && keep_alive && inbox.is_empty() {
                    self.recycle(target.origin(), conn);
                }
                whole
            }
            Source::Http2(incoming) => h2::read_body(incoming, &mut sink, idle, track).await?,
        };
        if whole { sink.finish() } else { Ok(sink.cut()) }
    }
}

impl Head {
    /// What is kept of a response's fields, which `all` looks up by name.
    pub(crate) fn new(status: u16, all: impl Fn(&str) -> Vec<Vec<u8>>) -> Self {
        let text = |name: &str| {
            let first = all(name).into_iter().next()?;
            String::from_utf8(first).ok().filter(|value| value.len() <= 256)
        };
        let codings: Vec<_> = all("content-encoding")
            .iter()
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        let content_type = all("content-type").first().map(|value| ContentType::parse(value));
        Self {
            status,
            content_type: content_type.unwrap_or_default(),
            codings: codings.join(","),
            locations: all("location"),
            etag: text("etag"),
            last_modified: text("last-modified"),
            retry_after: text("retry-after"),
            caching: Caching::of(&all),
            robots_tag: all("x-robots-tag"),
        }
    }

    fn into_fetched(self, content_type: String, body: Vec<u8>, redirects: usize) -> Fetched {
        Fetched {
            final_url: String::new(), // filled in, with the costs, where the fetch ends
            status: self.status,
            content_type,
            charset: self.content_type.charset,
            body,
            body_bytes: 0,
            wire_bytes: 0,
            timings: crate::timings::Timings::default(),
            redirects,
            etag: self.etag,
            last_modified: self.last_modified,
            retry_after: self.retry_after,
            caching: self.caching,
            robots_tag: self.robots_tag,
            not_modified: false,
        }
    }
}

/// Sends the request and reads until the response's head is complete in `inbox`.
async fn read_head(
    conn: &mut Connection,
    request: &[u8],
    inbox: &mut Vec<u8>,
    decoder: &mut ResponseDecoder,
    track: &Track<'_>,
) -> Result<(), Broken> {
    let reused = conn.reused;
    let broken = |error: &TlsError, received: usize| {
        let message = match error {
            TlsError::Io(error) => describe(error),
            TlsError::Tls(_) => error.reason(),
        };
        let code = if received == 0 { PageCode::ConnectFailed } else { PageCode::HttpMalformed };
        let error = PageError::new(code, Stage::Ttfb, message);
        Broken { silent: reused && received == 0, error }
    };
    // An origin that refuses early may have closed already and still have sent its answer.
    let written = conn.write_all(request).await;
    loop {
        match conn.read(inbox).await {
            Ok(0) => {
                let error = decoder.handle_eof(inbox.len());
                let error = PageError::new(error.page_code(), Stage::Ttfb, error.to_string());
                return Err(Broken { silent: reused && inbox.is_empty(), error });
            }
            Ok(received) => track.received(received),
            Err(error) => {
                let first = written.as_ref().err().unwrap_or(&error);
                return Err(broken(first, inbox.len()));
            }
        }
        match decoder.handle_bytes(inbox) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(()),
            Err(error) => {
                let error = PageError::new(error.page_code(), Stage::Ttfb, error.to_string());
                return Err(Broken { silent: false, error });
            }
        }
    }
}

fn unanswered() -> PageError {
    PageError::new(PageCode::ReadTimeout, Stage::Ttfb, "the origin did not answer in time")
}

pub(crate) fn malformed(stage: Stage, message: &str) -> PageError {
    PageError::new(PageCode::HttpMalformed, stage, message)
}
