//! Generated pages: seeded, of an exact size, and shaped like the real web's, with navigation,
//! sidebars, links and footers around the text that an extractor should find.

use crate::num::{to_u64, to_usize};
use crate::rng::Rng;
use std::fmt::Write as _;

/// What kind of page to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A news or magazine article.
    Article,
    /// Reference documentation with code and tables.
    Docs,
    /// A forum thread.
    Forum,
    /// A shop's listing of products.
    Listing,
}

impl Kind {
    /// Reads `article`, `docs`, `forum` or `listing`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "article" => Ok(Self::Article),
            "docs" => Ok(Self::Docs),
            "forum" => Ok(Self::Forum),
            "listing" => Ok(Self::Listing),
            _ => Err(format!("kind `{text}`: expected article, docs, forum or listing")),
        }
    }
}

const SUBJECTS: &[&str] = &[
    "The river authority",
    "A retired engineer",
    "The night shift",
    "The municipal council",
    "Our correspondent",
    "A small workshop in the valley",
    "The research station",
    "The ferry captain",
    "A group of volunteers",
    "The old mill",
    "The regional archive",
    "A quiet spring",
    "The turbine hall",
    "The lock keeper",
    "Every second household",
    "The survey of 1911",
];
const VERBS: &[&str] = &[
    "measured",
    "rebuilt",
    "described",
    "opened",
    "questioned",
    "repaired",
    "photographed",
    "surveyed",
    "recorded",
    "abandoned",
    "restored",
    "documented",
    "replaced",
    "mapped",
    "inherited",
];
const OBJECTS: &[&str] = &[
    "the upper reservoir",
    "three kilometres of canal",
    "the gauge at the weir",
    "a set of brass valves",
    "the forgotten footbridge",
    "the flood records",
    "an unusual spillway",
    "the fish ladder",
    "the control room",
    "a ledger of water levels",
    "the sluice gates",
    "the café by the dam",
    "the narrow-gauge railway",
    "a naïve but useful model",
    "the forebay",
    "the penstock",
];
const TAILS: &[&str] = &[
    "before the snow melted",
    "with borrowed tools",
    "over the course of a decade",
    "despite the objections of the insurers",
    "while the town slept",
    "at a cost nobody had planned for",
    "and wrote the figures down by hand",
    "because the spring tides left no choice",
    "in a single dry summer",
    "according to the minutes of that year",
    "without closing the road",
    "so that the lower villages kept their supply",
    "and then did it again",
    "to everyone's surprise",
];
const OPENERS: &[&str] = &[
    "",
    "",
    "",
    "In the end, ",
    "By contrast, ",
    "Two years later, ",
    "As the notes show, ",
    "For a while, ",
    "Even so, ",
    "On most mornings, ",
    "Against expectation, ",
];
const TITLES: &[&str] = &[
    "What the water left behind",
    "A year at the weir",
    "How a small dam learned to wait",
    "Notes from the turbine hall",
    "The long repair",
    "Levels, ledgers and luck",
    "Where the canal ends",
    "A short history of the forebay",
    "The quiet engineers",
];
const NAMES: &[&str] = &[
    "Marta Lindqvist",
    "Joseph Okafor",
    "Ana Reyes",
    "Tomáš Dvořák",
    "Ines Moreau",
    "Priya Nair",
    "Samuel Hale",
    "Yuki Tanaka",
];

/// Writes page `n` with exactly `size` bytes and about `links` links in its text.
pub(crate) fn page(seed: u64, n: u64, size: usize, kind: Kind, links: usize) -> String {
    let mut rng = Rng::labelled(seed, &format!("page {n} {kind:?}"));
    let title = format!("{} ({n})", rng.pick(TITLES));
    let prefix = prefix(&mut rng, &title, n, kind);
    let suffix = suffix(&mut rng, n);
    if prefix.len() + suffix.len() + 64 > size {
        return tiny(&title, size);
    }
    let mut out = prefix;
    let room = size - suffix.len();
    let mut links_left = links;
    let mut block_number = 0;
    loop {
        let block = block(&mut rng, kind, block_number, &mut links_left);
        block_number += 1;
        if out.len() + block.len() > room {
            break;
        }
        out.push_str(&block);
    }
    fill(&mut out, &mut rng, room);
    out.push_str(&suffix);
    out
}

