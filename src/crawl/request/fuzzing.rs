//! Entry functions for fuzzing: they take any bytes and panic if an invariant does not hold.
//!
//! A fuzz target calls them, and so does a test here, with mutated good input.

use super::deepsearch::parse_deepsearch;
use super::{
    CrawlRequest, Options, check_options, check_options_for, check_url, parse_crawl, parse_extract,
};
use crate::config::Config;
use crate::error::{ApiCode, ApiError};
use crate::limits;

/// Any bytes as the body of `POST /crawl`.
pub fn fuzz_crawl(body: &[u8], config: &Config) {
    let read = parse_crawl(&mut body.to_vec(), config);
    judge(body, read.as_ref().err());
    if let Ok(request) = read {
        assert!(request.search.is_none());
        check_crawl(&request, config.urls_max);
    }
}

/// Any bytes as the body of `POST /deepsearch`.
pub fn fuzz_deepsearch(body: &[u8], config: &Config) {
    let read = parse_deepsearch(&mut body.to_vec(), config);
    judge(body, read.as_ref().err());
    if let Ok(request) = read {
        let searched = request.search.as_ref().expect("a search searches");
        assert!((1..=limits::SEARCH_QUERY_BYTES_MAX).contains(&searched.query.text.len()));
        let most = limits::SEARCH_HITS_MAX.min(config.urls_max);
        assert!((1..=most).contains(&searched.query.limit));
        assert!(request.urls.is_empty(), "they are found");
        assert!(check_options(&request.options).is_ok());
    }
}

/// Any bytes as the JSON body of `POST /extract`.
pub fn fuzz_extract(body: &[u8]) {
    let read = parse_extract(&mut body.to_vec());
    judge(body, read.as_ref().err());
    if let Ok(request) = read {
        assert!(check_options(&request.options).is_ok());
        assert!(request.html.len() <= body.len() && request.url.len() <= body.len());
    }
}

/// Checks a crawl that was taken: what comes behind it relies on this.
pub fn check_crawl(request: &CrawlRequest, urls_max: usize) {
    assert!((1..=urls_max).contains(&request.urls.len()), "{} urls", request.urls.len());
    assert!(request.urls.iter().all(|url| check_url(url).is_ok()));
    let options: &Options = &request.options;
    assert!(check_options_for(options, limits::JOB_DEADLINE_S_MAX * 1000).is_ok());
    assert!((1..=limits::CONCURRENCY_MAX).contains(&options.concurrency));
    assert!(options.max_body_bytes <= limits::BODY_BYTES_MAX && !options.formats.is_empty());
    assert!(options.headers.len() <= limits::FETCH_HEADERS_MAX);
    let clean = |text: &str| text.bytes().all(|byte| byte != b'\r' && byte != b'\n' && byte != 0);
    assert!(options.headers.iter().all(|(name, value)| clean(name) && clean(value)));
    assert!(options.user_agent.as_deref().is_none_or(clean), "no field can be smuggled in");
}

/// Whether what was read or refused is what another parser reads or refuses, as far as it is the JSON's
/// fault; and whether a refusal is one for a client, with not much more text than it has sent.
pub fn judge(body: &[u8], refused: Option<&ApiError>) {
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(body);
    let Some(error) = refused else {
        assert!(json.is_ok(), "what another parser refuses was taken: {json:?}");
        return;
    };
    let of_a_body = matches!(
        error.code,
        ApiCode::InvalidJson
            | ApiCode::UnknownField
            | ApiCode::ValidationError
            | ApiCode::TooManyUrls
            | ApiCode::InvalidUrl
    );
    assert!(of_a_body, "{error:?}");
    assert!(error.message.len() <= 512 + 8 * body.len(), "{} bytes", error.message.len());
    assert!(error.details.len() <= 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 3] = [
        r#"{"urls":["https://a.test/b?c=d","http://[2001:db8::1]:8080/"],"options":{"concurrency":4,
            "formats":["markdown","links"],"headers":{"Accept-Language":"de"},"user_agent":"x/1",
            "follow":{"depth":2,"include":["/blog/**"]},"order":"input","timeout_ms":1000}}"#,
        r#"{"query":"two words","limit":3,"options":{"cache_mode":"bypass"}}"#,
        r#"{"html":"<p>\u00e4\n</p>","url":"https://a.test/","options":{"extractor":"full"}}"#,
    ];

    fn all(body: &[u8]) {
        let config = Config { urls_max: 3, ..Config::default() };
        fuzz_crawl(body, &config);
        fuzz_deepsearch(body, &config);
        fuzz_extract(body);
    }

    #[test]
    fn bodies_that_are_nearly_good_break_nothing() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap_or_default()
        };
        for good in GOOD {
            all(good.as_bytes());
            for _ in 0..2_000 {
                let mut body = good.as_bytes().to_vec();
                for _ in 0..=next(3) {
                    if body.len() < 2 {
                        break;
                    }
                    let at = next(body.len());
                    match next(4) {
                        0 => body[at] = b"\"\\{}[],:\x00\xff0-e"[next(13)],
                        1 => drop(body.remove(at)),
                        2 => body.truncate(at.max(1)),
                        _ => body.insert(at, body[next(body.len())]),
                    }
                }
                all(&body);
            }
        }
        all(b"");
        all("[".repeat(100_000).as_bytes());
    }
}
