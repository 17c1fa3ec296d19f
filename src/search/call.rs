//! What each provider is sent, as its documentation says:
//! SearXNG's search API, Serper's `/search`, Brave's Web Search API.

use super::{Query, dialect};
use crate::config::SearchProvider;
use crate::proto::json;
use bytes::{BufMut, BytesMut};
use url::form_urlencoded::Serializer;

/// Most hits that Brave gives in one answer (`count`).
const BRAVE_COUNT_MAX: usize = 20;
/// Hits that every provider gives in one answer, if it has them.
const ONE_PAGE: usize = 10;
/// Most answers to one search: Brave's `offset` ends at 9.
const PAGES_MAX: usize = 10;

/// One request to a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Where to; without the key.
    pub url: String,
    /// Fields, the key's among them.
    pub headers: Vec<(String, String)>,
    /// The JSON to `POST`, its type is the fetcher's to say; none for a `GET`.
    pub body: Option<Vec<u8>>,
}

/// The address of a provider: the one that is configured, or its public one.
#[must_use]
pub fn endpoint(provider: SearchProvider, url: &str) -> String {
    let base = url.trim_end_matches('/');
    match provider {
        SearchProvider::Searxng if base.ends_with("/search") => base.to_owned(),
        SearchProvider::Searxng => format!("{base}/search"),
        SearchProvider::Serper if base.is_empty() => "https://google.serper.dev/search".to_owned(),
        SearchProvider::Brave if base.is_empty() => {
            "https://api.search.brave.com/res/v1/web/search".to_owned()
        }
        _ => base.to_owned(),
    }
}

/// How many answers a provider is asked for at most, to get so many hits. What every provider gives
/// at once is not worth another question where it has less.
#[must_use]
pub const fn pages_max(provider: SearchProvider, limit: usize) -> usize {
    match provider {
        SearchProvider::Local | SearchProvider::Off => 1,
        _ if limit <= ONE_PAGE => 1,
        SearchProvider::Searxng | SearchProvider::Serper | SearchProvider::Brave => PAGES_MAX,
    }
}

/// The request for a page of hits, the first being 0. Nobody is called by the local index, nor where
/// there is no provider.
#[must_use]
pub fn call(
    provider: SearchProvider,
    endpoint: &str,
    key: &str,
    query: &Query,
    page: usize,
) -> Call {
    let accept = ("Accept".to_owned(), "application/json".to_owned());
    match provider {
        SearchProvider::Searxng => {
            let mut headers = vec![accept];
            if !key.is_empty() {
                // An instance behind a proxy that wants a token; SearXNG itself knows no keys.
                headers.push(("Authorization".to_owned(), format!("Bearer {key}")));
            }
            let url = format!("{endpoint}?{}", searxng_query(query, page));
            Call { url, headers, body: None }
        }
        SearchProvider::Brave => {
            let token = ("X-Subscription-Token".to_owned(), key.to_owned());
            let url = format!("{endpoint}?{}", brave_query(query, page));
            Call { url, headers: vec![accept, token], body: None }
        }
        SearchProvider::Serper | SearchProvider::Local | SearchProvider::Off => Call {
            url: endpoint.to_owned(),
            headers: vec![accept, ("X-API-KEY".to_owned(), key.to_owned())],
            body: Some(serper_body(query, page)),
        },
    }
}

fn searxng_query(query: &Query, page: usize) -> String {
    let mut pairs = Serializer::new(String::new());
    pairs.append_pair("q", &dialect::searxng_text(&query.text)).append_pair("format", "json");
    if let Some(language) = dialect::searxng_language(query) {
        pairs.append_pair("language", &language);
    }
    if page > 0 {
        pairs.append_pair("pageno", &(page + 1).to_string());
    }
    pairs.finish()
}

fn brave_query(query: &Query, page: usize) -> String {
    let mut pairs = Serializer::new(String::new());
    pairs.append_pair("q", &query.text);
    pairs.append_pair("count", &query.limit.min(BRAVE_COUNT_MAX).to_string());
    if page > 0 {
        pairs.append_pair("offset", &page.to_string());
    }
    if let Some(country) = dialect::brave_country(query) {
        pairs.append_pair("country", country);
    }
    if let Some(language) = dialect::brave_language(query) {
        pairs.append_pair("search_lang", language);
    }
    pairs.finish()
}

fn serper_body(query: &Query, page: usize) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(128 + query.text.len());
    out.put_slice(b"{\"q\":");
    json::string(&mut out, &query.text);
    out.put_slice(b",\"num\":");
    json::integer(&mut out, query.limit as u64);
    if page > 0 {
        json::integers(&mut out, &[("page", page as u64 + 1)]);
    }
    if let Some(country) = dialect::country(query) {
        out.put_slice(b",\"gl\":");
        json::string(&mut out, country);
    }
    if let Some(language) = dialect::serper_language(query) {
        out.put_slice(b",\"hl\":");
        json::string(&mut out, &language);
    }
    out.put_u8(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn query() -> Query {
        Query {
            text: "weirs & \"gates\"".to_owned(),
            limit: 30,
            country: Some("us".to_owned()),
            locale: Some("en".to_owned()),
        }
    }

    #[test]
    fn each_provider_gets_what_it_documents_and_no_key_in_a_url() {
        let ask =
            |provider, url: &str| call(provider, &endpoint(provider, url), "k-1", &query(), 0);
        let searxng = ask(SearchProvider::Searxng, "http://searx.test/");
        let expected =
            "http://searx.test/search?q=weirs+%26+%22gates%22&format=json&language=en-US";
        assert_eq!(searxng.url, expected);
        let brave = ask(SearchProvider::Brave, "");
        let expected = "https://api.search.brave.com/res/v1/web/search\
                        ?q=weirs+%26+%22gates%22&count=20&country=US&search_lang=en";
        assert_eq!(brave.url, expected);
        assert!(brave.headers.contains(&("X-Subscription-Token".to_owned(), "k-1".to_owned())));
        let serper = ask(SearchProvider::Serper, "");
        assert_eq!(serper.url, "https://google.serper.dev/search");
        let body: serde_json::Value = serde_json::from_slice(&serper.body.unwrap()).unwrap();
        let expected = serde_json::json!(
            {"q": "weirs & \"gates\"", "num": 30, "gl": "us", "hl": "en"}
        );
        assert_eq!(body, expected);
        assert_eq!(
            endpoint(SearchProvider::Searxng, "http://a.test/x/search"),
            "http://a.test/x/search"
        );
    }
    #[test]
    fn each_page_is_asked_for_as_documented() {
        let ask = |provider, page| call(provider, "http://a.test/search", "k", &query(), page);
        assert!(!ask(SearchProvider::Searxng, 0).url.contains("pageno"));
        assert!(ask(SearchProvider::Searxng, 1).url.ends_with("&language=en-US&pageno=2"));
        assert!(!ask(SearchProvider::Brave, 0).url.contains("offset"));
        assert!(ask(SearchProvider::Brave, 9).url.contains("&count=20&offset=9&"));
        let body = ask(SearchProvider::Serper, 2).body.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["num"], &body["page"]), (&30.into(), &3.into()));
        let pages = |limit| pages_max(SearchProvider::Brave, limit);
        assert_eq!((pages(10), pages(11), pages(100)), (1, 10, 10));
    }
}
