//! What each provider is sent, as its documentation says:
//! SearXNG's search API, Serper's `/search`, Brave's Web Search API.

use super::Query;
use crate::config::SearchProvider;
use crate::proto::json;
use bytes::{BufMut, BytesMut};
use url::form_urlencoded::Serializer;

/// Most hits that Brave gives in one answer (`count`).
const BRAVE_COUNT_MAX: usize = 20;

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

/// The request for a query. Nobody is called by the local index, nor where there is no provider.
#[must_use]
pub fn call(provider: SearchProvider, endpoint: &str, key: &str, query: &Query) -> Call {
    let accept = ("Accept".to_owned(), "application/json".to_owned());
    match provider {
        SearchProvider::Searxng => {
            let mut pairs = Serializer::new(String::new());
            pairs.append_pair("q", &query.text).append_pair("format", "json");
            if let Some(language) = locale(query) {
                pairs.append_pair("language", &language);
            }
            let mut headers = vec![accept];
            if !key.is_empty() {
                // An instance behind a proxy that wants a token; SearXNG itself knows no keys.
                headers.push(("Authorization".to_owned(), format!("Bearer {key}")));
            }
            Call { url: format!("{endpoint}?{}", pairs.finish()), headers, body: None }
        }
        SearchProvider::Brave => {
            let mut pairs = Serializer::new(String::new());
            pairs.append_pair("q", &query.text);
            pairs.append_pair("count", &query.limit.min(BRAVE_COUNT_MAX).to_string());
            if let Some(country) = &query.country {
                pairs.append_pair("country", &country.to_ascii_uppercase());
            }
            if let Some(language) = query.language() {
                pairs.append_pair("search_lang", language);
            }
            let token = ("X-Subscription-Token".to_owned(), key.to_owned());
            let url = format!("{endpoint}?{}", pairs.finish());
            Call { url, headers: vec![accept, token], body: None }
        }
        SearchProvider::Serper | SearchProvider::Local | SearchProvider::Off => Call {
            url: endpoint.to_owned(),
            headers: vec![accept, ("X-API-KEY".to_owned(), key.to_owned())],
            body: Some(serper_body(query)),
        },
    }
}

fn serper_body(query: &Query) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(128 + query.text.len());
    out.put_slice(b"{\"q\":");
    json::string(&mut out, &query.text);
    out.put_slice(b",\"num\":");
    json::integer(&mut out, query.limit as u64);
    if let Some(country) = &query.country {
        out.put_slice(b",\"gl\":");
        json::string(&mut out, country);
    }
    if let Some(language) = query.language() {
        out.put_slice(b",\"hl\":");
        json::string(&mut out, language);
    }
    out.put_u8(b'}');
    out.into()
}

/// `en-US` where both are known, else what is.
fn locale(query: &Query) -> Option<String> {
    let locale = query.locale.as_ref()?;
    match &query.country {
        Some(country) if !locale.contains('-') => {
            Some(format!("{locale}-{}", country.to_ascii_uppercase()))
        }
        _ => Some(locale.clone()),
    }
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
        let ask = |provider, url: &str| call(provider, &endpoint(provider, url), "k-1", &query());
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
}
