#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::routes::PATHS;
use super::*;
use crate::crawl::request::{self, Options};
use crate::proto::h1::Method;
use crate::serve::route::Route;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use ulid::Ulid;

const ID: Ulid = Ulid(7);

fn description() -> Value {
    serde_json::from_str(&document(&Config::default())).expect("the description is JSON")
}

macro_rules! described {
    ($( $route:pat => $path:literal, )+) => {
        /// Has an arm for each route: one that is missing here does not compile.
        fn path_of(route: Route) -> &'static str {
            match route { $( $route => $path, )+ }
        }
        const DESCRIBED: &[&str] = &[$( $path ),+];
    };
}

described! {
    Route::Livez => "/livez",
    Route::Readyz => "/readyz",
    Route::Healthz => "/healthz",
    Route::Metrics => "/metrics",
    Route::Latency => "/latency",
    Route::Crawl => "/crawl",
    Route::CrawlStream => "/crawl/stream",
    Route::CrawlSse => "/crawl/sse",
    Route::CrawlWs => "/crawl/ws",
    Route::Extract => "/extract",
    Route::Stream(_) => "/streams/{id}",
    Route::StreamEvents(_) => "/streams/{id}/events",
    Route::StreamTrace(_) => "/streams/{id}/trace",
    Route::Console => "/",
    Route::Docs => "/docs",
    Route::OpenApi => "/openapi.json",
    Route::Mcp => "/mcp",
    Route::Deepsearch => "/deepsearch",
    Route::DeepsearchStream => "/deepsearch/stream",
    Route::DeepsearchSse => "/deepsearch/sse",
    Route::Jobs => "/jobs",
    Route::Job(_) => "/jobs/{id}",
    Route::JobEvents(_) => "/jobs/{id}/events",
    Route::Reload => "/admin/reload",
}

#[test]
fn every_route_is_described_with_its_methods_and_nothing_else_is() {
    let found: BTreeSet<&str> = PATHS.iter().map(|path| path.path).collect();
    assert_eq!(found, DESCRIBED.iter().copied().collect::<BTreeSet<_>>());
    for path in PATHS {
        let route = Route::find(&path.path.replace("{id}", &ID.to_string())).expect(path.path);
        assert_eq!(path_of(route), route.template());
        assert_eq!(path_of(route), path.path);
        let told: Vec<Method> = path.operations.iter().map(|operation| operation.method).collect();
        let taken: Vec<Method> =
            route.methods().iter().copied().filter(|method| *method != Method::Head).collect();
        assert_eq!(told, taken, "{}", path.path);
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_id_is_unique() {
    fn walk(value: &Value, root: &Value, ids: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                if let Some(target) = object.get("$ref").and_then(Value::as_str) {
                    assert!(root.pointer(&target[1..]).is_some(), "{target} leads nowhere");
                }
                if let Some(id) = object.get("operationId").and_then(Value::as_str) {
                    ids.push(id.to_owned());
                }
                object.values().for_each(|inner| walk(inner, root, ids));
            }
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, root, ids)),
            _ => {}
        }
    }
    let root = description();
    let mut ids = Vec::new();
    walk(&root, &root, &mut ids);
    let told = ids.len();
    assert_eq!(told, PATHS.iter().map(|path| path.operations.len()).sum::<usize>());
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), told);
    let tags: BTreeSet<&str> =
        root["tags"].as_array().unwrap().iter().filter_map(|tag| tag["name"].as_str()).collect();
    for operation in PATHS.iter().flat_map(|path| path.operations) {
        assert!(tags.contains(operation.tag), "{}", operation.tag);
    }
}

