//! What a client may ask of an extractor, and how a guest reads it.

use std::borrow::Cow;
use std::fmt::Write;

/// The extractors that the built-in module has (`options.extractor`), the default first.
pub const BUILT_IN: [&str; 2] = ["article", "full"];

/// Bytes of an extractor's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Which parts of a document are wanted (`options.formats`); the others are null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Formats {
    /// The content as Markdown.
    pub markdown: bool,
    /// The content as plain text.
    pub text: bool,
    /// The content's links.
    pub links: bool,
    /// Title, byline, published, language, description, site name, image.
    pub metadata: bool,
}

impl Formats {
    /// Every part.
    pub const ALL: Self = Self { markdown: true, text: true, links: true, metadata: true };
    /// No part; to add some to.
    pub const NONE: Self = Self { markdown: false, text: false, links: false, metadata: false };

    /// Adds the part of that name; false when there is none.
    pub fn add(&mut self, name: &str) -> bool {
        match name {
            "markdown" => self.markdown = true,
            "text" => self.text = true,
            "links" => self.links = true,
            "metadata" => self.metadata = true,
            _ => return false,
        }
        true
    }
}

impl Default for Formats {
    fn default() -> Self {
        Self::ALL
    }
}

/// What is wanted beside the document, for who follows links or indexes pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wanted {
    /// What the page says to robots.
    pub robots: bool,
    /// Its canonical address and all its links.
    pub links: bool,
}

/// Options of one page's extraction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Options {
    extractor: Cow<'static, str>,
    /// Which parts are wanted.
    pub formats: Formats,
    /// What beside them.
    pub about: Wanted,
}

impl Default for Options {
    fn default() -> Self {
        let (formats, about) = (Formats::ALL, Wanted::default());
        Self { extractor: Cow::Borrowed(BUILT_IN[0]), formats, about }
    }
}

impl Options {
    /// Options for the extractor of that name; `None` unless it is 1 to 64 bytes of `a-z0-9_-`.
    /// Whether the module has it shows when it is called.
    #[must_use]
    pub fn new(extractor: &str, formats: Formats) -> Option<Self> {
        let fits = (1..=NAME_BYTES_MAX).contains(&extractor.len())
            && extractor.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        let built_in = BUILT_IN.into_iter().find(|name| *name == extractor).map(Cow::Borrowed);
        fits.then(|| built_in.unwrap_or_else(|| Cow::Owned(extractor.to_owned())))
            .map(|extractor| Self { extractor, formats, about: Wanted::default() })
    }

    /// Name of the extractor.
    #[must_use]
    pub fn extractor(&self) -> &str {
        &self.extractor
    }

    /// The lines of `key=value` that a guest reads (the guest's documentation defines them). Equal
    /// options give equal lines, so they do as a part of a cache key.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut lines = String::with_capacity(64);
        let parts = [
            (self.formats.markdown, "markdown"),
            (self.formats.text, "text"),
            (self.formats.links, "links"),
            (self.formats.metadata, "metadata"),
        ];
        let names: Vec<&str> = parts.iter().filter(|part| part.0).map(|part| part.1).collect();
        writeln!(lines, "extractor={}\nformats={}", self.extractor, names.join(","))
            .expect("writing to a string cannot fail");
        lines.push_str(match (self.about.robots, self.about.links) {
            (false, false) => "",
            (true, false) => "about=robots\n",
            (false, true) => "about=links\n",
            (true, true) => "about=robots,links\n",
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn lines_for_the_guest() {
        let all = Options::default().lines();
        assert_eq!(all, "extractor=article\nformats=markdown,text,links,metadata\n");
        let mut formats = Formats::NONE;
        assert!(formats.add("text") && !formats.add("pdf"));
        let full = Options::new("full", formats).unwrap();
        assert_eq!(full.lines(), "extractor=full\nformats=text\n");
    }

    #[test]
    fn a_name_cannot_smuggle_lines() {
        for name in ["", "a\nformats=text", "a=b", "Article", "é", &"a".repeat(65)] {
            assert_eq!(Options::new(name, Formats::ALL), None, "{name}");
        }
    }
}
