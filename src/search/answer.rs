//! What each provider answers: the few fields that we need of its documented JSON. Whatever is not
//! as documented is an error, or a hit that is left out; nothing of it is trusted.

use super::{Hit, SearchError};
use crate::config::SearchProvider;
use crate::limits::{SEARCH_SNIPPET_BYTES_MAX, SEARCH_TITLE_BYTES_MAX, URL_BYTES_MAX};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Hits of one answer that are looked at, whatever was asked for.
const ROWS_MAX: usize = 200;

/// SearXNG, `format=json`.
#[derive(Deserialize)]
struct Searxng {
    results: Vec<SearxngRow>,
}

#[derive(Deserialize)]
struct SearxngRow {
    url: Option<String>,
    title: Option<String>,
    content: Option<String>,
}

/// Serper; without `organic` there are no hits.
#[derive(Deserialize)]
struct Serper {
    #[serde(rename = "searchParameters")]
    _parameters: serde::de::IgnoredAny,
    #[serde(default)]
    organic: Vec<SerperRow>,
}

#[derive(Deserialize)]
struct SerperRow {
    link: Option<String>,
    title: Option<String>,
    snippet: Option<String>,
}

/// Brave; without `web` there are no hits.
#[derive(Deserialize)]
struct Brave {
    #[serde(rename = "type")]
    kind: String,
    query: Option<BraveQuery>,
    web: Option<BraveWeb>,
}

#[derive(Deserialize)]
struct BraveQuery {
    more_results_available: Option<bool>,
}

#[derive(Deserialize)]
struct BraveWeb {
    results: Vec<BraveRow>,
}

#[derive(Deserialize)]
struct BraveRow {
    url: Option<String>,
    title: Option<String>,
    description: Option<String>,
}

type Row = (Option<String>, Option<String>, Option<String>);

/// What one answer holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The hits, in the provider's order.
    pub hits: Vec<Hit>,
    /// Whether there may be another page.
    pub more: bool,
}

/// Reads an answer of status 200.
///
/// # Errors
/// `Unreadable`.
pub fn read(provider: SearchProvider, body: &mut [u8]) -> Result<Answer, SearchError> {
    let mut more = true;
    let rows: Vec<Row> = match provider {
        SearchProvider::Searxng => {
            let answer: Searxng = parse(body)?;
            answer.results.into_iter().map(|row| (row.url, row.title, row.content)).collect()
        }
        SearchProvider::Brave => {
            let answer: Brave = parse(body)?;
            if answer.kind != "search" {
                return Err(SearchError::Unreadable("it is no search response"));
            }
            more = answer.query.and_then(|query| query.more_results_available).unwrap_or(true);
            let rows = answer.web.map(|web| web.results).unwrap_or_default();
            rows.into_iter().map(|row| (row.url, row.title, row.description)).collect()
        }
        SearchProvider::Serper | SearchProvider::Local | SearchProvider::Off => {
            let answer: Serper = parse(body)?;
            answer.organic.into_iter().map(|row| (row.link, row.title, row.snippet)).collect()
        }
    };
    Ok(Answer { hits: rows.into_iter().take(ROWS_MAX).filter_map(hit).collect(), more })
}

/// Whether an answer of 400 or 422 says that the key is at fault or used up, and not the query: Brave
/// answers 422 to a token that it does not know, Serper 400 when there are no credits left.
#[must_use]
pub fn is_about_the_key(provider: SearchProvider, body: &[u8]) -> bool {
    let told = match provider {
        SearchProvider::Brave => "SUBSCRIPTION_TOKEN",
        SearchProvider::Serper => "credits",
        SearchProvider::Searxng | SearchProvider::Local | SearchProvider::Off => return false,
    };
    memchr::memmem::find(body, told.as_bytes()).is_some()
}

fn parse<T: DeserializeOwned>(body: &mut [u8]) -> Result<T, SearchError> {
    simd_json::serde::from_slice(body)
        .map_err(|_| SearchError::Unreadable("it is not the JSON that was expected"))
}

/// A row that has a URL of the web.
fn hit((url, title, snippet): Row) -> Option<Hit> {
    let url = url?;
    let starts = |scheme: &str| {
        url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let web = starts("http://") || starts("https://");
    (web && url.len() <= URL_BYTES_MAX).then(|| Hit {
        url,
        title: plain(&title.unwrap_or_default(), SEARCH_TITLE_BYTES_MAX),
        snippet: plain(&snippet.unwrap_or_default(), SEARCH_SNIPPET_BYTES_MAX),
    })
}

/// Text without tags (Brave marks words with `<strong>`), its usual character references resolved,
/// white space collapsed, cut at a character. One pass over at most four times `bytes_max`.
#[must_use]
pub fn plain(text: &str, bytes_max: usize) -> String {
    let text = cut(text, bytes_max.saturating_mul(4));
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (piece, taken) = match c {
            '<' => tag(rest).map_or((Some('<'), 1), |taken| (None, taken)),
            '&' => reference(rest).map_or((Some('&'), 1), |(c, taken)| (Some(c), taken)),
            c if c.is_whitespace() || c.is_control() => (Some(' '), c.len_utf8()),
            c => (Some(c), c.len_utf8()),
        };
        at += taken;
        match piece {
            Some(' ') if out.is_empty() || out.ends_with(' ') => {}
            Some(c) => out.push(c),
            None => {}
        }
    }
    let end = cut(&out, bytes_max).trim_end().len();
    out.truncate(end);
    out
}

