//! `POST /mcp`: tools for language models by the Model Context Protocol over Streamable HTTP.
//!
//! Both eras of the protocol are served, and neither has a session here: revision 2026-07-28 carries
//! everything in each request, and for the earlier ones a session is the server's to offer, which we
//! don't, so that any core and any node can answer any request. `GET` and `DELETE` are 405 then.
//!
//! | method | answer |
//! | --- | --- |
//! | `server/discover`, `initialize`, `ping` | who we are and what we speak |
//! | `tools/list` | the tools with their schemas |
//! | `tools/call` | a tool's result; with progress in front of it as Server-Sent Events |
//! | notifications | 202, and nothing happens: closing the connection is what cancels a call |

mod call;
mod crawl;
pub mod rpc;
mod tools;

pub use tools::list;

use super::access::keys::Scope;
use super::ask::{Ask, BodyType};
use super::conn::{Conn, Gone};
use super::handle::take_body;
use super::reply::{JSON, Reply};
use crate::limits::{
    MCP_CALL_BYTES_MAX, MCP_ID_BYTES_MAX, MCP_MESSAGE_BYTES_MAX, READ_TWICE_HERE_BYTES_MAX,
};
use crate::proto::base64::base64;
use crate::proto::h1::{Request, list_members};
use rpc::{Id, Message, Wrong};
use simd_json::OwnedValue;
use simd_json::prelude::{ValueObjectAccess, ValueObjectAccessAsScalar};

/// The revision whose requests carry everything with them.
const MODERN: &str = "2026-07-28";
/// Revisions that begin with `initialize`, newest first.
const LEGACY: [&str; 2] = ["2025-11-25", "2025-06-18"];

/// Every revision that is spoken, newest first.
pub fn versions() -> impl Iterator<Item = &'static str> {
    [MODERN].into_iter().chain(LEGACY)
}

/// What stands in the head of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    version: Option<Box<str>>,
    method: Option<Box<str>>,
    name: Option<Box<str>>,
    /// Whether the client takes Server-Sent Events.
    events: bool,
}

impl Fields {
    /// Looks at a request's head.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let text = |name| Some(std::str::from_utf8(request.field(name)?).ok()?.into());
        let mut accepted = request.fields().all("accept").flat_map(list_members);
        Self {
            version: text("mcp-protocol-version"),
            method: text("mcp-method"),
            name: text("mcp-name"),
            events: accepted.any(|member| {
                let essence = member.split(|byte| *byte == b';').next().unwrap_or_default();
                essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
            }),
        }
    }
}

/// Answers one message.
pub(super) async fn handle(conn: &mut Conn, ask: &Ask) -> Result<(), Gone> {
    let fields = ask.mcp.as_deref().cloned().unwrap_or_default();
    let bytes_max = body_bytes_max(conn, &fields);
    let types = [BodyType::Json];
    let mut body = match take_body(conn, ask, &types, "application/json", bytes_max).await? {
        Ok(body) => body,
        Err(error) => return conn.refuse(&error).await,
    };
    let (bytes, read) = (body.len(), move || rpc::parse(&mut body));
    let reading = conn.node.shared.reading.read(bytes, READ_TWICE_HERE_BYTES_MAX, read);
    let message = match reading.await {
        Ok(Ok(message)) => message,
        Ok(Err(wrong)) => return refuse(conn, None, &wrong).await,
        Err(error) => return conn.refuse(&error).await,
    };
    let Some(id) = message.id.clone() else {
        // A notification, or an answer to a question that we never asked.
        return conn.reply(Reply::empty(202)).await;
    };
    if id.len() > MCP_ID_BYTES_MAX {
        let wrong = Wrong::invalid(format!("an id has {MCP_ID_BYTES_MAX} bytes at most"));
        return refuse(conn, None, &wrong).await;
    }
    let modern = match era(&fields, &message) {
        Ok(modern) => modern,
        Err(wrong) => return refuse(conn, Some(&id), &wrong).await,
    };
    dispatch(conn, &fields, message, id, modern).await
}

/// Bytes that a message may have: what its head says that it is, and what its key may call.
fn body_bytes_max(conn: &Conn, fields: &Fields) -> usize {
    let may = |scope| conn.visit.key().is_none_or(|key| key.has(scope));
    let calls = fields.method.as_deref().is_none_or(|method| method == "tools/call");
    let named = |tool| fields.name.as_deref().is_none_or(|name| name == tool);
    // A name in base64 is compared with the body's alone.
    let coded = fields.name.as_deref().is_some_and(|name| name.starts_with("=?"));
    if calls && may(Scope::Extract) && (coded || named("extract")) {
        conn.node.shared.config.extract_body_bytes_max.max(MCP_CALL_BYTES_MAX)
    } else if calls && may(Scope::Crawl) {
        MCP_CALL_BYTES_MAX
    } else {
        MCP_MESSAGE_BYTES_MAX
    }
}

async fn dispatch(
    conn: &mut Conn,
    fields: &Fields,
    message: Message,
    id: Id,
    modern: bool,
) -> Result<(), Gone> {
    let result = match message.method.as_str() {
        "initialize" if !modern => tools::initialized(version_for(&message)),
        "server/discover" => tools::discovered(&versions().collect::<Vec<_>>()),
        "ping" if !modern => "{".to_owned(),
        "tools/list" => tools::listed(&conn.site.described().tools, modern),
        "tools/call" => {
            let asked = call::Asked { id, modern, events: fields.events };
            return call::run(conn, asked, message).await;
        }
        other => {
            let name: String = other.chars().take(64).collect();
            let wrong = Wrong {
                code: rpc::METHOD_NOT_FOUND,
                ..Wrong::invalid(format!("no method {name}"))
            };
            let wrong = Wrong { status: if modern { 404 } else { 200 }, ..wrong };
            return refuse(conn, Some(&id), &wrong).await;
        }
    };
    let text = rpc::result(&id, &result, modern);
    conn.reply(Reply::new(200, JSON, text)).await
}