/// One sentence that reads like one.
pub(crate) fn sentence(rng: &mut Rng) -> String {
    let opener = *rng.pick(OPENERS);
    let subject = *rng.pick(SUBJECTS);
    let subject = if opener.is_empty() {
        subject.to_owned()
    } else {
        subject[..1].to_lowercase() + &subject[1..]
    };
    format!("{opener}{subject} {} {} {}.", rng.pick(VERBS), rng.pick(OBJECTS), rng.pick(TAILS))
}

fn paragraph(rng: &mut Rng, links_left: &mut usize) -> String {
    let mut out = String::from("<p>");
    for index in 0..3 + rng.below(4) {
        if index > 0 {
            out.push(' ');
        }
        let sentence = sentence(rng);
        if *links_left > 0 && rng.below(3) == 0 {
            *links_left -= 1;
            let n = rng.below(100_000);
            let words = sentence.trim_end_matches('.');
            let _ = write!(out, "<a href=\"/page/{n}\">{words}</a>.");
        } else if rng.below(8) == 0 {
            let _ = write!(out, "<em>{sentence}</em>");
        } else {
            out.push_str(&sentence);
        }
    }
    out.push_str("</p>\n");
    out
}

fn block(rng: &mut Rng, kind: Kind, number: usize, links_left: &mut usize) -> String {
    match kind {
        Kind::Article if number % 5 == 4 => {
            format!("<h2>{}</h2>\n", sentence(rng).trim_end_matches('.'))
        }
        Kind::Article if number % 11 == 7 => {
            format!("<blockquote><p>{}</p></blockquote>\n", sentence(rng))
        }
        Kind::Article => paragraph(rng, links_left),
        Kind::Docs => docs_block(rng, number, links_left),
        Kind::Forum => format!(
            "<article class=\"post\" id=\"post-{number}\"><header><a class=\"user\" \
             href=\"/user/{}\">{}</a> <time>2026-0{}-1{}</time></header>\n{}<footer><a \
             href=\"#reply\">Reply</a> <span>{} likes</span></footer></article>\n",
            rng.below(900),
            rng.pick(NAMES),
            1 + rng.below(9),
            rng.below(10),
            paragraph(rng, links_left),
            rng.below(90),
        ),
        Kind::Listing => {
            let n = rng.below(100_000);
            format!(
                "<li class=\"card\"><a href=\"/page/{n}\"><img src=\"/img/{n}.jpg\" alt=\"\">\
                 <h3>Valve {n}</h3></a><p>{}</p><span class=\"price\">{}.{:02} €</span></li>\n",
                sentence(rng),
                rng.below(900) + 5,
                rng.below(100),
            )
        }
    }
}

fn docs_block(rng: &mut Rng, number: usize, links_left: &mut usize) -> String {
    match number % 4 {
        1 => format!(
            "<pre><code class=\"language-rust\">let gauge = Gauge::open(\"weir-{}\")?;\nfor level \
             in gauge.levels().take({}) {{\n    println!(\"{{level:.2}} m\");\n}}\n</code></pre>\n",
            rng.below(50),
            rng.below(400),
        ),
        2 => {
            let mut out = String::from(
                "<table><thead><tr><th>Setting</th><th>Default</th><th>Meaning</th></tr></thead><tbody>\n",
            );
            for row in 0..3 + rng.below(3) {
                let _ = writeln!(
                    out,
                    "<tr><td><code>level_{row}_mm</code></td><td>{}</td><td>{}</td></tr>",
                    rng.below(9000),
                    sentence(rng)
                );
            }
            out.push_str("</tbody></table>\n");
            out
        }
        3 => format!("<h2 id=\"s{number}\">{}</h2>\n", sentence(rng).trim_end_matches('.')),
        _ => paragraph(rng, links_left),
    }
}

