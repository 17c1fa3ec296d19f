//! `GET /openapi.json`: the API as OpenAPI 3.1 describes it, written when the server starts and when a
//! reload has changed its settings.
//!
//! [`routes`] has one entry per operation; the shapes stand in JSON files beside it. There, a string
//! `"@name"` stands for what the code knows: a bound, a default, a list of codes. Tests hold the
//! whole to routes, error codes, request fields and their bounds.

pub(super) mod routes;

use crate::cluster::Health;
use crate::config::Config;
use crate::crawl::request;
use crate::error::{ApiCode, PageCode, Stage};
use crate::jobs::view::Status;
use crate::limits;
use crate::observe::series::Key;
use crate::proto::events::CacheUse;
use crate::proto::json;
use crate::stream::state::State;
use bytes::{BufMut, BytesMut};
use routes::{Operation, PATHS};
use simd_json::prelude::ValueAsObject;
use std::collections::BTreeMap;

/// The version of the API, not of the server.
const API_VERSION: &str = "1.0.0";

/// A query, as JSON writes it: no control characters (ASCII's spaces at its ends fall away), and
/// something that is no space.
const QUERY_PATTERN: &str = r"^[\\t-\\r ]*[^\\s\\x00-\\x1f\\x7f-\\x9f](?:[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?[\\t-\\r ]*$";

const INFO: &str = include_str!("openapi/info.json");
const SCHEMAS: &str = include_str!("openapi/schemas.json");
const OPTIONS: &str = include_str!("openapi/options.json");
const ANSWERS: &str = include_str!("openapi/answers.json");
const EVENTS: &str = include_str!("openapi/events.json");
const PARTS: &str = include_str!("openapi/parts.json");
/// What each code of a refusal means, and each code of a page.
const REFUSALS: &str = include_str!("openapi/refusals.json");
const FAILURES: &str = include_str!("openapi/failures.json");

/// The description, with the bounds that this server's settings make.
#[must_use]
pub fn document(config: &Config) -> String {
    let mut out = BytesMut::with_capacity(128 * 1024);
    out.put_slice(b"{\"openapi\":\"3.1.1\",");
    out.put_slice(inner(INFO).as_bytes());
    out.put_slice(b",\"paths\":{");
    for (at, path) in PATHS.iter().enumerate() {
        comma(&mut out, at);
        json::string(&mut out, path.path);
        out.put_slice(b":{");
        for (at, operation) in path.operations.iter().enumerate() {
            comma(&mut out, at);
            write_operation(&mut out, operation);
        }
        out.put_u8(b'}');
    }
    out.put_slice(b"},\"components\":{\"schemas\":{");
    for (at, file) in [SCHEMAS, OPTIONS, ANSWERS, EVENTS].into_iter().enumerate() {
        comma(&mut out, at);
        out.put_slice(inner(file).as_bytes());
    }
    out.put_slice(b",\"JobOptions\":");
    out.put_slice(job_options().as_bytes());
    out.put_slice(b"},");
    out.put_slice(inner(PARTS).as_bytes());
    out.put_slice(b"}}\n");
    let text = String::from_utf8(out.to_vec()).expect("all of it was text");
    filled(&text, config)
}

/// Names of the schemas in the order of their files, under what each file is about.
#[must_use]
pub fn schema_names() -> Vec<(&'static str, Vec<String>)> {
    let mut requests: Vec<_> = [SCHEMAS, OPTIONS].into_iter().flat_map(names_of).collect();
    requests.push("JobOptions".to_owned());
    vec![("Requests", requests), ("Events", names_of(EVENTS)), ("Answers", names_of(ANSWERS))]
}

fn names_of(file: &str) -> Vec<String> {
    let file = simd_json::to_owned_value(&mut file.as_bytes().to_vec()).expect("a file is JSON");
    let object = file.as_object().expect("a file is one object");
    object.keys().cloned().collect()
}

/// The schema of `options` by itself.
#[must_use]
pub fn options_schema(config: &Config) -> String {
    filled(options(), config)
}

fn options() -> &'static str {
    inner(OPTIONS).split_once(':').expect("the file is one named schema").1.trim()
}

/// The same options with the time that a job may take.
fn job_options() -> String {
    options().replace("\"@stream_deadline_ms", "\"@job_deadline_ms")
}

/// What stands between the outer braces of a file.
fn inner(file: &str) -> &str {
    let object = file.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    object.expect("a file of the description is one object").trim()
}

fn comma(out: &mut BytesMut, at: usize) {
    if at > 0 {
        out.put_u8(b',');
    }
}

fn write_operation(out: &mut BytesMut, operation: &Operation) {
    json::string(out, &operation.method.as_str().to_ascii_lowercase());
    out.put_slice(b":{\"operationId\":");
    json::string(out, operation.id);
    out.put_slice(b",\"tags\":[");
    json::string(out, operation.tag);
    out.put_slice(b"],\"summary\":");
    json::string(out, operation.summary);
    out.put_slice(b",\"description\":");
    match operation.scope {
        Some(scope) => {
            let text = format!("{} Scope: `{}`.", operation.text, scope.as_str());
            json::string(out, &text);
        }
        None => json::string(out, operation.text),
    }
    if operation.public {
        out.put_slice(b",\"security\":[]");
    }
    out.put_slice(b",\"parameters\":[");
    for (at, name) in operation.parameters.iter().enumerate() {
        comma(out, at);
        reference(out, "parameters", name);
    }
    out.put_u8(b']');
    if let Some(body) = operation.body {
        out.put_slice(b",\"requestBody\":");
        reference(out, "requestBodies", body);
    }
    out.put_slice(b",\"responses\":{");
    for (at, (status, name)) in operation.answers.iter().enumerate() {
        comma(out, at);
        json::string(out, &status.to_string());
        out.put_u8(b':');
        reference(out, "responses", name);
    }
    write_errors(out, operation);
    out.put_slice(b"}}");
}

