//! One request and its response over a connection, by the sans-IO codecs of `proto::h1`.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::caching::Caching;
use crate::fetch::connect::{Connection, describe};
use crate::fetch::decode::{ACCEPT_ENCODING, DecodeError, Decoder};
use crate::fetch::redirect::{Next, Redirects};
use crate::fetch::sniff::{self, ContentType, Gate};
use crate::fetch::target::Target;
use crate::fetch::tls::TlsError;
use crate::fetch::track::Track;
use crate::fetch::{FetchConfig, FetchRequest, Fetched, Fetcher, count, field};
use crate::limits::{DECODE_TURN_BYTES, ENCODED_SLACK_BYTES};
use crate::proto::chunked::Strictness;
use crate::proto::h1::{BodyError, BodyReader, Fields, Framing, ResponseDecoder, write_get};
use uring::time::timeout;

/// How pages are asked for: HTML first, anything rather than a refusal.
const ACCEPT: &str =
    "text/html,application/xhtml+xml,application/xml;q=0.9,text/plain;q=0.8,*/*;q=0.1";

/// What a hop came to.
pub(crate) enum Hop {
    Answer(Box<Fetched>),
    Redirect(Box<Target>),
}

/// What is needed of a response's head once its body is read.
struct Head {
    status: u16,
    framing: Framing,
    keep_alive: bool,
    content_type: ContentType,
    codings: String,
    etag: Option<String>,
    last_modified: Option<String>,
    retry_after: Option<String>,
    caching: Caching,
}

/// An exchange that broke before the response's head was complete.
struct Broken {
    /// Not one byte of a response came: on a pooled connection, a reason to ask again.
    silent: bool,
    error: PageError,
}

impl Fetcher {
    /// One hop: from the target's name to its response's end.
    pub(crate) async fn hop(
        &self,
        request: &FetchRequest<'_>,
        target: &Target,
        redirects: &mut Redirects,
        track: &Track<'_>,
    ) -> Result<Hop, PageError> {
        let approved = self.approved(target, track).await?;
        let bytes = request_bytes(&self.shared.config, request, target, redirects)?;
        let mut pooled = self.checkout(target.origin(), &approved);
        loop {
            let mut conn = match pooled.take() {
                Some(conn) => conn,
                None => self.open(target, &approved, track).await?,
            };
            track.enter(Stage::Ttfb);
            let (mut inbox, mut decoder) = (Vec::new(), ResponseDecoder::new(false));
            let head = read_head(&mut conn, &bytes, &mut inbox, &mut decoder, track);
            match timeout(self.shared.config.ttfb_timeout, Box::pin(head)).await {
                Ok(Ok(())) => {}
                // RFC 9110 §9.2.2, RFC 9112 §9.3.1: the origin may close an idle connection at any
                // moment, and a GET may be repeated. The next connection is a fresh one.
                Ok(Err(broken)) if broken.silent && conn.reused => {
                    count(&self.stats.retried, 1);
                    continue;
                }
                Ok(Err(broken)) => return Err(broken.error),
                Err(_) => {
                    let message = "the origin did not answer in time";
                    return Err(PageError::new(PageCode::ReadTimeout, Stage::Ttfb, message));
                }
            }
            return self.answer(request, target, redirects, conn, inbox, &decoder, track).await;
        }
    }

