//! A crawl as query parameters, for clients that can only name an address, like a browser's
//! `EventSource`: `?url=…&url=…&concurrency=4&formats=markdown,text`.
//!
//! The parameters become the JSON body that `POST` would have carried, so that there is one place
//! only where names, types and bounds are checked.

use crate::proto::json;
use bytes::{BufMut, BytesMut};

/// Options that are numbers.
const NUMBERS: [&str; 9] = [
    "concurrency",
    "max_age_s",
    "timeout_ms",
    "deadline_ms",
    "max_body_bytes",
    "progress_ms",
    "stall_timeout_ms",
    "resume_window_s",
    "redirects",
];

/// Writes the body of a deepsearch: `query`, `limit`, `country`, `locale` and `include_content`, every
/// other parameter as an option.
#[must_use]
pub fn deepsearch_body(query: &str) -> Vec<u8> {
    const OWN: [&str; 5] = ["query", "limit", "country", "locale", "include_content"];
    let pairs = || url::form_urlencoded::parse(query.as_bytes());
    let own = |name: &str| OWN.contains(&name);
    let mut out = BytesMut::with_capacity(64 + query.len());
    out.put_u8(b'{');
    for (name, value) in pairs().filter(|(name, _)| own(name)) {
        json::string(&mut out, &name);
        out.put_u8(b':');
        match (&*name, value.parse::<u64>(), value.parse::<bool>()) {
            ("limit", Ok(number), _) => json::integer(&mut out, number),
            ("include_content", _, Ok(wanted)) => json::boolean(&mut out, wanted),
            _ => json::string(&mut out, &value),
        }
        out.put_u8(b',');
    }
    out.put_slice(b"\"options\":{");
    for (at, (name, value)) in pairs().filter(|(name, _)| !own(name)).enumerate() {
        separate(&mut out, at);
        json::string(&mut out, &name);
        out.put_u8(b':');
        option(&mut out, &name, &value);
    }
    out.put_slice(b"}}");
    out.into()
}

/// Writes the body of a crawl: every `url` in its order, every other parameter as an option. Of an
/// option that is given twice both are written, and the body is refused.
///
/// `formats` is a list with commas. `headers` can't be given: what needs them is no use of a browser.
#[must_use]
pub fn crawl_body(query: &str) -> Vec<u8> {
    let pairs = || url::form_urlencoded::parse(query.as_bytes());
    let mut out = BytesMut::with_capacity(64 + query.len());
    out.put_slice(b"{\"urls\":[");
    for (at, (_, url)) in pairs().filter(|(name, _)| name == "url").enumerate() {
        separate(&mut out, at);
        json::string(&mut out, &url);
    }
    out.put_slice(b"],\"options\":{");
    for (at, (name, value)) in pairs().filter(|(name, _)| name != "url").enumerate() {
        separate(&mut out, at);
        json::string(&mut out, &name);
        out.put_u8(b':');
        option(&mut out, &name, &value);
    }
    out.put_slice(b"}}");
    out.into()
}

fn option(out: &mut BytesMut, name: &str, value: &str) {
    match value.parse::<u64>() {
        Ok(number) if NUMBERS.contains(&name) => json::integer(out, number),
        _ if name == "formats" => {
            out.put_u8(b'[');
            for (at, format) in value.split(',').filter(|format| !format.is_empty()).enumerate() {
                separate(out, at);
                json::string(out, format.trim());
            }
            out.put_u8(b']');
        }
        // A wrong type is refused where all types are checked, with the option's name.
        _ => json::string(out, value),
    }
}

fn separate(out: &mut BytesMut, at: usize) {
    if at > 0 {
        out.put_u8(b',');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::config::Config;
    use crate::crawl::request::deepsearch::parse_deepsearch;
    use crate::crawl::request::{Format, Options, OrderName, parse_crawl};
    use crate::error::ApiCode;

    fn parse(query: &str) -> Result<(Vec<String>, Options), ApiCode> {
        match parse_crawl(&mut crawl_body(query), &Config::default()) {
            Ok(request) => Ok((
                request.urls.iter().map(|url| url.to_string()).collect(),
                Options::clone(&request.options),
            )),
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn parameters_mean_what_the_body_means() {
        let query = "url=http%3A%2F%2Fa.test%2F%3Fq%3D1%262&url=http://b.test/&concurrency=3\
                     &formats=markdown,text&order=input&user_agent=7";
        let (urls, options) = parse(query).unwrap();
        assert_eq!(urls, ["http://a.test/?q=1&2", "http://b.test/"]);
        assert_eq!(options.concurrency, 3);
        assert_eq!(options.formats, [Format::Markdown, Format::Text]);
        assert_eq!(options.order, Some(OrderName::Input));
        assert_eq!(options.user_agent.as_deref(), Some("7"));
    }

    #[test]
    fn so_do_those_of_a_deepsearch() {
        let query = "query=old+weirs&limit=3&include_content=false&locale=en&concurrency=2";
        let request = parse_deepsearch(&mut deepsearch_body(query), &Config::default()).unwrap();
        let searched = request.search.unwrap();
        assert_eq!((&*searched.query.text, searched.query.limit), ("old weirs", 3));
        assert_eq!((searched.include_content, request.options.concurrency), (false, 2));
        for wrong in ["", "limit=3", "query=a&limit=x", "query=a&query=b", "query=a&colour=red"] {
            let mut body = deepsearch_body(wrong);
            assert!(parse_deepsearch(&mut body, &Config::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_body_may_not_say_a_query_may_not_either() {
        assert_eq!(parse(""), Err(ApiCode::ValidationError));
        assert_eq!(parse("url=http://a.test/&colour=red"), Err(ApiCode::UnknownField));
        assert_eq!(parse("url=http://a.test/&concurrency=many"), Err(ApiCode::ValidationError));
        assert!(parse("url=http://a.test/&concurrency=1&concurrency=2").is_err());
        assert_eq!(parse("url=ftp://a.test/"), Err(ApiCode::InvalidUrl));
        assert_eq!(parse("url=http://a.test/\"}&order=\"input"), Err(ApiCode::ValidationError));
    }
}
