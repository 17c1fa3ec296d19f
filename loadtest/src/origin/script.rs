//! An answer as the steps that send it: sans-IO, so that every fault is data and a test can read
//! what would be sent.

use crate::http::target::Target;
use crate::num::to_usize;
use crate::origin::encode::Coding;
use crate::rng::Rng;
use crate::units::{self, Latency};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// One thing to do to a connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Send these bytes.
    Write(Arc<[u8]>),
    /// Send these bytes at this pace.
    Paced { bytes: Arc<[u8]>, bytes_per_s: u64 },
    /// Send a unit so many times, with a pause after each.
    Repeat { unit: Arc<[u8]>, times: u64, pause: Duration },
    /// Send nothing for a while.
    Wait(Duration),
    /// Abort the connection with a RST.
    Reset,
}

/// The steps of one answer, and whether the connection serves another request after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// In order.
    pub(crate) steps: Vec<Step>,
    /// Keep the connection.
    pub(crate) keep: bool,
}

impl Script {
    /// Raw bytes, then the end of the connection.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { steps: vec![Step::Write(bytes.into().into())], keep: false }
    }

    /// Appends a step.
    pub(crate) fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// How a body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Everything about the sending of an answer that a query can ask for.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Before the head.
    pub(crate) head_wait: Duration,
    /// Between head and body.
    pub(crate) body_wait: Duration,
    /// In the middle of the body.
    pub(crate) stall: Duration,
    /// Delimiter of the body.
    pub(crate) framing: Framing,
    /// Bytes of one chunk.
    pub(crate) chunk: usize,
    /// Pace of the body.
    pub(crate) bytes_per_s: Option<u64>,
    /// Stop after so many bytes of the framed body.
    pub(crate) cut: Option<u64>,
    /// End by RST instead of FIN (with `cut`, or after the whole body).
    pub(crate) reset: bool,
    /// What `Content-Length` says beside the truth.
    pub(crate) lie: i64,
    /// Keep the connection afterwards.
    pub(crate) keep: bool,
    /// Close without having said so: the next request of a pooled connection fails.
    pub(crate) drop: bool,
    /// 103 responses before the final one.
    pub(crate) interim: u64,
}

impl Shape {
    /// Reads the shape from the query; draws come from `rng`.
    ///
    /// # Errors
    /// Which value is wrong and what was expected.
    pub(crate) fn of(target: &Target, rng: &mut Rng) -> Result<Self, String> {
        let mut stall = Duration::ZERO;
        let head_wait = match target.get("latency") {
            Some(text) if text.starts_with("stall:") => {
                stall = units::duration(&text[6..])?;
                Duration::ZERO
            }
            Some(text) => Latency::parse(text)?.sample(rng),
            None => Duration::ZERO,
        };
        let body_wait = match target.get("body_latency") {
            Some(text) => Latency::parse(text)?.sample(rng),
            None => Duration::ZERO,
        };
        if let Some(text) = target.get("stall") {
            stall = units::duration(text)?;
        }
        let framing = match target.get("framing") {
            None | Some("length") => Framing::Length,
            Some("chunked") => Framing::Chunked,
            Some("close") => Framing::Close,
            Some(other) => {
                return Err(format!("framing `{other}`: expected length, chunked or close"));
            }
        };
        let lie = match target.get("by") {
            // A `+` in a query is a space (WHATWG URL, application/x-www-form-urlencoded).
            Some(text) => text
                .trim()
                .trim_start_matches('+')
                .parse()
                .map_err(|_| format!("by `{text}`: expected +BYTES or -BYTES"))?,
            None => 0,
        };
        let cut = target.get("cut").map(units::bytes).transpose()?;
        let reset = flag(target, "reset");
        let drop = flag(target, "drop");
        Ok(Self {
            head_wait,
            body_wait,
            stall,
            framing,
            chunk: number(target, "chunk", 8192)?.max(1),
            bytes_per_s: target.get("bytes_per_s").map(units::bytes).transpose()?,
            cut,
            reset,
            lie,
            keep: target.get("keepalive") != Some("0"),
            drop,
            interim: target.get("interim").map_or(Ok(0), units::bytes)?,
        })
    }
}

