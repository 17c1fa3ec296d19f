//! The demo's pages: a dozen kinds that the web is made of, written for this purpose, and a huge
//! one that is made from a seed when it is asked for.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Seed of the huge page and of the origin's latencies; the same one gives the same demo.
pub const SEED: u64 = 0x7A2F_0551_0214;

/// Days in the huge page's table: about half a megabyte of HTML.
const HUGE_DAYS: u32 = 3_653;

/// How the origin frames and codes a page's body on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `Content-Length` (RFC 9112 §6.2).
    Length,
    /// `Transfer-Encoding: chunked` (RFC 9112 §7.1), in pieces that arrive one by one.
    Chunked,
    /// `Content-Encoding: gzip` with a length.
    Gzip,
    /// `Content-Encoding: gzip`, chunked.
    GzipChunked,
}

impl Wire {
    /// Whether the body is sent in chunks.
    #[must_use]
    pub const fn chunked(self) -> bool {
        matches!(self, Self::Chunked | Self::GzipChunked)
    }

    /// Whether the body is compressed.
    #[must_use]
    pub const fn gzip(self) -> bool {
        matches!(self, Self::Gzip | Self::GzipChunked)
    }
}

/// One page of the origin.
#[derive(Debug, Clone)]
pub struct Page {
    /// Absolute path, `/article`.
    pub path: &'static str,
    /// Value of `Content-Type`; without a charset where the page's own `<meta>` must tell.
    pub content_type: &'static str,
    /// Status code of the answer.
    pub status: u16,
    /// How it goes over the wire.
    pub wire: Wire,
    /// The bytes, in the page's own encoding.
    pub body: Cow<'static, [u8]>,
}

/// Every page of the demo, in the order in which the demo asks for them.
#[must_use]
pub fn pages() -> Vec<Page> {
    const UTF8: &str = "text/html; charset=utf-8";
    let page = |path, content_type, wire, body: &'static [u8]| Page {
        path,
        content_type,
        status: 200,
        wire,
        body: Cow::Borrowed(body),
    };
    let mut pages = vec![
        page("/article", UTF8, Wire::Gzip, include_bytes!("pages/article.html")),
        page("/news", UTF8, Wire::Length, include_bytes!("pages/news.html")),
        page("/docs", UTF8, Wire::GzipChunked, include_bytes!("pages/docs.html")),
        page("/api", "text/html", Wire::Chunked, include_bytes!("pages/api.html")),
        page("/forum", UTF8, Wire::Chunked, include_bytes!("pages/forum.html")),
        page("/product", UTF8, Wire::Length, include_bytes!("pages/product.html")),
        page("/recipe", UTF8, Wire::Gzip, include_bytes!("pages/recipe.html")),
        page("/faq", "text/html", Wire::Length, include_bytes!("pages/faq.html")),
        page("/listing", UTF8, Wire::Chunked, include_bytes!("pages/listing.html")),
        page("/zh", UTF8, Wire::Gzip, include_bytes!("pages/zh.html")),
        page(
            "/ru",
            "text/html; charset=windows-1251",
            Wire::Length,
            include_bytes!("pages/ru.html"),
        ),
        page("/ja", "text/html", Wire::Chunked, include_bytes!("pages/ja.html")),
    ];
    pages.push(Page {
        path: "/huge",
        content_type: UTF8,
        status: 200,
        wire: Wire::GzipChunked,
        body: Cow::Owned(huge(SEED, HUGE_DAYS).into_bytes()),
    });
    pages.push(Page {
        path: "/missing",
        content_type: UTF8,
        status: 404,
        wire: Wire::Length,
        body: Cow::Borrowed(include_bytes!("pages/missing.html")),
    });
    pages
}

/// Ten years of readings of a gauge that never was: a table row and now and then a remark for each
/// of `days`, the same for the same `seed`.
fn huge(seed: u64, days: u32) -> String {
    let mut html = String::from(HUGE_HEAD);
    let (mut state, mut level_cm) = (seed, 212_u64);
    let (mut year, mut month, mut day) = (2015, 0, 1);
    for _ in 0..days {
        let (name, month_days) = MONTHS[month];
        if day == 1 {
            push(&mut html, format_args!("</tbody></table>\n<h2>{name} {year}</h2>\n{TABLE_HEAD}"));
        }
        let draw = splitmix(&mut state);
        level_cm = (level_cm + draw % 15).saturating_sub(7).clamp(80, 290);
        let flow = level_cm * level_cm / 4_000 + draw / 16 % 3;
        let tenths = 20 + draw / 64 % 120;
        let date = format!("{year}-{:02}-{day:02}", month + 1);
        let level = format!("{}.{:02}", level_cm / 100, level_cm % 100);
        let (flow_tenth, degrees, tenth) = (draw / 32 % 10, tenths / 10, tenths % 10);
        push(
            &mut html,
            format_args!(
                "<tr><td>{date}</td><td>{level}</td><td>{flow}.{flow_tenth}</td>\
                 <td>{degrees}.{tenth}</td></tr>\n"
            ),
        );
        if draw.is_multiple_of(9) {
            let remark = REMARKS[usize::from((draw >> 32).to_le_bytes()[0]) % REMARKS.len()];
            push(
                &mut html,
                format_args!(
                    "</tbody></table>\n<p><b>{day} {name}.</b> {remark}</p>\n<table><tbody>\n"
                ),
            );
        }
        day += 1;
        if day > month_days {
            (day, month) = (1, month + 1);
        }
        if month == MONTHS.len() {
            (month, year) = (0, year + 1);
        }
    }
    html.push_str(HUGE_FOOT);
    html
}

