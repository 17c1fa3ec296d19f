//! Pages for the built-in module.

use super::*;

fn worker() -> Worker {
    built_in().worker(cpu_clock)
}

#[test]
fn a_page_becomes_a_document_that_is_not_parsed_again() {
    let body = b"<html lang=en><title>On weirs</title><article><h1>On weirs</h1><p>Water falls \
                 <a href=/b>over</a> the weir.</p></article>";
    let extracted = extract(&mut worker(), body).unwrap();
    let whole: Value = serde_json::from_slice(&extracted.answer()).unwrap();
    let document = document(&extracted);
    assert_eq!(whole["document"], document);
    assert_eq!(whole["quality_score"].as_f64(), Some(extracted.quality()));
    assert!(extracted.quality() > 0.0 && extracted.quality() < 1.0);
    assert_eq!(document["language"], "en");
    assert_eq!(document["links"][0]["href"], "https://example.com/b");
    assert_eq!((extracted.encoding, extracted.truncated), ("UTF-8", false));
    let shared = extracted.answer();
    let inside = shared.as_ptr_range();
    assert!(inside.contains(&extracted.document().as_ptr()), "a slice, not a copy");
}

#[test]
fn options_reach_the_guest() {
    let mut formats = Formats::NONE;
    formats.add("text");
    let body = b"<title>A</title><nav>Menu</nav><p>Words</p>";
    let run = |name: &str| {
        let options = Options::new(name, formats).unwrap();
        worker().extract(&Input::new(body, "https://example.com/", &options))
    };
    let full = document(&run("full").unwrap());
    assert!(full["title"].is_null() && full["markdown"].is_null() && full["links"].is_null());
    assert!(full["text"].as_str().unwrap().contains("Menu"));
    let unknown = run("recipe").unwrap_err();
    assert_eq!(unknown.code, PageCode::ExtractFailed);
    assert!(unknown.message.contains("no document"), "{}", unknown.message);
}

#[test]
fn charsets_are_decoded_before_the_guest_sees_them() {
    let options = Options::default();
    let body = b"<title>Gr\xfc\xdfe</title><p>sch\xf6n";
    let input = Input { charset_label: Some("iso-8859-1"), ..Input::new(body, "", &options) };
    let extracted = worker().extract(&input).unwrap();
    assert_eq!(document(&extracted)["title"], "Grüße");
    assert_eq!(extracted.encoding, "windows-1252");
}

