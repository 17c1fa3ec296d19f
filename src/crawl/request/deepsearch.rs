//! What a client may ask a deepsearch for (API §2).

use super::{CrawlRequest, Options, check_options, parse_json};
use crate::config::Config;
use crate::error::{ApiCode, ApiError};
use crate::limits::{SEARCH_HITS_MAX, SEARCH_QUERY_BYTES_MAX};
use crate::search::Query;
use serde::Deserialize;
use std::sync::Arc;

/// Hits where nothing is said.
const LIMIT: usize = 10;

/// A search before a crawl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// What is searched for.
    pub query: Query,
    /// Whether the hits are fetched; without, each has a result without a document.
    pub include_content: bool,
}

/// A deepsearch as JSON, before its bounds are checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepsearchBody {
    query: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    country: Option<String>,
    #[serde(default)]
    locale: Option<String>,
    #[serde(default = "yes")]
    include_content: bool,
    #[serde(default)]
    options: Options,
}

const fn yes() -> bool {
    true
}

/// Reads and checks the body of a deepsearch.
///
/// # Errors
/// `invalid_json`, `unknown_field` or `validation_error`, with the fields at fault.
pub fn parse_deepsearch(body: &mut [u8], config: &Config) -> Result<CrawlRequest, ApiError> {
    parse_json::<DeepsearchBody>(body)?.check(config)
}

impl DeepsearchBody {
    /// Checks every bound.
    ///
    /// # Errors
    /// As [`parse_deepsearch`].
    pub fn check(self, config: &Config) -> Result<CrawlRequest, ApiError> {
        let wrong = |field: &str, expected: String| {
            let message = format!("{field}: expected {expected}");
            Err(ApiError::new(ApiCode::ValidationError, message).field(field, expected))
        };
        let text = self.query.trim();
        let length = 1..=SEARCH_QUERY_BYTES_MAX;
        if !length.contains(&text.len()) || text.chars().any(char::is_control) {
            let most = SEARCH_QUERY_BYTES_MAX;
            return wrong("query", format!("1 to {most} bytes without control characters"));
        }
        let most = SEARCH_HITS_MAX.min(config.urls_max);
        let limit = self.limit.unwrap_or(LIMIT.min(most));
        if !(1..=most).contains(&limit) {
            return wrong("limit", format!("1 to {most}, found {limit}"));
        }
        if self.country.as_deref().is_some_and(|country| !is_letters(country, 2, 2)) {
            return wrong("country", "two letters, as us".to_owned());
        }
        if self.locale.as_deref().is_some_and(|locale| !is_locale(locale)) {
            return wrong("locale", "a language, as en or pt-BR".to_owned());
        }
        check_options(&self.options)?;
        if !self.include_content && self.options.follow.is_some() {
            return wrong(
                "options.follow",
                "no links to follow without include_content".to_owned(),
            );
        }
        let query = Query {
            text: text.to_owned(),
            limit,
            country: self.country.map(|country| country.to_ascii_lowercase()),
            locale: self.locale,
        };
        let searched = Searched { query, include_content: self.include_content };
        Ok(CrawlRequest {
            urls: Arc::from([]),
            options: Arc::new(self.options),
            search: Some(Box::new(searched)),
        })
    }
}

fn is_letters(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// RFC 5646 §2.1, as far as providers know it: a language, and a region or a script.
fn is_locale(text: &str) -> bool {
    match text.split_once('-') {
        None => is_letters(text, 2, 3),
        Some((language, region)) => is_letters(language, 2, 3) && is_letters(region, 2, 4),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str) -> Result<CrawlRequest, ApiError> {
        let config = Config { urls_max: 50, ..Config::default() };
        parse_deepsearch(&mut text.as_bytes().to_vec(), &config)
    }

    #[test]
    fn the_smallest_has_the_documented_defaults() {
        let request = parse(r#"{"query":" old weirs "}"#).unwrap();
        let searched = *request.search.unwrap();
        let query = Query { text: "old weirs".to_owned(), limit: 10, country: None, locale: None };
        assert_eq!(searched, Searched { query, include_content: true });
        assert!(request.urls.is_empty());
        let all = r#"{"query":"q","limit":50,"country":"US","locale":"pt-BR","include_content":false,
                      "options":{"concurrency":2}}"#;
        let searched = *parse(all).unwrap().search.unwrap();
        assert_eq!(searched.query.country.as_deref(), Some("us"));
        assert_eq!(searched.query.locale.as_deref(), Some("pt-BR"));
    }

    #[test]
    fn each_mistake_names_its_field() {
        let long = format!(r#"{{"query":"{}"}}"#, "x".repeat(SEARCH_QUERY_BYTES_MAX + 1));
        for (text, code, field) in [
            ("{}", ApiCode::ValidationError, "query"),
            (r#"{"query":"  "}"#, ApiCode::ValidationError, "query"),
            (r#"{"query":"a\u0000b"}"#, ApiCode::ValidationError, "query"),
            (&long, ApiCode::ValidationError, "query"),
            (r#"{"query":"q","limit":0}"#, ApiCode::ValidationError, "limit"),
            (r#"{"query":"q","limit":51}"#, ApiCode::ValidationError, "limit"),
            (r#"{"query":"q","country":"usa"}"#, ApiCode::ValidationError, "country"),
            (r#"{"query":"q","locale":"en_US"}"#, ApiCode::ValidationError, "locale"),
            (r#"{"query":"q","urls":[]}"#, ApiCode::UnknownField, "urls"),
            (
                r#"{"query":"q","options":{"concurrency":0}}"#,
                ApiCode::ValidationError,
                "options.concurrency",
            ),
        ] {
            let error = parse(text).expect_err(text);
            let named = error.details.first().map_or("", |detail| &detail.field);
            assert_eq!((error.code, named), (code, field), "{text}");
        }
    }
}