    /// Follows the redirect, or reads the body of the answer.
    #[expect(clippy::too_many_arguments, reason = "a hop's whole state, handed over once")]
    async fn answer(
        &self,
        request: &FetchRequest<'_>,
        target: &Target,
        redirects: &mut Redirects,
        mut conn: Connection,
        mut inbox: Vec<u8>,
        decoder: &ResponseDecoder,
        track: &Track<'_>,
    ) -> Result<Hop, PageError> {
        let Some(response) = decoder.response(&inbox) else {
            return Err(http_malformed(Stage::Ttfb, "the response has no head"));
        };
        track.answered(response.status());
        let locations: Vec<&[u8]> = response.fields().all("location").collect();
        let next = redirects.handle_response(target, response.status(), &locations)?;
        let head = Head::new(
            response.status(),
            response.framing(),
            response.keep_alive(),
            response.fields(),
        );
        inbox.drain(..response.head_len());
        if let Next::Follow(next) = next {
            // A body that is all here costs nothing to skip; for any other the connection goes.
            if head.keep_alive && is_whole_body(&inbox, head.framing) {
                self.recycle(target.origin(), conn);
            }
            return Ok(Hop::Redirect(Box::new(next)));
        }
        let gate = head.content_type.gate();
        let success = (200..300).contains(&head.status);
        let body = if gate == Gate::Refuse && head.framing != Framing::None {
            if success {
                let message = format!("{} is not a page", head.content_type.essence);
                return Err(PageError::new(PageCode::UnsupportedType, Stage::Ttfb, message));
            }
            Vec::new() // the page of an error that is no page: the status is all there is
        } else {
            track.enter(Stage::Body);
            let body = self.read_body(&mut conn, &mut inbox, &head, request, track).await?;
            // What follows a whole body was not asked for: such a connection is not used again.
            if head.keep_alive && inbox.is_empty() {
                self.recycle(target.origin(), conn);
            }
            body
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
        let fetched = head.into_fetched(essence, body, redirects.hops());
        Ok(Hop::Answer(Box::new(Fetched { not_modified, ..fetched })))
    }

    /// Reads and decodes a body, yielding to the loop between turns; leaves in `inbox` what follows
    /// the body.
    async fn read_body(
        &self,
        conn: &mut Connection,
        inbox: &mut Vec<u8>,
        head: &Head,
        request: &FetchRequest<'_>,
        track: &Track<'_>,
    ) -> Result<Vec<u8>, PageError> {
        let bytes_max = request.max_body_bytes;
        let too_large = |error: BodyError| match error {
            BodyError::TooLarge { .. } => PageError::from(DecodeError::TooLarge(bytes_max)),
            other => PageError::new(other.page_code(), Stage::Body, other.to_string()),
        };
        let mut decoder = Decoder::new(&head.codings, bytes_max)?;
        let wire_max = bytes_max.saturating_add(ENCODED_SLACK_BYTES);
        let mut reader =
            BodyReader::new(head.framing, Strictness::Lenient, wire_max).map_err(too_large)?;
        let mut body = Vec::new();
        let mut sniffed = false;
        while !reader.is_done() {
            let mut read_to = 0;
            loop {
                let step = reader.next(&inbox[read_to..]).map_err(too_large)?;
                decode(&mut decoder, &inbox[read_to..][step.data], &mut body).await?;
                read_to += step.consumed;
                if step.done || step.consumed == 0 {
                    break;
                }
            }
            inbox.drain(..read_to);
            if !sniffed && body.len() >= sniff::SNIFF_BYTES {
                sniffed = true;
                refuse_by_sniffing(head, &body)?;
            }
            if reader.is_done() {
                break;
            }
            let read = conn.read(inbox);
            match timeout(self.shared.config.body_idle_timeout, read).await {
                Ok(Ok(0)) => {
                    reader.handle_eof().map_err(too_large)?;
                    break;
                }
                Ok(Ok(received)) => track.received(received),
                Ok(Err(error)) => return Err(broken_body(&error)),
                Err(_) => {
                    let message = "the origin stopped sending its body";
                    return Err(PageError::new(PageCode::ReadTimeout, Stage::Body, message));
                }
            }
        }
        decoder.handle_end()?;
        Ok(body)
    }
}

impl Head {
    fn new(status: u16, framing: Framing, keep_alive: bool, fields: Fields<'_>) -> Self {
        let text =
            |name: &str| fields.get_str(name).filter(|value| value.len() <= 256).map(str::to_owned);
        let codings: Vec<_> = fields.all("content-encoding").map(String::from_utf8_lossy).collect();
        Self {
            status,
            framing,
            keep_alive,
            content_type: fields.get("content-type").map(ContentType::parse).unwrap_or_default(),
            codings: codings.join(","),
            etag: text("etag"),
            last_modified: text("last-modified"),
            retry_after: text("retry-after"),
            caching: Caching::of(fields),
        }
    }

