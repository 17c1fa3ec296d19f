//! Extraction: HTML in, one JSON document out, by a WebAssembly guest in a sandbox.
//!
//! [`Extractor`] is the compiled module, one per process, replaced as a whole on reload. Each lane
//! has a [`Worker`] over it. The guest serializes the document once; the host checks the bytes
//! ([`json`]), copies them out, and hands them on as they are. The guest's documentation
//! (`guest/src/lib.rs`) defines the ABI.

pub mod charset;
mod engine;
pub mod json;
mod options;
mod page;
mod ticker;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Engine, InstancePre};

pub use engine::default_cache_dir;
pub use options::{BUILT_IN, Formats, NAME_BYTES_MAX, Options, Wanted};
use ticker::Pulse;
pub use ticker::Ticker;
use worker::ExtractorExports;
pub use worker::{Extracted, Input, Worker};

/// Settings of extraction.
#[derive(Debug, Clone)]
pub struct ExtractConfig {
    /// A module file to use instead of the built-in one.
    pub module: Option<PathBuf>,
    /// Where compiled code is kept between runs; `None`: nowhere. See [`default_cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// Instances at the same time: one per lane is enough, because a lane has one page at a time.
    pub instances: u32,
    /// Bytes of HTML that a guest is given; a longer page is cut there.
    pub html_bytes_max: usize,
    /// CPU time of one page.
    pub cpu_budget: Duration,
    /// Bytes of an instance's memory that stay resident between pages instead of going back to the
    /// kernel.
    pub keep_resident_bytes: usize,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self {
            module: None,
            cache_dir: None,
            instances: 1,
            html_bytes_max: 2 * 1024 * 1024,
            cpu_budget: Duration::from_secs(1),
            keep_resident_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum LoadError {
    #[error("cannot read the extractor module {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the extractor module {} has {size} bytes, maximum 64 MiB", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("not a usable WebAssembly module: {0}")]
    Invalid(String),
    #[error("an extractor imports nothing, but this module wants {}", .0.join(", "))]
    Imports(Vec<String>),
    #[error("the module does not export {0}, which every extractor must")]
    Missing(&'static str),
    #[error("the module's export {0} must be {1}")]
    Export(&'static str, &'static str),
    #[error("the module speaks version {0} of the extractor ABI, this server speaks version 1")]
    AbiVersion(u32),
    #[error("the module failed when it was asked for its version: {0}")]
    Probe(String),
    #[error("no WebAssembly engine on this machine: {0}")]
    Engine(String),
    #[error("cannot start the thread that enforces the extractor's time limits: {0}")]
    Ticker(std::io::Error),
}

/// How a module was loaded.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Whether its compiled code came from the cache.
    pub cached: bool,
    /// Why there is no cache although one was asked for.
    pub cache_warning: Option<String>,
    /// Time it took.
    pub elapsed: Duration,
    /// Size of the module.
    pub module_bytes: usize,
    /// The module's SHA-256: what two servers that read pages alike have in common.
    pub module_sha256: [u8; 32],
}

/// A compiled and checked extractor module. Clones share it.
#[derive(Clone)]
pub struct Extractor {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pre: InstancePre<page::Page>,
    config: ExtractConfig,
    report: LoadReport,
    pulse: Arc<Pulse>,
}

impl Extractor {
    /// Compiles the module, or takes its code from the cache. Takes about a second without a cache,
    /// so call it before the server says that it is ready. A cache that cannot be used is only a
    /// warning in the report.
    ///
    /// # Errors
    ///
    /// The module cannot be read, is not valid, or has not the interface of an extractor.
    pub fn load(config: &ExtractConfig) -> Result<Self, LoadError> {
        let engine::Loaded { engine, pre, report } = engine::load(config)?;
        let config = config.clone();
        let pulse = Arc::default();
        Ok(Self { inner: Arc::new(Inner { engine, pre, config, report, pulse }) })
    }

    /// A look at a module's file, in milliseconds; [`Extractor::load`] sees the rest of what may be
    /// wrong with it.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn look(path: &Path) -> Result<(), LoadError> {
        engine::look(path)
    }

    /// A worker for the lane that calls this. `cpu_clock` reads the CPU time that the calling
    /// thread has used so far.
    #[must_use]
    pub fn worker(&self, cpu_clock: fn() -> Duration) -> Worker {
        Worker::new(self.clone(), cpu_clock)
    }

    /// Makes every running guest look at its limits. Cheap, from any thread; a time limit is as
    /// exact as the ticks are frequent.
    pub fn tick(&self) {
        self.inner.engine.increment_epoch();
    }

    /// How it was loaded.
    #[must_use]
    pub fn report(&self) -> &LoadReport {
        &self.inner.report
    }

    /// Bytes of a body that a worker looks at: what the guest is given, and whether there is more.
    #[must_use]
    pub fn body_bytes_read(&self) -> usize {
        self.inner.config.html_bytes_max.saturating_add(1)
    }

    fn config(&self) -> &ExtractConfig {
        &self.inner.config
    }

    fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    fn pulse(&self) -> &Arc<Pulse> {
        &self.inner.pulse
    }

    fn pre(&self) -> &InstancePre<page::Page> {
        &self.inner.pre
    }
}

#[cfg(test)]
mod tests;
