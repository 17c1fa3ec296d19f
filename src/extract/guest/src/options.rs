//! What the host asks for: `key=value` lines.

/// Which text of a page is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// The main content.
    #[default]
    Article,
    /// The whole page's visible text.
    Full,
}

/// Which parts of the document are wanted; the others are null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// `markdown`.
    pub markdown: bool,
    /// `text`.
    pub text: bool,
    /// `links`.
    pub links: bool,
    /// `title`, `byline`, `published`, `language`, `description`, `site_name`, `image`.
    pub metadata: bool,
}

impl Formats {
    /// Every part.
    pub const ALL: Self = Self { markdown: true, text: true, links: true, metadata: true };
    /// No part.
    pub const NONE: Self = Self { markdown: false, text: false, links: false, metadata: false };
}

impl Default for Formats {
    fn default() -> Self {
        Self::ALL
    }
}

/// What is told of a page beside its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// What it says to robots, where it says something.
    pub robots: bool,
    /// Its canonical address and all its links.
    pub links: bool,
}

/// Options of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which text.
    pub kind: Kind,
    /// Which parts.
    pub formats: Formats,
    /// What beside them.
    pub about: Wanted,
}

impl Options {
    /// Reads the lines; `None` when they name an extractor that this module does not have.
    #[must_use]
    pub fn parse(lines: &str) -> Option<Self> {
        let mut options = Self::default();
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "extractor" => {
                    options.kind = match value {
                        "article" => Kind::Article,
                        "full" => Kind::Full,
                        _ => return None,
                    }
                }
                "formats" => options.formats = formats(value),
                "about" => {
                    let has = |name| value.split(',').any(|part| part == name);
                    options.about = Wanted { robots: has("robots"), links: has("links") };
                }
                _ => {}
            }
        }
        Some(options)
    }
}

fn formats(names: &str) -> Formats {
    let mut formats = Formats::NONE;
    for name in names.split(',') {
        match name {
            "markdown" => formats.markdown = true,
            "text" => formats.text = true,
            "links" => formats.links = true,
            "metadata" => formats.metadata = true,
            _ => {}
        }
    }
    formats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_unknown_keys_are_skipped() {
        let read = Options::parse("extractor=full\nformats=text,links\nabout=links\nnext=1\n");
        let formats = Formats { text: true, links: true, ..Formats::NONE };
        let about = Wanted { robots: false, links: true };
        assert_eq!(read, Some(Options { kind: Kind::Full, formats, about }));
        assert_eq!(Options::parse(""), Some(Options::default()));
        assert_eq!(Options::parse("extractor=recipe\n"), None);
    }
}
