//! Relative references (RFC 3986 §5), enough for links: no IDNA and no percent-encoding beyond
//! white space, because a link is handed on, not fetched here.

/// The address that relative links of a page start from.
#[derive(Debug, Default)]
pub(crate) struct Base {
    /// An absolute http or https URL without a fragment, or empty.
    url: String,
}

impl Base {
    /// `page` is the page's own address, `base_href` the one of its `<base>`.
    pub(crate) fn new(page: &str, base_href: Option<&str>) -> Self {
        let page = Self { url: without_fragment(page.trim()).to_owned() };
        let page = if is_web(&page.url) { page } else { Self::default() };
        match base_href.and_then(|href| page.resolve(href)) {
            Some(url) => Self { url: without_fragment(&url).to_owned() },
            None => page,
        }
    }

    /// Absolute `http` or `https` address of a reference.
    pub(crate) fn resolve(&self, reference: &str) -> Option<String> {
        // The WHATWG parser trims controls and spaces and drops tabs and newlines inside.
        let reference: String = reference
            .trim_matches(|c: char| c <= ' ')
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .collect();
        let reference = reference.replace(' ', "%20");
        let absolute = match scheme(&reference) {
            Some("http" | "https" | "HTTP" | "HTTPS" | "Http" | "Https") => reference,
            Some(_) => return None,
            None => self.join(&reference)?,
        };
        is_web(&absolute).then_some(absolute)
    }

    /// As `resolve`, but nothing for a link into the page itself.
    pub(crate) fn page_link(&self, href: &str) -> Option<String> {
        if href.trim_start().starts_with('#') {
            return None;
        }
        self.resolve(href).filter(|url| without_fragment(url) != self.url || !url.contains('#'))
    }

    /// RFC 3986 §5.2.2 for a reference without a scheme.
    fn join(&self, reference: &str) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path_query) = rest.split_at(path_at);
        let path = path_query.split('?').next().unwrap_or("");
        if let Some(after) = reference.strip_prefix("//") {
            return Some(format!("{scheme}://{after}"));
        }
        let (ref_path, ref_tail) =
            reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
        if ref_path.is_empty() {
            let kept = if ref_tail.starts_with('?') { path } else { path_query };
            return Some(format!("{scheme}://{authority}{kept}{ref_tail}"));
        }
        let merged = if ref_path.starts_with('/') {
            ref_path.to_owned()
        } else {
            let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
            format!("{folder}{ref_path}")
        };
        Some(format!("{scheme}://{authority}{}{ref_tail}", without_dots(&merged)))
    }
}

/// RFC 3986 §3.1.
fn scheme(reference: &str) -> Option<&str> {
    let (scheme, _) = reference.split_once(':')?;
    let mut bytes = scheme.bytes();
    (bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
    .then_some(scheme)
}

fn is_web(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, rest)| {
        (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
            && !rest.is_empty()
            && !rest.starts_with(['/', '?', '#'])
    })
}

fn without_fragment(url: &str) -> &str {
    url.split('#').next().unwrap_or("")
}

/// RFC 3986 §5.2.4, for a path that starts with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3986() {
        let base = Base::new("http://a/b/c/d;p?q", None);
        for (reference, want) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g#s", "http://a/b/c/g#s"),
            ("#s", "http://a/b/c/d;p?q#s"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("g/../h", "http://a/b/c/h"),
        ] {
            assert_eq!(base.resolve(reference).as_deref(), Some(want), "{reference}");
        }
    }

    #[test]
    fn only_web_addresses_are_links() {
        let base = Base::new("https://example.com", None);
        assert_eq!(base.resolve("x").as_deref(), Some("https://example.com/x"));
        assert_eq!(base.resolve(" /a b\n ").as_deref(), Some("https://example.com/a%20b"));
        for other in ["mailto:a@b", "javascript:void(0)", "data:text/html,x", "http://", "tel:1"] {
            assert_eq!(base.resolve(other), None, "{other}");
        }
        assert_eq!(base.page_link("#top"), None);
        assert_eq!(base.page_link("https://example.com#top"), None);
        let no_base = Base::new("about:blank", None);
        assert_eq!(no_base.resolve("/x"), None);
        assert_eq!(no_base.resolve("http://b/x").as_deref(), Some("http://b/x"));
    }

    #[test]
    fn a_base_element_moves_the_start() {
        let base = Base::new("https://example.com/a/b", Some("/c/"));
        assert_eq!(base.resolve("d").as_deref(), Some("https://example.com/c/d"));
        let other = Base::new("https://example.com/a/b", Some("https://cdn.example/x/"));
        assert_eq!(other.resolve("d").as_deref(), Some("https://cdn.example/x/d"));
    }
}
