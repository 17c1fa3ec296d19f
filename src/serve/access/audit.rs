//! The audit log: one JSON line for each request, and for each op on a WebSocket, of who asked for
//! what, from where, and what came of it. Loops put lines into a bounded queue and never wait; a thread writes them.

use crate::limits::{AUDIT_LINES_MAX, AUDIT_URLS_MAX};
use crate::observe::redact;
use crate::proto::json;
use crate::proto::timestamp::rfc3339_millis;
use bytes::{BufMut, BytesMut};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Bytes of a line's start, before its URLs.
const LINE_BYTES: usize = 512;

/// What makes an entry one of an op on a WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// Its name; `unknown` where it could not be read.
    pub name: &'a str,
    /// The stream that it was about.
    pub stream_id: Option<&'a str>,
}

/// One request or one op, over.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When it ended.
    pub at: SystemTime,
    /// Of an op.
    pub op: Option<Op<'a>>,
    /// Its id.
    pub request_id: Option<&'a str>,
    /// Its client's trace.
    pub trace_id: Option<&'a str>,
    /// The name of its API key.
    pub key: Option<&'a str>,
    /// The client.
    pub address: IpAddr,
    /// The method.
    pub method: Option<&'a str>,
    /// The target as it came.
    pub target: Option<&'a str>,
    /// The URLs that it asked for.
    pub urls: &'a Asked,
    /// The status of its answer; 0 where there was none.
    pub status: u16,
    /// `ok`, `aborted`, or the code of its refusal.
    pub outcome: &'a str,
    /// Bytes of its answer, as written.
    pub bytes: u64,
    /// From its head to the end of its answer.
    pub took: Duration,
}

/// The URLs of a request, for its line: how many, and the first of them without their secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    count: usize,
    first: Vec<String>,
    webhook: Option<String>,
}

impl Asked {
    /// Notes what is asked for.
    pub fn of<'a>(urls: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let count = urls.len();
        Self {
            count,
            first: urls.take(AUDIT_URLS_MAX).map(|url| redact::Url(url).to_string()).collect(),
            webhook: None,
        }
    }

    /// Notes who is to be told of its end.
    pub fn told(&mut self, webhook: &str) {
        self.webhook = Some(redact::Url(webhook).to_string());
    }
}

impl Entry<'_> {
    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(LINE_BYTES);
        out.put_slice(b"{\"ts\":\"");
        out.put_slice(&rfc3339_millis(self.at));
        out.put_slice(b"\",\"event\":");
        json::string(&mut out, if self.op.is_some() { "op" } else { "request" });
        if let Some(op) = self.op {
            out.put_slice(b",\"op\":");
            json::string(&mut out, op.name);
            out.put_slice(b",\"stream_id\":");
            json::string_or_null(&mut out, op.stream_id);
        }
        let target = self.target.map(|target| redact::Url(target).to_string());
        for (name, text) in [
            (&b",\"request_id\":"[..], self.request_id),
            (b",\"trace_id\":", self.trace_id),
            (b",\"key\":", self.key),
            (b",\"address\":", Some(&*self.address.to_string())),
            (b",\"method\":", self.method),
            (b",\"target\":", target.as_deref()),
            (b",\"outcome\":", Some(self.outcome)),
        ] {
            out.put_slice(name);
            json::string_or_null(&mut out, text);
        }
        for (name, number) in [
            (&b",\"status\":"[..], u64::from(self.status)),
            (b",\"bytes\":", self.bytes),
            (b",\"took_us\":", u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX)),
            (b",\"urls\":", self.urls.count as u64),
        ] {
            out.put_slice(name);
            json::integer(&mut out, number);
        }
        out.put_slice(b",\"first_urls\":[");
        for (at, url) in self.urls.first.iter().enumerate() {
            out.put_slice(if at > 0 { b"," } else { b"" });
            json::string(&mut out, url);
        }
        out.put_slice(b"]");
        if let Some(webhook) = &self.urls.webhook {
            out.put_slice(b",\"webhook\":");
            json::string(&mut out, webhook);
        }
        out.put_slice(b"}\n");
        out.into()
    }
}

enum Letter {
    Line(Vec<u8>),
    Reopen,
}

/// A running audit log; dropping it waits until all lines are written.
#[derive(Debug)]
pub struct Audit {
    to: Option<SyncSender<Letter>>,
    thread: Option<JoinHandle<()>>,
}