/// A boolean query pair: present and neither `0` nor `false`.
pub(crate) fn flag(target: &Target, name: &str) -> bool {
    target.get(name).is_some_and(|value| value != "0" && value != "false")
}

/// A number of bytes or items from the query.
pub(crate) fn number(target: &Target, name: &str, default: usize) -> Result<usize, String> {
    match target.get(name) {
        Some(text) => units::bytes(text).map(to_usize).map_err(|error| format!("{name} {error}")),
        None => Ok(default),
    }
}

/// A response before it is turned into steps.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// Status code.
    pub(crate) status: u16,
    /// Fields, without those of framing and connection.
    pub(crate) fields: Vec<(String, String)>,
    /// The body as sent, already in its coding.
    pub(crate) body: Arc<[u8]>,
}

impl Reply {
    /// A response of this type.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Arc<[u8]>>) -> Self {
        let fields = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self { status, fields, body: body.into() }
    }

    /// A line of plain text.
    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        let text = text.into() + "\n";
        Self::new(status, "text/plain; charset=utf-8", text.into_bytes())
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Names the coding of the body.
    pub(crate) fn coded(self, coding: Coding) -> Self {
        match coding.token() {
            Some(token) => self.with("Content-Encoding", token),
            None => self,
        }
    }

    /// The steps that send it; `keep` is what the client allows, `bodiless` for HEAD.
    pub(crate) fn script(self, shape: &Shape, client_keeps: bool, bodiless: bool) -> Script {
        let no_body = bodiless || matches!(self.status, 204 | 304);
        let cuts = shape.cut.is_some() || shape.reset || shape.lie != 0;
        let keep = client_keeps && shape.keep && shape.framing != Framing::Close && !cuts;
        let mut steps = Vec::new();
        push_wait(&mut steps, shape.head_wait);
        if shape.interim > 0 {
            let unit: &[u8] =
                b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
            steps.push(Step::Repeat {
                unit: unit.into(),
                times: shape.interim,
                pause: Duration::ZERO,
            });
        }
        steps.push(Step::Write(self.head(shape, keep || shape.drop).into()));
        if !no_body {
            push_wait(&mut steps, shape.body_wait);
            let mut wire = match shape.framing {
                Framing::Length | Framing::Close => self.body,
                Framing::Chunked => chunked(&self.body, shape.chunk).into(),
            };
            if let Some(cut) = shape.cut {
                wire = wire[..to_usize(cut).min(wire.len())].into();
            }
            push_body(&mut steps, wire, shape);
        }
        if shape.reset {
            steps.push(Step::Reset);
        }
        Script { steps, keep: keep && !shape.drop }
    }

    fn head(&self, shape: &Shape, keep: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match shape.framing {
            _ if self.status == 204 || self.status == 304 => {}
            Framing::Length => {
                let truth = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
                let _ = write!(head, "Content-Length: {}\r\n", (truth + shape.lie).max(0));
            }
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Close => {}
        }
        if !keep {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

fn push_wait(steps: &mut Vec<Step>, wait: Duration) {
    if wait > Duration::ZERO {
        steps.push(Step::Wait(wait));
    }
}

fn push_body(steps: &mut Vec<Step>, wire: Arc<[u8]>, shape: &Shape) {
    let step = |bytes: Arc<[u8]>| match shape.bytes_per_s {
        Some(bytes_per_s) => Step::Paced { bytes, bytes_per_s },
        None => Step::Write(bytes),
    };
    if shape.stall > Duration::ZERO {
        let (first, second) = wire.split_at(wire.len() / 2);
        steps.push(step(first.into()));
        steps.push(Step::Wait(shape.stall));
        steps.push(step(second.into()));
    } else {
        steps.push(step(wire));
    }
}

/// A body in chunks of `chunk` bytes with its last chunk (RFC 9112 §7.1).
pub(crate) fn chunked(body: &[u8], chunk: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / chunk * 8 + 16);
    for part in body.chunks(chunk) {
        out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// The reason phrase of the common codes (RFC 9110 §15).
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        418 => "I'm a Teapot",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Synthetic",
    }
}
