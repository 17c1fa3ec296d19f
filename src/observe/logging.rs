//! Logs: `tracing` to standard error, for people or as JSON lines, filtered by `RUST_LOG`.
//!
//! What comes from outside goes through [`redact`](super::redact) before it is a field of an event.

use std::io;
use std::sync::OnceLock;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line for a person; colours where standard error is a terminal.
    #[default]
    Human,
    /// One JSON object, the event's fields at the top level.
    Json,
}

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` or the setting is no filter.
    #[error("the log filter {filter:?} can't be read: {reason}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        reason: ParseError,
    },
    /// Somebody set up logging before.
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging for the whole process. `rust_log`, the variable's value, overrides `default`
/// (as in `info` or `forebay=debug,warn`).
///
/// # Errors
/// A filter that can't be read, or a second call.
pub fn init(format: LogFormat, default: &str, rust_log: Option<&str>) -> Result<(), LogError> {
    let given = rust_log.filter(|filter| !filter.trim().is_empty());
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    let filter = given.unwrap_or(default);
    let (dispatch, set) = with_level(format, filter, colours, SystemTime, io::stderr)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Twice)?;
    // RUST_LOG stays the last word.
    let _ = SET_LEVEL.set(if given.is_none() { Some(set) } else { None });
    Ok(())
}

/// Puts another filter into a running subscriber.
type SetLevel = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Set once logging runs; nothing inside where `RUST_LOG` decides.
static SET_LEVEL: OnceLock<Option<SetLevel>> = OnceLock::new();

/// Checks a filter.
///
/// # Errors
/// It can't be read.
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter).map(|_| ())
}

/// From here on these lines are written, unless `RUST_LOG` says which; `false` then.
///
/// # Errors
/// A filter that can't be read.
pub fn set_level(filter: &str) -> Result<bool, LogError> {
    let parsed = parse(filter)?;
    let set = SET_LEVEL.get().and_then(Option::as_ref);
    if let Some(set) = set {
        set(parsed);
    }
    Ok(set.is_some())
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|reason| LogError::Filter { filter: filter.to_owned(), reason })
}

/// A subscriber that writes elsewhere, with a clock of its own: [`init`] and tests use it.
///
/// # Errors
/// A filter that can't be read.
pub fn dispatch<W, T>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    clock: T,
    writer: W,
) -> Result<Dispatch, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    T: FormatTime + Send + Sync + 'static,
{
    with_level(format, filter, colours, clock, writer).map(|(dispatch, _)| dispatch)
}

fn with_level<W, T>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    clock: T,
    writer: W,
) -> Result<(Dispatch, SetLevel), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    T: FormatTime + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(parse(filter)?).with_timer(clock);
    let lines = lines.with_writer(writer).with_ansi(colours && format == LogFormat::Human);
    // A subscriber that is gone takes no filter, and writes nothing either.
    Ok(match format {
        LogFormat::Human => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            (boxed(lines.finish()), Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            (boxed(lines.finish()), Box::new(move |filter| drop(handle.reload(filter))))
        }
    })
}

fn boxed(subscriber: impl Subscriber + Send + Sync) -> Dispatch {
    Dispatch::new(subscriber)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::observe::redact;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, filter: &str) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let dispatch = dispatch(format, filter, true, (), move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            let url = redact::Url("https://u:p@h/?token=t");
            tracing::warn!(target: "forebay::serve", ttfb_ms = 600, %url, "slow first byte");
            tracing::debug!(target: "forebay::serve", "detail");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_have_their_fields_on_top_and_no_secrets() {
        let text = log(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "slow first byte");
        assert_eq!(line["ttfb_ms"], 600);
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["url"], "https://***@h/?token=***");
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        assert_eq!(log(LogFormat::Json, "error"), "");
        assert_eq!(log(LogFormat::Json, "forebay::serve=debug").lines().count(), 2);
        assert!(log(LogFormat::Human, "info").contains("slow first byte"));
        let bad = dispatch(LogFormat::Human, "forebay=loud", false, (), io::stderr);
        assert!(bad.unwrap_err().to_string().contains("forebay=loud"));
    }
}
