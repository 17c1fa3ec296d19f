//! `GET /docs`: the API's description as a page to be read, with a picture of each route, event and
//! error code. It is whole without a script.

mod html;
mod operation;
mod schema;

use super::openapi::{self, routes::PATHS};
use crate::config::Config;
use crate::error::{ApiCode, Fault, PageCode};
use html::{code, escape, prose, sentence, table};
use schema::{Book, code_row, link};
use simd_json::OwnedValue;
use simd_json::prelude::{ValueObjectAccess, ValueObjectAccessAsArray, ValueObjectAccessAsScalar};

/// The two parts of the page that are made from the description.
#[derive(Debug)]
pub struct Parts {
    /// Links to everything.
    pub index: String,
    /// Everything.
    pub content: String,
}

/// Writes the page for a server's settings.
///
/// # Panics
/// Never: a test reads the description as this does.
#[must_use]
pub fn parts(config: &Config) -> Parts {
    let mut text = openapi::document(config).into_bytes();
    let root = simd_json::to_owned_value(&mut text).expect("the description is JSON");
    let book = Book(&root);
    let mut page = Page { index: String::new(), content: String::new() };
    introduce(&mut page, &root);
    operations(&mut page, &book, &host(config));
    events(&mut page, &book);
    codes(&mut page, &root);
    schemas(&mut page, &book);
    Parts { index: page.index, content: page.content }
}

/// Where a client on the same machine finds the server.
fn host(config: &Config) -> String {
    let address = config.listen;
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        return format!("localhost:{}", address.port());
    }
    address.to_string()
}

struct Page {
    index: String,
    content: String,
}

impl Page {
    /// Begins a section; its links follow in the index.
    fn section(&mut self, id: &str, name: &str, title: &str, text: &str) {
        let (name, title) = (escape(name), escape(title));
        let head = format!("<h2 id=\"{id}\">{title}</h2>{text}");
        self.content.push_str(&format!("<section aria-labelledby=\"{id}\">{head}"));
        self.index.push_str(&format!("<h2><a href=\"#{id}\">{name}</a></h2><ul>"));
    }

    fn entry(&mut self, id: &str, html: &str) {
        self.index.push_str(&format!("<li><a href=\"#{id}\">{html}</a></li>"));
    }

    fn end(&mut self) {
        self.content.push_str("</section>");
        self.index.push_str("</ul>");
    }
}

fn introduce(page: &mut Page, root: &OwnedValue) {
    let info =
        |name: &str| root.get("info").and_then(|info| info.get_str(name)).unwrap_or_default();
    let text = format!(
        "<p class=\"lead\">{}</p>{}<p>Where the server has keys, a request carries one: {} or {}.</p>",
        sentence(info("summary")),
        prose(info("description")),
        code("Authorization: Bearer fb_…"),
        code("X-API-Key: fb_…"),
    );
    page.section("about", "About", &format!("The API, version {}", info("version")), &text);
    page.content.push_str(&format!(
        "<div class=\"card\" id=\"everywhere\"><h3>What any request may be refused with</h3><p>{}; with {} as body.</p></div>",
        operation::everywhere(),
        link("Refusal"),
    ));
    page.entry("everywhere", "Any request");
    page.end();
}

fn operations(page: &mut Page, book: &Book<'_>, host: &str) {
    for tag in book.0.get_array("tags").into_iter().flatten() {
        let name = tag.get_str("name").unwrap_or_default();
        let id = format!("tag-{}", name.to_ascii_lowercase());
        page.section(&id, name, name, &prose(tag.get_str("description").unwrap_or_default()));
        for path in PATHS {
            for operation in path.operations.iter().filter(|operation| operation.tag == name) {
                let method = operation.method.as_str();
                let dot = format!(
                    "<span class=\"method\" data-method=\"{}\">{method}</span> {}",
                    method.to_ascii_lowercase(),
                    escape(path.path)
                );
                page.entry(operation.id, &dot);
                page.content.push_str(&operation::card(book, path.path, operation, host));
            }
        }
        page.end();
    }
}

/// Names of the schemas of events, in the order of a stream's life.
fn event_names() -> Vec<String> {
    let all = openapi::schema_names().into_iter().flat_map(|(_, names)| names);
    all.filter(|name| name.ends_with("Event") && name != "ServerSentEvent").collect()
}

fn events(page: &mut Page, book: &Book<'_>) {
    let text = "What a stream says, whatever carries it: a line of NDJSON, the data of a Server-Sent Event \
                whose `event` is the `type`, or a message of a WebSocket, there with the stream's `id`.";
    page.section("events", "Events", "Events", &prose(text));
    for name in event_names().into_iter().filter(|name| name != "Event") {
        let schema = book.component("schemas", &name);
        let kind =
            schema.and_then(|schema| schema.get("properties")?.get("type")?.get_str("const"));
        page.entry(&format!("schema-{name}"), &escape(kind.unwrap_or(&name)));
        page.content.push_str(&schema::card(book, &name));
    }
    page.end();
}

