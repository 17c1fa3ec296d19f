//! Reading HdrHistogram's two text forms: the V2 interval log and the percentile text.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use std::io::Read;
use std::path::Path;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One series: its name, or none, and its values in µs.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) histogram: Histogram<u64>,
}

/// An empty histogram of three significant digits that grows with its values.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

/// Reads a file, or standard input.
pub(super) fn file(path: &Path, unit_us: u32) -> Result<Vec<Series>, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
    }
    .map_err(|error| told(&error))?;
    let read = String::from_utf8(bytes).map_err(|_| "this is no text".to_owned());
    read.and_then(|read| text(&read, unit_us)).map_err(|error| told(&error))
}

/// Reads either form.
pub(super) fn text(text: &str, unit_us: u32) -> Result<Vec<Series>, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    match lines.next().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        Some(words) if words.first() == Some(&"Value") => hgrm(text, unit_us),
        Some(_) => hlog(text),
        None => Ok(Vec::new()),
    }
}

fn hlog(text: &str) -> Result<Vec<Series>, String> {
    let mut all: Vec<Series> = Vec::new();
    let mut deserializer = Deserializer::new();
    for (at, entry) in IntervalLogIterator::new(text.as_bytes()).enumerate() {
        let wrong = |what: String| format!("entry {}: {what}", at + 1);
        let entry = entry.map_err(|error| wrong(format!("no hgrm and no hlog: {error:?}")))?;
        let LogEntry::Interval(interval) = entry else { continue };
        let bytes = base64(interval.encoded_histogram())
            .ok_or_else(|| wrong("the histogram is not base64".to_owned()))?;
        let part: Histogram<u64> =
            deserializer.deserialize(&mut &bytes[..]).map_err(|error| wrong(error.to_string()))?;
        let name = interval.tag().map(|tag| tag.as_str().to_owned()).unwrap_or_default();
        let known = match all.iter().position(|series| series.name == name) {
            Some(known) => known,
            None => {
                all.push(Series { name, histogram: histogram() });
                all.len() - 1
            }
        };
        all[known].histogram.add(&part).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(all)
}

/// Percentile text knows how many values are at or below each row's; so many are put at that value.
fn hgrm(text: &str, unit_us: u32) -> Result<Vec<Series>, String> {
    let mut all: Vec<Series> = Vec::new();
    let mut before = 0;
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        if let Some(name) = line.strip_prefix("#[Series: ") {
            let name = name.trim_end_matches(']').to_owned();
            all.push(Series { name, histogram: histogram() });
            before = 0;
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || line.starts_with('#') || words[0] == "Value" {
            if words.first() == Some(&"Value") && before > 0 {
                return Err(wrong("a second table without a name"));
            }
            continue;
        }
        let (Some(value), Some(total)) = (words.first(), words.get(2)) else {
            return Err(wrong("expected value, percentile and count"));
        };
        let value: f64 = value.parse().map_err(|_| wrong("the value is no number"))?;
        let total: u64 = total.parse().map_err(|_| wrong("the count is no number"))?;
        let more = total.checked_sub(before).ok_or_else(|| wrong("the counts must not fall"))?;
        before = total;
        if all.is_empty() {
            all.push(Series { name: String::new(), histogram: histogram() });
        }
        let series = all.last_mut().expect("there is one now");
        let value = whole(value * f64::from(unit_us));
        series.histogram.record_n(value, more).map_err(|error| wrong(&error.to_string()))?;
    }
    Ok(all)
}

/// The nearest whole number; what is none or too large is as large as a time can be.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "within bounds by the clamp"
)]
pub(super) fn whole(value: f64) -> u64 {
    // An hour of a thousand days: far above any latency, far below what an f64 counts exactly.
    const MOST: f64 = 86_400e9;
    if value.is_nan() { 0 } else { value.round().clamp(0.0, MOST) as u64 }
}

/// RFC 4648 §4.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).expect("eight bits"));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use base64::Engine;
    use proptest::prelude::*;

    #[test]
    fn percentile_text_in_milliseconds_is_read() {
        let hgrm = "\
       Value     Percentile TotalCount 1/(1-Percentile)

       1.000 0.000000000000          1           1.00
       2.500 0.500000000000          5           2.00
      10.000 1.000000000000         10
#[Mean    =        5.850, StdDeviation   =        4.000]
#[Max     =       10.000, Total count    =           10]
#[Buckets =           12, SubBuckets     =         2048]
";
        let read = text(hgrm, 1000).unwrap();
        let all = &read[0].histogram;
        assert_eq!((all.len(), all.min()), (10, 1000));
        // Three digits: 2500 and 2501 share a slot.
        assert!(all.equivalent(all.value_at_quantile(0.5), 2500));
        assert!(all.max() >= 10_000);
    }

    #[test]
    fn what_is_neither_is_refused_with_its_place() {
        for (wrong, place) in
            [("what is this\n", "entry 1"), ("Value x y\n1 2 3\n1 2 2\n", "line 3")]
        {
            assert!(text(wrong, 1).unwrap_err().contains(place), "{wrong}");
        }
        assert!(text("", 1).unwrap().is_empty());
        assert!(file(Path::new("/none"), 1).unwrap_err().starts_with("/none: "));
    }

    proptest! {
        #[test]
        fn base64_is_the_libraries(bytes: Vec<u8>) {
            let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(base64(&encoded), Some(bytes));
        }

        #[test]
        fn any_text_is_taken_or_refused(wild in ".{0,200}", unit_us in 0_u32..5000) {
            let _ = text(&wild, unit_us);
            let _ = text(&format!("Value Percentile TotalCount\n{wild}"), unit_us);
        }
    }
}
