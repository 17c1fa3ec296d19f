//! `loadtest run` end to end: against the synthetic origin, and against a small fake of the
//! streaming API that can be told to break its rules.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use fake::Fake;
use forebay_loadtest::origin::{Origin, OriginConfig};
use serde_json::Value;
use std::process::{Command, Output};

fn loadtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().unwrap()
}

/// Runs with `--json -`; the exit code and the measured group.
fn run(args: &[&str]) -> (i32, Value) {
    let mut all = vec!["run"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--json", "-"]);
    let output = loadtest(&all);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr))
    });
    (output.status.code().unwrap(), report["groups"][0].clone())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_request_of_an_open_loop_arrives_at_the_origin() {
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let url = format!("http://{}/page/{{{{n}}}}?size=3000&framing=chunked", origin.addr());
    let (code, group) =
        run(&["--url", &url, "--rate", "500", "--schedule", "poisson", "-n", "300", "-c", "8"]);
    assert_eq!(code, 0, "{group}");
    assert_eq!(group["counts"]["ok"], 300);
    assert_eq!(group["statuses"]["200"], 300);
    assert_eq!(group["metrics"]["latency"]["count"], 300);
    assert_eq!(group["metrics"]["service"]["count"], 300);
    let stats = origin.stats();
    assert_eq!((stats.requests, stats.completed, stats.connections), (300, 300, 8));
    assert_eq!(stats.paths.len(), 300, "each request its own page");
    assert!(group["counts"]["bytes_in"].as_u64().unwrap() >= 300 * 3000);
}

#[test]
fn threads_share_the_schedule_and_a_closed_loop_counts_too() {
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let url = format!("http://{}/page/1?size=500", origin.addr());
    let (_, group) =
        run(&["--url", &url, "--rate", "1000", "-n", "200", "--threads", "2", "-c", "4"]);
    assert_eq!((&group["counts"]["ok"], origin.stats().requests), (&200.into(), 200));
    origin.reset();
    let url = format!("http://{}/page/{{{{n}}}}?size=500", origin.addr());
    let (_, group) = run(&["--url", &url, "--closed", "3", "-n", "50", "--threads", "2"]);
    assert_eq!((&group["counts"]["ok"], origin.stats().requests), (&50.into(), 50));
    assert!(origin.stats().paths.contains_key("/page/49?size=500"), "numbered from 0");
}

#[test]
fn a_stall_is_felt_by_all_who_come_meanwhile() {
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let url = format!("http://{}/page/1?size=500&latency=100ms", origin.addr());
    // One connection serves 10 a second; 50 a second are meant to come.
    let (_, group) = run(&["--url", &url, "--rate", "50", "-n", "10", "-c", "1"]);
    let p50 = |metric: &str| group["metrics"][metric]["p50_us"].as_u64().unwrap();
    assert!(p50("service") < 200_000, "each answer alone is quick: {}", p50("service"));
    assert!(p50("latency") > 300_000, "but they waited for their turn: {}", p50("latency"));
}

