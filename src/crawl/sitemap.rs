//! Sitemaps (sitemaps.org 0.9): a list of pages, or of further sitemaps. Without IO.

use crate::limits::{FOLLOW_URL_BYTES_MAX, SITEMAP_FILES_MAX, SITEMAP_URLS_MAX};
use crate::proto::text::Texts;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// What a sitemap names.
#[derive(Debug, Default)]
pub struct Named {
    /// Pages, `<url><loc>`.
    pub pages: Texts,
    /// Further sitemaps, `<sitemap><loc>`.
    pub sitemaps: Vec<String>,
}

/// Reads a file, up to where it is no XML any more. Bytes that are no UTF-8 spoil the location that they
/// stand in, and nothing else. Takes milliseconds where it is long: not for a loop then.
pub fn read(file: &[u8]) -> Named {
    let file = String::from_utf8_lossy(file);
    let mut reader = Reader::from_str(&file);
    // A file that does not close what it opens still names its pages.
    reader.config_mut().check_end_names = false;
    let (mut inside, mut location, mut named) = (None, None::<String>, Named::default());
    while named.pages.len() < SITEMAP_URLS_MAX {
        match reader.read_event() {
            Ok(Event::Start(tag)) => match tag.local_name().as_ref() {
                "url" => inside = Some(false),
                "sitemap" => inside = Some(true),
                "loc" => location = inside.map(|_| String::new()),
                _ => {}
            },
            Ok(Event::Text(text)) if location.is_some() => {
                add(&mut location, &text.xml_content(quick_xml::XmlVersion::Implicit1_0));
            }
            Ok(Event::CData(text)) if location.is_some() => {
                add(&mut location, &text.xml_content(quick_xml::XmlVersion::Implicit1_0));
            }
            Ok(Event::GeneralRef(name)) if location.is_some() => match name.resolve_char_ref() {
                Ok(Some(c)) => add(&mut location, c.encode_utf8(&mut [0; 4])),
                _ => {
                    let name = name.xml_content(quick_xml::XmlVersion::Implicit1_0);
                    add(&mut location, resolve_xml_entity(&name).unwrap_or_default());
                }
            },
            Ok(Event::End(tag)) if tag.local_name().as_ref() == "loc" => {
                named.take(location.take(), inside);
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(_) => {}
        }
    }
    named
}

impl Named {
    /// Takes what stood in a `<loc>`.
    fn take(&mut self, location: Option<String>, sitemap: Option<bool>) {
        let Some((url, sitemap)) = location.zip(sitemap) else { return };
        let url = url.trim();
        if !(1..=FOLLOW_URL_BYTES_MAX).contains(&url.len()) {
            return;
        }
        if !sitemap {
            self.pages.push(url);
        } else if self.sitemaps.len() < SITEMAP_FILES_MAX {
            self.sitemaps.push(url.to_owned());
        }
    }
}

/// Entry for the fuzzer, and for a test over the same inputs: whatever the bytes, what they name is
/// within its limits.
pub fn fuzz(file: &[u8]) {
    let Named { pages, sitemaps } = read(file);
    assert!(pages.len() <= SITEMAP_URLS_MAX && sitemaps.len() <= SITEMAP_FILES_MAX);
    let all = pages.iter().chain(sitemaps.iter().map(String::as_str));
    all.for_each(|url| assert!((1..=FOLLOW_URL_BYTES_MAX).contains(&url.len())));
}

/// Adds to a location that is being read; one that is too long anyway does not grow.
fn add(location: &mut Option<String>, text: &str) {
    if let Some(location) = location
        && location.len() <= FOLLOW_URL_BYTES_MAX
    {
        location.push_str(crate::search::answer::cut(text, FOLLOW_URL_BYTES_MAX + 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(file: impl AsRef<[u8]>) -> Vec<String> {
        read(file.as_ref()).pages.iter().map(str::to_owned).collect()
    }

    #[test]
    fn lists_and_indexes_are_read() {
        let list = r#"<?xml version="1.0" encoding="UTF-8"?>
            <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://i/">
              <url><loc> http://a.test/?a=1&amp;b=2 </loc><lastmod>2024-01-01</lastmod></url>
              <url><image:image><image:loc>http://a.test/i.png</image:loc></image:image>
                   <loc><![CDATA[http://a.test/&]]></loc></url>
              <url><loc>http://a.test/&#x2f;&#0;</loc></url><url><loc></loc></url>
              <loc>http://a.test/outside</loc></urlset>"#;
        let first = pages(list);
        assert_eq!(first[0], "http://a.test/?a=1&b=2");
        let has = |url: &str| first.iter().any(|page| page == url);
        assert!(has("http://a.test/&") && has("http://a.test//"));
        let index =
            "<sitemapindex><sitemap><loc>http://a.test/s.xml.gz</loc></sitemap></sitemapindex>";
        assert_eq!(read(index.as_bytes()).sitemaps, ["http://a.test/s.xml.gz"]);
        assert!(pages(index).is_empty());
        let cut = "<urlset><url><loc>http://a.test/</loc></url><url><loc>http://b";
        assert_eq!(pages(cut), ["http://a.test/"]);
        assert!(pages("no xml").is_empty());
    }

    #[test]
    fn a_byte_of_another_charset_spoils_its_own_line_only() {
        let file = b"<urlset><url><loc>http://a.test/1</loc></url><!-- caf\xe9 -->\
            <url><loc>http://a.test/\xe9</loc></url><url><loc>http://a.test/2</loc></url></urlset>";
        assert_eq!(pages(file), ["http://a.test/1", "http://a.test/\u{fffd}", "http://a.test/2"]);
    }

    #[test]
    fn no_file_names_more_than_the_protocol_lets_it() {
        let file = "<url><loc>http://a.test/</loc></url>".repeat(SITEMAP_URLS_MAX + 10);
        assert_eq!(read(file.as_bytes()).pages.len(), SITEMAP_URLS_MAX);
        let file = "<sitemap><loc>http://a.test/</loc></sitemap>".repeat(SITEMAP_FILES_MAX + 10);
        assert_eq!(read(file.as_bytes()).sitemaps.len(), SITEMAP_FILES_MAX);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(<(/?)(url|loc|sitemap|x)>|&[a-z#0-9]{0,4};?|[a-z:/<>&]{0,3}|<!\\[CDATA\\[|\\]\\]>){0,40}") {
            fuzz(text.as_bytes());
            prop_assert!(pages(&text).len() < 100);
        }
    }
}
