//! What a client asks for on its WebSocket: JSON by `simd-json` and serde.

use crate::config::Config;
use crate::crawl::request::deepsearch::DeepsearchBody;
use crate::crawl::request::{self, Body, CrawlRequest};
use crate::error::{ApiCode, ApiError};
use crate::limits::{WS_CREDIT_MAX, WS_ID_BYTES_MAX};
use crate::proto::text::{Text, Texts};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::sync::Arc;

/// One op, every field within its bounds.
#[derive(Debug)]
pub(super) enum Op {
    Crawl { id: String, request: CrawlRequest, credit: Option<u32> },
    Deepsearch { id: String, request: CrawlRequest, credit: Option<u32> },
    Cancel { id: String },
    Add { id: String, urls: Arc<[Text]> },
    Ack { id: String, seq: u64 },
    Credit { id: String, n: u32 },
    Resume { id: Option<String>, stream_id: String, after: Option<u64>, credit: Option<u32> },
    Ping { id: Option<String> },
    Status { id: Option<String> },
}

impl Op {
    /// What it is called.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Crawl { .. } => "crawl",
            Self::Deepsearch { .. } => "deepsearch",
            Self::Cancel { .. } => "cancel",
            Self::Add { .. } => "add",
            Self::Ack { .. } => "ack",
            Self::Credit { .. } => "credit",
            Self::Resume { .. } => "resume",
            Self::Ping { .. } => "ping",
            Self::Status { .. } => "status",
        }
    }

    /// The client's name for what it is about.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Crawl { id, .. }
            | Self::Deepsearch { id, .. }
            | Self::Cancel { id }
            | Self::Add { id, .. }
            | Self::Ack { id, .. }
            | Self::Credit { id, .. } => Some(id),
            Self::Resume { id, .. } | Self::Ping { id } | Self::Status { id } => id.as_deref(),
        }
    }

    /// Whether it takes of the rates of its client, as a request would, and then whether there has to be
    /// memory for it. What only makes room is never refused.
    pub(super) const fn works(&self) -> Option<bool> {
        match self {
            Self::Crawl { .. }
            | Self::Deepsearch { .. }
            | Self::Add { .. }
            | Self::Resume { .. } => Some(true),
            Self::Status { .. } => Some(false),
            Self::Cancel { .. } | Self::Ack { .. } | Self::Credit { .. } | Self::Ping { .. } => {
                None
            }
        }
    }
}

/// An op that is not obeyed.
#[derive(Debug)]
pub(super) struct Refused {
    /// The client's name for the stream, where it could be read.
    pub(super) id: Option<String>,
    /// What the client is told.
    pub(super) code: ApiCode,
    /// Why; its own code may be narrower.
    pub(super) error: ApiError,
}

impl Refused {
    /// For a message that is at fault itself.
    pub(super) fn message(id: Option<String>, error: ApiError) -> Self {
        Self { id, code: ApiCode::BadMessage, error }
    }

    /// For a message that is well but can't be obeyed now.
    pub(super) fn state(id: Option<String>, error: ApiError) -> Self {
        Self { id, code: error.code, error }
    }
}

/// What every op has; the rest is read once the op is known.
#[derive(Deserialize)]
struct Head {
    op: String,
    id: Option<String>,
}

