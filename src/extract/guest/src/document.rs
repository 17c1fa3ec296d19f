//! The answer's bytes.

use crate::article::Page;
use crate::{Formats, json};

/// Writes the answer; the crate's documentation gives its shape.
pub(crate) fn write(page: &Page, formats: Formats) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024 + page.text.len() + page.markdown.len());
    out.extend_from_slice(b"{\"quality_score\":");
    json::hundredths(&mut out, page.quality);
    out.extend_from_slice(b",\"document\":");
    let fields = [
        ("title", &page.title),
        ("byline", &page.byline),
        ("published", &page.published),
        ("language", &page.language),
        ("description", &page.description),
        ("site_name", &page.site_name),
        ("image", &page.image),
    ];
    for (n, (name, value)) in fields.into_iter().enumerate() {
        out.push(if n == 0 { b'{' } else { b',' });
        key(&mut out, name);
        json::nullable(&mut out, value.as_deref().filter(|_| formats.metadata));
    }
    out.push(b',');
    key(&mut out, "markdown");
    json::nullable(&mut out, formats.markdown.then_some(page.markdown.as_str()));
    out.push(b',');
    key(&mut out, "text");
    json::nullable(&mut out, formats.text.then_some(page.text.as_str()));
    out.push(b',');
    key(&mut out, "links");
    links(&mut out, page, formats.links);
    out.push(b',');
    key(&mut out, "word_count");
    out.extend_from_slice(page.word_count.to_string().as_bytes());
    out.push(b'}');
    out.extend_from_slice(&page.about);
    out.push(b'}');
    out
}

fn key(out: &mut Vec<u8>, name: &str) {
    json::string(out, name);
    out.push(b':');
}

fn links(out: &mut Vec<u8>, page: &Page, wanted: bool) {
    if !wanted {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'[');
    for (n, link) in page.links.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"href\":");
        json::string(out, &link.href);
        out.extend_from_slice(b",\"text\":");
        json::string(out, &link.text);
        out.push(b'}');
    }
    out.push(b']');
}