#[test]
fn every_error_code_may_come_from_somewhere() {
    let mut told: BTreeSet<&str> = PATHS
        .iter()
        .flat_map(|path| path.operations)
        .flat_map(Operation::errors)
        .map(ApiCode::as_str)
        .collect();
    // An op on a WebSocket is refused with this.
    told.insert(ApiCode::BadMessage.as_str());
    for code in ApiCode::ALL {
        assert!(told.contains(code.as_str()), "{}", code.as_str());
    }
    let root = description();
    let listed = root["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap().len();
    assert_eq!(listed, ApiCode::ALL.len());
}

/// The fields that serde expects, as its refusal of an unknown one lists them.
fn expected_fields(error: &crate::error::ApiError) -> BTreeSet<String> {
    assert_eq!(error.code, ApiCode::UnknownField);
    error.details[0].expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn properties(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

fn crawl(options: &Value) -> Result<Options, crate::error::ApiError> {
    let body = json!({"urls": ["http://a.example/"], "options": options});
    request::parse_crawl(&mut body.to_string().into_bytes(), &Config::default())
        .map(|request| Options::clone(&request.options))
}

#[test]
fn the_fields_of_requests_are_those_that_are_read() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    let error = crawl(&json!({"no_such_option": 1})).unwrap_err();
    assert_eq!(properties(&schemas["Options"]), expected_fields(&error));
    let body = |text: &str| text.as_bytes().to_vec();
    let error =
        request::parse_crawl(&mut body(r#"{"no_such": 1}"#), &Config::default()).unwrap_err();
    assert_eq!(properties(&schemas["CrawlRequest"]), expected_fields(&error));
    let error = request::parse_extract(&mut body(r#"{"no_such": 1}"#)).unwrap_err();
    assert_eq!(properties(&schemas["ExtractRequest"]), expected_fields(&error));
    let mut query = properties(&root["components"]["parameters"]["QueryOptions"]["schema"]);
    query.extend(["headers".to_owned(), "follow".to_owned()]);
    assert_eq!(properties(&schemas["Options"]), query);
}

#[test]
fn defaults_and_words_of_options_are_the_programs() {
    let root = description();
    let options = root["components"]["schemas"]["Options"]["properties"].as_object().unwrap();
    let defaults: Value = options
        .iter()
        .map(|(name, schema)| (name.clone(), schema["default"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(crawl(&defaults).unwrap(), Options::default());
    for (name, schema) in options {
        for word in schema["enum"].as_array().into_iter().flatten() {
            assert!(crawl(&json!({ name.as_str(): word })).is_ok(), "{name}: {word}");
        }
        if schema.get("enum").is_some() {
            // serde lists the words that it knows; an alias of ours is listed, too.
            let error = crawl(&json!({ name.as_str(): "no_such_word" })).unwrap_err();
            let known: BTreeSet<&str> =
                error.details[0].expected.split('`').skip(1).step_by(2).collect();
            let told: BTreeSet<&str> =
                schema["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert!(known.is_subset(&told), "{name}: {known:?} and {told:?}");
        }
    }
}

#[test]
fn bounds_of_options_are_the_programs() {
    let root = description();
    let options = root["components"]["schemas"]["Options"]["properties"].as_object().unwrap();
    let mut bounded = 0;
    for (name, schema) in options {
        let bounds = schema.get("anyOf").map_or(schema, |any| &any[1]);
        let Some(max) = bounds["maximum"].as_u64() else { continue };
        let min = bounds["minimum"].as_u64().expect("a number has both bounds");
        let takes = |value: u64| crawl(&json!({ name.as_str(): value })).is_ok();
        assert!(takes(min) && takes(max), "{name} takes {min} and {max}");
        assert!(!takes(max + 1), "{name} refuses {}", max + 1);
        assert!(min == 0 || !takes(min - 1) || name == "progress_ms" && min == 1, "{name}");
        bounded += 1;
    }
    assert_eq!(bounded, 9, "every number has its bounds");
}

#[test]
fn a_jobs_options_differ_in_its_time() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    let (mut jobs, streams) = (schemas["JobOptions"].clone(), &schemas["Options"]);
    let body = |deadline_ms: u64| {
        let options = json!({ "deadline_ms": deadline_ms });
        let body = json!({ "urls": ["http://a.example/"], "options": options });
        crate::jobs::request::parse(&mut body.to_string().into_bytes(), &Config::default())
    };
    let deadline = &jobs["properties"]["deadline_ms"];
    assert_eq!(deadline["default"], Config::default().jobs_deadline_s * 1000);
    let max = deadline["maximum"].as_u64().unwrap();
    assert!(body(1).is_ok() && body(max).is_ok() && body(max + 1).is_err() && body(0).is_err());
    jobs["properties"]["deadline_ms"] = streams["properties"]["deadline_ms"].clone();
    assert_eq!(&jobs, streams);
}

#[test]
fn bounds_follow_the_settings() {
    let config = Config { urls_max: 3, ..Config::default() };
    let root: Value = serde_json::from_str(&document(&config)).unwrap();
    assert_eq!(root["components"]["schemas"]["CrawlRequest"]["properties"]["urls"]["maxItems"], 3);
}
