//! What the whole page tells about itself, found in one walk before the engine cuts the tree.

use dom_query::{Document, NodeRef};

use crate::about::Told;
use crate::tree::{Visitor, walk};
use crate::url::Base;
use crate::{date, words};

/// Facts about the whole page.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Visible characters of the body, white space apart.
    pub(crate) page_chars: usize,
    /// Where relative links start from.
    pub(crate) base: Base,
    /// Publication date, ISO 8601, where the engine finds none.
    pub(crate) published: Option<String>,
    /// BCP 47.
    pub(crate) language: Option<String>,
    /// What it tells crawlers.
    pub(crate) told: Told,
}

impl Facts {
    /// Walks the whole document. `html` is its source, where JSON-LD is searched for a date; its links
    /// are kept where they are wanted.
    pub(crate) fn of(doc: &Document, html: &str, url: &str, links: bool) -> Self {
        let mut finder = Finder { wants_links: links, ..Finder::default() };
        walk(doc.root(), &mut finder);
        let published = finder
            .meta_date
            .or_else(|| json_ld_date(html))
            .or(finder.time_date)
            .or_else(|| date::in_path(url));
        let language = [finder.html_lang, finder.meta_lang, finder.locale];
        Self {
            page_chars: finder.chars,
            base: Base::new(url, finder.base.as_deref()),
            published,
            language: language.into_iter().flatten().find_map(|tag| language_tag(&tag)),
            told: finder.told,
        }
    }
}

#[derive(Default)]
struct Finder {
    chars: usize,
    depth_head: usize,
    base: Option<String>,
    meta_date: Option<String>,
    time_date: Option<String>,
    html_lang: Option<String>,
    meta_lang: Option<String>,
    locale: Option<String>,
    wants_links: bool,
    told: Told,
}

impl Visitor for Finder {
    fn open(&mut self, node: NodeRef<'_>, name: &str) -> bool {
        let attr = |name: &str| node.attr(name).map(|value| value.to_string());
        match name {
            "script" | "style" | "noscript" | "template" | "svg" | "iframe" => return false,
            "head" => self.depth_head += 1,
            "html" if self.html_lang.is_none() => {
                self.html_lang = attr("lang").or_else(|| attr("xml:lang"));
            }
            "base" if self.base.is_none() => self.base = attr("href"),
            "meta" => self.meta(&node),
            "a" | "area" if self.wants_links => {
                if let Some(href) = node.attr("href") {
                    self.told.link(&href, node.attr("rel").as_deref());
                }
            }
            "link" if self.wants_links => {
                let canonical = |rel: &str| {
                    rel.split_whitespace().any(|rel| rel.eq_ignore_ascii_case("canonical"))
                };
                if let (Some(rel), Some(href)) = (node.attr("rel"), node.attr("href"))
                    && canonical(&rel)
                {
                    self.told.canonical(&href);
                }
            }
            "time" if self.time_date.is_none() => {
                self.time_date = attr("datetime").and_then(|text| date::iso(&text));
            }
            _ => {
                if self.meta_date.is_none()
                    && node.attr("itemprop").is_some_and(|prop| &*prop == "datePublished")
                {
                    self.meta_date = attr("content")
                        .or_else(|| attr("datetime"))
                        .and_then(|text| date::iso(&text));
                }
            }
        }
        true
    }

    fn close(&mut self, name: &str) {
        if name == "head" {
            self.depth_head = self.depth_head.saturating_sub(1);
        }
    }

    fn text(&mut self, text: &str) {
        if self.depth_head == 0 {
            self.chars += words::visible_chars(text);
        }
    }
}

impl Finder {
    fn meta(&mut self, node: &NodeRef<'_>) {
        let Some(content) = node.attr("content") else { return };
        let key = ["property", "name", "itemprop", "http-equiv"].iter().find_map(|n| node.attr(n));
        let Some(key) = key.map(|key| key.trim().to_ascii_lowercase()) else { return };
        match key.as_str() {
            "content-language" | "language" | "dc.language" if self.meta_lang.is_none() => {
                self.meta_lang = Some(content.to_string());
            }
            "robots" | "forebay" => self.told.robots(&content),
            "og:locale" if self.locale.is_none() => self.locale = Some(content.to_string()),
            "article:published_time"
            | "og:published_time"
            | "datepublished"
            | "date"
            | "pubdate"
            | "publishdate"
            | "publish-date"
            | "publish_date"
            | "publication_date"
            | "article.published"
            | "dc.date"
            | "dc.date.issued"
            | "dc.date.created"
            | "dcterms.date"
            | "dcterms.created"
            | "sailthru.date"
            | "citation_date"
            | "citation_publication_date"
            | "parsely-pub-date"
            | "article_date_original"
            | "displaydate"
            | "rnews:datepublished"
            | "cxenseparse:recs:publishtime"
                if self.meta_date.is_none() =>
            {
                self.meta_date = date::iso(&content);
            }
            _ => {}
        }
    }
}

/// The first `"datePublished": "…"` in the source; schema.org uses the name for nothing else.
fn json_ld_date(html: &str) -> Option<String> {
    let rest = &html[html.find("\"datePublished\"")? + "\"datePublished\"".len()..];
    let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    date::iso(value.split('"').next()?)
}

/// `text` as a BCP 47 tag in its usual letter case, `None` when it has not that form.
pub(crate) fn language_tag(text: &str) -> Option<String> {
    let text = text.split([',', ';']).next()?.trim().replace('_', "-");
    let mut tag = String::new();
    for (n, part) in text.split('-').enumerate() {
        let alphanumeric = part.bytes().all(|b| b.is_ascii_alphanumeric());
        if part.is_empty() || part.len() > 8 || !alphanumeric || n > 5 {
            return None;
        }
        let alphabetic = part.bytes().all(|b| b.is_ascii_alphabetic());
        match (n, part.len()) {
            // RFC 5646 §2.1.1: language lower case, script title case, region upper case.
            (0, 2..=3) if alphabetic => tag.push_str(&part.to_ascii_lowercase()),
            (0, _) => return None,
            (_, 2) if alphabetic => tag.push_str(&format!("-{}", part.to_ascii_uppercase())),
            (_, 4) if alphabetic => {
                let lower = part.to_ascii_lowercase();
                tag.push_str(&format!("-{}{}", lower[..1].to_ascii_uppercase(), &lower[1..]));
            }
            _ => tag.push_str(&format!("-{}", part.to_ascii_lowercase())),
        }
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_tags() {
        for (text, want) in [
            ("en", Some("en")),
            ("EN-us", Some("en-US")),
            ("zh_hans_cn", Some("zh-Hans-CN")),
            ("de-DE, en", Some("de-DE")),
            ("x", None),
            ("", None),
            ("{{ lang }}", None),
            ("english", None),
        ] {
            assert_eq!(language_tag(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn dates_outside_the_usual_places() {
        let facts = |html: &str| Facts::of(&Document::from(html), html, "https://e.com/", false);
        let time = facts("<p><time datetime='2024-03-05'>5 March</time>");
        assert_eq!(time.published.as_deref(), Some("2024-03-05"));
        let linked = facts("<script>{\"@graph\":[{\"datePublished\": \"2024-03-06\"}]}</script>");
        assert_eq!(linked.published.as_deref(), Some("2024-03-06"));
        let meta = facts("<html lang=de_AT><meta name=date content='7. März 2024'>Grüß Gott");
        assert_eq!(meta.published.as_deref(), Some("2024-03-07"));
        assert_eq!(meta.language.as_deref(), Some("de-AT"));
        assert_eq!(meta.page_chars, 8);
    }
}
