//! Guests that break the rules, written as WebAssembly text.

use super::*;

/// The parts of a well-behaved guest, each to be replaced by a worse one.
struct Guest {
    memory: &'static str,
    version: &'static str,
    alloc: &'static str,
    extract: &'static str,
    more: String,
}

/// An answer at address 16.
const ANSWER: &str = r#"{\22quality_score\22:0.5,\22document\22:{\22title\22:\22A\22}}"#;
const ANSWER_LEN: usize = 46;

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory: "(memory (export \"memory\") 2)",
            version: "i32.const 1",
            alloc: "i32.const 1024",
            extract: "i64.const 0x10_0000_002e",
            more: format!("(data (i32.const 16) \"{ANSWER}\")"),
        }
    }
}

impl Guest {
    fn extract(extract: &'static str) -> Self {
        Self { extract, ..Self::default() }
    }

    /// Answers these bytes.
    fn answering(text: &str) -> Self {
        let bytes: String = text.bytes().map(|b| format!("\\{b:02x}")).collect();
        let len = text.len();
        let global = format!("(global $len i64 (i64.const {len}))");
        let more = format!("(data (i32.const 16) \"{bytes}\") {global}");
        let extract = "(i64.or (i64.const 0x10_0000_0000) (global.get $len))";
        Self { extract, more, ..Self::default() }
    }

