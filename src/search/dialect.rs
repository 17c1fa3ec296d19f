//! How each provider wants a query put: the languages and countries that it documents by the names
//! that it has for them, and the longest query that it takes. What is sent beside its lists is
//! answered by a refusal, so what it does not know is left out.

use super::{Query, SearchError};
use crate::config::SearchProvider;

/// Characters and words that Brave takes (`q`).
const BRAVE_QUERY_MAX: (usize, usize) = (400, 50);

/// Countries that Brave knows (`country`).
const BRAVE_COUNTRIES: [&str; 36] = [
    "AR", "AT", "AU", "BE", "BR", "CA", "CH", "CL", "CN", "DE", "DK", "ES", "FI", "FR", "GB", "HK",
    "ID", "IN", "IT", "JP", "KR", "MX", "MY", "NL", "NO", "NZ", "PH", "PL", "PT", "RU", "SA", "SE",
    "TR", "TW", "US", "ZA",
];

/// Languages that Brave knows by their ISO 639-1 names (`search_lang`); the others have a name of
/// their own, see [`brave_language`].
const BRAVE_LANGUAGES: [&str; 44] = [
    "ar", "bg", "bn", "ca", "cs", "da", "de", "en", "es", "et", "eu", "fi", "fr", "gl", "gu", "he",
    "hi", "hr", "hu", "is", "it", "kn", "ko", "lt", "lv", "ml", "mr", "ms", "nb", "nl", "pa", "pl",
    "ro", "ru", "sk", "sl", "sr", "sv", "ta", "te", "th", "tr", "uk", "vi",
];

/// Whether a provider takes a query of this length.
///
/// # Errors
/// `TooLong`.
pub fn check(provider: SearchProvider, query: &Query) -> Result<(), SearchError> {
    let (characters, words) = BRAVE_QUERY_MAX;
    let fits =
        query.text.chars().count() <= characters && query.text.split_whitespace().count() <= words;
    if provider == SearchProvider::Brave && !fits {
        return Err(SearchError::TooLong { characters, words });
    }
    Ok(())
}

/// A locale in its parts, in lower case: the language, and the region or script.
fn parts(query: &Query) -> Option<(String, String)> {
    let locale = query.locale.as_ref()?.to_ascii_lowercase();
    let (language, rest) = locale.split_once('-').unwrap_or((&locale, ""));
    Some((language.to_owned(), rest.to_owned()))
}

/// The country by its ISO name: many say `uk`.
pub(super) fn country(query: &Query) -> Option<&str> {
    query.country.as_deref().map(|country| if country == "uk" { "gb" } else { country })
}

/// Whether Chinese is wanted in its traditional writing.
fn is_traditional(rest: &str, country: Option<&str>) -> bool {
    let region = if rest.is_empty() { country.unwrap_or_default() } else { rest };
    matches!(region, "hant" | "tw" | "hk" | "mo")
}

/// `search_lang`.
pub(super) fn brave_language(query: &Query) -> Option<&'static str> {
    let (language, rest) = parts(query)?;
    let country = country(query);
    let known = || BRAVE_LANGUAGES.into_iter().find(|known| *known == language);
    match &*language {
        "zh" if is_traditional(&rest, country) => Some("zh-hant"),
        "zh" => Some("zh-hans"),
        "pt" if rest == "pt" || rest.is_empty() && country == Some("pt") => Some("pt-pt"),
        "pt" => Some("pt-br"),
        "en" if rest == "gb" || rest == "uk" => Some("en-gb"),
        "ja" => Some("jp"),
        "no" | "nn" => Some("nb"),
        _ => known(),
    }
}

/// `country`; every country's pages rather than those of the United States, which is what nothing
/// would mean.
pub(super) fn brave_country(query: &Query) -> Option<&'static str> {
    let wanted = country(query)?.to_ascii_uppercase();
    Some(BRAVE_COUNTRIES.into_iter().find(|known| *known == wanted).unwrap_or("ALL"))
}

/// `hl`, by Google's names.
pub(super) fn serper_language(query: &Query) -> Option<String> {
    let (language, rest) = parts(query)?;
    let country = country(query);
    Some(match &*language {
        "zh" if is_traditional(&rest, country) => "zh-tw".to_owned(),
        "zh" => "zh-cn".to_owned(),
        "pt" if rest == "br" || rest.is_empty() && country == Some("br") => "pt-br".to_owned(),
        "pt" if rest == "pt" || rest.is_empty() && country == Some("pt") => "pt-pt".to_owned(),
        "nb" | "nn" => "no".to_owned(),
        _ if language.len() == 2 || language == "fil" => language,
        _ => return None,
    })
}

