//! One operation of the API: what it does, who may, what goes in, what comes out, and how to try it.

use super::html::{block, code, escape, sentence, table};
use super::schema::Book;
use crate::proto::h1::Method;
use crate::serve::openapi::routes::{EVERYWHERE, Operation};
use simd_json::OwnedValue;
use simd_json::prelude::{
    ValueAsObject, ValueObjectAccess, ValueObjectAccessAsArray, ValueObjectAccessAsScalar, Writable,
};
use std::collections::BTreeMap;

/// Stands for the id of a stream or a job.
const ID: &str = "01J90000000000000000000000";
/// How a browser speaks to `/crawl/ws`.
const SOCKET: &str = r#"const socket = new WebSocket("ws://@host@/crawl/ws", "crawl.v1");
socket.onopen = () =>
  socket.send(JSON.stringify({ op: "crawl", id: "a", data: { urls: ["https://example.com/"] } }));
socket.onmessage = ({ data }) => console.log(JSON.parse(data));"#;

/// The operation as a part of the page; `host` is where the server listens.
pub(super) fn card(book: &Book<'_>, path: &str, operation: &Operation, host: &str) -> String {
    let (id, method) = (operation.id, operation.method.as_str());
    let mut out = format!(
        "<article class=\"card\" id=\"{id}\"><h3><span class=\"method\" data-method=\"{}\">{method}</span> {} \
         <span class=\"summary\">{}</span></h3><p>{}</p><p class=\"auth\">{}</p>",
        method.to_ascii_lowercase(),
        code(path),
        escape(operation.summary),
        sentence(operation.text),
        auth(operation),
    );
    let parameters = parameters(book, operation);
    if !parameters.is_empty() {
        out.push_str("<h4>Parameters</h4>");
        out.push_str(&table(
            &format!("Parameters of {id}"),
            &["Name", "Type", "Meaning"],
            &parameters,
        ));
    }
    if let Some(content) = operation.body.and_then(|name| content(book, "requestBodies", name)) {
        out.push_str("<h4>Body</h4>");
        out.push_str(&body(book, id, content));
    }
    out.push_str("<h4>Answers</h4>");
    out.push_str(&table(
        &format!("Answers of {id}"),
        &["Status", "What", "Body"],
        &answers(book, operation),
    ));
    out.push_str("<p class=\"note\">Beside these, <a href=\"#everywhere\">what any request may be refused with</a>.</p>");
    out.push_str("<h4>Try it</h4>");
    out.push_str(&block("curl", &sample(book, path, operation, host)));
    out.push_str("</article>");
    out
}

fn auth(operation: &Operation) -> String {
    match operation.scope {
        _ if operation.public => "No key is needed.".to_owned(),
        Some(scope) => {
            format!("Where the server has keys: one with the scope {}.", code(scope.as_str()))
        }
        None => "Where the server has keys: any of them.".to_owned(),
    }
}

fn content<'a>(book: &Book<'a>, kind: &str, name: &str) -> Option<&'a OwnedValue> {
    book.component(kind, name)?.get("content")
}

fn parameters(book: &Book<'_>, operation: &Operation) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for parameter in
        operation.parameters.iter().filter_map(|name| book.component("parameters", name))
    {
        let (Some(name), Some(place)) = (parameter.get_str("name"), parameter.get_str("in")) else {
            continue;
        };
        let Some(schema) = parameter.get("schema") else { continue };
        // An object in a query is a parameter for each of its fields.
        if let Some(fields) = schema.get("properties").and_then(|all| all.as_object()) {
            rows.extend(fields.iter().map(|(name, inner)| {
                let mut row = book.row(name, false, inner);
                row[0].push_str(" <span class=\"note\">query</span>");
                row
            }));
            continue;
        }
        let needed = parameter.get_bool("required") == Some(true);
        let mut row = book.row(name, needed, schema);
        row[0].push_str(&format!(" <span class=\"note\">{place}</span>"));
        if let Some(text) = parameter.get_str("description") {
            row[2] = sentence(text);
        }
        rows.push(row);
    }
    rows
}

/// The types that a body may have, and the fields of the JSON one.
fn body(book: &Book<'_>, id: &str, content: &OwnedValue) -> String {
    let mut out = format!("<p>{}</p>", types(book, content));
    let json = content.get("application/json").and_then(|json| json.get("schema"));
    let named = json.and_then(|schema| schema.get_str("$ref"));
    let name = named.and_then(|target| target.rsplit('/').next()).unwrap_or_default();
    if let Some(schema) = book.component("schemas", name) {
        out.push_str(&book.fields(&format!("Body of {id}"), schema));
    }
    out
}

fn types(book: &Book<'_>, content: &OwnedValue) -> String {
    let Some(content) = content.as_object() else { return String::new() };
    let one = |(name, told): (&String, &OwnedValue)| {
        let kind = told.get("schema").map(|schema| book.kind(schema)).unwrap_or_default();
        let kind = if kind == "string" { String::new() } else { kind };
        format!("{} {kind}", code(name)).trim_end().to_owned()
    };
    content.iter().map(one).collect::<Vec<_>>().join(", or ")
}

/// What it is answered with, good and bad.
fn answers(book: &Book<'_>, operation: &Operation) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (status, name) in operation.answers {
        let Some(answer) = book.component("responses", name) else { continue };
        let told = answer.get_str("description").map(sentence).unwrap_or_default();
        let content = answer.get("content").map(|content| types(book, content)).unwrap_or_default();
        rows.push(vec![status.to_string(), told, content]);
    }
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for error in operation.errors().filter(|error| !EVERYWHERE.contains(error)) {
        let link = format!("<a href=\"#code-{0}\">{0}</a>", error.as_str());
        let links = by_status.entry(error.status()).or_default();
        if !links.contains(&link) {
            links.push(link);
        }
    }
    for (status, links) in by_status {
        let refusal = super::schema::link("Refusal");
        rows.push(vec![status.to_string(), links.join(", "), refusal]);
    }
    rows
}

/// How to ask for it from a terminal.
fn sample(book: &Book<'_>, path: &str, operation: &Operation, host: &str) -> String {
    if operation.answers.iter().any(|(status, _)| *status == 101) {
        return SOCKET.replace("@host@", host);
    }
    let mut query = operation.query.to_owned();
    if !query.is_empty() {
        query.insert(0, '?');
    }
    let streams =
        operation.answers.iter().any(|(_, name)| name.contains("Events") || *name == "Latency");
    let mut out = String::from(if streams { "curl -N " } else { "curl " });
    match (operation.method, operation.body) {
        (Method::Delete, _) => out.push_str("-X DELETE "),
        (Method::Post, None) => out.push_str("-X POST "),
        _ => {}
    }
    out.push_str(&format!("'http://{host}{}{query}'", path.replace("{id}", ID)));
    let json = operation.body.and_then(|name| content(book, "requestBodies", name));
    let schema = json.and_then(|content| content.get("application/json")?.get("schema"));
    let name = schema.and_then(|schema| schema.get_str("$ref")?.rsplit('/').next());
    let example =
        name.and_then(|name| book.component("schemas", name)?.get_array("examples")?.first());
    if let Some(example) = example {
        let text = example.encode();
        out.push_str(&format!(" \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'"));
    }
    out
}

/// What any request may be refused with, before anybody looks at its path.
pub(super) fn everywhere() -> String {
    let names = EVERYWHERE.iter().map(|error| {
        format!("<a href=\"#code-{0}\">{0}</a> ({1})", error.as_str(), error.status())
    });
    names.collect::<Vec<_>>().join(", ")
}