macro_rules! shapes {
    ($($name:ident { $($(#[$attribute:meta])? $field:ident: $ty:ty,)* })+) => { $(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            #[serde(rename = "op")]
            _op: IgnoredAny,
            $($(#[$attribute])? $field: $ty,)*
        }
    )+ };
}

shapes! {
    CrawlShape { id: String, data: Body, credit: Option<u32>, }
    DeepsearchShape { id: String, data: DeepsearchBody, credit: Option<u32>, }
    CancelShape { id: String, }
    AddShape { id: String, #[serde(deserialize_with = "request::texts")] urls: Texts, }
    AckShape { id: String, seq: u64, }
    CreditShape { id: String, n: u32, }
    ResumeShape { id: Option<String>, stream_id: String, after: Option<u64>, credit: Option<u32>, }
    AskShape { id: Option<String>, }
}

/// Reads and checks one message.
pub(super) fn parse(text: &mut [u8], config: &Config) -> Result<Op, Refused> {
    let mut copy = text.to_vec();
    let head: Head =
        request::parse_json(&mut copy).map_err(|error| Refused::message(None, error))?;
    drop(copy);
    if let Some(error) = head.id.as_deref().and_then(|id| check_id(id).err()) {
        return Err(Refused::message(None, error));
    }
    read(&head.op, text, config).map_err(|error| Refused::message(head.id, error))
}

fn read(op: &str, text: &mut [u8], config: &Config) -> Result<Op, ApiError> {
    Ok(match op {
        "crawl" => {
            let CrawlShape { id, data, credit, .. } = shape(text)?;
            check_credit("credit", credit)?;
            Op::Crawl { id, request: data.check(config)?, credit }
        }
        "deepsearch" => {
            let DeepsearchShape { id, data, credit, .. } = shape(text)?;
            check_credit("credit", credit)?;
            Op::Deepsearch { id, request: data.check(config)?, credit }
        }
        "cancel" => Op::Cancel { id: shape::<CancelShape>(text)?.id },
        "add" => {
            let AddShape { id, urls, .. } = shape(text)?;
            Op::Add { id, urls: request::check_urls(urls, config)? }
        }
        "ack" => {
            let AckShape { id, seq, .. } = shape(text)?;
            Op::Ack { id, seq }
        }
        "credit" => {
            let CreditShape { id, n, .. } = shape(text)?;
            check_credit("n", Some(n))?;
            Op::Credit { id, n }
        }
        "resume" => {
            let ResumeShape { id, stream_id, after, credit, .. } = shape(text)?;
            check_credit("credit", credit)?;
            Op::Resume { id, stream_id, after, credit }
        }
        "ping" => Op::Ping { id: shape::<AskShape>(text)?.id },
        "status" => Op::Status { id: shape::<AskShape>(text)?.id },
        other => {
            let name: String = other.chars().take(32).collect();
            let known = "crawl, deepsearch, cancel, add, ack, credit, resume, ping or status";
            let error = ApiError::new(ApiCode::ValidationError, format!("unknown op {name}"));
            return Err(error.field("op", known));
        }
    })
}

fn shape<T: DeserializeOwned>(text: &mut [u8]) -> Result<T, ApiError> {
    request::parse_json(text)
}

fn check_id(id: &str) -> Result<(), ApiError> {
    if (1..=WS_ID_BYTES_MAX).contains(&id.len()) {
        return Ok(());
    }
    let message = format!("an id has 1 to {WS_ID_BYTES_MAX} bytes, found {}", id.len());
    Err(ApiError::new(ApiCode::ValidationError, message).limit("id", WS_ID_BYTES_MAX as u64))
}

fn check_credit(field: &str, credit: Option<u32>) -> Result<(), ApiError> {
    if credit.is_none_or(|credit| credit <= WS_CREDIT_MAX) {
        return Ok(());
    }
    let message = format!("{field} is {WS_CREDIT_MAX} at most");
    Err(ApiError::new(ApiCode::ValidationError, message).limit(field, u64::from(WS_CREDIT_MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> Result<Op, Refused> {
        parse(&mut text.as_bytes().to_vec(), &Config { urls_max: 3, ..Config::default() })
    }

    #[test]
    fn every_op_of_the_api_is_read() {
        for (text, expected) in [
            (r#"{"op":"crawl","id":"a","data":{"urls":["http://a.example/"]}}"#, "Crawl"),
            (
                r#"{"op":"crawl","id":"a","credit":4,"data":{"urls":["http://a.example/"]}}"#,
                "Crawl",
            ),
            (r#"{"op":"deepsearch","id":"a","data":{"query":"q"}}"#, "Deepsearch"),
            (r#"{"op":"cancel","id":"a"}"#, "Cancel"),
            (r#"{"op":"add","id":"a","urls":["http://a.example/"]}"#, "Add"),
            (r#"{"op":"ack","id":"a","seq":17}"#, "Ack"),
            (r#"{"op":"credit","id":"a","n":32}"#, "Credit"),
            (r#"{"op":"resume","stream_id":"01J9","after":17}"#, "Resume"),
            (r#"{"op":"resume","stream_id":"01J9"}"#, "Resume"),
            (r#"{"op":"ping"}"#, "Ping"),
            (r#"{"id":"x","op":"ping"}"#, "Ping"),
            (r#" {"op":"status"} "#, "Status"),
        ] {
            let op = read_text(text).unwrap_or_else(|refused| panic!("{text}: {refused:?}"));
            assert!(format!("{op:?}").starts_with(expected), "{text}: {op:?}");
        }
    }

    #[test]
    fn the_fields_of_ops_are_those_that_are_described() {
        use std::collections::BTreeSet;
        let config = Config::default();
        let root: serde_json::Value =
            serde_json::from_str(&crate::serve::openapi::document(&config)).unwrap();
        let mut told = BTreeSet::new();
        for shape in root["components"]["schemas"]["WsOp"]["oneOf"].as_array().unwrap() {
            let fields = shape["properties"].as_object().unwrap();
            let ops = match fields["op"].get("const") {
                Some(op) => vec![op.as_str().unwrap()],
                None => fields["op"]["enum"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(|op| op.as_str())
                    .collect(),
            };
            for op in ops {
                let refused = read_text(&format!(r#"{{"op":"{op}","no_such":1}}"#)).unwrap_err();
                assert_eq!(refused.error.code, ApiCode::UnknownField, "{op}");
                let expected = &refused.error.details[0].expected;
                let known: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
                // serde tells of the field that it was renamed to.
                let described: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
                assert_eq!(known, described, "{op}");
                told.insert(op.to_owned());
            }
        }
        let error = read_text(r#"{"op":"dance"}"#).unwrap_err().error;
        let known = error.details[0].expected.replace(" or ", ", ");
        assert_eq!(told, known.split(", ").map(str::to_owned).collect());
        let bounds = &root["components"]["schemas"]["WsId"];
        let takes = |length: usize| {
            read_text(&format!(r#"{{"op":"cancel","id":"{}"}}"#, "x".repeat(length))).is_ok()
        };
        let bound = |name: &str| usize::try_from(bounds[name].as_u64().unwrap()).unwrap();
        let (least, most) = (bound("minLength"), bound("maxLength"));
        assert!(takes(least) && takes(most) && !takes(least - 1) && !takes(most + 1));
    }

    #[test]
    fn each_mistake_is_a_bad_message_that_names_its_field() {
        for (text, id, field) in [
            ("", None, ""),
            ("{", None, ""),
            ("[]", None, ""),
            ("{}", None, "op"),
            (r#"{"op":7}"#, None, "op"),
            (r#"{"op":"cancel","id":7}"#, None, "id"),
            (r#"{"op":"cancel","id":""}"#, None, "id"),
            (r#"{"op":"dance","id":"a"}"#, Some("a"), "op"),
            (r#"{"op":"cancel"}"#, None, "id"),
            (r#"{"op":"ping","urls":[]}"#, None, "urls"),
            (r#"{"op":"ping","op":"ping"}"#, None, ""),
            (r#"{"op":"ack","id":"a","seq":-1}"#, Some("a"), "seq"),
            (r#"{"op":"credit","id":"a","n":4000000000}"#, Some("a"), "n"),
            (r#"{"op":"deepsearch","id":"a","data":{"query":""}}"#, Some("a"), "query"),
            (r#"{"op":"deepsearch","id":"a","data":{}}"#, Some("a"), "query"),
            (r#"{"op":"add","id":"a","urls":[]}"#, Some("a"), "urls"),
            (r#"{"op":"add","id":"a","urls":["ftp://a"]}"#, Some("a"), "urls[0]"),
            (r#"{"op":"crawl","id":"a","data":{}}"#, Some("a"), "urls"),
            (r#"{"op":"crawl","id":"a","data":{"urls":["x","y","z","w"]}}"#, Some("a"), "urls"),
            (
                r#"{"op":"crawl","id":"a","data":{"urls":["http://a.example"],"options":{"concurrency":"1"}}}"#,
                Some("a"),
                "data.options.concurrency",
            ),
        ] {
            let refused = read_text(text).expect_err(text);
            assert_eq!(refused.code, ApiCode::BadMessage, "{text}");
            assert_eq!(refused.id.as_deref(), id, "{text}");
            let told = refused.error.details.iter().any(|detail| detail.field == field);
            assert!(field.is_empty() || told, "{text}: {:?}", refused.error);
        }
        let long = format!(r#"{{"op":"cancel","id":"{}"}}"#, "x".repeat(WS_ID_BYTES_MAX + 1));
        assert!(read_text(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_op_or_a_bad_message(mut bytes: Vec<u8>, text: String) {
            let config = Config::default();
            let _ = parse(&mut bytes, &config);
            let message = format!(r#"{{"op":"cancel","id":{}}}"#, serde_json::to_string(&text).unwrap());
            let read = parse(&mut message.into_bytes(), &config);
            match read {
                Ok(Op::Cancel { id }) => prop_assert_eq!(id, text),
                Ok(other) => prop_assert!(false, "{:?}", other),
                Err(_) => prop_assert!(text.is_empty() || text.len() > WS_ID_BYTES_MAX),
            }
        }
    }
}
