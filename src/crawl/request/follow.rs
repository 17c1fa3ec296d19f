//! `options.follow`: which links of the pages are fetched, too.

use crate::limits::{
    FOLLOW_DEPTH_MAX, FOLLOW_GLOB_BYTES_MAX, FOLLOW_GLOBS_MAX, URLS_PER_STREAM_MAX,
};
use serde::{Deserialize, Deserializer};

/// Pages of one stream where nothing is said.
const PAGES: usize = 100;

/// How links are followed; every field within its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Follow {
    /// Links between a page and the URLs of the request, at most.
    pub depth: u8,
    /// URLs of the stream, those of the request included.
    pub max_pages: Option<usize>,
    /// Whether other hosts than those of the request are left alone.
    pub same_host: bool,
    /// Where there are any, one of them must fit.
    pub include: Vec<Glob>,
    /// None of them may fit.
    pub exclude: Vec<Glob>,
    /// Whether the hosts' sitemaps are read, too.
    pub sitemap: bool,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            depth: 1,
            max_pages: None,
            same_host: true,
            include: Vec::new(),
            exclude: Vec::new(),
            sitemap: false,
        }
    }
}

impl Follow {
    /// URLs of the stream, where it may have `urls_max`.
    #[must_use]
    pub fn pages_max(&self, urls_max: usize) -> usize {
        self.max_pages.unwrap_or(PAGES).min(urls_max)
    }

    /// Holds every field to its bounds, and tells those that break theirs.
    pub(super) fn check(&self, wrong: &mut Vec<(&'static str, String)>) {
        if !(1..=FOLLOW_DEPTH_MAX).contains(&self.depth) {
            wrong.push(("options.follow.depth", format!("1 to {FOLLOW_DEPTH_MAX}")));
        }
        if self.max_pages.is_some_and(|pages| !(1..=URLS_PER_STREAM_MAX).contains(&pages)) {
            wrong.push(("options.follow.max_pages", format!("1 to {URLS_PER_STREAM_MAX}")));
        }
        let fields =
            [("options.follow.include", &self.include), ("options.follow.exclude", &self.exclude)];
        for (field, globs) in fields {
            // URLs in normal form are printable ASCII: no other pattern could ever fit one.
            let fits = |glob: &Glob| {
                (1..=FOLLOW_GLOB_BYTES_MAX).contains(&glob.0.len())
                    && glob.0.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if globs.len() > FOLLOW_GLOBS_MAX || !globs.iter().all(fits) {
                let most = format!(
                    "at most {FOLLOW_GLOBS_MAX} patterns of 1 to {FOLLOW_GLOB_BYTES_MAX} printable ASCII characters"
                );
                wrong.push((field, most));
            }
        }
    }
}

/// A pattern of a whole URL, or of its path and query where it begins with `/`; `*` stands for any
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(text.into()))
    }
}

impl Glob {
    /// The pattern of a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether a URL in normal form is one of those. Linear in both: what stands between two stars is
    /// looked for from the left, because the first place leaves the most for what follows.
    #[must_use]
    pub fn fits(&self, url: &str) -> bool {
        let text = if self.0.starts_with('/') {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            &rest[rest.find('/').unwrap_or(rest.len())..]
        } else {
            url
        };
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            let Some(at) = memchr::memmem::find(rest.as_bytes(), piece.as_bytes()) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow, obvious twin.
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
            Some((first, rest)) => text.first() == Some(first) && matches(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_slow_twin_agrees(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Glob::new(&pattern).fits(&text), matches(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_slash_means_the_path() {
        assert!(Glob::new("/a/*").fits("http://x.test/a/b?c"));
        assert!(!Glob::new("/a/*").fits("http://x.test/b/a/"));
        assert!(Glob::new("/").fits("http://x.test/"));
        assert!(Glob::new("*://x.test/*").fits("https://x.test/b"));
    }
}
