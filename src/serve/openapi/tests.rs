#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::routes::PATHS;
use super::*;
use crate::config::reload::Outcome;
use crate::crawl::request::deepsearch::parse_deepsearch;
use crate::crawl::request::{self, Options};
use crate::jobs::view::{Delivery, View};
use crate::observe::query::LatencyQuery;
use crate::proto::events::Counts;
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
    for (schema, count) in
        [("ErrorCode", ApiCode::ALL.len()), ("PageErrorCode", PageCode::ALL.len())]
    {
        let schema = &root["components"]["schemas"][schema];
        let listed: BTreeSet<&str> =
            schema["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let meanings = schema["x-meanings"].as_object().unwrap();
        assert_eq!(listed.len(), count);
        assert_eq!(meanings.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
    }
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
    let error = parse_deepsearch(&mut body(r#"{"no_such": 1}"#), &Config::default()).unwrap_err();
    assert_eq!(properties(&schemas["DeepsearchRequest"]), expected_fields(&error));
    let error = crawl(&json!({"follow": {"no_such": 1}})).unwrap_err();
    assert_eq!(properties(&schemas["Follow"]), expected_fields(&error));
    let error = job(&json!({"no_such": 1})).unwrap_err();
    assert_eq!(properties(&schemas["JobRequest"]), expected_fields(&error));
    let urls = ["http://a.example/"];
    let error = job(&json!({"urls": urls, "webhook": {"no_such": 1}})).unwrap_err();
    let webhook = &schemas["JobRequest"]["properties"]["webhook"]["anyOf"][1];
    assert_eq!(properties(webhook), expected_fields(&error));
}

fn job(body: &Value) -> Result<(), crate::error::ApiError> {
    crate::jobs::request::parse(&mut body.to_string().into_bytes(), &Config::default()).map(drop)
}

/// Names of the parameters in an operation's query; of those that are an object, its fields.
fn query_of(root: &Value, path: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for parameter in root["paths"][path]["get"]["parameters"].as_array().unwrap() {
        let parameter = root.pointer(&parameter["$ref"].as_str().unwrap()[1..]).unwrap();
        if parameter["in"] != "query" {
            continue;
        }
        match parameter["schema"].get("properties") {
            Some(_) => names.extend(properties(&parameter["schema"])),
            None => drop(names.insert(parameter["name"].as_str().unwrap().to_owned())),
        }
    }
    names
}

#[test]
fn the_parameters_of_queries_are_those_that_are_read() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    let options = properties(&schemas["Options"]);
    // What an address can't carry.
    let options = || options.iter().filter(|name| !["headers", "follow"].contains(&name.as_str()));
    let mut crawl: BTreeSet<String> = options().cloned().collect();
    crawl.insert("url".to_owned());
    assert_eq!(query_of(&root, "/crawl/sse"), crawl);
    let mut search = properties(&schemas["DeepsearchRequest"]);
    search.remove("options");
    search.extend(options().cloned());
    assert_eq!(query_of(&root, "/deepsearch/sse"), search);
    let error = LatencyQuery::parse("no_such=1").unwrap_err();
    let known = error.details[0].expected.replace(" or ", ", ");
    let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
    assert_eq!(query_of(&root, "/latency"), known);
}

#[test]
fn the_options_of_a_query_are_those_of_a_body() {
    let root = description();
    let schemas = &root["components"]["schemas"];
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

/// Whether a text that is as long as it may be is taken, and none that is longer or too short.
fn judge_length(schema: &Value, filling: &str, around: (&str, &str), takes: impl Fn(&str) -> bool) {
    let text = |length: usize| {
        let filled = length.saturating_sub(around.0.len() + around.1.len());
        format!("{}{}{}", around.0, filling.repeat(filled), around.1)
    };
    let most = usize::try_from(schema["maxLength"].as_u64().expect("a bound")).unwrap();
    assert!(takes(&text(most)), "{schema} takes {most}");
    assert!(!takes(&text(most + 1)), "{schema} refuses {}", most + 1);
    if let Some(least) = schema["minLength"].as_u64() {
        let least = usize::try_from(least).unwrap();
        assert!(takes(&text(least)), "{schema} takes {least}");
        assert!(!takes(&text(least - 1)), "{schema} refuses {}", least - 1);
    }
}

#[test]
fn bounds_of_texts_are_the_programs() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    let url = ("http://a.test/", "");
    judge_length(&schemas["Url"], "x", url, |url| {
        let body = json!({ "urls": [url] }).to_string();
        request::parse_crawl(&mut body.into_bytes(), &Config::default()).is_ok()
    });
    judge_length(&schemas["DeepsearchRequest"]["properties"]["query"], "x", ("", ""), |query| {
        let body = json!({ "query": query }).to_string();
        parse_deepsearch(&mut body.into_bytes(), &Config::default()).is_ok()
    });
    judge_length(&schemas["Patterns"]["items"], "x", ("", ""), |glob| {
        crawl(&json!({ "follow": { "include": [glob] } })).is_ok()
    });
    let webhook = &schemas["JobRequest"]["properties"]["webhook"]["anyOf"][1]["properties"];
    let urls = ["http://a.example/"];
    judge_length(&webhook["url"], "x", url, |url| {
        let hook = json!({ "url": url, "secret": "x".repeat(32) });
        job(&json!({ "urls": urls, "webhook": hook })).is_ok()
    });
    judge_length(&webhook["secret"], "x", ("", ""), |secret| {
        let hook = json!({ "url": "http://a.example/", "secret": secret });
        job(&json!({ "urls": urls, "webhook": hook })).is_ok()
    });
    let key = &root["components"]["parameters"]["IdempotencyKey"]["schema"];
    judge_length(key, "x", ("", ""), |key| {
        crate::serve::streams::idempotency_key(key.as_bytes()).is_ok()
    });
    let pattern = schemas["Options"]["properties"]["user_agent"]["pattern"].as_str().unwrap();
    assert!(pattern.contains("{1,256}"), "{pattern}");
    let takes = |length: usize| crawl(&json!({ "user_agent": "x".repeat(length) })).is_ok();
    assert!(takes(256) && !takes(257) && !takes(0));
}

#[test]
fn numbers_of_other_requests_have_the_programs_bounds() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    let follow = &schemas["Follow"]["properties"];
    for name in ["depth", "max_pages"] {
        let takes = |value: u64| crawl(&json!({ "follow": { name: value } })).is_ok();
        let max = follow[name]["maximum"].as_u64().unwrap();
        assert!(takes(1) && takes(max) && !takes(0) && !takes(max + 1), "{name}");
    }
    let most = usize::try_from(schemas["Patterns"]["maxItems"].as_u64().unwrap()).unwrap();
    let takes =
        |count: usize| crawl(&json!({ "follow": { "exclude": vec!["/x"; count] } })).is_ok();
    assert!(takes(most) && !takes(most + 1));
    let takes = |limit: u64| {
        let body = json!({ "query": "q", "limit": limit }).to_string();
        parse_deepsearch(&mut body.into_bytes(), &Config::default()).is_ok()
    };
    let max = schemas["DeepsearchRequest"]["properties"]["limit"]["maximum"].as_u64().unwrap();
    assert!(takes(1) && takes(max) && !takes(0) && !takes(max + 1));
}

#[test]
fn a_job_and_a_reload_have_the_fields_that_are_described() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    let at = std::time::SystemTime::now();
    let view = View {
        id: ID,
        status: Status::Failed,
        error: Some("why"),
        place: "memory",
        counts: Counts::default(),
        last_seq: Some(1),
        bytes: 1,
        created: at,
        started: Some(at),
        ended: Some(at),
        deadline: at,
        retention: std::time::Duration::from_secs(1),
        webhook: Some(Delivery::default()),
    };
    let told: Value = serde_json::from_slice(&view.json()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&told), properties(&schemas["Job"]));
    let webhook = &schemas["Job"]["properties"]["webhook"];
    assert_eq!(keys(&told["webhook"]), properties(webhook));
    let required = |schema: &Value| {
        let names = schema["required"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(required(webhook), properties(webhook));
    let mut always = required(&schemas["Job"]);
    always.insert("webhook".to_owned());
    assert_eq!(always, properties(&schemas["Job"]));
    let done = Outcome::Done { changed: Vec::new(), restart: Vec::new(), files: Vec::new() };
    for (outcome, name) in [(done, "Reloaded"), (Outcome::Refused(Vec::new()), "NotReloaded")] {
        let told: Value = serde_json::from_slice(&outcome.to_json()).unwrap();
        assert_eq!(keys(&told), properties(&schemas[name]));
        assert_eq!(told["reloaded"], schemas[name]["properties"]["reloaded"]["const"]);
    }
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
