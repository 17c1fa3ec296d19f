//! The rules, each a function from a file (or the list of all) to its findings.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::scan::{Source, is_word};

/// Lines of a source file.
pub(crate) const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// What may stand beside the dotfiles at the top of the tree; `target` is cargo's.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "src",
    "io_uring",
    "bench",
    "loadtest",
    "tests",
    "target",
    "proptest-regressions", // where proptest puts what it found; git ignores it
];
/// The modules of package forebay, the lowest first, as src/lib.rs has them in its paragraphs: each may
/// name those of the lines above it, and no other of its own line.
const LAYERS: [&[&str]; 22] = [
    &["limits"],
    &["error"],
    &["timings"],
    &["local", "proto"],
    &["observe"],
    &["config"],
    &["descriptors"],
    &["cluster"],
    &["cache", "extract", "fetch", "search"],
    &["stream"],
    &["crawl"],
    &["jobs"],
    &["serve"],
    &["notify", "parts"],
    &["otlp"],
    &["checks"],
    &["reload"],
    &["control"],
    &["server"],
    &["demo"],
    &["cli"],
    &["main"],
];
/// `serve` has these below it and still names none of them: `stream` and `crawl` join the two.
const JOINED: [&str; 4] = ["cache", "extract", "fetch", "search"];
/// Where `unsafe` may stand: what talks to the kernel, the guest's ABI, and a yardstick that is never
/// shipped, the bare echo that benchmarks take for the kernel's floor.
const UNSAFE_HOMES: [&str; 3] = ["io_uring/", "src/extract/guest/", "bench/peers/echo/"];

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) line: usize,
    pub(crate) what: String,
}

fn finding(line: usize, what: impl Into<String>) -> Finding {
    Finding { line, what: what.into() }
}

/// Everything that can be said about one text file from its path in the tree and its text.
pub(crate) fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut found = layout(text);
    if path.ends_with(".rs") {
        let source = Source::new(text);
        found.extend(functions(&source));
        found.extend(stubs(&source));
        found.extend(attributes(&source));
        found.extend(layers(path, &source));
        found.extend(homes(path, &source));
    } else {
        found.extend(markers(text));
    }
    if path.ends_with("Cargo.toml") && !path.starts_with("io_uring/") {
        let named = |line: &str| line.trim_start().trim_start_matches('"').starts_with("monoio");
        let lines = text.lines().enumerate().filter(|(_, line)| named(line));
        found.extend(lines.map(|(at, _)| finding(at + 1, "only io_uring/ depends on monoio")));
    }
    found
}