const HUGE_HEAD: &str = r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Ten years of gauge readings at Tarnfoss</title>
<meta name="description" content="Level, flow and temperature for every day of ten years, with the keeper's remarks.">
<meta property="og:site_name" content="Upstream Quarterly"><meta property="article:published_time" content="2025-01-15"></head>
<body><nav><a href="/">Upstream Quarterly</a> <a href="/article">Features</a> <a href="/news">News</a></nav>
<main><h1>Ten years of gauge readings at Tarnfoss</h1>
<p>The keeper of the gauge reads the staff at noon and writes down the level, the flow that the rating curve gives for it, and the temperature of the water. On some days there is a remark. This page holds all of it, so that it can be read on a train without a connection; it is long on purpose.</p>
<table><tbody>
"#;

const REMARKS: [&str; 8] = [
    "Ice along the left bank, none in the middle of the channel; the float was freed by hand.",
    "Heavy rain in the upper valley since the evening, and the water turned brown before noon.",
    "The staff was cleaned and read again: the automatic gauge had been two centimetres high.",
    "A birch has come down across the side channel; it was sawn up and taken out the same day.",
    "No wind, no rain, no change, and a heron that stood on the weir for most of the morning.",
    "The gates were closed for an hour for painting; the reading at noon is not the river's own.",
    "Snow on the lower slopes. The brook under the road bridge has frozen over completely.",
    "First warm night of the year; the level rose by a hand's width between midnight and four.",
];

const MONTHS: [(&str, u32); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

const TABLE_HEAD: &str = "<table><thead><tr><th>Day</th><th>Level (m)</th><th>Flow (m³/s)</th>\
    <th>Water (°C)</th></tr></thead><tbody>\n";

const HUGE_FOOT: &str = "</tbody></table>\n</main>\n\
    <footer>Readings without warranty. <a href=\"/imprint\">Imprint</a></footer>\n</body></html>\n";

/// One step of SplitMix64: small, seedable, and good enough to vary a demo.
pub(super) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_differ_in_kind_size_and_encoding() {
        let pages = pages();
        let paths: std::collections::HashSet<_> = pages.iter().map(|p| p.path).collect();
        assert_eq!(paths.len(), pages.len(), "each path once");
        assert!(pages.len() >= 13, "a dozen pages and the missing one");
        let stored: usize = pages.iter().filter(|p| p.path != "/huge").map(|p| p.body.len()).sum();
        assert!(stored < 300 * 1024, "{stored} bytes are kept in the binary");
        for page in &pages {
            let valid = std::str::from_utf8(&page.body).is_ok();
            assert_eq!(valid, !matches!(page.path, "/ru" | "/ja"), "{}", page.path);
        }
    }

    #[test]
    fn foreign_charsets_decode_to_what_was_written() {
        let body = |path| pages().into_iter().find(|p| p.path == path).expect("a page").body;
        let (russian, japanese) = (body("/ru"), body("/ja"));
        let (text, _, errors) = encoding_rs::WINDOWS_1251.decode(&russian);
        assert!(!errors && text.contains("Хорошая коса не режет траву"));
        let (text, _, errors) = encoding_rs::SHIFT_JIS.decode(&japanese);
        assert!(!errors && text.contains("昆布を水に浸す"));
    }

    #[test]
    fn the_huge_page_is_huge_and_the_same_each_time() {
        let page = huge(SEED, HUGE_DAYS);
        assert!((300_000..900_000).contains(&page.len()), "{} bytes", page.len());
        assert_eq!(page, huge(SEED, HUGE_DAYS));
        assert_ne!(page, huge(SEED + 1, HUGE_DAYS));
        assert_eq!(page.matches("<table>").count(), page.matches("</table>").count());
    }
}
