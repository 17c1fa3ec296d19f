//! A lane's extractor: one page at a time, each in an instance of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::{Instance, Memory, PoolConcurrencyLimitError, Store, Trap, TypedFunc};

use super::engine::chain;
use super::page::{Page, Stop};
use super::{Extractor, Options, charset, json};
use crate::error::{PageCode, PageError, Stage};
use crate::limits::GUEST_OUTPUT_BYTES_MAX;

/// One page to extract.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The body as it came, content codings undone.
    pub body: &'a [u8],
    /// The `charset` of its Content-Type, if it named one.
    pub charset_label: Option<&'a str>,
    /// The page's own address, after redirects; relative links start from it.
    pub url: &'a str,
    /// What is wanted.
    pub options: &'a Options,
    /// When to give up, whatever the CPU time used.
    pub deadline: Option<Instant>,
    /// Set by anybody when the page is not wanted any more.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl<'a> Input<'a> {
    /// A page with nothing said about its charset, deadline or cancellation.
    #[must_use]
    pub fn new(body: &'a [u8], url: &'a str, options: &'a Options) -> Self {
        Self { body, charset_label: None, url, options, deadline: None, cancel: None }
    }
}

/// A page's document: the guest's bytes, checked and copied once.
#[derive(Debug, Clone)]
pub struct Extracted {
    json: Bytes,
    quality: Range<usize>,
    document: Range<usize>,
    about: Range<usize>,
    /// Name of the encoding that the body was decoded from, as in `windows-1252`.
    pub encoding: &'static str,
    /// Whether only the first `html_bytes_max` bytes of the page were read.
    pub truncated: bool,
}

impl Extracted {
    /// The document's JSON object; shares the memory, parses and copies nothing.
    #[must_use]
    pub fn document(&self) -> Bytes {
        self.json.slice(self.document.clone())
    }

    /// The quality score as JSON text, a number from 0 to 1.
    #[must_use]
    pub fn quality_json(&self) -> &str {
        std::str::from_utf8(&self.json[self.quality.clone()]).expect("checked to be a number")
    }

    /// The quality score.
    #[must_use]
    pub fn quality(&self) -> f64 {
        self.quality_json().parse().expect("checked to be a number")
    }

    /// What the guest tells beside the document, as a JSON object; `None` where it tells nothing.
    #[must_use]
    pub fn about(&self) -> Option<&[u8]> {
        Some(&self.json[self.about.clone()]).filter(|about| !about.is_empty())
    }

    /// The guest's whole answer, `{"quality_score":…,"document":{…}}`.
    #[must_use]
    pub fn answer(&self) -> Bytes {
        self.json.clone()
    }
}

/// Extracts pages on one thread, with an instance of its own for each: no page sees another's
/// memory, and whatever a page does to its guest is gone with it.
///
/// The thread needs 2 MiB of stack, of which the guest may use 1 MiB.
pub struct Worker {
    extractor: Extractor,
    cpu_clock: fn() -> Duration,
}

impl Worker {
    /// `cpu_clock` reads the CPU time that the calling thread has used.
    pub(super) fn new(extractor: Extractor, cpu_clock: fn() -> Duration) -> Self {
        Self { extractor, cpu_clock }
    }

    /// Extracts one page, synchronously. Needs [`Extractor::tick`] called every few milliseconds by
    /// another thread, or no time limit holds.
    ///
    /// # Errors
    ///
    /// `extract_failed`: the guest trapped, broke the ABI, answered what is no document, or has none
    /// for this page. `extract_memory`: it wanted more than 64 MiB. `extract_timeout`: it used up its
    /// CPU time. `deadline_exceeded`, `cancelled`: by the input's own. None of them touches another
    /// page.
    pub fn extract(&mut self, input: &Input<'_>) -> Result<Extracted, PageError> {
        let config = self.extractor.config();
        let page = Page::new(
            self.cpu_clock,
            config.cpu_budget,
            input.deadline,
            input.cancel.as_ref().map(Arc::clone),
        );
        if let Some(stop @ (Stop::Cancelled | Stop::Deadline)) = page.due() {
            return Err(stopped(stop, config.cpu_budget));
        }
        let decoded =
            charset::decode(input.body, input.charset_label, input.url, config.html_bytes_max);
        let _running = self.extractor.pulse().run();
        let mut store = Store::new(self.extractor.engine(), page);
        Page::arm(&mut store);
        let lines = input.options.lines();
        let (json, parts) = run(&self.extractor, &mut store, &decoded.html, input.url, &lines)
            .map_err(|failure| failure.report(store.data(), config.cpu_budget))?;
        Ok(Extracted {
            json,
            quality: parts.quality,
            document: parts.document,
            about: parts.about,
            encoding: decoded.encoding,
            truncated: decoded.truncated,
        })
    }
}