#[test]
fn failures_are_classed_and_the_exit_status_tells() {
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let at = |path: &str| format!("http://{}{path}", origin.addr());
    for (path, class) in [
        ("/status/503", "status 503"),
        ("/reset?at=body", "read reset"),
        ("/close?at=body", "closed within the body"),
        ("/close?at=head", "early close"),
        ("/malformed/bad-chunk-size", "malformed body"),
        ("/malformed/bad-status", "malformed head"),
        ("/stall?at=head", "timeout"),
    ] {
        let (code, group) =
            run(&["--url", &at(path), "--rate", "100", "-n", "3", "--timeout", "300ms"]);
        assert_eq!((code, &group["errors"][class]), (1, &3.into()), "{path}: {group}");
    }
    let (_, group) = run(&["--url", &at("/status/503"), "--closed", "1", "-n", "5"]);
    assert_eq!(group["counts"]["connects"], 1, "a refused request keeps its connection");
    let (code, group) = run(&["--url", &at("/page/1?drop=1&size=99"), "--closed", "1", "-n", "5"]);
    assert_eq!((code, &group["counts"]["ok"]), (0, &5.into()), "a stale connection is replaced");
    let refused = loadtest(&["run", "--url", "https://x/"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("expected http://"), "{}", text(&refused.stderr));
}

#[test]
fn streams_are_whole_over_every_transport_with_and_without_cuts() {
    let fake = Fake::start("");
    for transport in ["ndjson", "sse", "ws"] {
        for cut in [&[][..], &["--cut-after-events", "4", "--cuts", "3"][..]] {
            let mut args = vec!["--url", &fake.url, "--transport", transport, "--check-full"];
            args.extend(["--crawl", "http://o/{{n}}", "--urls", "20", "--rate", "200", "-n", "40"]);
            args.extend(cut);
            let (code, group) = run(&args);
            let counts = &group["counts"];
            assert_eq!(code, 0, "{transport} {cut:?}: {group}");
            assert_eq!((&counts["ok"], &counts["streams"]), (&40.into(), &40.into()));
            assert_eq!((&counts["results"], &counts["pages_ok"]), (&800.into(), &800.into()));
            assert_eq!(counts["durable"], 40 * 22);
            assert_eq!(counts["cuts"].as_u64().unwrap() > 40, !cut.is_empty(), "{group}");
            assert_eq!(group["metrics"]["ttfr"]["count"], 40);
        }
    }
}

#[test]
fn streams_that_break_the_rules_are_caught() {
    for (fault, rule) in [
        ("lose", "seq missing"),
        ("double", "seq repeated"),
        ("cut", "no summary or error at the end"),
        ("index", "index repeated"),
    ] {
        let fake = Fake::start(fault);
        for transport in ["ndjson", "sse"] {
            let (code, group) = run(&[
                "--url",
                &fake.url,
                "--transport",
                transport,
                "--crawl",
                "http://o/{{n}}",
                "--urls",
                "5",
                "--rate",
                "100",
                "-n",
                "2",
            ]);
            assert_eq!(code, 1, "{fault}: {group}");
            assert!(group["violations"][rule].as_u64() >= Some(2), "{fault}: {group}");
        }
    }
}

#[test]
fn slow_readers_idle_crowds_and_storms_run_beside() {
    let origin = Origin::start(OriginConfig::default()).unwrap();
    let folder = std::env::temp_dir().join(format!("loadtest-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let scenario = folder.join("mixed.toml");
    let toml = format!(
        "url = \"http://{}\"\nduration = \"2s\"\n\
         [[group]]\nname = \"kind\"\npath = \"/page/1?size=2000\"\nrate = 100.0\n\
         [[group]]\nname = \"idle\"\nkind = \"idle\"\nconnections = 300\n\
         [[group]]\nname = \"storm\"\nkind = \"storm\"\nthen = \"reset\"\nrate = 100.0\n\
         [[group]]\nname = \"slow\"\npath = \"/page/2?size=4000\"\nclosed = 3\nrequests = 3\n\
         read_bytes_per_s = 8000\n",
        origin.addr()
    );
    std::fs::write(&scenario, toml).unwrap();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (json, html) = (file("run.json"), file("run.html"));
    let (hlog, hgrm) = (file("run.hlog"), file("run.hgrm"));
    let output = loadtest(&[
        "run",
        scenario.to_str().unwrap(),
        "--json",
        &json,
        "--html",
        &html,
        "--hlog",
        &hlog,
        "--hgrm",
        &hgrm,
        "--pid",
        &std::process::id().to_string(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{} {}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let counts = |group: usize| report["groups"][group]["counts"].clone();
    assert_eq!(counts(0)["ok"], 200);
    assert_eq!((&counts(1)["connects"], &counts(1)["idle_lost"]), (&300.into(), &0.into()));
    assert_eq!(counts(2)["ok"], 200);
    assert_eq!(counts(3)["ok"], 3);
    let slow = report["groups"][3]["metrics"]["service"]["p50_us"].as_u64().unwrap();
    assert!(slow > 300_000, "4 kB at 8 kB/s: {slow}");
    let html = std::fs::read_to_string(&html).unwrap();
    assert!(html.contains("<svg") && !html.contains("src=") && !html.contains("http-equiv"));
    assert!(std::fs::read_to_string(&hlog).unwrap().contains("\nTag=kind,0.000,1.000,"));
    assert!(std::fs::read_to_string(&hgrm).unwrap().contains("#[Max "));
    let both = file("both.html");
    assert!(loadtest(&["report", &json, &json, "--html", &both]).status.success());
    assert!(std::fs::read_to_string(&both).unwrap().contains("2 runs compared"));
    let mixed = loadtest(&["run", scenario.to_str().unwrap(), "--rate", "5"]);
    assert_eq!(mixed.status.code(), Some(2), "a flag that would be ignored is refused");
    std::fs::remove_dir_all(&folder).unwrap();
}
