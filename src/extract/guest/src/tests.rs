//! Pages in, documents out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;

use crate::{Formats, Kind, Options, Wanted, extract};

const URL: &str = "https://example.com/news/a.html";

fn document(html: &str, options: &Options) -> (f64, Value) {
    let answer = extract(html, URL, options);
    assert!(!answer.iter().any(|byte| *byte < 0x20), "no raw control characters");
    let mut value: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer.starts_with(b"{\"quality_score\":"));
    (value["quality_score"].as_f64().unwrap(), value["document"].take())
}

fn article() -> String {
    let paragraph = "The river carries more water in spring, when the snow on the hills melts, \
                     and the old mill by the weir turns faster than at any other time of the year. ";
    format!(
        "<html lang=en_gb><head><title>The old mill turns faster in spring | Valley News</title>\
         <meta property=og:site_name content='Valley News'>\
         <meta property=og:image content=/mill.jpg><meta name=author content='By Ada Weir'>\
         <meta name=description content='Why the mill turns faster &amp; louder in spring.'>\
         <meta property=article:published_time content=2024-03-05T10:00:00Z></head>\
         <body><nav><a href=/>Home</a> <a href=/news>News</a></nav><article><h1>The old mill turns faster in spring</h1>\
         <p>{p}</p><p>{p}See the <a href='../weir?a=1#x'>weir</a>, the <a href='../weir?a=1#x'>weir \
         again</a> and <a href=mailto:a@example.com>us</a>.</p><h2>Numbers</h2><ul><li>{p}</li>\
         <li>{p}</li></ul><pre>a &lt; b</pre><p>{p}</p></article><footer>All rights reserved</footer>",
        p = paragraph.repeat(3)
    )
}

#[test]
fn what_crawlers_are_told_stands_beside_the_document() {
    let html = "<head><meta name=Robots content=noindex><base href=/b/>\
                <link rel='x CANONICAL' href=c?d><link rel=canonical href=other></head>\
                <nav><a href=one>1</a><a rel='ugc nofollow' href=two>2</a><a href=#top>3</a></nav>\
                <p>Text enough for a page.<map><area href=/three></map><a href=mailto:x@y.z>4</a>";
    let told = |about| {
        let answer = extract(html, URL, &Options { about, ..Options::default() });
        serde_json::from_slice::<Value>(&answer).unwrap()["about"].take()
    };
    assert_eq!(told(Wanted::default()), Value::Null);
    let robots = serde_json::json!({"robots": "noindex"});
    assert_eq!(told(Wanted { robots: true, links: false }), robots);
    let all = serde_json::json!({
        "robots": "noindex",
        "canonical": "https://example.com/b/c?d",
        "links": ["https://example.com/b/one", "https://example.com/three"],
    });
    assert_eq!(told(Wanted { robots: true, links: true }), all);
    let silent = extract(
        "<p>Nothing to say.",
        URL,
        &Options { about: Wanted { robots: true, links: false }, ..Options::default() },
    );
    assert!(silent.ends_with(b"}}") && !silent.windows(7).any(|part| part == b"\"about\""));
}

#[test]
fn an_article_gives_every_field() {
    let (quality, doc) = document(&article(), &Options::default());
    assert!(quality > 0.8, "{quality}");
    assert_eq!(doc["title"], "The old mill turns faster in spring");
    assert_eq!(doc["byline"], "Ada Weir");
    assert_eq!(doc["published"], "2024-03-05T10:00:00Z");
    assert_eq!(doc["language"], "en-GB");
    assert_eq!(doc["description"], "Why the mill turns faster & louder in spring.");
    assert_eq!(doc["site_name"], "Valley News");
    assert_eq!(doc["image"], "https://example.com/mill.jpg");
    let links = serde_json::json!([{"href": "https://example.com/weir?a=1#x", "text": "weir"}]);
    assert_eq!(doc["links"], links);
    let markdown = doc["markdown"].as_str().unwrap();
    assert!(markdown.contains("## Numbers"), "{markdown}");
    assert!(markdown.contains("](https://example.com/weir?a=1#x)"), "{markdown}");
    let text = doc["text"].as_str().unwrap();
    assert!(text.contains("old mill") && text.contains("a < b"), "{text}");
    assert!(!text.contains("All rights reserved"), "{text}");
    assert!(doc["word_count"].as_u64().unwrap() > 300);
}

#[test]
fn formats_that_are_not_asked_for_are_null() {
    let formats = Formats { text: true, ..Formats::NONE };
    let (_, doc) = document(&article(), &Options { formats, ..Options::default() });
    for key in ["title", "published", "language", "image", "markdown", "links"] {
        assert!(doc[key].is_null(), "{key}");
    }
    assert!(doc["text"].is_string());
    assert_eq!(doc.as_object().unwrap().len(), 11, "the shape stays");
}

#[test]
fn a_page_without_an_article_gives_its_text_at_a_lower_score() {
    for html in [
        "<p>One line.",
        "One line.",
        "<nav><a href=/x>One line.</a></nav>",
        "<title>t</title><table><tr><td>One line.</table>",
        "<form><label>One line.</label><input></form>",
    ] {
        let (quality, doc) = document(html, &Options::default());
        assert_eq!(doc["text"], "One line.", "{html}");
        assert!(quality > 0.0 && quality < 0.3, "{html}: {quality}");
    }
}

#[test]
fn text_that_waits_for_a_script_is_better_than_none() {
    let post = format!("<p>{}</p>", "A post of a forum that is drawn by a script. ".repeat(30));
    for html in [
        format!("<div id=app></div><noscript><h1>Topic</h1>{post}{post}</noscript>"),
        format!("<template id=B></template><div hidden id=S><h1>Topic</h1>{post}{post}</div>"),
    ] {
        let (quality, doc) = document(&html, &Options::default());
        assert!(doc["text"].as_str().unwrap().contains("A post of a forum"), "{html}");
        assert!(quality > 0.5, "{quality}");
    }
}

#[test]
fn a_page_without_text_is_empty_and_scores_zero() {
    for html in ["", "\0", "<script>var a = 'text';</script>", "<!-- a -->", "<html><head></head>"]
    {
        let (quality, doc) = document(html, &Options::default());
        assert_eq!((quality, &doc["word_count"]), (0.0, &Value::from(0)), "{html}");
    }
}

#[test]
fn the_whole_page_is_there_for_the_asking() {
    let options = Options { kind: Kind::Full, ..Options::default() };
    let (_, doc) = document(&article(), &options);
    let text = doc["text"].as_str().unwrap();
    assert!(text.contains("Home") && text.contains("All rights reserved"), "{text}");
    assert_eq!(doc["links"][0]["href"], "https://example.com/");
    assert_eq!(doc["title"], "The old mill turns faster in spring");
}

#[test]
fn no_address_is_no_failure() {
    for url in ["", "about:blank", "https://", "example.com", "水"] {
        let answer = extract(&article(), url, &Options::default());
        assert!(serde_json::from_slice::<Value>(&answer).is_ok(), "{url}");
    }
}

#[test]
fn deep_and_wide_pages_need_no_deep_stack() {
    let run = || {
        for tag in ["<div>", "<span>", "<ul><li>", "<table><tr><td>", "<b>", "<a href=x>"] {
            let html = format!("{}one line{}", tag.repeat(1_000), "<p>two".repeat(20));
            document(&html, &Options::default());
        }
    };
    std::thread::Builder::new().stack_size(512 * 1024).spawn(run).unwrap().join().unwrap();
}