/// Length, tabs and ends of lines. The rows of a table of settings are the program's own words (another
/// test holds them to it), and are no length of the page.
fn layout(text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_setting = |line: &&str| line.starts_with("| `") && line.matches(" | ").count() >= 4;
    let count = text.lines().filter(|line| !is_setting(line)).count();
    if count > FILE_LINES_MAX {
        found.push(finding(count, format!("{count} lines, maximum {FILE_LINES_MAX}: split it")));
    }
    for (at, line) in text.split('\n').enumerate() {
        if line.contains('\t') {
            found.push(finding(at + 1, "a tab: indent with spaces"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            found.push(finding(at + 1, "white space at the end of the line"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        found.push(finding(count, "the last line has no end"));
    }
    found
}

fn functions(source: &Source) -> Vec<Finding> {
    let long = source.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
    let say = |lines, name: &str| {
        format!("fn {name} has {lines} lines, maximum {FUNCTION_LINES_MAX}: split it by phase")
    };
    long.map(|f| finding(f.line, say(f.lines, &f.name))).collect()
}

/// Code that isn't there yet.
fn stubs(source: &Source) -> Vec<Finding> {
    let mut found = markers(&source.comments);
    for (at, word) in source.words() {
        let called = source.code[at + word.len()..].starts_with('!');
        if called && matches!(word, "todo" | "unimplemented") {
            found.push(finding(source.line(at), format!("{word}!: finish it or leave it out")));
        }
    }
    found
}

/// Notes to self that outlived the day.
fn markers(text: &str) -> Vec<Finding> {
    let lines = text.lines().enumerate();
    let marked = lines.filter_map(|(at, line)| {
        let marker = |word: &&str| matches!(*word, "TODO" | "FIXME" | "XXX" | "HACK");
        line.split(|c| !is_word(c)).find(marker).map(|word| (at + 1, word))
    });
    marked.map(|(at, word)| finding(at, format!("{word}: do it, or open an issue"))).collect()
}

/// Silenced lints and tests need a reason; dead and unused code needs none, it goes.
fn attributes(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, attribute) in source.attributes() {
        let line = source.line(at);
        let words: HashSet<_> = attribute.split(|c| !is_word(c)).collect();
        if attribute.trim() == "ignore" || attribute.trim().ends_with(", ignore") {
            found.push(finding(line, "#[ignore] without a reason: #[ignore = \"why\"]"));
        }
        if !words.contains("allow") && !words.contains("expect") {
            continue;
        }
        let unused = |w: &&&str| {
            **w == "dead_code" || w.starts_with("unused") && !attribute.contains(&format!("::{w}"))
        };
        if let Some(lint) = words.iter().find(unused) {
            found.push(finding(line, format!("{lint} is silenced: remove what nobody uses")));
        }
        if !words.contains("reason") {
            found.push(finding(line, "a lint is silenced without a reason = \"…\""));
        }
    }
    found
}

/// Who may name whom, over the paths that start at `crate`.
fn layers(path: &str, source: &Source) -> Vec<Finding> {
    if path == "src/lib.rs" {
        return order(source);
    }
    let Some(layer) = layer_of(path) else { return Vec::new() };
    let Some(height) = height(layer) else {
        return vec![finding(1, format!("{layer} is in no line of LAYERS"))];
    };
    let mut named = source.named_under("crate");
    named.extend(source.named_under("forebay"));
    let mut found = Vec::new();
    for (at, name) in named {
        // What is no module is a macro or an item of the root.
        let Some(other) = self::height(name).filter(|_| name != layer) else { continue };
        let joined = layer == "serve" && JOINED.contains(&name);
        if other >= height || joined {
            found.push(finding(source.line(at), format!("layer {layer} may not name {name}")));
        }
    }
    found
}

/// The line of a module in [`LAYERS`].
fn height(module: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&module))
}

/// Whether src/lib.rs has the modules in the order of [`LAYERS`].
fn order(source: &Source) -> Vec<Finding> {
    let modules = source.modules();
    let told = modules.iter().map(|(at, name)| (source.line(*at), *name));
    let listed = LAYERS.iter().flat_map(|line| line.iter()).filter(|name| **name != "main");
    let mut listed = listed.copied();
    for (line, name) in told {
        match listed.next() {
            Some(expected) if expected == name => {}
            Some(expected) => {
                return vec![finding(line, format!("mod {name} where LAYERS has {expected}"))];
            }
            None => return vec![finding(line, format!("mod {name} is in no line of LAYERS"))],
        }
    }
    listed
        .next()
        .map(|name| finding(1, format!("no mod {name}, which LAYERS has")))
        .into_iter()
        .collect()
}

/// The layer of a file of package forebay: the first name under src/; other packages have none.
fn layer_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/").filter(|p| !p.starts_with("extract/guest/"))?;
    Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
}

/// `unsafe` and monoio have one home each.
fn homes(path: &str, source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, word) in source.words() {
        if word == "unsafe" && !UNSAFE_HOMES.iter().any(|home| path.starts_with(home)) {
            found.push(finding(source.line(at), "unsafe outside io_uring/ and the guest's ABI"));
        }
        if word == "monoio" && !path.starts_with("io_uring/") {
            found.push(finding(source.line(at), "only io_uring/ names monoio"));
        }
    }
    if matches!(path, "src/lib.rs" | "src/main.rs") {
        let forbids = |a: &&str| a.starts_with("forbid(") && a.contains("unsafe_code");
        if !source.attributes().iter().any(|(_, a)| forbids(a)) {
            found.push(finding(1, "a root of this package says #![forbid(unsafe_code)]"));
        }
    }
    found
}

