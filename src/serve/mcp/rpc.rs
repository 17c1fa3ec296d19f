//! JSON-RPC 2.0: one message in, one out.

use crate::crawl::request;
use crate::error::ApiCode;
use crate::limits::{MCP_CALL_BYTES_MAX, MCP_DEPTH_MAX, MCP_MESSAGE_BYTES_MAX};
use crate::proto::json;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer};
use simd_json::OwnedValue;
use simd_json::prelude::{ValueAsScalar as _, ValueBuilder as _, ValueObjectAccessAsScalar as _};

/// A method that we don't have.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// What a request is known by: a number or a text, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id(String);

impl Id {
    /// One that a test makes up.
    #[cfg(test)]
    pub(super) fn number(id: u32) -> Self {
        Self(id.to_string())
    }

    /// Bytes of the JSON.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A request or a notification.
#[derive(Debug)]
pub(super) struct Message {
    /// None of a notification.
    pub(super) id: Option<Id>,
    pub(super) method: String,
    pub(super) params: OwnedValue,
    /// Bytes of the whole.
    pub(super) bytes: usize,
}

#[derive(Debug, Deserialize)]
struct Shape {
    jsonrpc: String,
    #[serde(default, deserialize_with = "present")]
    id: Option<OwnedValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Option<OwnedValue>,
    #[serde(default)]
    result: Option<OwnedValue>,
    #[serde(default)]
    error: Option<OwnedValue>,
}

/// A value that is there, be it `null`: an id may be left out, but not be `null`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OwnedValue>, D::Error> {
    OwnedValue::deserialize(from).map(Some)
}

/// Why a message can't be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The status of the answer.
    pub(super) status: u16,
    pub(super) code: i64,
    pub(super) message: String,
    /// JSON, or nothing.
    pub(super) data: String,
}

impl Wrong {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into(), data: String::new() }
    }

    /// No request as JSON-RPC has them.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(-32600, message)
    }

    /// Parameters that a method can't take.
    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// The head says something else than the body.
    pub(super) fn mismatch(message: &str) -> Self {
        Self::new(-32020, format!("Header mismatch: {message}"))
    }

    /// A revision that we don't speak.
    pub(super) fn version(asked: &str, known: &[&str]) -> Self {
        let asked: String = asked.chars().take(64).collect();
        let known: Vec<String> = known.iter().map(|version| quoted(version)).collect();
        let data =
            format!("{{\"supported\":[{}],\"requested\":{}}}", known.join(","), quoted(&asked));
        Self { data, ..Self::new(-32022, "Unsupported protocol version") }
    }
}

/// Whether brackets and braces are nested no deeper than that. Parameters are read by recursion, so
/// a body of brackets alone would use up the stack.
fn nested_within(body: &[u8], most: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return false;
        }
    }
    true
}

/// Reads a message. A list of them, as an early revision had it, is refused, and what is longer than
/// its method and tool need.
pub(super) fn parse(body: &mut [u8]) -> Result<Message, Wrong> {
    let bytes = body.len();
    if !nested_within(body, MCP_DEPTH_MAX) {
        return Err(Wrong::invalid(format!("nested deeper than {MCP_DEPTH_MAX}")));
    }
    let shape: Shape = request::parse_json(body).map_err(|error| match error.code {
        ApiCode::InvalidJson => Wrong::new(-32700, error.message),
        _ => Wrong::invalid(error.message),
    })?;
    if shape.jsonrpc != "2.0" {
        return Err(Wrong::invalid("jsonrpc must be \"2.0\""));
    }
    let answered = shape.result.is_some() || shape.error.is_some();
    let Some(method) = shape.method else {
        if answered {
            return Ok(Message {
                id: None,
                method: String::new(),
                params: OwnedValue::null(),
                bytes,
            });
        }
        return Err(Wrong::invalid("method is missing"));
    };
    let id = match shape.id {
        None => None,
        Some(id) => Some(Id(
            scalar(&id).ok_or_else(|| Wrong::invalid("id must be a text or a whole number"))?
        )),
    };
    let params = shape.params.unwrap_or_else(OwnedValue::null);
    if !matches!(params, OwnedValue::Object(_)) && params.as_null().is_none() {
        return Err(Wrong::invalid("params must be an object"));
    }
    let most = match (method.as_str(), params.get_str("name")) {
        ("tools/call", Some("extract")) => usize::MAX,
        ("tools/call", _) => MCP_CALL_BYTES_MAX,
        _ => MCP_MESSAGE_BYTES_MAX,
    };
    if bytes > most {
        return Err(Wrong::invalid(format!("{bytes} bytes, maximum {most} for this method")));
    }
    Ok(Message { id, method, params, bytes })
}

/// An answer with a result. `result` is an object's text without its closing brace, since every
/// result of the newer revision has more at its end.
pub(super) fn result(id: &Id, result: &str, modern: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(result.len() + 256);
    begin(&mut out, id);
    out.put_slice(result.as_bytes());
    end(&mut out, result.len() == 1, modern);
    out.freeze()
}

/// What stands before a result's fields, its opening brace left out.
pub(super) fn begin(out: &mut BytesMut, id: &Id) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id.0.as_bytes());
    out.put_slice(b",\"result\":");
}

