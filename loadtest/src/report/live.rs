//! The line that changes while a run goes on.

use crate::report::{bytes, rate, time};
use crate::run::tally::{Metric, Tally};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Shows each second on stderr.
#[derive(Debug)]
pub(crate) struct Live {
    on: bool,
    terminal: bool,
    duration: Option<Duration>,
}

impl Live {
    /// On when stderr is a terminal, or when asked for.
    pub(crate) fn new(progress: bool, duration: Option<Duration>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { on: progress || terminal, terminal, duration }
    }

    /// Whether anything is shown.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Shows one second of the measured group.
    pub(crate) fn show(
        &self,
        second: u64,
        tally: &Tally,
        in_flight: u64,
        waiting: u64,
        rss: Option<u64>,
    ) {
        if !self.on {
            return;
        }
        let total = self.duration.map_or(String::new(), |d| format!("/{}", d.as_secs()));
        let at = |quantile: f64| {
            tally
                .histogram(Metric::Latency)
                .map_or("–".to_owned(), |histogram| time(histogram.value_at_quantile(quantile)))
        };
        let rss = rss.map_or(String::new(), |rss| format!("  server {}", bytes(rss)));
        let line = format!(
            "{second}{total} s  {} ok/s  {} failed  p50 {}  p99 {}  max {}  {in_flight} in flight  \
             {waiting} waiting{rss}",
            rate(tally.counts.ok as f64),
            tally.counts.failed,
            at(0.5),
            at(0.99),
            at(1.0),
        );
        let mut err = std::io::stderr().lock();
        // A closed stderr is no reason to stop a measurement.
        let _ = if self.terminal {
            write!(err, "\r\x1b[K{line}").and_then(|()| err.flush())
        } else {
            writeln!(err, "{line}")
        };
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if self.on && self.terminal {
            let mut err = std::io::stderr().lock();
            // As above.
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}
