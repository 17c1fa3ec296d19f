//! Pages and guests of every kind, hostile ones above all: each costs its own page an error with
//! the right code, and the next page on the same worker is as good as ever.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::error::{PageCode, PageError, Stage};

mod guests;
mod pages;

/// CPU time of the calling thread, so that a busy machine changes no result.
fn cpu_clock() -> Duration {
    // Fields 14 and 15 of stat: user and system time in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn config() -> ExtractConfig {
    ExtractConfig { instances: 16, cpu_budget: Duration::from_millis(500), ..Default::default() }
}

/// The built-in module, compiled once for all tests, ticked for ever.
fn built_in() -> &'static Extractor {
    static LOADED: OnceLock<(Extractor, Ticker)> = OnceLock::new();
    let (extractor, _) = LOADED.get_or_init(|| {
        // A test run without optimization must not fail for its slowness.
        let config = ExtractConfig { cpu_budget: Duration::from_secs(5), ..config() };
        let extractor = Extractor::load(&config).unwrap();
        let ticker = Ticker::start(&extractor, Duration::from_millis(5)).unwrap();
        (extractor, ticker)
    });
    extractor
}

/// A folder of its own, gone at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("forebay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn extract(worker: &mut Worker, body: &[u8]) -> Result<Extracted, PageError> {
    worker.extract(&Input::new(body, "https://example.com/a", &Options::default()))
}

fn code(result: Result<Extracted, PageError>) -> PageCode {
    let error = result.unwrap_err();
    assert_eq!(error.stage, Stage::Extract);
    error.code
}

fn document(extracted: &Extracted) -> Value {
    serde_json::from_slice(&extracted.document()).unwrap()
}

/// Extracts a good page and checks what comes.
fn assert_works(worker: &mut Worker) {
    let extracted = extract(worker, b"<title>A</title><h1>A</h1><p>Some words here.</p>").unwrap();
    let document = document(&extracted);
    assert_eq!(document["title"], "A");
    assert!(document["text"].as_str().unwrap().contains("Some words here."));
}
