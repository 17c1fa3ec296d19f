//! The engine behind the ABI: Readability by `dom_smoothie`, and the whole page's text where that
//! finds nothing.

use dom_query::{Document, NodeRef};
use dom_smoothie::{Article, Config, Metadata, Readability, TextMode};

use crate::content::{self, Link};
use crate::metadata::Facts;
use crate::options::Wanted;
use crate::quality::{self, Signals};
use crate::{FIELD_BYTES_MAX, URL_BYTES_MAX, date, metadata, tree, words};

/// What is known of a page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) title: Option<String>,
    pub(crate) byline: Option<String>,
    pub(crate) published: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) site_name: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) markdown: String,
    pub(crate) text: String,
    pub(crate) links: Vec<Link>,
    pub(crate) word_count: usize,
    /// Hundredths.
    pub(crate) quality: u8,
    /// `,"about":{…}`, or nothing.
    pub(crate) about: Vec<u8>,
}

/// Bytes of the text's start in which the title's words are looked for.
const TITLE_SEARCH_BYTES: usize = 8 * 1024;
/// Nested elements up to which Markdown is made: its serializer recurses, and the sandbox has 1 MiB
/// of stack. Browsers stop at 512; deeper content keeps its plain text.
const MARKDOWN_DEPTH_MAX: usize = 200;
/// The element that holds the article when the engine is done.
const CONTENT: &str = "#readability-page-1";
/// Elements without text for a reader.
const INVISIBLE: &str = "script,style,noscript,template,svg,iframe,object,embed,canvas,button,\
                         input,select,textarea,[hidden],[aria-hidden=\"true\"]";
/// Elements that are rarely a page's own text.
const SURROUNDINGS: &str = "nav,footer,aside,header nav,[role=\"navigation\"]";

/// The main content; where there is none, the whole page's text without its surroundings.
pub(crate) fn article(html: &str, url: &str, about: Wanted) -> Page {
    first_with_text(html, |doc| {
        let tree = doc();
        let facts = Facts::of(&tree, html, url, about.links);
        let page = readable(tree, url, &facts);
        with_about(page.unwrap_or_else(|| whole(doc(), url, &facts, true)), about, &facts)
    })
}

/// The whole page's text.
pub(crate) fn full(html: &str, url: &str, about: Wanted) -> Page {
    first_with_text(html, |doc| {
        let tree = doc();
        let facts = Facts::of(&tree, html, url, about.links);
        with_about(whole(tree, url, &facts, false), about, &facts)
    })
}

fn with_about(mut page: Page, about: Wanted, facts: &Facts) -> Page {
    facts.told.write(&mut page.about, about, &facts.base);
    page
}

/// The page that `make` gives for the document as browsers show it, or, when that has no text, for
/// the document with what scripts would show or replace: forums and shops put their whole text into
/// `<noscript>` or hidden elements. `make` may parse more than once, because the engine consumes.
fn first_with_text(html: &str, make: impl Fn(&dyn Fn() -> Document) -> Page) -> Page {
    let shown = || parse(html);
    let page = make(&shown);
    if page.word_count > 0 || !(html.contains("<noscript") || html.contains(" hidden")) {
        return page;
    }
    make(&|| {
        let doc = parse(html);
        doc.select("noscript").rename("div");
        doc.select("[hidden]").remove_attr("hidden");
        doc
    })
}

fn parse(html: &str) -> Document {
    let doc = Document::from(html);
    tree::limit_depth(doc.root());
    doc
}

/// In the sandbox a tree is not taken apart node by node: its memory ends with the instance.
#[cfg(target_arch = "wasm32")]
fn for_good<T>(value: T) -> std::mem::ManuallyDrop<T> {
    std::mem::ManuallyDrop::new(value)
}

/// Outside of it a tree ends as every value does.
#[cfg(not(target_arch = "wasm32"))]
fn for_good<T>(value: T) -> T {
    value
}

/// What Readability finds.
fn readable(doc: Document, url: &str, facts: &Facts) -> Option<Page> {
    let config = Config { text_mode: TextMode::Formatted, ..Config::default() };
    let readability = Readability::with_document(doc, web_address(url), Some(config)).ok()?;
    let mut readability = for_good(readability);
    let article = readability.parse().ok()?;
    let root = readability.doc.select_single(CONTENT).nodes().first().copied()?;
    Some(from_article(article, root, facts)).filter(|page| page.word_count > 0)
}

