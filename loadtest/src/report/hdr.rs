//! HdrHistogram's own formats: V2 in base64, the interval log, the percentile distribution.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::fmt::Write as _;

/// A histogram as interval logs hold it.
///
/// # Errors
/// What the serializer says.
pub(crate) fn encode(histogram: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|error| format!("histogram: {error}"))?;
    Ok(STANDARD.encode(bytes))
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When it is no V2 histogram.
pub(crate) fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("histogram: {error}"))?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| format!("histogram: {error}"))
}

/// One interval of a log.
#[derive(Debug)]
pub(crate) struct Interval<'a> {
    /// Which series it belongs to.
    pub(crate) tag: &'a str,
    /// From the start of the log.
    pub(crate) start_s: f64,
    pub(crate) length_s: f64,
    pub(crate) histogram: &'a Histogram<u64>,
}

/// An interval log, V2, in microseconds; the maxima of its lines in milliseconds.
///
/// # Errors
/// What the serializer says.
pub(crate) fn interval_log<'a>(
    started_at_s: f64,
    intervals: impl Iterator<Item = Interval<'a>>,
) -> Result<String, String> {
    let mut out = format!(
        "#[Values are in microseconds]\n#[Histogram log format version 1.3]\n#[StartTime: \
         {started_at_s:.3} (seconds since epoch)]\n\"StartTimestamp\",\"Interval_Length\",\
         \"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    );
    for Interval { tag, start_s, length_s, histogram } in intervals {
        // The format separates by commas and ends tags at one.
        let tag: String = tag.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let _ = writeln!(
            out,
            "Tag={tag},{start_s:.3},{length_s:.3},{:.3},{}",
            histogram.max() as f64 / 1e3,
            encode(histogram)?
        );
    }
    Ok(out)
}

/// The percentile distribution that HdrHistogram's plotter reads, values in milliseconds.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = step.value_iterated_to() as f64 / 1e3;
        let _ = if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(out, "{value:12.3} {quantile:1.12} {total:10} {inverse:14.2}")
        } else {
            writeln!(out, "{value:12.3} {quantile:1.12} {total:10}            inf")
        };
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        histogram.max() as f64 / 1e3,
        histogram.len(),
        histogram.buckets(),
        2048,
    );
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::run::tally::new_histogram;

    #[test]
    fn histograms_come_back() {
        let mut histogram = new_histogram();
        for value in [1, 50, 50, 7_000, 3_600_000_000] {
            histogram.record(value).unwrap();
        }
        assert_eq!(decode(&encode(&histogram).unwrap()).unwrap(), histogram);
        assert!(decode("AAAA").is_err());
    }

    #[test]
    fn the_distribution_ends_at_one() {
        let mut histogram = new_histogram();
        (1..=1000).for_each(|value| histogram.record(value * 10).unwrap());
        let text = percentiles(&histogram);
        assert!(text.contains("       5.003 0.500000000000        500           2.00"), "{text}");
        assert!(text.contains("1.000000000000       1000            inf"), "{text}");
        assert!(text.contains("Total count    =         1000"));
    }

    #[test]
    fn the_log_reads_back_with_the_librarys_reader() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let mut histogram = new_histogram();
        histogram.record(1234).unwrap();
        let intervals = [0.0, 1.0].into_iter().map(|start_s| Interval {
            tag: "a b",
            start_s,
            length_s: 1.0,
            histogram: &histogram,
        });
        let text = interval_log(1_700_000_000.5, intervals).unwrap();
        let entries: Vec<_> =
            IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.unwrap()).collect();
        let tags: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(line) => line.tag().map(|tag| tag.as_str().to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(tags, ["a_b", "a_b"]);
    }
}