/// What stands behind them.
pub(super) fn end(out: &mut BytesMut, empty: bool, modern: bool) {
    if modern {
        out.put_slice(if empty { b"" } else { b"," });
        out.put_slice(
            b"\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":",
        );
        out.put_slice(super::tools::server_info().as_bytes());
        out.put_u8(b'}');
    }
    out.put_slice(b"}}");
}

/// An answer with an error.
pub(super) fn error(id: Option<&Id>, wrong: &Wrong) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id.map_or("null", |id| &id.0).as_bytes());
    out.put_slice(format!(",\"error\":{{\"code\":{},\"message\":", wrong.code).as_bytes());
    json::string(&mut out, &wrong.message);
    if !wrong.data.is_empty() {
        out.put_slice(b",\"data\":");
        out.put_slice(wrong.data.as_bytes());
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    json::string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

/// A number or a text as it came: for what is only handed back.
pub(super) fn scalar(value: &OwnedValue) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(quoted(text));
    }
    value.as_i64().map(|number| number.to_string())
}

/// Entry for the fuzzer, and for a test over the same inputs: whatever the bytes, they are a message
/// within its limits or an error, and every answer is JSON of one line.
pub fn fuzz(body: &[u8]) {
    let told = |answer: &[u8]| {
        assert!(!answer.contains(&b'\n'));
        let read: Result<serde_json::Value, _> = serde_json::from_slice(answer);
        assert!(read.is_ok_and(|read| read["jsonrpc"] == "2.0"));
    };
    let Message { id, method, params, bytes } = match parse(&mut body.to_vec()) {
        Ok(message) => message,
        Err(wrong) => {
            assert!(wrong.status == 400 && wrong.data.is_empty());
            return told(&error(None, &wrong));
        }
    };
    assert_eq!(bytes, body.len());
    assert!(params.as_null().is_some() || matches!(params, OwnedValue::Object(_)));
    let Some(id) = id else { return };
    assert!(id.len() <= 6 * body.len());
    for modern in [false, true] {
        told(&result(&id, "{", modern));
        told(&result(&id, "{\"tools\":[]", modern));
    }
    for wrong in [
        Wrong::params(method.as_str()),
        Wrong::mismatch(&method),
        Wrong::version(&method, &["a", &method]),
        Wrong { code: METHOD_NOT_FOUND, ..Wrong::invalid(method.as_str()) },
    ] {
        told(&error(Some(&id), &wrong));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> i64 {
        parse(&mut text.as_bytes().to_vec()).map_or_else(|wrong| wrong.code, |_| 0)
    }

    #[test]
    fn what_is_no_message_has_its_code() {
        assert_eq!(code("{"), -32700);
        for text in [
            "[]",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":[],"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
        ] {
            assert_eq!(code(text), -32600, "{text}");
        }
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#), 0);
        assert_eq!(code(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), 0);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#), 0);
    }

    #[test]
    fn a_body_of_brackets_does_not_use_up_the_stack() {
        for unit in ["[", "{\"a\":"] {
            let deep = unit.repeat(500_000);
            assert_eq!(
                code(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"b":{deep}"#)),
                -32600
            );
        }
        let text = "[".repeat(500) + "\\\"[";
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"b":"{text}"}}}}"#);
        assert_eq!(code(&body), 0, "brackets in a text are text");
    }

    #[test]
    fn a_message_is_as_long_as_its_method_needs() {
        let message = |method: &str, name: &str, bytes: usize| {
            let filler = "a".repeat(bytes);
            code(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"{name}","b":"{filler}"}}}}"#
            ))
        };
        assert_eq!(message("tools/list", "", MCP_MESSAGE_BYTES_MAX), -32600);
        assert_eq!(message("tools/list", "", MCP_MESSAGE_BYTES_MAX / 2), 0);
        for tool in ["crawl", "search", "no such"] {
            assert_eq!(message("tools/call", tool, MCP_CALL_BYTES_MAX), -32600);
            assert_eq!(message("tools/call", tool, MCP_CALL_BYTES_MAX / 2), 0);
        }
        assert_eq!(message("tools/call", "extract", MCP_CALL_BYTES_MAX * 2), 0);
    }

    #[test]
    fn answers_are_json() {
        let id = Id("\"a\\\"\"".to_owned());
        for modern in [false, true] {
            for fields in ["{", "{\"tools\":[]"] {
                let text = result(&id, fields, modern);
                let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(read["id"], "a\"");
                assert_eq!(read["result"]["resultType"].is_string(), modern);
            }
        }
        let wrong = Wrong::version("x\"y", &["a", "b"]);
        let read: serde_json::Value = serde_json::from_slice(&error(None, &wrong)).unwrap();
        assert_eq!(read["error"]["data"]["requested"], "x\"y");
        assert!(read["id"].is_null());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(
            bytes: Vec<u8>,
            text in r#"\{"jsonrpc":"2.0","id":([0-9]{1,30}|"[^"\\]{0,9}"|null),"method":"[^"\\]{0,20}"(,"params":\{\})?\}"#,
        ) {
            fuzz(&bytes);
            fuzz(text.as_bytes());
        }
    }
}