impl Audit {
    /// Opens the file (made for its owner alone, appended to) or, for `-`, standard error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn start(path: &Path) -> io::Result<Self> {
        let (to, from) = sync_channel(AUDIT_LINES_MAX);
        let path = (path.as_os_str() != "-").then(|| path.to_owned());
        let out = path.as_deref().map(open).transpose()?;
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(&from, path, out))?;
        Ok(Self { to: Some(to), thread: Some(thread) })
    }

    /// Hands a line over; `false` where it was dropped, because the disk is slower than its writers.
    pub fn write(&self, line: Vec<u8>) -> bool {
        self.to.as_ref().is_some_and(|to| to.try_send(Letter::Line(line)).is_ok())
    }

    /// Opens the file anew, for who has moved it away. Waits for a place in the queue: from the
    /// control thread, never from a loop.
    pub fn reopen(&self) {
        let Some(to) = &self.to else { return };
        let mut letter = Letter::Reopen;
        while let Err(TrySendError::Full(back)) = to.try_send(letter) {
            letter = back;
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.to = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit thread panicked");
        }
    }
}

/// Whether the file can be opened, as far as that shows without making it.
///
/// # Errors
/// What the file system says.
pub fn check(path: &Path) -> io::Result<()> {
    if path.as_os_str() == "-" {
        return Ok(());
    }
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")))?;
            if folder.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
        }
        opened => opened.map(drop),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn write(from: &Receiver<Letter>, path: Option<PathBuf>, file: Option<File>) {
    let mut file = file.map(BufWriter::new);
    let mut failing = false;
    while let Ok(first) = from.recv() {
        // What waits is written before the next flush.
        let mut outcome = Ok(());
        for letter in std::iter::once(first).chain(from.try_iter()) {
            outcome = outcome.and(match letter {
                Letter::Line(line) => match &mut file {
                    Some(file) => file.write_all(&line),
                    None => io::stderr().write_all(&line),
                },
                Letter::Reopen => path.as_deref().map_or(Ok(()), |path| {
                    file = Some(BufWriter::new(open(path)?));
                    Ok(())
                }),
            });
        }
        let outcome = outcome.and(file.as_mut().map_or(Ok(()), Write::flush));
        if let Err(error) = &outcome
            && !failing
        {
            tracing::error!("the audit log can't be written: {error}");
        }
        failing = outcome.is_err();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn entry<'a>(target: &'a str, urls: &'a Asked) -> Entry<'a> {
        Entry {
            at: SystemTime::UNIX_EPOCH,
            op: None,
            request_id: Some("r-1"),
            trace_id: None,
            key: Some("ci"),
            address: IpAddr::from([192, 0, 2, 1]),
            method: Some("POST"),
            target: Some(target),
            urls,
            status: 429,
            outcome: "rate_limited",
            bytes: 12,
            took: Duration::from_micros(7),
        }
    }

    #[test]
    fn a_line_is_json_without_secrets() {
        let urls = ["https://u:PASS@h/?token=T0KEN&a=1", "http://b/"];
        let asked = Asked::of(urls.into_iter());
        let line = entry("/crawl?api_key=S3CRET&x=\"\n", &asked).line();
        let text = String::from_utf8(line).unwrap();
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
        for secret in ["PASS", "T0KEN", "S3CRET"] {
            assert!(!text.contains(secret), "{text}");
        }
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["key"], "ci");
        assert_eq!(told["address"], "192.0.2.1");
        assert_eq!(told["status"], 429);
        assert_eq!(told["urls"], 2);
        assert_eq!(told["first_urls"][1], "http://b/");
    }

    #[test]
    fn an_op_has_its_name_and_a_job_the_url_that_is_told_of_its_end() {
        let mut asked = Asked::default();
        asked.told("https://u:PASS@h/hook?token=T0KEN");
        let op = Some(Op { name: "crawl", stream_id: Some("01J") });
        let line = Entry { op, ..entry("/crawl/ws", &asked) }.line();
        let told: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&told["event"], &told["op"]), (&"op".into(), &"crawl".into()));
        assert_eq!(told["stream_id"], "01J");
        assert_eq!(told["webhook"], "https://***@h/hook?token=***");
        let plain = entry("/", &Asked::default()).line();
        let told: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(told["event"], "request");
        assert!(told.get("op").is_none() && told.get("webhook").is_none());
    }

    #[test]
    fn a_line_of_many_urls_is_bounded() {
        let url = format!("http://h/{}", "a".repeat(100_000));
        let urls = vec![&*url; 1000];
        let asked = Asked::of(urls.into_iter());
        assert_eq!((asked.count, asked.first.len()), (1000, AUDIT_URLS_MAX));
        assert!(entry("/", &asked).line().len() < 64 * 1024);
    }

    #[test]
    fn lines_are_written_in_order_also_to_a_new_file() {
        let dir = std::env::temp_dir().join(format!("forebay-audit-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, moved) = (dir.join("audit"), dir.join("audit.1"));
        let audit = Audit::start(&path).unwrap();
        assert!(audit.write(b"one\n".to_vec()));
        while std::fs::read(&path).unwrap().is_empty() {
            thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        audit.reopen();
        assert!(audit.write(b"two\n".to_vec()));
        drop(audit);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