/// The whole text; as a fallback without navigation, and counting less.
fn whole(doc: Document, url: &str, facts: &Facts, fallback: bool) -> Page {
    let Ok(readability) = Readability::with_document(doc, web_address(url), None) else {
        return Page::default(); // not reached: the address is checked before
    };
    let meta = readability.get_article_metadata(readability.parse_json_ld());
    let doc = readability.doc;
    doc.select(INVISIBLE).remove();
    if fallback && has_text_without(&doc, SURROUNDINGS) {
        doc.select(SURROUNDINGS).remove();
    }
    let Some(body) = doc.body() else { return Page::default() };
    make_absolute(&body, facts);
    let mut page = described(meta, facts);
    page.text = body.formatted_text().trim().to_owned();
    finish(page, body, facts, fallback)
}

fn from_article(article: Article, root: NodeRef<'_>, facts: &Facts) -> Page {
    let meta = Metadata {
        title: article.title,
        byline: article.byline,
        excerpt: article.excerpt,
        site_name: article.site_name,
        published_time: article.published_time,
        image: article.image,
        lang: article.lang,
        ..Metadata::default()
    };
    let mut page = described(meta, facts);
    page.text = article.text_content.trim().to_owned();
    finish(page, root, facts, false)
}

/// The metadata fields.
fn described(meta: Metadata, facts: &Facts) -> Page {
    let field = |text: &str| {
        let text = words::squeeze(words::cut(text, 4 * FIELD_BYTES_MAX));
        let text = words::cut(&text, FIELD_BYTES_MAX);
        (!text.is_empty()).then(|| text.to_owned())
    };
    let optional = |text: &Option<String>| text.as_deref().and_then(field);
    Page {
        title: field(&meta.title),
        byline: optional(&meta.byline).and_then(|byline| author(&byline)),
        published: meta
            .published_time
            .as_deref()
            .and_then(date::iso)
            .or_else(|| facts.published.clone()),
        language: meta
            .lang
            .as_deref()
            .and_then(metadata::language_tag)
            .or_else(|| facts.language.clone()),
        description: optional(&meta.excerpt),
        site_name: optional(&meta.site_name),
        image: meta
            .image
            .filter(|image| image.len() <= URL_BYTES_MAX)
            .and_then(|image| facts.base.resolve(&image)),
        ..Page::default()
    }
}

/// Everything that is made from the content's tree and text.
fn finish(mut page: Page, root: NodeRef<'_>, facts: &Facts, fallback: bool) -> Page {
    let content = content::survey(root, &facts.base);
    page.markdown = if content.depth <= MARKDOWN_DEPTH_MAX {
        root.md(None).trim().to_owned()
    } else {
        page.text.clone()
    };
    page.word_count = words::count(&page.text);
    page.quality = quality::score(&Signals {
        words: page.word_count,
        chars: content.chars,
        link_chars: content.link_chars,
        block_chars: content.block_chars,
        page_chars: facts.page_chars,
        title_share: page.title.as_deref().map(|title| title_share(title, &page.text)),
        fallback,
    });
    page.links = content.links;
    page
}

/// Share of the title's words that the start of the text holds.
fn title_share(title: &str, text: &str) -> f64 {
    let text = words::cut(text, TITLE_SEARCH_BYTES).to_lowercase();
    let title = title.to_lowercase();
    let (mut found, mut all) = (0_u32, 0_u32);
    for word in title.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 2).take(40) {
        all += 1;
        found += u32::from(text.contains(word));
    }
    if all == 0 { 0.5 } else { f64::from(found) / f64::from(all) }
}

/// A byline without "By", without addresses.
fn author(byline: &str) -> Option<String> {
    let mut names = byline;
    for word in ["by ", "von ", "par ", "por ", "written by ", "posted by "] {
        if names.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
            names = &names[word.len()..];
        }
    }
    let names = names.trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | '|'));
    (!names.is_empty() && !names.starts_with("http")).then(|| names.to_owned())
}

/// The engine takes only absolute addresses.
fn web_address(url: &str) -> Option<&str> {
    let url = url.trim();
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    (!rest.is_empty()).then_some(url)
}

fn has_text_without(doc: &Document, selector: &str) -> bool {
    let inside: usize = doc.select(selector).iter().map(|s| words::count(&s.text())).sum();
    doc.body().is_some_and(|body| words::count(&body.text()) > inside)
}

fn make_absolute(body: &NodeRef<'_>, facts: &Facts) {
    for (selector, name) in [("a[href]", "href"), ("img[src]", "src")] {
        for node in dom_query::Selection::from(*body).select(selector).nodes() {
            if let Some(url) = node.attr(name).and_then(|value| facts.base.resolve(&value)) {
                node.set_attr(name, &url);
            }
        }
    }
}
