//! One run of `loadtest`, pinned to the client's core, and what it found.

use crate::Failure;
use crate::process::{binary, pinned};
use serde_json::Value;
use std::process::Stdio;

/// What a run found; figures of the measured group, CPU time of the server.
#[derive(Debug)]
pub(crate) struct Load(Value);

/// Runs `loadtest run` with these flags on a CPU, and watches the process of that id.
///
/// # Errors
/// When it can't run, or any measured request failed or broke a rule: figures of a load that did not
/// go well are figures of something else.
pub(crate) fn run(cpu: usize, pid: u32, flags: &[String]) -> Result<Load, Failure> {
    let output = pinned(cpu, &binary("loadtest")?)
        .args(["run", "--json", "-", "--pid", &pid.to_string()])
        .args(flags)
        .stdin(Stdio::null())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.stdout.is_empty() {
        return Err(format!("loadtest {}: {told}", flags.join(" ")).into());
    }
    let load = Load(serde_json::from_slice(&output.stdout)?);
    if !output.status.success() {
        let group = load.group();
        return Err(format!(
            "loadtest {}: {} answered, errors {}, unsent {}, violations {}, statuses {}",
            flags.join(" "),
            group["counts"]["ok"],
            group["errors"],
            group["counts"]["unsent"],
            group["violations"],
            group["statuses"],
        )
        .into());
    }
    Ok(load)
}

impl Load {
    fn group(&self) -> &Value {
        let groups = self.0["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        groups.iter().find(|group| group["measured"] == true).unwrap_or(&Value::Null)
    }

    /// The load, if each of its pages had a document: one that fails costs next to nothing, so it must
    /// not pass for one that was extracted.
    ///
    /// # Errors
    /// When any page failed.
    pub(crate) fn without_failed_pages(self) -> Result<Self, Failure> {
        match self.count("pages_failed") {
            0.0 => Ok(self),
            failed => Err(format!("{failed} pages failed").into()),
        }
    }

    /// A count of the measured group: `ok`, `events`, `results`, …
    pub(crate) fn count(&self, name: &str) -> f64 {
        self.group()["counts"][name].as_f64().unwrap_or(0.0)
    }

    /// Requests answered each second.
    pub(crate) fn rate(&self) -> f64 {
        self.per_second("ok")
    }

    /// So many of a count each second.
    pub(crate) fn per_second(&self, name: &str) -> f64 {
        self.count(name) / self.0["elapsed_s"].as_f64().unwrap_or(f64::INFINITY)
    }

    /// Microseconds at a quantile of a metric: `("ttfb", "p99_9_us")`.
    ///
    /// # Errors
    /// When nothing of the kind was measured.
    pub(crate) fn micros(&self, metric: &str, quantile: &str) -> Result<f64, Failure> {
        let value = self.group()["metrics"][metric][quantile].as_f64();
        value.ok_or_else(|| format!("loadtest measured no {metric} {quantile}").into())
    }

    /// Seconds of CPU that the server used in user mode and in the kernel.
    pub(crate) fn server_cpu_s(&self) -> (f64, f64) {
        let part = |name: &str| self.0["server"][name].as_f64().unwrap_or(0.0);
        (part("user_s"), part("system_s"))
    }
}