/// `language`: in lower case, with a region of two letters or none.
pub(super) fn searxng_language(query: &Query) -> Option<String> {
    let (language, rest) = parts(query)?;
    let region = match &*rest {
        "" => country(query).unwrap_or_default(),
        "hans" => "cn",
        "hant" => "tw",
        region if region.len() == 2 => region,
        _ => "",
    };
    Some(if region.is_empty() {
        language
    } else {
        format!("{language}-{}", region.to_ascii_uppercase())
    })
}

/// The words without those that ask SearXNG for a redirect instead of hits (`!!`): nothing that is
/// redirected would be followed.
pub(super) fn searxng_text(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !word.starts_with("!!"));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(locale: &str, country: &str) -> Query {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Query { text: "q".to_owned(), limit: 10, country: some(country), locale: some(locale) }
    }

    #[test]
    fn languages_have_each_providers_names() {
        for (locale, country, brave, serper, searxng) in [
            ("", "us", None, None, None),
            ("en", "", Some("en"), Some("en"), Some("en")),
            ("en", "us", Some("en"), Some("en"), Some("en-US")),
            ("EN-gb", "us", Some("en-gb"), Some("en"), Some("en-GB")),
            ("en", "uk", Some("en"), Some("en"), Some("en-GB")),
            ("ja", "", Some("jp"), Some("ja"), Some("ja")),
            ("pt", "", Some("pt-br"), Some("pt"), Some("pt")),
            ("pt", "pt", Some("pt-pt"), Some("pt-pt"), Some("pt-PT")),
            ("pt-BR", "pt", Some("pt-br"), Some("pt-br"), Some("pt-BR")),
            ("zh", "", Some("zh-hans"), Some("zh-cn"), Some("zh")),
            ("zh", "tw", Some("zh-hant"), Some("zh-tw"), Some("zh-TW")),
            ("zh-Hant", "", Some("zh-hant"), Some("zh-tw"), Some("zh-TW")),
            ("zh-Hans", "tw", Some("zh-hans"), Some("zh-cn"), Some("zh-CN")),
            ("no", "", Some("nb"), Some("no"), Some("no")),
            ("nb", "", Some("nb"), Some("no"), Some("nb")),
            ("sr-Latn", "", Some("sr"), Some("sr"), Some("sr")),
            ("haw", "", None, None, Some("haw")),
            ("fil", "ph", None, Some("fil"), Some("fil-PH")),
            ("ka", "", None, Some("ka"), Some("ka")),
        ] {
            let query = query(locale, country);
            assert_eq!(brave_language(&query), brave, "{locale} {country}");
            assert_eq!(serper_language(&query).as_deref(), serper, "{locale} {country}");
            assert_eq!(searxng_language(&query).as_deref(), searxng, "{locale} {country}");
        }
    }

    #[test]
    fn a_country_that_brave_does_not_know_is_not_the_united_states() {
        for (country, sent) in [("de", "DE"), ("uk", "GB"), ("gb", "GB"), ("ua", "ALL")] {
            assert_eq!(brave_country(&query("", country)), Some(sent));
        }
        assert_eq!(brave_country(&query("en", "")), None);
    }

    #[test]
    fn only_brave_has_a_longest_query() {
        let of = |text: String| Query { text, ..query("", "") };
        let long = Err(SearchError::TooLong { characters: 400, words: 50 });
        for (text, brave) in [
            ("ä".repeat(400), Ok(())),
            ("ä".repeat(401), long.clone()),
            ("w ".repeat(50), Ok(())),
            ("w ".repeat(51), long),
        ] {
            assert_eq!(check(SearchProvider::Brave, &of(text.clone())), brave, "{text}");
            for other in [SearchProvider::Searxng, SearchProvider::Serper, SearchProvider::Local] {
                assert_eq!(check(other, &of(text.clone())), Ok(()));
            }
        }
    }

    #[test]
    fn no_word_asks_searxng_for_a_redirect() {
        assert_eq!(searxng_text("!!g weirs !! !images  water!!"), "weirs !images water!!");
    }

    proptest! {
        /// Whatever a client may write: only what each provider documents.
        #[test]
        fn nothing_is_sent_that_is_not_documented(
            locale in "[a-zA-Z]{2,3}(-[a-zA-Z]{2,4})?",
            country in "([a-z]{2})?",
        ) {
            let query = query(&locale, &country);
            let own = ["en-gb", "jp", "pt-br", "pt-pt", "zh-hans", "zh-hant"];
            if let Some(language) = brave_language(&query) {
                prop_assert!(BRAVE_LANGUAGES.contains(&language) || own.contains(&language));
            }
            let language = searxng_language(&query).unwrap_or_default();
            let (name, region) = language.split_once('-').unwrap_or((&language, "XX"));
            prop_assert!((2..=3).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase()));
            prop_assert!(region.len() == 2 && region.bytes().all(|b| b.is_ascii_uppercase()));
        }
    }
}