/// Entries of the top level that don't belong there.
pub(crate) fn top_level<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let fits = |name: &&str| {
        name.starts_with('.') || name.starts_with("LICENSE") || TOP_LEVEL.contains(name)
    };
    names.filter(|n| !fits(n)).map(|n| format!("{n}: the top level is fixed")).collect()
}

/// Files that no `mod` reaches, of all the Rust files of the tree.
pub(crate) fn dead_files(files: &HashMap<PathBuf, String>) -> Vec<PathBuf> {
    let mut pending: Vec<_> = files.keys().filter(|path| is_root(path)).cloned().collect();
    let mut reached: HashSet<PathBuf> = pending.iter().cloned().collect();
    while let Some(path) = pending.pop() {
        let Some(text) = files.get(&path) else { continue };
        for child in children(&path, text) {
            if files.contains_key(&child) && reached.insert(child.clone()) {
                pending.push(child);
            }
        }
    }
    let mut dead: Vec<_> = files.keys().filter(|path| !reached.contains(*path)).cloned().collect();
    dead.sort();
    dead
}

/// Whether cargo starts compiling at this file.
fn is_root(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let folder = path.parent().and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("");
    match folder {
        "src" => matches!(name, "lib.rs" | "main.rs"),
        "bin" | "tests" | "examples" | "benches" | "fuzz_targets" => true,
        // A test of several files is a folder with a main.rs; Cargo.toml names the echo server.
        _ => {
            matches!(name, "build.rs" | "ws_echo.rs")
                || (name == "main.rs" && path.starts_with("tests"))
        }
    }
}

/// The files that the `mod` items of a file may lie in.
fn children(path: &Path, text: &str) -> Vec<PathBuf> {
    if path.starts_with("tests/fuzz") {
        return Vec::new(); // it includes the library's files, which doesn't make them alive
    }
    let source = Source::new(text);
    let folder = path.parent().unwrap_or(Path::new(""));
    let stem = path.file_stem().unwrap_or_default();
    let home = if is_root(path) || stem == "mod" { folder.into() } else { folder.join(stem) };
    let mut found = Vec::new();
    for (at, name) in source.modules() {
        found.push(home.join(format!("{name}.rs")));
        found.push(home.join(name).join("mod.rs"));
        // `code` has as many characters as the text, not as many bytes: go by the line.
        let line = source.line(at);
        let above = text.lines().take(line).skip(line.saturating_sub(4));
        let named = above.filter_map(|l| l.trim().strip_prefix("#[path = \"")?.split('"').next());
        found.extend(named.map(|relative| normal(&folder.join(relative))));
    }
    found
}

