//! The WebAssembly engine: its limits, the compiled-code cache, and what a module must look like.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, ExternType, InstanceAllocationStrategy,
    InstancePre, Linker, Module, OptLevel, PoolingAllocationConfig, Store, ValType,
};

use super::page::Page;
use super::{ExtractConfig, ExtractorExports, LoadError, LoadReport, Ticker};
use crate::limits::{GUEST_MEMORY_BYTES_MAX, GUEST_MODULE_BYTES_MAX, GUEST_STACK_BYTES_MAX};

/// The version of the ABI that the host speaks.
const ABI_VERSION: u32 = 1;
/// The module that is used unless the configuration names another; `build.sh` beside it made it.
pub(super) const DEFAULT_MODULE: &[u8] = include_bytes!("guest/extractor.wasm");
/// Elements of a module's table: functions that it calls by address.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Time that a module may take to say its version.
const PROBE_BUDGET: Duration = Duration::from_secs(2);

/// An engine and a module in it that has passed every check.
pub(super) struct Loaded {
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<Page>,
    pub(super) report: LoadReport,
}

/// Compiles the module or takes its code from the cache, and checks it.
pub(super) fn load(config: &ExtractConfig) -> Result<Loaded, LoadError> {
    let start = Instant::now();
    let bytes = match &config.module {
        Some(path) => read_module(path)?,
        None => DEFAULT_MODULE.to_vec(),
    };
    let (cache, warning) = match &config.cache_dir {
        Some(dir) => match open_cache(dir) {
            Ok(cache) => (Some(cache), None),
            Err(reason) => (None, Some(reason)),
        },
        None => (None, None),
    };
    let engine = engine(config, cache.clone())?;
    let module = Module::new(&engine, &bytes).map_err(|error| LoadError::Invalid(chain(&error)))?;
    check_interface(&module)?;
    let pre = Linker::<Page>::new(&engine)
        .instantiate_pre(&module)
        .map_err(|error| LoadError::Invalid(chain(&error)))?;
    check_version(&engine, &pre)?;
    let report = LoadReport {
        cached: cache.is_some_and(|cache| cache.cache_hits() > 0),
        cache_warning: warning,
        elapsed: start.elapsed(),
        module_bytes: bytes.len(),
        module_sha256: sha256(&bytes),
    };
    Ok(Loaded { engine, pre, report })
}

/// Whether the file is there and begins as a module does; the rest shows when it is compiled.
pub(super) fn look(path: &Path) -> Result<(), LoadError> {
    const MAGIC: &[u8] = b"\0asm\x01\0\0\0"; // WebAssembly Core Specification, "Modules" of the binary format
    if read_module(path)?.starts_with(MAGIC) {
        Ok(())
    } else {
        let what = format!("{} does not begin as one does", path.display());
        Err(LoadError::Invalid(what))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    *digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
}

fn read_module(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > GUEST_MODULE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned(), size });
    }
    fs::read(path).map_err(unreadable)
}

/// One engine for all lanes.
///
/// Reasons, each measured on labelled pages: the pooling allocator makes a fresh instance in
/// microseconds and, with 16 MiB kept resident and reset through the page map, costs 4-10 % of a
/// page instead of 13-31 %; the 4 GiB reservation (the default) spares bounds checks that cost
/// 1.8 ×; epoch checks cost half of what fuel costs.
fn engine(config: &ExtractConfig, cache: Option<Cache>) -> Result<Engine, LoadError> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(config.instances)
        .total_memories(config.instances)
        .total_tables(config.instances)
        .max_memory_size(GUEST_MEMORY_BYTES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(config.keep_resident_bytes)
        .table_keep_resident(TABLE_ELEMENTS_MAX * size_of::<usize>())
        .max_unused_warm_slots(config.instances)
        .pagemap_scan(Enabled::Auto);
    let mut engine = Config::new();
    engine
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES_MAX)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(None)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .cache(cache);
    Engine::new(&engine).map_err(|error| LoadError::Engine(chain(&error)))
}

/// Opens the cache of compiled code.
///
/// wasmtime's own cache is what loads machine code from disk here, because the other way,
/// `Module::deserialize`, is unsafe, and this package has no unsafe code. Its entries are named by a
/// hash over module, engine version, compiler settings and CPU features. Whoever can write to the
/// directory runs code in this process, so it must belong to this user and be closed to others.
fn open_cache(dir: &Path) -> Result<Cache, String> {
    let at = |error| format!("no cache of compiled code in {}: {error}", dir.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| at(error.to_string()))?;
    let found = fs::metadata(dir).map_err(|error| at(error.to_string()))?;
    let user = fs::metadata("/proc/self").map_err(|error| at(error.to_string()))?.uid();
    if found.uid() != user {
        return Err(at("it belongs to another user".to_owned()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(at("others may write to it; chmod 700".to_owned()));
    }
    let dir = dir.canonicalize().map_err(|error| at(error.to_string()))?;
    let mut config = CacheConfig::new();
    // One entry is no use for the re-compression that wasmtime runs behind our back.
    config.with_directory(dir).with_optimized_compression_usage_counter_threshold(u64::MAX);
    Cache::new(config).map_err(|error| at(chain(&error)))
}

/// `$XDG_CACHE_HOME/forebay/modules`, or `~/.cache/forebay/modules`; `None` without a home.
pub fn default_cache_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("forebay").join("modules"))
}

/// The interface, before any of the module's code runs.
fn check_interface(module: &Module) -> Result<(), LoadError> {
    let imports: Vec<String> =
        module.imports().map(|i| format!("{}.{}", i.module(), i.name())).take(10).collect();
    if !imports.is_empty() {
        return Err(LoadError::Imports(imports));
    }
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared() => {}
        Some(_) => return Err(LoadError::Export("memory", "a 32-bit memory")),
        None => return Err(LoadError::Missing("memory")),
    }
    let i32s = |n| vec![ValType::I32; n];
    for (name, params, result, text) in [
        ("abi_version", i32s(0), Some(ValType::I32), "() -> i32"),
        ("alloc", i32s(1), Some(ValType::I32), "(i32) -> i32"),
        ("dealloc", i32s(2), None, "(i32, i32)"),
        ("extract", i32s(6), Some(ValType::I64), "(i32, i32, i32, i32, i32, i32) -> i64"),
    ] {
        let Some(export) = module.get_export(name) else { return Err(LoadError::Missing(name)) };
        let fits = export.func().is_some_and(|found| {
            let same = |a: &[ValType], b: &[ValType]| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| ValType::eq(a, b))
            };
            let given: Vec<ValType> = found.params().collect();
            let results: Vec<ValType> = found.results().collect();
            same(&given, &params) && same(&results, result.as_slice())
        });
        if !fits {
            return Err(LoadError::Export(name, text));
        }
    }
    Ok(())
}

/// Makes one instance and asks for its version, within a time budget of its own.
fn check_version(engine: &Engine, pre: &InstancePre<Page>) -> Result<(), LoadError> {
    let ticker = Ticker::over(engine, None, Duration::from_millis(5))?;
    let mut store = Store::new(engine, Page::probe(Instant::now() + PROBE_BUDGET));
    Page::arm(&mut store);
    let failed = |error: wasmtime::Error| LoadError::Probe(chain(&error));
    let instance = pre.instantiate(&mut store).map_err(failed)?;
    let exports = ExtractorExports::of(&instance, &mut store).map_err(failed)?;
    let version = exports.abi_version.call(&mut store, ()).map_err(failed)?;
    drop(ticker);
    if version == ABI_VERSION { Ok(()) } else { Err(LoadError::AbiVersion(version)) }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &wasmtime::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}
