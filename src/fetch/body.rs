//! The body of a response: read, decoded, capped, and its first bytes looked at.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::connect::{Connection, describe};
use crate::fetch::decode::{DecodeError, Decoder};
use crate::fetch::exchange::{Head, malformed};
use crate::fetch::sniff::{self, ContentType, Gate};
use crate::fetch::tls::TlsError;
use crate::fetch::track::Track;
use crate::fetch::{FetchRequest, Kind};
use crate::limits::{DECODE_TURN_BYTES, ENCODED_SLACK_BYTES};
use crate::proto::chunked::Strictness;
use crate::proto::h1::{BodyError, BodyReader, Framing};
use std::time::Duration;
use uring::time::timeout;

/// Where the pieces of a body go, whatever brought them.
pub(crate) struct Sink<'h> {
    head: &'h Head,
    kind: Kind,
    decoder: Decoder,
    /// The decoded body so far, as far as it is kept.
    body: Vec<u8>,
    bytes_max: u64,
    bytes_kept: usize,
    sniffed: bool,
    /// Work since the last turn, in bytes.
    worked: usize,
}

/// What a piece costs beside its bytes, as bytes.
const PIECE_COST: usize = 512;

impl<'h> Sink<'h> {
    pub(crate) fn new(
        head: &'h Head,
        kind: Kind,
        request: &FetchRequest<'_>,
        page_bytes_kept: usize,
    ) -> Result<Self, PageError> {
        let bytes_max = request.max_body_bytes;
        let decoder = Decoder::new(&head.codings, bytes_max)?;
        let bytes_kept = match kind {
            Kind::Page => page_bytes_kept.max(sniff::SNIFF_BYTES),
            Kind::Robots | Kind::File | Kind::Call => usize::MAX,
        };
        let body = Vec::new();
        Ok(Self { head, kind, decoder, body, bytes_max, bytes_kept, sniffed: false, worked: 0 })
    }

    /// Decodes one piece, a turn at a time, and gives turns by the work of all pieces: they may be as
    /// small as their sender likes. `false`: there is enough of it, read no further.
    pub(crate) async fn push(&mut self, mut data: &[u8]) -> Result<bool, PageError> {
        loop {
            self.worked += PIECE_COST;
            if self.worked >= DECODE_TURN_BYTES {
                self.worked = PIECE_COST;
                uring::yield_now().await;
            }
            let (made, budget) = (self.body.len(), DECODE_TURN_BYTES - self.worked);
            match self.decoder.handle_input(data, &mut self.body, budget.max(PIECE_COST)) {
                Ok(progress) => {
                    self.body.truncate(self.bytes_kept);
                    data = &data[progress.consumed..];
                    self.worked += progress.consumed.max(self.body.len() - made);
                    if progress.drained {
                        break;
                    }
                }
                // RFC 9309 §2.5: of a robots.txt that is too long the start is read.
                Err(DecodeError::TooLarge(_)) if self.kind == Kind::Robots => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        if self.kind == Kind::Page && !self.sniffed && self.body.len() >= sniff::SNIFF_BYTES {
            self.sniffed = true;
            refuse_by_sniffing(self.head, &self.body)?;
        }
        Ok(true)
    }

    /// The body has come to its end: what is kept of it, and the bytes of the whole.
    pub(crate) fn finish(self) -> Result<(Vec<u8>, u64), PageError> {
        self.decoder.handle_end()?;
        Ok(self.cut())
    }

    /// As [`Sink::finish`], of a body that was cut short.
    pub(crate) fn cut(self) -> (Vec<u8>, u64) {
        (self.body, self.decoder.decoded_bytes())
    }

    /// Bytes of framed content above which it is refused, before and while it is decoded.
    pub(crate) fn wire_max(&self) -> u64 {
        match self.kind {
            Kind::Page | Kind::File | Kind::Call => {
                self.bytes_max.saturating_add(ENCODED_SLACK_BYTES)
            }
            Kind::Robots => u64::MAX,
        }
    }

    /// A body that announces or brings more than that.
    pub(crate) fn too_large(&self) -> PageError {
        DecodeError::TooLarge(self.bytes_max).into()
    }
}

/// Reads a body of HTTP/1.1, yielding to the loop between turns; leaves in `inbox` what follows the
/// body. `true`: it was read to its end.
pub(crate) async fn read_http1(
    conn: &mut Connection,
    inbox: &mut Vec<u8>,
    framing: Framing,
    sink: &mut Sink<'_>,
    idle: Duration,
    track: &Track<'_>,
) -> Result<bool, PageError> {
    let too_large = sink.too_large();
    let refuse = |error: BodyError| match error {
        BodyError::TooLarge { .. } => too_large.clone(),
        other => PageError::new(other.page_code(), Stage::Body, other.to_string()),
    };
    let mut reader =
        BodyReader::new(framing, Strictness::Lenient, sink.wire_max()).map_err(refuse)?;
    while !reader.is_done() {
        // All data of one read is one piece, whatever chunks it came in.
        let (mut read_to, mut joined) = (0, 0);
        loop {
            let step = reader.next(&inbox[read_to..]).map_err(refuse)?;
            let data = read_to + step.data.start..read_to + step.data.end;
            if joined > 0 || data.start > joined {
                inbox.copy_within(data.clone(), joined);
            }
            joined += data.len();
            read_to += step.consumed;
            if step.done || step.consumed == 0 {
                break;
            }
        }
        if !sink.push(&inbox[..joined]).await? {
            return Ok(false);
        }
        inbox.drain(..read_to);
        if reader.is_done() {
            break;
        }
        match timeout(idle, conn.read(inbox)).await {
            Ok(Ok(0)) => {
                reader.handle_eof().map_err(refuse)?;
                break;
            }
            Ok(Ok(received)) => track.received(received),
            Ok(Err(error)) => return Err(broken_body(&error)),
            Err(_) => return Err(stalled()),
        }
    }
    Ok(true)
}

/// The origin sends nothing more, and no end either.
pub(crate) fn stalled() -> PageError {
    PageError::new(PageCode::ReadTimeout, Stage::Body, "the origin stopped sending its body")
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
pub(crate) fn sniff_gate(gate: Gate, content_type: &ContentType, body: &[u8]) -> Option<String> {
    match gate {
        Gate::Accept | Gate::Refuse => Some(content_type.essence.clone()),
        Gate::IfHtml => sniff::looks_like_html(body).then(|| content_type.essence.clone()),
        Gate::IfText => sniff::sniff(body).map(str::to_owned),
    }
}

/// Whether `inbox` holds one whole body and nothing else.
pub(crate) fn is_whole_body(inbox: &[u8], framing: Framing) -> bool {
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

fn broken_body(error: &TlsError) -> PageError {
    let reason = match error {
        TlsError::Io(error) => describe(error),
        TlsError::Tls(_) => error.reason(),
    };
    malformed(Stage::Body, &format!("the body is not whole: {reason}"))
}