fn prefix(rng: &mut Rng, title: &str, n: u64, kind: Kind) -> String {
    let author = rng.pick(NAMES);
    let day = 1 + rng.below(28);
    let month = 1 + rng.below(12);
    let description = sentence(rng);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title} – \
         The Valley Record</title>\n<meta name=\"description\" content=\"{description}\">\n<meta \
         name=\"author\" content=\"{author}\">\n<meta property=\"og:title\" content=\"{title}\">\n\
         <meta property=\"og:site_name\" content=\"The Valley Record\">\n<meta \
         property=\"article:published_time\" content=\"2026-{month:02}-{day:02}T08:00:00Z\">\n\
         <link rel=\"canonical\" href=\"/page/{n}\">\n<style>body{{font:16px/1.5 serif}}nav \
         li{{display:inline}}</style>\n<script>window.page={{id:{n}}};</script>\n</head>\n<body>\n\
         <header><a href=\"/\">The Valley Record</a>\n<nav><ul>"
    );
    for section in ["News", "Water", "Engineering", "Culture", "Letters"] {
        let _ =
            write!(out, "<li><a href=\"/section/{}\">{section}</a></li>", section.to_lowercase());
    }
    out.push_str("</ul></nav></header>\n<main>\n");
    let _ = match kind {
        Kind::Listing => write!(out, "<h1>{title}</h1>\n<ul class=\"grid\">\n"),
        Kind::Forum => write!(out, "<h1>{title}</h1>\n<div class=\"thread\">\n"),
        Kind::Article | Kind::Docs => write!(
            out,
            "<article>\n<h1>{title}</h1>\n<p class=\"byline\">By <span rel=\"author\">{author}\
             </span>, <time datetime=\"2026-{month:02}-{day:02}\">{day} {month} 2026</time></p>\n"
        ),
    };
    out
}

fn suffix(rng: &mut Rng, n: u64) -> String {
    let mut out =
        String::from("<!-- end -->\n</main>\n<aside class=\"sidebar\"><h4>Most read</h4><ul>");
    for offset in 1..=5 {
        let _ = write!(out, "<li><a href=\"/page/{}\">{}</a></li>", n + offset, rng.pick(TITLES));
    }
    out.push_str(
        "</ul><p>Subscribe to our newsletter</p></aside>\n<footer><p>© 2026 The Valley Record. All \
         rights reserved.</p><a href=\"/privacy\">Privacy</a> <a href=\"/imprint\">Imprint</a>\
         </footer>\n</body>\n</html>\n",
    );
    out
}

/// Brings `out` to exactly `room` bytes with a last paragraph, or spaces where none fits.
fn fill(out: &mut String, rng: &mut Rng, room: usize) {
    let left = room - out.len();
    if left > 7 {
        let mut text = String::new();
        while text.len() < left - 7 {
            text.push_str(&sentence(rng));
            text.push(' ');
        }
        let mut end = left - 7;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let _ = write!(out, "<p>{}</p>", &text[..end]);
    }
    while out.len() < room {
        out.push(' ');
    }
}

/// A page too small for furniture.
fn tiny(title: &str, size: usize) -> String {
    let mut out = format!("<!DOCTYPE html><title>{title}</title><p>");
    let mut rng = Rng::new(to_u64(size));
    while out.len() < size {
        out.push_str(&sentence(&mut rng));
        out.push(' ');
    }
    let mut end = size;
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    while out.len() < size {
        out.push(' ');
    }
    out
}