    fn text(&self) -> String {
        format!(
            "(module {} {}
              (func (export \"abi_version\") (result i32) {})
              (func $alloc (export \"alloc\") (param i32) (result i32) {})
              (func (export \"dealloc\") (param i32 i32))
              (func $extract (export \"extract\") (param i32 i32 i32 i32 i32 i32) (result i64) {}))",
            self.memory, self.more, self.version, self.alloc, self.extract
        )
    }

    fn load(&self) -> Result<Extractor, LoadError> {
        load(&self.text())
    }

    /// Extracts one page, and one more to see that the worker lives.
    fn run(&self) -> Result<Extracted, PageError> {
        let extractor = self.load().unwrap();
        let _ticker = Ticker::start(&extractor, Duration::from_millis(5)).unwrap();
        let mut worker = extractor.worker(cpu_clock);
        let first = extract(&mut worker, b"<p>a</p>");
        let second = extract(&mut worker, b"<p>a</p>");
        assert_eq!(first.is_ok(), second.is_ok());
        assert_works(&mut built_in().worker(cpu_clock));
        first
    }

    fn failure(&self, want: PageCode) -> String {
        let error = self.run().unwrap_err();
        assert_eq!((error.code, error.stage), (want, Stage::Extract), "{}", error.message);
        error.message
    }
}

fn load(text: &str) -> Result<Extractor, LoadError> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let folder = Folder::new(&format!("guest-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let path = folder.0.join("guest.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    let cpu_budget = Duration::from_millis(100);
    Extractor::load(&ExtractConfig { module: Some(path), instances: 4, cpu_budget, ..config() })
}

fn refusal(text: &str) -> String {
    load(text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn the_plain_guest_works() {
    assert_eq!(ANSWER.replace("\\22", "\"").len(), ANSWER_LEN);
    let extracted = Guest::default().run().unwrap();
    assert_eq!(extracted.quality_json(), "0.5");
    assert_eq!(&extracted.document()[..], b"{\"title\":\"A\"}");
}

#[test]
fn modules_that_are_no_extractors_are_refused_with_the_reason() {
    assert!(refusal("(module)").contains("does not export memory"));
    let import = refusal("(module (import \"wasi\" \"fd_write\" (func)))");
    assert!(import.contains("wasi.fd_write"), "{import}");
    let two = Guest { version: "i32.const 2", ..Guest::default() };
    assert!(refusal(&two.text()).contains("version 2"));
    let without = Guest::default().text().replace("\"dealloc\"", "\"free\"");
    assert!(refusal(&without).contains("does not export dealloc"));
    let shape = Guest::default().text().replace("(param i32 i32))", "(param i32))");
    assert!(refusal(&shape).contains("dealloc must be (i32, i32)"));
    let wide = Guest { memory: "(memory (export \"memory\") i64 1)", ..Guest::default() };
    assert!(wide.load().is_err());
    let big = Guest { memory: "(memory (export \"memory\") 2000)", ..Guest::default() };
    assert!(big.load().is_err(), "125 MiB to start with");
    let endless = Guest { version: "(loop (br 0)) i32.const 1", ..Guest::default() };
    assert!(refusal(&endless.text()).contains("failed when it was asked"));
    let more = "(start $s) (func $s unreachable)".to_owned();
    assert!(Guest { more, ..Guest::default() }.load().is_err());

    let folder = Folder::new("no-module");
    let read = |path: PathBuf| {
        let config = ExtractConfig { module: Some(path), ..config() };
        Extractor::load(&config).map(|_| ()).unwrap_err()
    };
    assert!(matches!(read(folder.0.join("none")), LoadError::Read { .. }));
    let garbage = folder.0.join("garbage.wasm");
    std::fs::write(&garbage, b"\0asm but not really").unwrap();
    assert!(matches!(read(garbage), LoadError::Invalid(_)));
}

#[test]
fn traps() {
    let failed = PageCode::ExtractFailed;
    assert!(Guest::extract("unreachable").failure(failed).contains("gave up"));
    let divides = "(i64.div_u (i64.const 1) (i64.const 0))";
    assert!(Guest::extract(divides).failure(failed).contains("divide by zero"));
    let reads = "(i64.load (i32.const -8))";
    assert!(Guest::extract(reads).failure(failed).contains("out of bounds"));
    let recurses = "(call $extract (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) \
         (local.get 5)) (i64.const 1) (i64.add)";
    assert!(Guest::extract(recurses).failure(failed).contains("stack"));
    Guest { alloc: "unreachable", ..Guest::default() }.failure(failed);
}

#[test]
fn loops_end_at_the_budget() {
    let loops = "(loop (br 0)) i64.const 0";
    let message = Guest::extract(loops).failure(PageCode::ExtractTimeout);
    assert!(message.contains("100 ms"), "{message}");
    let alloc = Guest { alloc: "(loop (br 0)) i32.const 0", ..Guest::default() };
    alloc.failure(PageCode::ExtractTimeout);
}

#[test]
fn memory_ends_at_the_limit() {
    let grows = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    Guest::extract(grows).failure(PageCode::ExtractMemory);
    Guest { alloc: "i32.const 0", ..Guest::default() }.failure(PageCode::ExtractMemory);
    let asks = "(drop (memory.grow (i32.const 60000))) (i64.const 0x10_0000_002e)";
    assert!(Guest::extract(asks).run().is_ok(), "asking is not yet having");
}

#[test]
fn lies_about_addresses() {
    let failed = PageCode::ExtractFailed;
    let outside = Guest { alloc: "i32.const -16", ..Guest::default() };
    assert!(outside.failure(failed).contains("alloc"));
    let edge = Guest { alloc: "i32.const 131071", ..Guest::default() };
    assert!(edge.failure(failed).contains("alloc"));
    for (extract, word) in [
        ("i64.const 0", "no document"),
        ("i64.const 0x10_0000_0000", "no document"),
        ("i64.const 0xffff_fff0_0000_0030", "outside"),
        ("i64.const 0x0001_fff0_0000_0030", "outside"),
        ("i64.const 0x0000_0010_0100_0000", "outside"),
        ("i64.const -1", "maximum"),
    ] {
        let message = Guest::extract(extract).failure(failed);
        assert!(message.contains(word), "{extract}: {message}");
    }
}

#[test]
fn answers_that_are_no_documents() {
    let good = "{\"quality_score\":1,\"document\":{\"title\":null}}";
    assert!(Guest::answering(good).run().is_ok());
    for text in [
        "garbage",
        "{}",
        "{\"quality_score\":2,\"document\":{}}",
        "{\"quality_score\":1,\"document\":[]}",
        "{\"quality_score\":1,\"document\":{\"a\":\"\n\"}}",
        "{\"quality_score\":1,\n\"document\":{}}",
        "{\"quality_score\":1,\"document\":{}}\n",
        "{\"quality_score\":1,\"document\":{},\"error\":null}",
        "{\"quality_score\":1,\"document\":{\"a\":}}",
    ] {
        let message = Guest::answering(text).failure(PageCode::ExtractFailed);
        assert!(message.contains("no document: byte"), "{text}: {message}");
    }
    let mut invalid = Guest::answering("{\"quality_score\":1,\"document\":{\"a\":\"xx\"}}");
    invalid.more = invalid.more.replace("\\78\\78", "\\ff\\fe");
    assert!(invalid.failure(PageCode::ExtractFailed).contains("UTF-8"));
}

/// A guest that counts its pages in memory and in a global, and answers "A" only on the first.
#[test]
fn no_page_sees_what_another_left_behind() {
    let extract =
        "(if (i32.or (global.get $pages) (i32.load (i32.const 100000))) (then unreachable))
                   (global.set $pages (i32.const 1))
                   (i32.store (i32.const 100000) (i32.const 1))
                   (i64.const 0x10_0000_002e)";
    let more = format!("{} (global $pages (mut i32) (i32.const 0))", Guest::default().more);
    let extractor = Guest { extract, more, ..Guest::default() }.load().unwrap();
    let mut worker = extractor.worker(cpu_clock);
    for _ in 0..10 {
        assert!(extract_ok(&mut worker));
    }
}

fn extract_ok(worker: &mut Worker) -> bool {
    extract(worker, b"<p>a</p>").is_ok()
}
