//! What is shown of a server: two looks, and what lies between them.

use super::sample::{Sample, Series};
use crate::observe::summary::time;

/// A screen's contents.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    /// The server, its version and its state.
    pub(super) title: String,
    /// Names with their values.
    pub(super) facts: Vec<(&'static str, String)>,
    /// A row per core; the first has the headings.
    pub(super) cores: Vec<Vec<String>>,
    /// How busy each core's lane is, 0 to 1.
    pub(super) busy: Vec<f64>,
    /// A row per series; the first has the headings.
    pub(super) latency: Vec<Vec<String>>,
    /// Why the server was not reached the last time.
    pub(super) lost: Option<String>,
}

impl View {
    /// Of the latest look, with rates since the one before.
    pub(super) fn of(name: &str, before: Option<&Sample>, now: &Sample) -> Self {
        let health = &now.health;
        let state = if health.draining { "draining" } else { &health.status };
        let title = format!(
            "forebay {} at {name}: {state}, extractor {}",
            health.version, health.extractor
        );
        let between = Between { before, now };
        Self {
            title,
            facts: facts(&between),
            busy: now.cores().iter().map(|core| between.busy(core)).collect(),
            cores: cores(&between),
            latency: latency(&now.latency),
            lost: None,
        }
    }

    /// The view as text, for scripts.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.title);
        for (name, value) in &self.facts {
            out.push_str(&format!("{name:<24} {value}\n"));
        }
        for table in [&self.cores, &self.latency] {
            out.push('\n');
            out.push_str(&align(table));
        }
        out
    }
}

struct Between<'a> {
    before: Option<&'a Sample>,
    now: &'a Sample,
}

impl Between<'_> {
    /// How much `read` grew in a second.
    fn rate(&self, read: impl Fn(&Sample) -> f64) -> f64 {
        let Some(before) = self.before else { return 0.0 };
        let seconds = self.now.at.saturating_duration_since(before.at).as_secs_f64();
        if seconds > 0.0 { (read(self.now) - read(before)).max(0.0) / seconds } else { 0.0 }
    }

    fn rate_of(&self, name: &str) -> f64 {
        self.rate(|sample| sample.sum(name))
    }

    fn busy(&self, core: &str) -> f64 {
        self.rate(|sample| sample.of("forebay_lane_busy_seconds_total", "core", core)).min(1.0)
    }
}

fn facts(between: &Between<'_>) -> Vec<(&'static str, String)> {
    let now = between.now;
    let of = |name, limit| {
        format!("{:.0} of {:.0}", now.sum(name), now.of("forebay_limit", "name", limit))
    };
    let hits = between.rate(|s| s.of("forebay_cache_lookups_total", "outcome", "hit"));
    let lookups = between.rate_of("forebay_cache_lookups_total");
    let ratio = if lookups > 0.0 {
        format!(", {:.0} % hits", 100.0 * hits / lookups)
    } else {
        String::new()
    };
    vec![
        ("connections", of("forebay_connections_open", "server.connections_max")),
        ("streams", of("forebay_streams_active", "stream.streams_max")),
        ("websockets", format!("{:.0}", now.sum("forebay_websockets_open"))),
        ("requests/s", format!("{:.1}", between.rate_of("forebay_requests_total"))),
        ("refused/s", format!("{:.1}", between.rate_of("forebay_api_errors_total"))),
        ("pages/s", format!("{:.1}", between.rate_of("forebay_pages_total"))),
        ("events/s", format!("{:.1}", between.rate_of("forebay_events_total"))),
        ("sent", format!("{}/s", bytes(between.rate_of("forebay_sent_bytes_total")))),
        ("fetched", format!("{}/s", bytes(between.rate_of("forebay_fetched_bytes_total")))),
        (
            "cache",
            format!(
                "{:.0} pages, {}{ratio}",
                now.sum("forebay_cache_entries"),
                bytes(now.sum("forebay_cache_bytes"))
            ),
        ),
        ("memory", bytes(now.sum("process_resident_memory_bytes"))),
        ("cpu", format!("{:.0} %", 100.0 * between.rate_of("process_cpu_seconds_total"))),
    ]
}

