//! The extractor as a native program, for scoring it on labelled pages: reads lines of
//! `{"url":…,"html":…}`, writes lines of `{"quality_score":…,"document":…,"cpu_us":…}`.

use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

use forebay_extractor::{Options, extract};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lock().lines() {
        let page: serde_json::Value = serde_json::from_str(&line?)?;
        let (html, url) = (page["html"].as_str().unwrap_or(""), page["url"].as_str().unwrap_or(""));
        let start = Instant::now();
        let mut answer = extract(html, url, &Options::default());
        let micros = start.elapsed().as_micros();
        answer.pop(); // the closing brace
        answer.extend_from_slice(format!(",\"cpu_us\":{micros}}}\n").as_bytes());
        let mut out = stdout().lock();
        out.write_all(&answer)?;
        out.flush()?;
    }
    Ok(())
}
