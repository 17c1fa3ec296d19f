//! What the sandbox costs: CPU time of extraction through the host, everything included (charset,
//! fresh instance, copies, checks), against a plain call of the same code built natively.

use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay::extract::{ExtractConfig, Extractor, Input, Options, Ticker, Worker};
use forebay_extractor as native;
use uring::lane::thread_cpu_time as cpu_time;

use crate::flags::Flags;
use crate::{Failure, Outcome, pages};

/// Sandbox over native; the bar.
pub(crate) const RATIO_MAX: f64 = 1.6;
/// Each page is run this often on either side; the fastest run counts.
const ROUNDS: usize = 9;
const URL: &str = "https://example.com/a/b";

/// Prints the ratio over the generated pages, or over the `.html` files of a folder; of the built-in
/// module, or of another build of it.
pub(crate) fn run(args: &[String]) -> Outcome {
    let flags = Flags::parse(args, &["--pages", "--module"])?;
    let pages = match flags.text("--pages") {
        None => pages::generated(60),
        Some(dir) => read(Path::new(dir))?,
    };
    Ok(compare(&pages, flags.text("--module"))? <= RATIO_MAX)
}

/// The ratio over so many generated pages.
///
/// # Errors
/// When the sandbox can't be loaded, or answers differently.
pub(crate) fn ratio(count: usize) -> Result<f64, Failure> {
    compare(&pages::generated(count), None)
}

/// Prints the ratio over these pages.
fn compare(pages: &[String], module: Option<&str>) -> Result<f64, Failure> {
    let config = ExtractConfig {
        module: module.map(PathBuf::from),
        cache_dir: forebay::extract::default_cache_dir(),
        cpu_budget: Duration::from_secs(30),
        ..ExtractConfig::default()
    };
    let extractor = Extractor::load(&config)?;
    let _ticker = Ticker::start(&extractor, Duration::from_millis(5))?;
    let mut worker = extractor.worker(cpu_time);
    let (mut sandboxed, mut plain, mut skipped) = (Duration::ZERO, Duration::ZERO, 0);
    for html in pages {
        match page(&mut worker, html)? {
            Some((in_wasm, in_native)) => {
                sandboxed += in_wasm;
                plain += in_native;
            }
            None => skipped += 1,
        }
    }
    let ratio = sandboxed.as_secs_f64() / plain.as_secs_f64();
    let bytes: usize = pages.iter().map(String::len).sum();
    println!(
        "{} pages ({skipped} skipped), {bytes} bytes: sandbox {sandboxed:?}, native {plain:?} of CPU, \
         ratio {ratio:.2} (at most {RATIO_MAX})",
        pages.len()
    );
    Ok(ratio)
}

/// Best times of one page; `None` when the sandbox refused it. Both must answer the same bytes.
fn page(worker: &mut Worker, html: &str) -> Result<Option<(Duration, Duration)>, String> {
    let options = Options::default();
    let (mut in_wasm, mut in_native) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = cpu_time();
        let Ok(extracted) = worker.extract(&Input::new(html.as_bytes(), URL, &options)) else {
            return Ok(None);
        };
        let middle = cpu_time();
        let answer = native::extract(html, URL, &native::Options::default());
        let end = cpu_time();
        if !extracted.truncated && extracted.answer() != answer {
            return Err("sandbox and native answer differently: rebuild extractor.wasm".to_owned());
        }
        in_wasm = in_wasm.min(middle.saturating_sub(start));
        in_native = in_native.min(end.saturating_sub(middle));
    }
    Ok(Some((in_wasm, in_native)))
}

fn read(dir: &Path) -> Result<Vec<String>, std::io::Error> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)?.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "html"));
    paths.sort();
    paths
        .iter()
        .map(|path| Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned()))
        .collect()
}