fn cores(between: &Between<'_>) -> Vec<Vec<String>> {
    let heads = ["core", "lane", "queue", "jobs/s", "ops/s", "tasks", "buffers", "letters"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for core in between.now.cores() {
        let now = |name| between.now.of(name, "core", &core);
        let rate = |name| between.rate(|sample| sample.of(name, "core", &core));
        rows.push(vec![
            core.clone(),
            format!("{:.0} %", 100.0 * between.busy(&core)),
            format!(
                "{:.0}/{:.0}",
                now("forebay_lane_queue_depth"),
                now("forebay_lane_queue_capacity")
            ),
            format!("{:.1}", rate("forebay_lane_jobs_total")),
            format!("{:.0}", rate("forebay_ring_operations_total")),
            format!("{:.0}", now("forebay_loop_tasks")),
            format!("{:.0}", now("forebay_arena_buffers_in_use")),
            format!("{:.0}", now("forebay_mailbox_depth")),
        ]);
    }
    rows
}

fn latency(series: &[Series]) -> Vec<Vec<String>> {
    let heads = ["series", "count", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(series.iter().filter(|one| one.count > 0).map(|one| {
        let times = [one.p50, one.p90, one.p99, one.p999, one.max].map(time);
        [one.name.clone(), one.count.to_string()].into_iter().chain(times).collect()
    }));
    rows
}

/// Names to the left, figures to the right.
fn align(rows: &[Vec<String>]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| match at {
            0 => format!("{cell:<width$}", width = width(at)),
            _ => format!("  {cell:>width$}", width = width(at)),
        });
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

/// Bytes with three digits and a unit.
fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::sample;
    use super::*;
    use std::time::{Duration, Instant};

    fn look(at: Instant, jobs: u32, busy: f64) -> Sample {
        let health =
            br#"{"status":"ok","version":"0.1.0","extractor":"ready","draining":false,"cores":2}"#;
        let latency = br#"{"unit":"us","series":[{"name":"crawl.ndjson.ttfb","count":12,"mean":90.0,"p50":80,"p90":120,"p99":1500,"p99.9":1600,"p99.99":1600,"max":1601}]}"#;
        let metrics = format!(
            "# HELP forebay_limit Limits in force.\n# TYPE forebay_limit gauge\n\
             forebay_limit{{name=\"server.connections_max\"}} 20000\n\
             forebay_connections_open 3\nforebay_requests_total{{endpoint=\"crawl\",status=\"2xx\"}} {jobs}\n\
             forebay_lane_jobs_total{{core=\"0\"}} {jobs}\nforebay_lane_jobs_total{{core=\"1\"}} 0\n\
             forebay_lane_busy_seconds_total{{core=\"0\"}} {busy}\n\
             forebay_lane_queue_capacity{{core=\"0\"}} 256\n\
             process_resident_memory_bytes 52428800\n"
        );
        Sample::new(
            at,
            sample::health(health.to_vec()).unwrap(),
            &metrics,
            sample::latency(latency.to_vec()).unwrap(),
        )
    }

    pub(in super::super) fn view() -> View {
        let begun = Instant::now();
        let (before, now) = (look(begun, 10, 1.0), look(begun + Duration::from_secs(2), 30, 2.0));
        View::of("http://h:1", Some(&before), &now)
    }

    #[test]
    fn rates_are_what_lies_between_two_looks() {
        let text = view().text();
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("forebay").contains("forebay 0.1.0 at http://h:1: ok, extractor ready"));
        assert!(line("connections").ends_with(" 3 of 20000"), "{text}");
        assert!(line("requests/s").ends_with(" 10.0"), "{text}");
        assert!(line("memory").ends_with(" 50.0 MiB"), "{text}");
        let core: Vec<&str> = line("0 ").split_whitespace().collect();
        assert_eq!(core[..5], ["0", "50", "%", "0/256", "10.0"], "{text}");
        let series: Vec<&str> = line("crawl.ndjson.ttfb").split_whitespace().collect();
        assert_eq!(
            series[1..],
            ["12", "80", "µs", "120", "µs", "1.50", "ms", "1.60", "ms", "1.60", "ms"]
        );
    }

    #[test]
    fn bytes_have_a_unit_that_suits() {
        for (value, text) in [(0.0, "0 B"), (999.0, "999 B"), (1536.0, "1.5 KiB"), (2e9, "1.9 GiB")]
        {
            assert_eq!(bytes(value), text);
        }
    }
}
