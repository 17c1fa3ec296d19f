//! The web pages: the console and the readable description of the API. Each is one page that needs
//! nothing else, put together from its sources beside this file.

use super::docs;
use crate::config::Config;
use crate::proto::base64::base64;
use ring::digest::{SHA256, digest};

const CONSOLE_HTML: &str = include_str!("console/console.html");
const DOCS_HTML: &str = include_str!("console/docs.html");
const BASE_CSS: &str = include_str!("console/base.css");
const CONSOLE_CSS: &str = include_str!("console/console.css");
const DOCS_CSS: &str = include_str!("console/docs.css");
/// In the order in which they build on each other.
const CONSOLE_SCRIPTS: [&str; 10] = [
    include_str!("console/dom.js"),
    include_str!("console/markdown.js"),
    include_str!("console/wire.js"),
    include_str!("console/ledger.js"),
    include_str!("console/list.js"),
    include_str!("console/plots.js"),
    include_str!("console/gauges.js"),
    include_str!("console/form.js"),
    include_str!("console/poll.js"),
    include_str!("console/main.js"),
];
const DOCS_SCRIPTS: [&str; 2] = [include_str!("console/dom.js"), include_str!("console/docs.js")];

/// A page and what a browser may do for it.
#[derive(Debug)]
pub struct Built {
    /// HTML with its style and its script inside.
    pub text: String,
    /// `Content-Security-Policy`: nothing but that style and that script, by their hashes, and
    /// requests to this server.
    pub policy: String,
}

/// The console.
#[must_use]
pub fn console() -> Built {
    build(CONSOLE_HTML, &[BASE_CSS, CONSOLE_CSS], &CONSOLE_SCRIPTS)
}

/// The description of the API, for a server's settings.
#[must_use]
pub fn docs(config: &Config) -> Built {
    let parts = docs::parts(config);
    let html = DOCS_HTML.replacen("<!--index-->", &parts.index, 1);
    let html = html.replacen("<!--content-->", &parts.content, 1);
    build(&html, &[BASE_CSS, DOCS_CSS], &DOCS_SCRIPTS)
}

fn build(html: &str, styles: &[&str], scripts: &[&str]) -> Built {
    let style = styles.concat();
    // One scope for all files, and none of it in the page's global one.
    let script = format!("\"use strict\";\n(() => {{\n{}}})();\n", scripts.concat());
    let text = html.replacen("<!--style-->", &format!("<style>{style}</style>"), 1).replacen(
        "<!--script-->",
        &format!("<script>{script}</script>"),
        1,
    );
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        source(&script),
        source(&style),
    );
    Built { text, policy }
}

/// A hash as a source expression (CSP level 3, §2.3.1).
fn source(text: &str) -> String {
    format!("'sha256-{}'", base64(digest(&SHA256, text.as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;

    #[test]
    fn a_page_is_whole_and_its_policy_names_what_is_in_it() {
        for built in [console(), docs(&Config::default())] {
            assert!(!built.text.contains("<!--style-->") && !built.text.contains("<!--script-->"));
            for (open, close) in [("<style>", "</style>"), ("<script>", "</script>")] {
                assert_eq!(built.text.matches(open).count(), 1);
                let (_, rest) = built.text.split_once(open).expect("there is one");
                let (inner, _) = rest.split_once(close).expect("it ends");
                let hash = digest(&SHA256, inner.as_bytes());
                let hash = ::base64::engine::general_purpose::STANDARD.encode(hash);
                assert!(built.policy.contains(&format!("'sha256-{hash}'")), "{open}");
            }
            let elsewhere = |text: &str| {
                ["src=\"http", "href=\"http", "url(http", "@import"]
                    .iter()
                    .any(|part| text.contains(part))
            };
            assert!(!elsewhere(&built.text), "everything is in the page");
            let sinks = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("];
            assert!(!sinks.iter().any(|sink| built.text.contains(sink)), "text stays text");
        }
    }
}
