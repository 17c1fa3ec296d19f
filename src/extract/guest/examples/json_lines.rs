//! The extractor as a native program, for scoring it on labelled pages: reads lines of
//! `{"url":…,"html":…}`, writes lines of `{"quality_score":…,"document":…,"cpu_us":…}`.

use std::io::{BufRead, Write, stdin, stdout};

use forebay_extractor::{Options, extract};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lock().lines() {
        let page: serde_json::Value = serde_json::from_str(&line?)?;
        let (html, url) = (page["html"].as_str().unwrap_or(""), page["url"].as_str().unwrap_or(""));
        let start = cpu_ns()?;
        let mut answer = extract(html, url, &Options::default());
        let micros = (cpu_ns()? - start) / 1_000;
        answer.pop(); // the closing brace
        answer.extend_from_slice(format!(",\"cpu_us\":{micros}}}\n").as_bytes());
        let mut out = stdout().lock();
        out.write_all(&answer)?;
        out.flush()?;
    }
    Ok(())
}

/// CPU time of this thread (Linux: the first field of schedstat).
fn cpu_ns() -> Result<u64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().unwrap_or("").parse()?)
}