/// A page in the script that a legacy charset is used for, declared as `declared` in its `<meta>`.
pub(crate) fn charset_page(label: &str, declared: Option<&str>, size: usize) -> String {
    let text = match label.to_ascii_lowercase().as_str() {
        "shift_jis" | "sjis" | "euc-jp" | "iso-2022-jp" => {
            "水力発電所の前池は、増水を受け止め、下流に安定した流れを送る。技師たちは毎朝、水位を測り、帳面に書き留めた。"
        }
        "gbk" | "gb2312" | "gb18030" => {
            "前池位于水轮机之前，它承受洪峰，使后面的水流保持平稳。工程师每天早晨测量水位，并把数字记在账本上。"
        }
        "big5" => {
            "前池位於水輪機之前，它承受洪峰，使後面的水流保持平穩。工程師每天早晨測量水位，並把數字記在帳本上。"
        }
        "euc-kr" | "ks_c_5601-1987" => {
            "수력 발전소의 앞쪽 저수지는 급격한 물살을 받아들여 뒤로는 고른 흐름을 보낸다. 기사들은 아침마다 수위를 재었다."
        }
        "koi8-r" | "windows-1251" | "iso-8859-5" | "ibm866" => {
            "Напорный бассейн принимает паводок и отдаёт турбине ровный поток. Инженеры каждое утро измеряли уровень воды и записывали его."
        }
        "iso-8859-7" | "windows-1253" => {
            "Η δεξαμενή φόρτισης δέχεται την πλημμύρα και δίνει σταθερή ροή. Οι μηχανικοί μετρούσαν τη στάθμη κάθε πρωί."
        }
        "iso-8859-2" | "windows-1250" => {
            "Zbiornik wstępny przyjmuje falę powodziową i oddaje równy strumień. Inżynierowie co rano mierzyli poziom wody i zapisywali go w księdze."
        }
        _ => {
            "Le bassin de mise en charge reçoit la crue et rend un débit régulier. Chaque matin, les ingénieurs mesuraient la hauteur d'eau à l'échelle, près du café, et l'inscrivaient au registre."
        }
    };
    let meta = declared.map_or(String::new(), |name| format!("<meta charset=\"{name}\">"));
    let mut out = format!(
        "<!DOCTYPE html><html><head>{meta}<title>{}</title></head><body><article><h1>{}</h1>\n",
        text.chars().take(12).collect::<String>(),
        text.chars().take(12).collect::<String>()
    );
    while out.len() < size {
        let _ = writeln!(out, "<p>{text}</p>");
    }
    out.push_str("</article></body></html>\n");
    out
}

/// The HTML index of everything that the origin answers.
pub(crate) fn index(grammar: &str, files: &[String]) -> String {
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Synthetic \
         origin</title></head><body><main><h1>Synthetic origin</h1>\n<p>A seeded web to load a \
         crawler with. Every answer follows from the path and the query.</p>\n<pre>\n",
    );
    out.push_str(&grammar.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
    out.push_str("</pre>\n<h2>Pages</h2>\n<ul>\n");
    for n in 0..to_usize(20) {
        let _ = writeln!(out, "<li><a href=\"/page/{n}\">/page/{n}</a></li>");
    }
    out.push_str("</ul>\n");
    if !files.is_empty() {
        out.push_str("<h2>Files</h2>\n<ul>\n");
        for file in files {
            let _ = writeln!(out, "<li><a href=\"/files/{file}\">{file}</a></li>");
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</main></body></html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_exactly_their_size_and_follow_from_the_seed() {
        for kind in [Kind::Article, Kind::Docs, Kind::Forum, Kind::Listing] {
            for size in [0, 1, 17, 300, 2_000, 2_600, 20_000, 131_071] {
                let text = page(3, 9, size, kind, 10);
                assert_eq!(text.len(), size, "{kind:?} {size}");
                assert_eq!(text, page(3, 9, size, kind, 10));
            }
        }
        assert_ne!(page(3, 9, 9_000, Kind::Article, 5), page(4, 9, 9_000, Kind::Article, 5));
        assert_ne!(page(3, 9, 9_000, Kind::Article, 5), page(3, 8, 9_000, Kind::Article, 5));
    }

    #[test]
    fn an_article_has_title_paragraphs_links_and_furniture() {
        let page = page(1, 2, 20_000, Kind::Article, 20);
        for part in ["<title>", "<nav>", "<h1>", "<p>", "<a href=\"/page/", "sidebar", "<footer>"] {
            assert!(page.contains(part), "{part}");
        }
    }
}
