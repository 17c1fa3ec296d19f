//! What we say of ourselves, and of our tools.

use crate::config::Config;
use crate::limits::{MCP_URLS_MAX, SEARCH_HITS_MAX, SEARCH_QUERY_BYTES_MAX};
use crate::serve::openapi;

/// For the model that reads it.
const INSTRUCTIONS: &str = "Fetches public web pages and gives their main content as Markdown. Use `search` to find pages and read them, `crawl` for one or more URLs at once, `extract` for HTML that you already have. A page that could not be fetched is told with its reason and leaves the others alone.";

/// Who we are.
pub(super) fn server_info() -> &'static str {
    concat!(
        "{\"name\":\"forebay\",\"title\":\"Forebay\",\"version\":\"",
        env!("CARGO_PKG_VERSION"),
        "\"}"
    )
}

/// The fields of the answer to `initialize`.
pub(super) fn initialized(version: &str) -> String {
    format!(
        "{{\"protocolVersion\":\"{version}\",\"capabilities\":{{\"tools\":{{}}}},\"serverInfo\":{},\"instructions\":\"{INSTRUCTIONS}\"",
        server_info()
    )
}

/// The fields of the answer to `server/discover`.
pub(super) fn discovered(versions: &[&str]) -> String {
    format!(
        "{{\"supportedVersions\":[\"{}\"],\"capabilities\":{{\"tools\":{{}}}},\"instructions\":\"{INSTRUCTIONS}\",\"ttlMs\":3600000,\"cacheScope\":\"public\"",
        versions.join("\",\"")
    )
}

/// The fields of the answer to `tools/list`.
pub(super) fn listed(tools: &str, modern: bool) -> String {
    let cached = if modern { ",\"ttlMs\":3600000,\"cacheScope\":\"public\"" } else { "" };
    format!("{{\"tools\":{tools}{cached}")
}

/// The tools as JSON, written when the server starts and when a reload has changed their bounds.
#[must_use]
pub fn list(config: &Config) -> String {
    let options = openapi::options_schema(config);
    let urls_max = config.urls_max.min(MCP_URLS_MAX);
    let hits_max = SEARCH_HITS_MAX.min(urls_max);
    let reads = "\"annotations\":{\"readOnlyHint\":true,\"destructiveHint\":false";
    format!(
        "[{{\"name\":\"crawl\",\"title\":\"Fetch web pages\",\
         \"description\":\"Fetches up to {urls_max} pages at once and gives the main content of each as Markdown, in the order of the URLs.\",\
         \"inputSchema\":{{\"type\":\"object\",\"required\":[\"urls\"],\"additionalProperties\":false,\"properties\":{{\
         \"urls\":{{\"type\":\"array\",\"minItems\":1,\"maxItems\":{urls_max},\"items\":{{\"type\":\"string\",\"description\":\"An absolute http or https URL.\"}}}},\
         \"options\":{options}}}}},{reads},\"openWorldHint\":true}}}},\
         {{\"name\":\"search\",\"title\":\"Search and read\",\
         \"description\":\"Searches, fetches the hits and gives the main content of each as Markdown, the best hit first.\",\
         \"inputSchema\":{{\"type\":\"object\",\"required\":[\"query\"],\"additionalProperties\":false,\"properties\":{{\
         \"query\":{{\"type\":\"string\",\"minLength\":1,\"maxLength\":{SEARCH_QUERY_BYTES_MAX},\"description\":\"What to look for.\"}},\
         \"limit\":{{\"type\":\"integer\",\"minimum\":1,\"maximum\":{hits_max},\"description\":\"Hits; 10 where nothing is said.\"}},\
         \"country\":{{\"type\":\"string\",\"description\":\"Two letters, as us.\"}},\
         \"locale\":{{\"type\":\"string\",\"description\":\"A language, as en or pt-BR.\"}},\
         \"include_content\":{{\"type\":\"boolean\",\"description\":\"false: only titles and snippets, nothing is fetched.\"}},\
         \"options\":{options}}}}},{reads},\"openWorldHint\":true}}}},\
         {{\"name\":\"extract\",\"title\":\"Extract a page's content\",\
         \"description\":\"Gives the main content of a page's HTML as Markdown. Nothing is fetched.\",\
         \"inputSchema\":{{\"type\":\"object\",\"required\":[\"html\"],\"additionalProperties\":false,\"properties\":{{\
         \"html\":{{\"type\":\"string\",\"description\":\"The page.\"}},\
         \"url\":{{\"type\":\"string\",\"description\":\"Where it comes from, for its links.\"}},\
         \"options\":{options}}}}},{reads},\"idempotentHint\":true,\"openWorldHint\":false}}}}]"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_we_say_is_json() {
        let tools: Value = serde_json::from_str(&list(&Config::default())).unwrap();
        let names: Vec<&str> =
            tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["crawl", "search", "extract"]);
        for tool in tools.as_array().unwrap() {
            let options = &tool["inputSchema"]["properties"]["options"]["properties"];
            assert!(options["concurrency"]["maximum"].is_u64());
        }
        for fields in [initialized("v"), discovered(&["v", "w"]), listed("[]", true)] {
            let _: Value = serde_json::from_str(&format!("{fields}}}")).unwrap();
        }
        let _: Value = serde_json::from_str(server_info()).unwrap();
    }
}