/// The revision for who asks to begin a session: its own if we know it, else our newest.
fn version_for(message: &Message) -> &'static str {
    let asked = message.params.get_str("protocolVersion").unwrap_or_default();
    LEGACY.into_iter().find(|known| *known == asked).unwrap_or(LEGACY[0])
}

/// Whether a request is one of those that carry everything with them, and then whether it does.
fn era(fields: &Fields, message: &Message) -> Result<bool, Wrong> {
    let meta = message.params.get("_meta");
    let told = meta.and_then(|meta| meta.get_str("io.modelcontextprotocol/protocolVersion"));
    let header = fields.version.as_deref();
    if message.method == "initialize" && told.is_none() {
        return Ok(false);
    }
    if let (None, None) | (None, Some(_)) =
        (told, header.filter(|version| !LEGACY.contains(version)))
    {
        return match header {
            None => Ok(false),
            Some(version) if LEGACY.contains(&version) => Ok(false),
            Some(MODERN) => {
                Err(Wrong::params("_meta lacks io.modelcontextprotocol/protocolVersion"))
            }
            Some(version) => Err(Wrong::version(version, &versions().collect::<Vec<_>>())),
        };
    }
    let told = told.unwrap_or_default();
    let body_name = match message.method.as_str() {
        "tools/call" => Some(message.params.get_str("name").unwrap_or_default()),
        _ => None,
    };
    let name_fits =
        body_name.is_none_or(|name| fields.name.as_deref().is_some_and(|field| named(field, name)));
    if header != Some(told) {
        return Err(Wrong::mismatch("MCP-Protocol-Version is not what _meta says"));
    }
    if told != MODERN {
        return Err(Wrong::version(told, &versions().collect::<Vec<_>>()));
    }
    if fields.method.as_deref() != Some(message.method.as_str()) {
        return Err(Wrong::mismatch("Mcp-Method is not the body's method"));
    }
    if !name_fits {
        return Err(Wrong::mismatch("Mcp-Name is not the body's params.name"));
    }
    let capabilities = meta.and_then(|meta| meta.get("io.modelcontextprotocol/clientCapabilities"));
    match capabilities {
        Some(OwnedValue::Object(_)) => Ok(true),
        _ => Err(Wrong::params("_meta lacks io.modelcontextprotocol/clientCapabilities")),
    }
}

/// Whether a field's value stands for a name: itself, or in base64 between its marks.
fn named(field: &str, name: &str) -> bool {
    match field.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(coded) => coded == base64(name.as_bytes()),
        None => field == name,
    }
}

async fn refuse(conn: &mut Conn, id: Option<&Id>, wrong: &Wrong) -> Result<(), Gone> {
    conn.reply(Reply::new(wrong.status, JSON, rpc::error(id, wrong))).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn judge(
        version: Option<&str>,
        method: Option<&str>,
        name: Option<&str>,
        body: &str,
    ) -> Result<bool, i64> {
        let fields = Fields {
            version: version.map(Box::from),
            method: method.map(Box::from),
            name: name.map(Box::from),
            events: false,
        };
        let message = rpc::parse(&mut body.as_bytes().to_vec()).unwrap();
        era(&fields, &message).map_err(|wrong| wrong.code)
    }

    fn body(method: &str, version: &str, more: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{more}"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        )
    }

    #[test]
    fn each_era_is_told_by_its_marks() {
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
        assert_eq!(judge(None, None, None, hello), Ok(false));
        assert_eq!(judge(None, None, None, list), Ok(false));
        assert_eq!(judge(Some("2025-06-18"), None, None, list), Ok(false));
        assert_eq!(judge(Some("1900-01-01"), None, None, list), Err(-32022));
        assert_eq!(judge(Some(MODERN), Some("tools/list"), None, list), Err(-32602));
        let modern = body("tools/list", MODERN, "");
        assert_eq!(judge(Some(MODERN), Some("tools/list"), None, &modern), Ok(true));
        assert_eq!(judge(None, Some("tools/list"), None, &modern), Err(-32020));
        assert_eq!(judge(Some("2025-11-25"), Some("tools/list"), None, &modern), Err(-32020));
        assert_eq!(judge(Some(MODERN), None, None, &modern), Err(-32020));
        assert_eq!(judge(Some(MODERN), Some("ping"), None, &modern), Err(-32020));
        let old = body("tools/list", "1900-01-01", "");
        assert_eq!(judge(Some("1900-01-01"), Some("tools/list"), None, &old), Err(-32022));
    }

    #[test]
    fn a_call_names_its_tool_in_the_head_too() {
        let call = body("tools/call", MODERN, r#""name":"crawl","#);
        let judge = |name| judge(Some(MODERN), Some("tools/call"), name, &call);
        assert_eq!(judge(Some("crawl")), Ok(true));
        assert_eq!(judge(Some("=?base64?Y3Jhd2w=?=")), Ok(true));
        assert_eq!(judge(Some("=?base64?Y3Jhd2w?=")), Err(-32020));
        assert_eq!(judge(Some("extract")), Err(-32020));
        assert_eq!(judge(None), Err(-32020));
    }
}