/// Bytes of the tag that `text` starts with: `<` with a letter or a slash, up to a near `>`.
fn tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let named = bytes.get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'/');
    let near = &bytes[..bytes.len().min(128)];
    named.then(|| near.iter().position(|b| *b == b'>')).flatten().map(|end| end + 1)
}

/// The character reference that `text` starts with.
fn reference(text: &str) -> Option<(char, usize)> {
    let known = [
        ("&amp;", '&'),
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&quot;", '"'),
        ("&#x27;", '\''),
        ("&#39;", '\''),
        ("&nbsp;", ' '),
    ];
    known.into_iter().find(|(name, _)| text.starts_with(name)).map(|(name, c)| (c, name.len()))
}

/// The start of a text, cut at a character.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Entry for the fuzzer, and for a test over the same inputs: a letter for the provider (`s`earxng,
/// `b`rave, another for Serper), and any bytes as its answer.
pub fn fuzz(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let provider = match kind {
        b's' => SearchProvider::Searxng,
        b'b' => SearchProvider::Brave,
        _ => SearchProvider::Serper,
    };
    let Ok(answer) = read(provider, &mut body.to_vec()) else { return };
    for Hit { url, title, snippet } in answer.hits {
        assert!(
            url.len() <= URL_BYTES_MAX
                && url.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("http"))
        );
        assert!(title.len() <= SEARCH_TITLE_BYTES_MAX && snippet.len() <= SEARCH_SNIPPET_BYTES_MAX);
        assert!(![&title, &snippet].iter().any(|text| text.contains(char::is_control)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn urls(provider: SearchProvider, text: &str) -> Result<Vec<String>, SearchError> {
        let answer = read(provider, &mut text.as_bytes().to_vec())?;
        Ok(answer.hits.into_iter().map(|hit| hit.url).collect())
    }

    #[test]
    fn documented_answers_are_read() {
        let searxng = r#"{"query":"q","number_of_results":0,"results":[
            {"url":"https://a.test/","title":"A","content":"x","engine":"e","parsed_url":["https","a.test","/","","",""],"score":1.0},
            {"url":"ftp://b.test/","title":"B"},{"title":"no url"},{"url":"https://c.test/","content":null}],"answers":[],"suggestions":[],"unresponsive_engines":[["e","timeout"]]}"#;
        let two = Ok(vec!["https://a.test/".to_owned(), "https://c.test/".to_owned()]);
        assert_eq!(urls(SearchProvider::Searxng, searxng), two);
        let serper = r#"{"searchParameters":{"q":"q","type":"search"},"organic":[
            {"title":"A","link":"https://a.test/","snippet":"s","position":1},
            {"title":"C","link":"https://c.test/","position":2}],"credits":1}"#;
        assert_eq!(urls(SearchProvider::Serper, serper), two);
        let brave = r#"{"type":"search","query":{"original":"q"},"web":{"type":"search","results":[
            {"title":"A","url":"https://a.test/","description":"<strong>s</strong>"},
            {"title":"C","url":"https://c.test/"}],"family_friendly":true}}"#;
        assert_eq!(urls(SearchProvider::Brave, brave), two);
        assert_eq!(urls(SearchProvider::Brave, r#"{"type":"search"}"#), Ok(vec![]));
        assert_eq!(urls(SearchProvider::Serper, r#"{"searchParameters":{}}"#), Ok(vec![]));
    }

    #[test]
    fn anything_else_is_an_error() {
        for provider in [SearchProvider::Searxng, SearchProvider::Serper, SearchProvider::Brave] {
            for text in
                ["", "{", "[]", "null", "{}", "<html>", r#"{"results":7}"#, r#"{"type":"x"}"#]
            {
                let read = urls(provider, text);
                assert!(matches!(read, Err(SearchError::Unreadable(_))), "{provider:?} {text}");
            }
        }
    }

    #[test]
    fn texts_are_plain() {
        for (text, expected) in [
            ("a <strong>weir</strong>\n\n is&nbsp;&amp;  b ", "a weir is & b"),
            ("1 < 2 && 3 > 2", "1 < 2 && 3 > 2"),
            ("&lt;b&gt;", "<b>"),
            ("<", "<"),
            ("\u{0}\u{1}x", "x"),
        ] {
            assert_eq!(plain(text, 100), expected);
        }
        assert_eq!(plain("äöü", 3), "ä");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text: String, bytes_max in 0_usize..40) {
            let plain = plain(&text, bytes_max);
            prop_assert!(plain.len() <= bytes_max && !plain.contains('\n'));
        }

        #[test]
        fn no_bytes_break_the_readers(bytes: Vec<u8>, title: String) {
            let title = serde_json::to_string(&title).unwrap();
            let row = format!(r#"{{"url":"https://a.test/","title":{title}}}"#);
            let answer = format!(r#"{{"results":[{row}]}}"#);
            for kind in *b"sbp" {
                fuzz(&[&[kind], &bytes[..]].concat());
                fuzz(&[&[kind], answer.as_bytes()].concat());
            }
        }
    }
}