fn codes(page: &mut Page, root: &OwnedValue) {
    page.section("codes", "Error codes", "Error codes", "");
    let meaning = |schema: &str, name: &str| {
        let schemas = root.get("components").and_then(|parts| parts.get("schemas"));
        let told = schemas.and_then(|all| all.get(schema)?.get("x-meanings")?.get_str(name));
        sentence(told.unwrap_or_default())
    };
    let refusals: Vec<Vec<String>> = ApiCode::ALL
        .into_iter()
        .map(|error| {
            let (name, status) = (error.as_str(), error.status().to_string());
            let later = if error.retryable() { "yes" } else { "" };
            let rest = [status.as_str(), later, &meaning("ErrorCode", name)];
            code_row(&format!("code-{name}"), name, rest)
        })
        .collect();
    let failures: Vec<Vec<String>> = PageCode::ALL
        .into_iter()
        .map(|error| {
            let (name, later) = (error.as_str(), if error.retryable() { "yes" } else { "" });
            let whose = match error.fault() {
                Fault::Client => "the request's",
                Fault::Origin => "the origin's",
                Fault::Guest => "the page's",
                Fault::Internal => "ours",
            };
            code_row(&format!("page-{name}"), name, [later, whose, &meaning("PageErrorCode", name)])
        })
        .collect();
    let refused = table("Codes of refusals", &["Code", "Status", "Later?", "Meaning"], &refusals);
    let failed = table("Codes of pages", &["Code", "Later?", "Whose fault", "Meaning"], &failures);
    page.content.push_str(&format!(
        "<article class=\"card\" id=\"refusals\"><h3>Of a request: {}</h3><p>Why it is refused; “later” is {}: \
         whether the same request may work later as it stands.</p>{refused}</article>\
         <article class=\"card\" id=\"failures\"><h3>Of a page: {}</h3><p>Why one URL has no document; the \
         stream goes on.</p>{failed}</article>",
        code("error.code"),
        code("retryable"),
        code("result.error.code"),
    ));
    page.entry("refusals", "Of a request");
    page.entry("failures", "Of a page");
    page.end();
}

fn schemas(page: &mut Page, book: &Book<'_>) {
    let shown = event_names();
    for (title, names) in openapi::schema_names() {
        let id = format!("schemas-{}", title.to_ascii_lowercase());
        let title = format!("Schemas: {title}");
        page.section(&id, &title, &title, "");
        for name in names.iter().filter(|name| !shown.contains(name) || *name == "Event") {
            page.entry(&format!("schema-{name}"), &escape(name));
            page.content.push_str(&schema::card(book, name));
        }
        page.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn page() -> String {
        let Parts { index, content } = parts(&Config::default());
        format!("{index}\n{content}")
    }

    /// The values of an attribute, in their order.
    fn values<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
        let begin = format!(" {name}=\"");
        let begins = page.match_indices(&begin).map(|(at, begin)| at + begin.len());
        begins.map(|at| page[at..].split('"').next().unwrap_or_default()).collect()
    }

    #[test]
    fn every_link_leads_somewhere_and_every_place_is_one() {
        let page = page();
        let ids = values(&page, "id");
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(known.len(), ids.len(), "an id is there twice");
        for target in values(&page, "href") {
            let id = target.strip_prefix('#').expect("every link stays on the page");
            assert!(known.contains(id), "{id} is nowhere");
        }
        let labels = values(&page, "aria-label");
        assert_eq!(
            labels.iter().collect::<BTreeSet<_>>().len(),
            labels.len(),
            "a table's name twice"
        );
    }

    #[test]
    fn everything_that_is_described_has_its_place() {
        let page = page();
        let ids: BTreeSet<&str> = values(&page, "id").into_iter().collect();
        for operation in PATHS.iter().flat_map(|path| path.operations) {
            assert!(ids.contains(operation.id), "{}", operation.id);
        }
        for (_, names) in openapi::schema_names() {
            assert!(names.iter().all(|name| ids.contains(format!("schema-{name}").as_str())));
        }
        for code in ApiCode::ALL.into_iter().map(ApiCode::as_str) {
            assert!(ids.contains(format!("code-{code}").as_str()), "{code}");
        }
        for code in PageCode::ALL.into_iter().map(PageCode::as_str) {
            assert!(ids.contains(format!("page-{code}").as_str()), "{code}");
        }
    }

    #[test]
    fn what_is_inside_of_something_has_a_row_with_its_bounds() {
        let page = page();
        let row = |name: &str| {
            let rows: Vec<&str> = page
                .split("<tr>")
                .filter(|row| row.starts_with(&format!("<td><code>{name}</code>")))
                .collect();
            assert!(!rows.is_empty(), "no row for {name}");
            rows.concat()
        };
        assert!(row("error.code").contains("#schema-ErrorCode"));
        assert!(row("resume.window_s").contains("required"));
        assert!(row("webhook.url").contains("at most 2,048 characters"));
        assert!(row("webhook.secret").contains("characters"));
        assert!(row("options.order").contains("&quot;completion&quot;"));
        assert!(row("streams[].credit").contains("null"));
        assert!(row("redis.state").contains("&quot;read_only&quot;"));
        assert!(row("progress_ms").contains("0, or 10 to 60,000"));
        assert!(row("user_agent").contains("matches <code>^[ -~]{1,256}$</code>"));
        assert!(row("query").contains("1 to "));
        assert!(row("webhook.last_status").contains("0 to 999"));
        assert!(row("series").contains("<details><summary>one of 106 words"));
    }
}
