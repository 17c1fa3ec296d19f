//! Sitemaps (sitemaps.org 0.9): a list of pages, or of further sitemaps. Read in turns, without IO.

use crate::limits::{FOLLOW_URL_BYTES_MAX, SITEMAP_TURN_BYTES};
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// What a sitemap names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// A page, `<url><loc>`.
    Page(String),
    /// Another sitemap, `<sitemap><loc>`.
    Sitemap(String),
}

/// Reads a file. Each call of what comes back reads a turn's worth and gives what it names; `None` at
/// the end, and where it is no XML any more.
pub(super) fn reader(file: &str) -> impl FnMut() -> Option<Vec<Named>> + '_ {
    let mut reader = Reader::from_str(file);
    // A file that does not close what it opens still names its pages.
    reader.config_mut().check_end_names = false;
    let (mut inside, mut location, mut over) = (None, None::<String>, false);
    move || {
        let (mut named, from) = (Vec::new(), reader.buffer_position());
        while !over && reader.buffer_position() - from < SITEMAP_TURN_BYTES {
            match reader.read_event() {
                Ok(Event::Start(tag)) => match tag.local_name().as_ref() {
                    "url" => inside = Some(false),
                    "sitemap" => inside = Some(true),
                    "loc" => location = inside.map(|_| String::new()),
                    _ => {}
                },
                Ok(Event::Text(text)) => {
                    add(&mut location, &text.xml_content(quick_xml::XmlVersion::Implicit1_0))
                }
                Ok(Event::CData(text)) => {
                    add(&mut location, &text.xml_content(quick_xml::XmlVersion::Implicit1_0))
                }
                Ok(Event::GeneralRef(name)) => match name.resolve_char_ref() {
                    Ok(Some(c)) => add(&mut location, c.encode_utf8(&mut [0; 4])),
                    _ => {
                        let name = name.xml_content(quick_xml::XmlVersion::Implicit1_0);
                        add(&mut location, resolve_xml_entity(&name).unwrap_or_default());
                    }
                },
                Ok(Event::End(tag)) if tag.local_name().as_ref() == "loc" => {
                    let url = location.take().map(|url| url.trim().to_owned());
                    let url = url.filter(|url| (1..=FOLLOW_URL_BYTES_MAX).contains(&url.len()));
                    named.extend(url.zip(inside).map(|(url, sitemap)| match sitemap {
                        true => Named::Sitemap(url),
                        false => Named::Page(url),
                    }));
                }
                Ok(Event::Eof) | Err(_) => over = true,
                Ok(_) => {}
            }
        }
        (!over || !named.is_empty()).then_some(named)
    }
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

    fn read(file: &str) -> Vec<Named> {
        let (mut step, mut all) = (reader(file), Vec::new());
        while let Some(named) = step() {
            all.extend(named);
        }
        all
    }

    #[test]
    fn lists_and_indexes_are_read() {
        let page = |url: &str| Named::Page(url.to_owned());
        let list = r#"<?xml version="1.0" encoding="UTF-8"?>
            <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://i/">
              <url><loc> http://a.test/?a=1&amp;b=2 </loc><lastmod>2024-01-01</lastmod></url>
              <url><image:image><image:loc>http://a.test/i.png</image:loc></image:image>
                   <loc><![CDATA[http://a.test/&]]></loc></url>
              <url><loc>http://a.test/&#x2f;&#0;</loc></url><url><loc></loc></url>
              <loc>http://a.test/outside</loc></urlset>"#;
        let first = read(list);
        assert_eq!(first[0], page("http://a.test/?a=1&b=2"));
        assert!(
            first.contains(&page("http://a.test/&")) && first.contains(&page("http://a.test//"))
        );
        let index =
            "<sitemapindex><sitemap><loc>http://a.test/s.xml.gz</loc></sitemap></sitemapindex>";
        assert_eq!(read(index), [Named::Sitemap("http://a.test/s.xml.gz".to_owned())]);
        assert_eq!(
            read("<urlset><url><loc>http://a.test/</loc></url><url><loc>http://b"),
            [page("http://a.test/")]
        );
        assert_eq!(read("no xml"), []);
    }

    #[test]
    fn a_large_file_is_read_in_turns() {
        let urls: String =
            (0..5000).map(|n| format!("<url><loc>http://a.test/{n}</loc></url>")).collect();
        let file = format!("<urlset>{urls}</urlset>");
        let mut step = reader(&file);
        let first = step().map(|named| named.len());
        assert!(first.is_some_and(|count| count > 0 && count < 5000), "{first:?}");
        assert_eq!(read(&file).len(), 5000);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(<(/?)(url|loc|sitemap|x)>|&[a-z#0-9]{0,4};?|[a-z:/<>&]{0,3}|<!\\[CDATA\\[|\\]\\]>){0,40}") {
            prop_assert!(read(&text).len() < 100);
        }
    }
}
