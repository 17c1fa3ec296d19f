//! The query of `GET /latency`: `format`, `window`, `reset`, `series`, `unit`.

use super::hist::Scope;
use super::series::Key;
use super::snapshot::Snapshot;
use crate::error::{ApiCode, ApiError};
use crate::limits::LATENCY_RING_SPAN;
use std::time::Duration;

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LatencyFormat {
    /// Percentiles of every series.
    #[default]
    Json,
    /// HdrHistogram's percentile text.
    Hgrm,
    /// HdrHistogram's interval log.
    Hlog,
}

/// What a reader of `/latency` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LatencyQuery {
    /// `format=json|hgrm|hlog`.
    pub format: LatencyFormat,
    /// `window=10s` and `reset`: what every core is asked for.
    pub scope: Scope,
    /// `series=NAME`: only that one, hgrm only; without it, all, one after the other.
    pub series: Option<Key>,
    /// `unit=ms` in hgrm; everything else is in µs.
    pub millis: bool,
}

impl LatencyQuery {
    /// Reads the part of the target behind the `?`; names and values need no percent-encoding.
    ///
    /// # Errors
    /// 400 that names the parameter, for an unknown one or a value that it can't have.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let bad = |expected: &str| {
                ApiError::new(ApiCode::ValidationError, format!("{name} must be {expected}"))
                    .field(name, expected)
            };
            match (name, value) {
                ("format", "json") => parsed.format = LatencyFormat::Json,
                ("format", "hgrm") => parsed.format = LatencyFormat::Hgrm,
                ("format", "hlog") => parsed.format = LatencyFormat::Hlog,
                ("format", _) => return Err(bad("json, hgrm or hlog")),
                ("window", _) => {
                    let window = duration(value).filter(|window| *window <= LATENCY_RING_SPAN);
                    let expected = "a time above 0 up to 600s, as in 10s, 500ms or 5m";
                    parsed.scope.window = Some(window.ok_or_else(|| bad(expected))?);
                }
                ("reset", "" | "1" | "true") => parsed.scope.reset = true,
                ("reset", "0" | "false") => parsed.scope.reset = false,
                ("reset", _) => return Err(bad("true or false")),
                ("series", _) => {
                    let key = Key::from_name(value);
                    parsed.series = Some(key.ok_or_else(|| bad("the name of a series"))?);
                }
                ("unit", "us") => parsed.millis = false,
                ("unit", "ms") => parsed.millis = true,
                ("unit", _) => return Err(bad("us or ms")),
                _ => {
                    let message = "unknown query parameter";
                    let known = "format, window, reset, series or unit";
                    let name: String = name.chars().take(64).collect();
                    return Err(ApiError::new(ApiCode::UnknownField, message).field(name, known));
                }
            }
        }
        Ok(parsed)
    }

    /// The answer's body and `Content-Type`.
    #[must_use]
    pub fn answer(&self, snapshot: &Snapshot) -> (String, &'static str) {
        const TEXT: &str = "text/plain; charset=utf-8";
        let unit_us = if self.millis { 1000.0 } else { 1.0 };
        match (self.format, self.series) {
            (LatencyFormat::Json, _) => (snapshot.to_json(), "application/json"),
            (LatencyFormat::Hlog, _) => (snapshot.to_hlog(), TEXT),
            (LatencyFormat::Hgrm, None) => (snapshot.to_hgrm_all(unit_us), TEXT),
            (LatencyFormat::Hgrm, Some(key)) => {
                (snapshot.to_hgrm(key, unit_us).unwrap_or_default(), TEXT)
            }
        }
    }
}

/// `500ms`, `10s`, `5m`, or seconds without a unit; not zero.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => number,
        "" | "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        _ => return None,
    };
    (millis > 0).then_some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::observe::series::{Endpoint, Measure};

    #[test]
    fn what_the_api_names_is_read() {
        let query = LatencyQuery::parse("window=10s&reset&format=hgrm&series=crawl.ws.gap&unit=ms");
        let expected = LatencyQuery {
            format: LatencyFormat::Hgrm,
            scope: Scope { window: Some(Duration::from_secs(10)), reset: true },
            series: Some(Key::At(Endpoint::CrawlWs, Measure::Gap)),
            millis: true,
        };
        assert_eq!(query.unwrap(), expected);
        assert_eq!(LatencyQuery::parse("").unwrap(), LatencyQuery::default());
    }

    #[test]
    fn what_it_cannot_have_is_named() {
        for query in [
            "format=xml",
            "window=",
            "window=0s",
            "window=601s",
            "window=1h",
            "window=-1s",
            "window=99999999999999999999s",
            "window=1.5s",
            "reset=maybe",
            "series=x",
            "unit=s",
            "windw=1s",
        ] {
            let error = LatencyQuery::parse(query).unwrap_err();
            assert_eq!(error.code.status(), 400);
            assert_eq!(error.details[0].field, query.split('=').next().unwrap());
        }
    }

    #[test]
    fn times_have_units() {
        let times = ["500ms", "10s", "10", "5m"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(times, [500, 10_000, 10_000, 300_000]);
    }
}