    fn into_fetched(self, content_type: String, body: Vec<u8>, redirects: usize) -> Fetched {
        Fetched {
            final_url: String::new(), // filled in, with the costs, where the fetch ends
            status: self.status,
            content_type,
            charset: self.content_type.charset,
            body,
            wire_bytes: 0,
            timings: crate::timings::Timings::default(),
            redirects,
            etag: self.etag,
            last_modified: self.last_modified,
            retry_after: self.retry_after,
            caching: self.caching,
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
    let broken = |error: &TlsError, received: usize| {
        let message = match error {
            TlsError::Io(error) => describe(error),
            TlsError::Tls(_) => error.reason(),
        };
        let code = if received == 0 { PageCode::ConnectFailed } else { PageCode::HttpMalformed };
        Broken { silent: received == 0, error: PageError::new(code, Stage::Ttfb, message) }
    };
    // An origin that refuses early may have closed already and still have sent its answer.
    let written = conn.write_all(request).await;
    loop {
        match conn.read(inbox).await {
            Ok(0) => {
                let error = decoder.handle_eof(inbox.len());
                let error = PageError::new(error.page_code(), Stage::Ttfb, error.to_string());
                return Err(Broken { silent: inbox.is_empty(), error });
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

/// Decodes one piece of a body, a turn at a time.
async fn decode(
    decoder: &mut Decoder,
    mut data: &[u8],
    body: &mut Vec<u8>,
) -> Result<(), PageError> {
    loop {
        let progress = decoder.handle_input(data, body, DECODE_TURN_BYTES)?;
        data = &data[progress.consumed..];
        if progress.drained {
            return Ok(());
        }
        uring::yield_now().await;
    }
}

/// Stops the reading of a body whose first bytes show that it is no page.
fn refuse_by_sniffing(head: &Head, body: &[u8]) -> Result<(), PageError> {
    let success = (200..300).contains(&head.status);
    if success && sniff_gate(head.content_type.gate(), &head.content_type, body).is_none() {
        let message = "the body is not a page";
        return Err(PageError::new(PageCode::UnsupportedType, Stage::Body, message));
    }
    Ok(())
}

/// The type of a body, `None` if it is no page's.
fn sniff_gate(gate: Gate, content_type: &ContentType, body: &[u8]) -> Option<String> {
    match gate {
        Gate::Accept | Gate::Refuse => Some(content_type.essence.clone()),
        Gate::IfHtml => sniff::looks_like_html(body).then(|| content_type.essence.clone()),
        Gate::IfText => sniff::sniff(body).map(str::to_owned),
    }
}

/// Whether `inbox` holds one whole body and nothing else.
fn is_whole_body(inbox: &[u8], framing: Framing) -> bool {
    let Ok(mut reader) = BodyReader::new(framing, Strictness::Lenient, inbox.len() as u64) else {
        return false;
    };
    let mut at = 0;
    while !reader.is_done() {
        match reader.next(&inbox[at..]) {
            Ok(step) if step.consumed > 0 => at += step.consumed,
            _ => return false,
        }
    }
    at == inbox.len()
}

fn request_bytes(
    config: &FetchConfig,
    request: &FetchRequest<'_>,
    target: &Target,
    redirects: &Redirects,
) -> Result<Vec<u8>, PageError> {
    let refused = |name: &str| {
        http_malformed(Stage::Ttfb, &format!("the request field {name:?} cannot be sent"))
    };
    field::check_all(request.headers)
        .map_err(|(at, _)| refused(request.headers.get(at).map_or("headers", |(name, _)| name)))?;
    let user_agent = request.user_agent.unwrap_or(&config.user_agent);
    field::check("user-agent", user_agent).map_err(|_| refused("user-agent"))?;
    let language = config.accept_language.as_deref();
    let own = [
        Some(("User-Agent", user_agent)),
        Some(("Accept", ACCEPT)),
        language.map(|language| ("Accept-Language", language)),
        Some(("Accept-Encoding", ACCEPT_ENCODING)),
    ];
    let given = |name: &str| request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let own = own.into_iter().flatten().filter(|(name, _)| !given(name));
    let conditions = request.conditions(target).into_iter().flatten();
    let theirs = request.headers.iter().filter(|(name, _)| redirects.may_send(name));
    let fields: Vec<(&str, &[u8])> = own
        .chain(conditions)
        .map(|(name, value)| (name, value.as_bytes()))
        .chain(theirs.map(|(name, value)| (name.as_str(), value.as_bytes())))
        .collect();
    let mut bytes = Vec::with_capacity(512);
    write_get(&mut bytes, target.path_and_query(), &target.host_field(), &fields)
        .map_err(|_| http_malformed(Stage::Ttfb, "the request cannot be written"))?;
    Ok(bytes)
}

fn http_malformed(stage: Stage, message: &str) -> PageError {
    PageError::new(PageCode::HttpMalformed, stage, message)
}

fn broken_body(error: &TlsError) -> PageError {
    let reason = match error {
        TlsError::Io(error) => describe(error),
        TlsError::Tls(_) => error.reason(),
    };
    http_malformed(Stage::Body, &format!("the body is not whole: {reason}"))
}