/// One response for each status, with the codes that it may have.
fn write_errors(out: &mut BytesMut, operation: &Operation) {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let own = |status| operation.answers.iter().any(|(answer, _)| *answer == status);
    for code in operation.errors().filter(|code| !own(code.status())) {
        by_status.entry(code.status()).or_default().push(code.as_str());
    }
    for (status, codes) in by_status {
        out.put_slice(b",\"");
        json::integer(out, u64::from(status));
        out.put_slice(b"\":{\"description\":");
        json::string(out, &codes.join(", "));
        if matches!(status, 429 | 503) {
            out.put_slice(
                b",\"headers\":{\"Retry-After\":{\"$ref\":\"#/components/headers/RetryAfter\"}}",
            );
        }
        out.put_slice(b",\"content\":{\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/Refusal\"}}}}");
    }
}

fn reference(out: &mut BytesMut, kind: &str, name: &str) {
    out.put_slice(b"{\"$ref\":");
    json::string(out, &format!("#/components/{kind}/{name}"));
    out.put_u8(b'}');
}

/// Puts the code's own values in the place of `"@name"`.
fn filled(text: &str, config: &Config) -> String {
    let mut out = String::with_capacity(text.len() + 4096);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\"@") {
        let (name, after) = behind.split_once('"').expect("a name has an end");
        out.push_str(before);
        out.push_str(&value(name, config).unwrap_or_else(|| panic!("no value is named {name}")));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What a name in the files stands for, as JSON.
fn value(name: &str, config: &Config) -> Option<String> {
    fn list(names: impl Iterator<Item = impl AsRef<str>>) -> String {
        let quoted: Vec<String> = names.map(|name| format!("\"{}\"", name.as_ref())).collect();
        format!("[{}]", quoted.join(","))
    }
    Some(match name {
        "api_version" => format!("\"{API_VERSION}\""),
        "urls_max" => config.urls_max.to_string(),
        "urls_per_stream_max" => limits::URLS_PER_STREAM_MAX.to_string(),
        "job_urls_max" => config.jobs_urls_max.to_string(),
        "stream_deadline_ms" => request::Options::default().deadline_ms.to_string(),
        "stream_deadline_ms_max" => limits::DEADLINE_MS_MAX.to_string(),
        "job_deadline_ms" => (config.jobs_deadline_s * 1000).to_string(),
        "job_deadline_ms_max" => (limits::JOB_DEADLINE_S_MAX * 1000).to_string(),
        "jobs_listed_max" => limits::JOBS_LISTED_MAX.to_string(),
        "webhook_secret_bytes_min" => limits::WEBHOOK_SECRET_BYTES_MIN.to_string(),
        "webhook_secret_bytes_max" => limits::WEBHOOK_SECRET_BYTES_MAX.to_string(),
        "webhook_url_bytes_max" => limits::WEBHOOK_URL_BYTES_MAX.to_string(),
        "query_pattern" => format!("\"{QUERY_PATTERN}\""),
        "query_bytes_max" => limits::SEARCH_QUERY_BYTES_MAX.to_string(),
        "hits_max" => limits::SEARCH_HITS_MAX.min(config.urls_max).to_string(),
        "follow_depth_max" => limits::FOLLOW_DEPTH_MAX.to_string(),
        "follow_globs_max" => limits::FOLLOW_GLOBS_MAX.to_string(),
        "follow_glob_bytes_max" => limits::FOLLOW_GLOB_BYTES_MAX.to_string(),
        "body_bytes_max" => config.body_bytes_max.to_string(),
        "html_bytes_max" => config.extract_body_bytes_max.to_string(),
        "concurrency_max" => limits::CONCURRENCY_MAX.to_string(),
        "page_bytes_max" => limits::BODY_BYTES_MAX.to_string(),
        "redirects_max" => limits::REDIRECTS_MAX.to_string(),
        "headers_max" => limits::FETCH_HEADERS_MAX.to_string(),
        "url_bytes_max" => limits::URL_BYTES_MAX.to_string(),
        "idempotency_key_bytes_max" => limits::IDEMPOTENCY_KEY_BYTES_MAX.to_string(),
        "ws_id_bytes_max" => limits::WS_ID_BYTES_MAX.to_string(),
        "ws_credit_max" => limits::WS_CREDIT_MAX.to_string(),
        "api_codes" => list(ApiCode::ALL.into_iter().map(ApiCode::as_str)),
        "api_kinds" => {
            let mut kinds: Vec<_> = ApiCode::ALL.into_iter().map(ApiCode::kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            list(kinds.into_iter())
        }
        "api_meanings" => REFUSALS.trim().to_owned(),
        "page_meanings" => FAILURES.trim().to_owned(),
        "page_codes" => list(PageCode::ALL.into_iter().map(PageCode::as_str)),
        "stages" => list(Stage::ALL.into_iter().map(Stage::as_str)),
        "states" => list(State::ALL.into_iter().map(State::as_str)),
        "job_states" => list(Status::ALL.into_iter().map(Status::as_str)),
        "redis_states" => {
            list(["off"].into_iter().chain(Health::ALL.into_iter().map(Health::as_str)))
        }
        "series" => list(Key::all().map(Key::name)),
        "mcp_versions" => list(super::mcp::versions()),
        "cache_uses" => list(CacheUse::ALL.into_iter().map(CacheUse::as_str)),
        _ => return None,
    })
}

#[cfg(test)]
#[path = "openapi/tests.rs"]
mod tests;