/// `a/b/../c` without its detour.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::CurDir => {}
            other => parts.push(other),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that `bad` has a finding that says `what`, and that `good` has none at all.
    #[track_caller]
    fn told_apart(path: &str, bad: &str, good: &str, what: &str) {
        let found = check_file(path, bad);
        assert!(found.iter().any(|f| f.what.contains(what)), "{bad:?} gave {found:?}");
        assert_eq!(check_file(path, good), [], "{good:?}");
    }

    #[test]
    fn layout_is_checked() {
        let long = "x();\n".repeat(FILE_LINES_MAX);
        told_apart("loadtest/src/a.rs", &format!("{long}x();\n"), &long, "split it");
        let settings = format!("{long}{}", "| `a.b` | `1` | 0 to 2 | yes | Counts. |\n".repeat(9));
        told_apart("README.md", &format!("{long}| a | b |\n"), &settings, "split it");
        told_apart("loadtest/src/a.rs", "a \n", "a\n", "end of the line");
        told_apart("tests/e2e/a.py", "a\r\n", "a\n", "end of the line");
        told_apart("loadtest/src/a.rs", "\ta\n", "    a\n", "a tab");
        told_apart("loadtest/src/a.rs", "a", "a\n", "no end");
    }

    #[test]
    fn long_functions_are_found_and_long_types_are_not() {
        let body = |n| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(n));
        let (bad, good) = (body(FUNCTION_LINES_MAX - 1), body(FUNCTION_LINES_MAX - 2));
        told_apart("loadtest/src/a.rs", &bad, &good, "fn f has 71 lines");
        let list = format!("const A: [u8; 99] = [\n{}];\n", "    1,\n".repeat(99));
        assert_eq!(check_file("loadtest/src/a.rs", &list), []);
    }

    #[test]
    fn stubs_and_markers_are_found() {
        told_apart("loadtest/src/a.rs", "fn f() { todo!() }\n", "fn f() { todo() }\n", "todo!");
        told_apart(
            "loadtest/src/a.rs",
            "unimplemented!(\"x\");\n",
            "\"unimplemented!()\";\n",
            "finish",
        );
        told_apart("loadtest/src/a.rs", "// FIXME: y\n", "\"FIXME\";\n", "FIXME");
        told_apart("tests/run", "# TODO y\n", "# a TODOLIST\n", "TODO");
    }

    #[test]
    fn silenced_lints_and_tests_need_a_reason() {
        let test = "fn f() {}\n";
        let ignored = |a: &str| format!("#[test]\n#[{a}]\n{test}");
        let (bad, good) = (ignored("ignore"), ignored("ignore = \"slow\""));
        told_apart("loadtest/src/a.rs", &bad, &good, "#[ignore]");
        told_apart(
            "loadtest/src/a.rs",
            "#[allow(clippy::a)]\n",
            "#[allow(\n    clippy::a,\n    reason = \"b\"\n)]\n",
            "without a reason",
        );
        told_apart(
            "loadtest/src/a.rs",
            "#![expect(a)]\n",
            "x.expect(\"a\");\n",
            "without a reason",
        );
        let dead = "#[allow(dead_code, reason = \"later\")]\n";
        told_apart("loadtest/src/a.rs", dead, "#[deny(dead_code)]\n", "dead_code is silenced");
        let unused = "#[cfg_attr(a, allow(unused_mut, reason = \"b\"))]\n";
        let foreign = "#[allow(clippy::unused_self, reason = \"b\")]\n";
        told_apart("loadtest/src/a.rs", unused, foreign, "unused_mut is silenced");
    }

    #[test]
    fn layers_keep_to_the_table() {
        told_apart(
            "src/proto/h1/head.rs",
            "use crate::fetch::Pool;\n",
            "use crate::limits::URL_BYTES_MAX;\nuse crate::proto::chunked;\n",
            "layer proto may not name fetch",
        );
        told_apart(
            "src/limits.rs",
            "use crate::error::A;\n",
            "use std::a;\n",
            "may not name error",
        );
        told_apart(
            "src/serve/mod.rs",
            "use crate::{\n    error::A,\n    extract::{B, c},\n};\n",
            "use crate::{stream::A, serve::extract};\n",
            "layer serve may not name extract",
        );
        let twins = "layer fetch may not name cache";
        told_apart("src/fetch/a.rs", "use crate::cache::A;\n", "use crate::fetch::A;\n", twins);
        let joined = "use crate::cache::A;\nuse crate::fetch::B;\n";
        assert_eq!(check_file("src/crawl/mod.rs", joined), []);
        told_apart(
            "src/cluster/a.rs",
            "use crate::cache::A;\n",
            "use crate::config::A;\n",
            "layer cluster may not name cache",
        );
        let lower = "layer jobs may not name serve";
        told_apart("src/jobs/a.rs", "use crate::serve::A;\n", "use crate::crawl::A;\n", lower);
        let upper = "layer crawl may not name jobs";
        told_apart("src/crawl/a.rs", "use crate::jobs::A;\n", "use crate::fetch::A;\n", upper);
        let demo = "layer serve may not name demo";
        told_apart("src/serve/a.rs", "use crate::demo::A;\n", "a();\n", demo);
        told_apart("src/cli/a.rs", "use crate::main::A;\n", "use crate::demo::A;\n", "layer cli");
        let main = "#![forbid(unsafe_code)]\nuse forebay::cli::a;\n";
        assert_eq!(check_file("src/main.rs", main), []);
        assert_eq!(check_file("src/odd.rs", "a();\n")[0].what, "odd is in no line of LAYERS");
    }

    #[test]
    fn modules_stand_in_the_order_of_their_layers() {
        let all = |skip: &str, more: &str| {
            let names = LAYERS.iter().flat_map(|line| line.iter());
            let told = names.filter(|name| ![skip, "main"].contains(name));
            let mods: String = told.map(|name| format!("pub mod {name};\n")).collect();
            format!("#![forbid(unsafe_code)]\n{mods}{more}")
        };
        told_apart(
            "src/lib.rs",
            &all("limits", ""),
            &all("", ""),
            "mod error where LAYERS has limits",
        );
        let late = all("limits", "pub mod limits;\n");
        told_apart("src/lib.rs", &late, &all("", ""), "mod error where LAYERS has limits");
        told_apart("src/lib.rs", &all("", "mod odd;\n"), &all("", ""), "in no line of LAYERS");
        told_apart("src/lib.rs", &all("cli", ""), &all("", ""), "no mod cli");
    }

    #[test]
    fn unsafe_and_monoio_stay_at_home() {
        let unsafe_code = "fn f() { unsafe { g() } }\n";
        told_apart("loadtest/src/a.rs", unsafe_code, "\"unsafe\";\n", "unsafe outside");
        assert_eq!(check_file("io_uring/src/a.rs", unsafe_code), []);
        assert_eq!(check_file("src/extract/guest/src/lib.rs", unsafe_code), []);
        told_apart("bench/src/a.rs", "use monoio::b;\n", "// monoio\n", "names monoio");
        told_apart("Cargo.toml", "monoio = \"0.2\"\n", "a = \"monoio\"\n", "depends on monoio");
        assert_eq!(check_file("io_uring/Cargo.toml", "monoio = \"0.2\"\n"), []);
        told_apart("src/main.rs", "mod a;\n", "#![forbid(unsafe_code)]\nmod a;\n", "forbid");
    }

    #[test]
    fn the_top_level_is_fixed() {
        let good = ["Cargo.toml", ".ci", ".deny.toml", "LICENSE-MIT", "src", "tests"];
        assert_eq!(top_level(good.into_iter()), Vec::<String>::new());
        assert_eq!(top_level(["docs", "temp.md", "src"].into_iter()).len(), 2);
    }

    #[test]
    fn dead_files_are_found() {
        let tree = [
            ("src/lib.rs", "mod a;\npub mod b;\n"),
            ("src/a.rs", "mod c;\n"),
            ("src/a/c.rs", ""),
            ("src/b/mod.rs", "#[cfg(test)]\nmod tests;\n"),
            ("src/b/tests.rs", ""),
            ("src/b/left.rs", "// mod c;\n"),
            ("tests/e.rs", "#[path = \"e/f.rs\"]\nmod f;\n"),
            ("tests/e/f.rs", ""),
            ("tests/e/g.rs", ""),
            ("tests/fuzz/src/lib.rs", "#[path = \"../../../src/b/left.rs\"]\nmod left;\n"),
        ];
        let files = tree.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect();
        let dead: Vec<_> = ["src/b/left.rs", "tests/e/g.rs"].iter().map(PathBuf::from).collect();
        assert_eq!(dead_files(&files), dead);
    }
}