/// What can go wrong between host and guest.
enum Failure {
    /// wasmtime stopped the guest, or could not start it.
    Trap(wasmtime::Error),
    /// The guest broke the ABI, or has no document.
    Guest(String),
    /// `alloc` gave 0.
    Memory,
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

impl Failure {
    fn report(self, page: &Page, cpu_budget: Duration) -> PageError {
        if let Some(stop) = page.stopped {
            return stopped(stop, cpu_budget);
        }
        let memory = matches!(self, Self::Memory) || page.memory_refused;
        let (code, message) = match self {
            Self::Trap(_) | Self::Memory if memory => (
                PageCode::ExtractMemory,
                "the page needs more memory than an extractor may have (64 MiB)".to_owned(),
            ),
            Self::Trap(error) => (PageCode::ExtractFailed, trapped(&error)),
            Self::Guest(message) => (PageCode::ExtractFailed, message),
            Self::Memory => unreachable!("the first arm takes it"),
        };
        PageError::new(code, Stage::Extract, message)
    }
}

fn stopped(stop: Stop, cpu_budget: Duration) -> PageError {
    let (code, message) = match stop {
        Stop::CpuBudget => (
            PageCode::ExtractTimeout,
            format!("the page took more than {} ms of CPU time", cpu_budget.as_millis()),
        ),
        Stop::Deadline => {
            (PageCode::DeadlineExceeded, "the deadline passed during extraction".to_owned())
        }
        Stop::Cancelled => (PageCode::Cancelled, "cancelled during extraction".to_owned()),
    };
    PageError::new(code, Stage::Extract, message)
}

fn trapped(error: &wasmtime::Error) -> String {
    if error.is::<PoolConcurrencyLimitError>() {
        return "all extractor instances are in use".to_owned();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "the page needs more than 1 MiB of stack".to_owned(),
        Some(Trap::UnreachableCodeReached) => "the extractor gave up on the page".to_owned(),
        Some(trap) => format!("the extractor trapped: {trap}"),
        None => format!("the extractor could not run: {}", chain(error)),
    }
}

/// A guest's functions, types checked.
pub(super) struct ExtractorExports {
    memory: Memory,
    pub(super) abi_version: TypedFunc<(), u32>,
    alloc: TypedFunc<u32, u32>,
    extract: TypedFunc<(u32, u32, u32, u32, u32, u32), u64>,
}

impl ExtractorExports {
    pub(super) fn of(instance: &Instance, store: &mut Store<Page>) -> wasmtime::Result<Self> {
        let memory = instance.get_memory(&mut *store, "memory");
        Ok(Self {
            memory: memory.ok_or_else(|| wasmtime::Error::msg("no exported memory"))?,
            abi_version: instance.get_typed_func(&mut *store, "abi_version")?,
            alloc: instance.get_typed_func(&mut *store, "alloc")?,
            extract: instance.get_typed_func(&mut *store, "extract")?,
        })
    }

    /// Copies `bytes` into the guest; gives address and length.
    fn give(&self, store: &mut Store<Page>, bytes: &[u8]) -> Result<(u32, u32), Failure> {
        let len = u32::try_from(bytes.len()).map_err(|_| Failure::Memory)?;
        let ptr = self.alloc.call(&mut *store, len)?;
        if ptr == 0 {
            return Err(Failure::Memory);
        }
        let at = usize::try_from(ptr).expect("an address has 32 bits");
        // Checked against the memory's present size: the address is only the guest's word.
        self.memory.write(store, at, bytes).map_err(|_| {
            Failure::Guest("the extractor's alloc gave an address outside its memory".to_owned())
        })?;
        Ok((ptr, len))
    }
}

/// Runs a fresh instance over one page. The instance ends with the store.
fn run(
    extractor: &Extractor,
    store: &mut Store<Page>,
    html: &str,
    url: &str,
    lines: &str,
) -> Result<(Bytes, json::Answer), Failure> {
    let instance = extractor.pre().instantiate(&mut *store)?;
    let exports = ExtractorExports::of(&instance, store)?;
    let html = exports.give(store, html.as_bytes())?;
    let url = exports.give(store, url.as_bytes())?;
    let lines = exports.give(store, lines.as_bytes())?;
    let packed =
        exports.extract.call(&mut *store, (html.0, html.1, url.0, url.1, lines.0, lines.1))?;
    let (ptr, len) = (packed >> 32, packed & u64::from(u32::MAX));
    let to_usize = |n| usize::try_from(n).expect("half of 64 bits");
    let (at, len) = (to_usize(ptr), to_usize(len));
    if len == 0 {
        return Err(Failure::Guest("the extractor has no document for this page".to_owned()));
    }
    if len > GUEST_OUTPUT_BYTES_MAX {
        return Err(Failure::Guest(format!(
            "the extractor answered {len} bytes, maximum {GUEST_OUTPUT_BYTES_MAX}"
        )));
    }
    let answer = at.checked_add(len).and_then(|end| exports.memory.data(&*store).get(at..end));
    let answer = answer.ok_or_else(|| {
        Failure::Guest("the extractor's answer lies outside its memory".to_owned())
    })?;
    // Checked where it lies, so that only what is good is copied.
    let parts = json::answer(answer).map_err(|error| {
        Failure::Guest(format!("the extractor's answer is no document: {error}"))
    })?;
    Ok((Bytes::copy_from_slice(answer), parts))
}