#[test]
fn invalid_utf8_is_a_page_like_another() {
    let mut worker = worker();
    let body: Vec<u8> =
        (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let extracted = extract(&mut worker, &body).unwrap();
    assert!(json::answer(&extracted.answer()).is_ok());
    assert_works(&mut worker);
}

#[test]
fn a_page_of_64_mib_is_cut() {
    let mut worker = worker();
    let mut body = b"<title>Long</title><p>".to_vec();
    body.resize(64 * 1024 * 1024, b'a');
    body[1_000_000..].iter_mut().step_by(7).for_each(|byte| *byte = b' ');
    let extracted = extract(&mut worker, &body).unwrap();
    assert!(extracted.truncated);
    assert_eq!(document(&extracted)["title"], "Long");
    assert!(extracted.answer().len() < 10 * 1024 * 1024);
    assert_works(&mut worker);
}

#[test]
fn quadratic_pages_end_at_the_budget() {
    let extractor = Extractor::load(&config()).unwrap();
    let _ticker = Ticker::start(&extractor, Duration::from_millis(5)).unwrap();
    let mut worker = extractor.worker(cpu_clock);
    let slow = [
        "<div>".repeat(100_000),
        "<b><i><a href=x>".repeat(30_000),
        "<table><tr><td>".repeat(30_000),
        "<p><svg><desc>".repeat(30_000),
    ];
    for html in slow {
        let found = extract(&mut worker, html.as_bytes());
        // Some may be done in time; none may end otherwise.
        if let Err(error) = found {
            assert_eq!(error.code, PageCode::ExtractTimeout, "{}: {}", &html[..9], error.message);
        }
        assert_works(&mut worker);
    }
}

#[test]
fn a_megabyte_of_ampersands_costs_its_page_only() {
    let extractor = Extractor::load(&config()).unwrap();
    let _ticker = Ticker::start(&extractor, Duration::from_millis(5)).unwrap();
    let mut worker = extractor.worker(cpu_clock);
    match extract(&mut worker, "&".repeat(1_000_000).as_bytes()) {
        Ok(extracted) => assert!(document(&extracted)["text"].is_string()),
        Err(error) => assert_eq!(error.code, PageCode::ExtractTimeout, "{}", error.message),
    }
    assert_works(&mut worker);
}

#[test]
fn wide_pages_stay_inside_their_memory() {
    let mut worker = worker();
    // 2 MiB of the smallest elements: the tree is many times the page.
    let found = extract(&mut worker, "<p>".repeat(700_000).as_bytes());
    if let Err(error) = found {
        let codes = [PageCode::ExtractMemory, PageCode::ExtractTimeout];
        assert!(codes.contains(&error.code), "{error}");
    }
    assert_works(&mut worker);
}

#[test]
fn a_cancelled_or_late_page_is_given_up() {
    let mut worker = worker();
    let options = Options::default();
    let html = "<div>".repeat(100_000);
    let input = Input::new(html.as_bytes(), "", &options);
    let cancel = Arc::new(AtomicBool::new(true));
    let cancelled = Input { cancel: Some(Arc::clone(&cancel)), ..input.clone() };
    assert_eq!(code(worker.extract(&cancelled)), PageCode::Cancelled);
    let late = Input { deadline: Some(Instant::now()), ..input };
    assert_eq!(code(worker.extract(&late)), PageCode::DeadlineExceeded);

    // And while it runs.
    cancel.store(false, Ordering::Relaxed);
    let setter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        cancel.store(true, Ordering::Relaxed);
    });
    assert_eq!(code(worker.extract(&cancelled)), PageCode::Cancelled);
    setter.join().unwrap();
    assert_works(&mut worker);
}

#[test]
fn workers_run_side_by_side() {
    std::thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                let mut worker = worker();
                for page in 0..20 {
                    let html = format!("<p>lane {lane} page {page}</p>");
                    let extracted = extract(&mut worker, html.as_bytes()).unwrap();
                    let text = format!("lane {lane} page {page}");
                    assert_eq!(document(&extracted)["text"], text.as_str());
                }
            });
        }
    });
}

#[test]
fn the_committed_module_has_the_committed_checksum() {
    let committed = include_str!("../guest/extractor.wasm.sha256");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/extract/guest");
    let Ok(output) = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "extractor.wasm.sha256"])
        .current_dir(folder)
        .output()
    else {
        return; // no coreutils here
    };
    assert!(output.status.success(), "{committed}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_module_is_known_by_its_checksum() {
    let committed = include_str!("../guest/extractor.wasm.sha256");
    let sum = built_in().report().module_sha256.map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(committed.split_whitespace().next(), Some(&*sum));
}

#[test]
fn compiled_code_is_kept_in_a_private_folder() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("cache");
    let dir = folder.0.join("modules");
    let config = ExtractConfig { cache_dir: Some(dir.clone()), ..config() };
    let first = Extractor::load(&config).unwrap();
    assert!(!first.report().cached && first.report().cache_warning.is_none());
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let second = Extractor::load(&config).unwrap();
    assert!(second.report().cached, "{:?}", second.report());
    let _ticker = Ticker::start(&second, Duration::from_millis(5)).unwrap();
    assert_works(&mut second.worker(cpu_clock));

    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let open = Extractor::load(&config).unwrap();
    assert!(!open.report().cached, "others could have written what would run here");
    assert!(open.report().cache_warning.as_ref().unwrap().contains("others may write"));

    let nowhere = ExtractConfig { cache_dir: Some("/proc/nowhere".into()), ..config };
    assert!(Extractor::load(&nowhere).unwrap().report().cache_warning.is_some());
}
