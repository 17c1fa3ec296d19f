//! House rules as a test: layers, lengths, left-overs, silenced lints, stray and dead files.
//!
//! Every finding is printed as `path:line: what`, so that an editor can jump to it. The rules are
//! in `tidy/rules.rs`, each with a snippet that breaks it; what reads Rust is in `tidy/scan.rs`.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 5] = ["target", ".git", "node_modules", ".venv", "__pycache__"];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Vec::new();
    let names: Vec<_> = entries(root).iter().map(|path| name(path)).collect();
    findings.extend(rules::top_level(names.iter().map(String::as_str)));

    let mut rust = HashMap::new();
    let mut files = Vec::new();
    walk(root, &mut files);
    assert!(files.len() > 10, "the tree of {} was not found", root.display());
    for file in files.iter().filter(|file| is_source(file)) {
        let text = fs::read_to_string(file).expect("a source file is UTF-8");
        let path = file.strip_prefix(root).expect("walk stays below the root");
        let shown = path.display();
        for found in rules::check_file(&shown.to_string(), &text) {
            findings.push(format!("{shown}:{}: {}", found.line, found.what));
        }
        if path.extension().is_some_and(|e| e == "rs") {
            rust.insert(path.to_owned(), text);
        }
    }
    for dead in rules::dead_files(&rust) {
        findings.push(format!("{}:1: no mod item reaches this file", dead.display()));
    }
    findings.sort();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Sources by extension; a script without one by its first line.
fn is_source(file: &Path) -> bool {
    match file.extension().and_then(|e| e.to_str()) {
        Some("rs" | "toml" | "py" | "sh" | "js" | "mjs" | "md") => true,
        Some(_) => false,
        None => fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"#!")),
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() && !SKIPPED.contains(&name(&path).as_str()) {
            walk(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the tree can be read");
    entries.map(|entry| entry.expect("the tree can be read").path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
