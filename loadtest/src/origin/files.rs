//! A folder of files under `/files/`.

use crate::origin::script::Reply;
use std::path::{Component, Path, PathBuf};

/// Files that the index names.
const LISTED_MAX: usize = 2000;

/// Serves one file; what lies outside the folder does not exist.
pub(crate) fn serve(dir: Option<&Path>, name: &str) -> Reply {
    let Some(dir) = dir else {
        return Reply::text(404, "no folder is served: start the origin with --dir FOLDER");
    };
    let relative = Path::new(name);
    if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Reply::text(404, "outside the folder");
    }
    match std::fs::read(dir.join(relative)) {
        Ok(bytes) => Reply::new(200, content_type(relative), bytes),
        Err(error) => Reply::text(404, format!("{name}: {error}")),
    }
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("xhtml") => "application/xhtml+xml",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("pdf") => "application/pdf",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// The names of the files in the folder, sorted, down to four levels.
pub(crate) fn list(dir: Option<&Path>) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(dir) = dir {
        walk(dir, &PathBuf::new(), 0, &mut found);
    }
    found.sort();
    found
}

fn walk(root: &Path, relative: &Path, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(root.join(relative)) else { return };
    for entry in entries.flatten() {
        if found.len() >= LISTED_MAX {
            return;
        }
        let path = relative.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < 4 => walk(root, &path, depth + 1, found),
            Ok(kind) if kind.is_file() => found.push(path.to_string_lossy().into_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_served_and_nothing_above_it() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(serve(Some(dir), "Cargo.toml").status, 200);
        assert_eq!(serve(Some(dir), "../Cargo.toml").status, 404);
        assert_eq!(serve(Some(dir), "/etc/hostname").status, 404);
        assert_eq!(serve(Some(dir), "src/../Cargo.toml").status, 404);
        assert_eq!(serve(None, "Cargo.toml").status, 404);
        assert!(list(Some(dir)).contains(&"src/lib.rs".to_owned()));
    }
}
