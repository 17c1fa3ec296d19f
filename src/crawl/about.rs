//! Reads what a guest tells of a page beside its document. Runs on the lane, because a page may have
//! thousands of links.

use crate::fetch::normal::normal;
use crate::limits::{FOLLOW_LINKS_MAX, FOLLOW_URL_BYTES_MAX};
use crate::proto::events::About;
use crate::proto::text::{Text, Texts};
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::Arc;

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    robots: Option<String>,
    #[serde(default)]
    canonical: Option<String>,
    #[serde(default)]
    links: Vec<String>,
}

/// What the JSON says; a guest that breaks its ABI here tells nothing.
pub(super) fn read(json: &[u8]) -> Option<Arc<About>> {
    let told: Told = simd_json::serde::from_slice(&mut json.to_vec()).ok()?;
    let robots = told.robots.unwrap_or_default();
    let says = |wanted: &str| {
        let mut words = robots.split([',', ' ']).map(str::trim);
        words.any(|word| word.eq_ignore_ascii_case(wanted) || word.eq_ignore_ascii_case("none"))
    };
    let mut seen = HashSet::new();
    let links = told.links.iter().filter_map(|link| web(link)).take(FOLLOW_LINKS_MAX);
    let links: Texts = links.filter(|link| seen.insert(link.clone())).collect();
    Some(Arc::new(About {
        noindex: says("noindex"),
        nofollow: says("nofollow"),
        canonical: told.canonical.as_deref().and_then(web).map(Text::from),
        links: links.share(),
    }))
}

/// The normal form of a URL that can be fetched.
fn web(url: &str) -> Option<String> {
    let short = url.len() <= FOLLOW_URL_BYTES_MAX;
    short.then(|| normal(url).ok()).flatten().map(|url| url.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn links_are_normal_and_once_and_robots_are_words() {
        let json = br#"{"robots":"NoIndex, max-snippet:5","canonical":"HTTP://a.test","links":[
            "http://a.test/x#one","http://a.test/x","http://user@b.test/","https://b.test"]}"#;
        let about = read(json).unwrap();
        assert!(about.noindex && !about.nofollow);
        assert_eq!(about.canonical.as_deref(), Some("http://a.test/"));
        let links: Vec<&str> = about.links.iter().map(|link| &**link).collect();
        assert_eq!(links, ["http://a.test/x", "https://b.test/"]);
        let none = read(br#"{"robots":"none"}"#).unwrap();
        assert!(none.noindex && none.nofollow && none.links.is_empty());
        assert!(read(b"{\"robots\":7}").is_none() && read(b"").is_none());
    }
}
