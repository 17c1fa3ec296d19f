//! Forebay's default extractor: HTML in, one JSON document out.
//!
//! Built to `wasm32-unknown-unknown` it is the module that Forebay runs in its sandbox; built
//! natively it is the same code as a library, for tests and for comparing the two.
//!
//! # The ABI (version 1)
//!
//! Any core WebAssembly module with this interface works as an extractor. It imports nothing and
//! exports:
//!
//! | export | type | what it does |
//! | --- | --- | --- |
//! | `memory` | memory | one 32-bit linear memory |
//! | `abi_version` | `() -> i32` | returns 1 |
//! | `alloc` | `(len: i32) -> i32` | the address of `len` free bytes, 0 when there are none |
//! | `dealloc` | `(ptr: i32, len: i32)` | takes back what `alloc` or `extract` gave |
//! | `extract` | `(html_ptr, html_len, url_ptr, url_len, options_ptr, options_len: i32) -> i64` | `ptr << 32 \| len` of the answer |
//!
//! The host makes a new instance for every page, calls `alloc` once for each of the three inputs,
//! writes them, and calls `extract` once. HTML, URL and options are UTF-8. An answer of length 0
//! says that the module has no document for this page. The host copies the answer out and drops the
//! instance; it never calls `dealloc`, which is there for hosts that reuse an instance.
//!
//! ## Options
//!
//! Lines of `key=value`, each ended by `\n`. Unknown keys are ignored, so that a module goes on
//! working with a newer host.
//!
//! | key | value |
//! | --- | --- |
//! | `extractor` | `article` (default): the main text; `full`: the whole page's text |
//! | `formats` | comma-separated: `markdown`, `text`, `links`, `metadata`; absent: all |
//! | `about` | comma-separated: `robots`, `links`: what to tell beside the document; absent: nothing |
//!
//! ## The answer
//!
//! One line of JSON of exactly this shape, without raw control characters, so that the host can cut
//! number and object out of it without parsing them again:
//!
//! ```json
//! {"quality_score":0.85,"document":{"title":"A","byline":null,"published":null,"language":"en","description":null,"site_name":null,"image":null,"markdown":"# A","text":"A","links":[{"href":"https://example.com/","text":"b"}],"word_count":120}}
//! ```
//!
//! All keys are always there. What a page does not tell, and what `formats` does not ask for
//! (`metadata`: title to image), is null.
//! - `published` is ISO 8601, a date or a date and time, with an offset where the page gave one.
//! - `language` is a BCP 47 tag. `image` and every `href` are absolute `http` or `https` URLs.
//! - `links` are those of the extracted content, in its order, once per address, at most
//!   [`LINKS_MAX`].
//! - `word_count` counts runs of letters and digits; where a script writes without spaces, each Han
//!   or kana character counts as a word.
//!
//! With the option `about` the answer may have one more member behind the document, for whoever follows
//! links: `"about":{"robots":"noindex,nofollow","canonical":"https://…","links":["https://…"]}`. `robots`
//! is what the page's `<meta name=robots>` says, or null; `canonical` and `links` are there with
//! `links`: the page's `rel=canonical`, or null, and all its links but those of `rel=nofollow`, at most
//! [`LINKS_MAX`]. A module that knows nothing of it leaves it out.
//!
//! # `quality_score`
//!
//! How likely the document is the page's main content, between 0 and 1, two decimals; 0 means that
//! the page has no text. It is a product, so that one bad sign is enough to lower it; the formula
//! and its weights stand in [`quality`].

mod about;
mod article;
mod content;
mod date;
mod document;
mod json;
mod metadata;
mod options;
pub mod quality;
mod tree;
mod url;
mod words;

#[cfg(target_arch = "wasm32")]
mod abi;

pub use options::{Formats, Kind, Options, Wanted};

/// Version of the ABI that this module speaks.
pub const ABI_VERSION: u32 = 1;
/// Links of one document.
pub const LINKS_MAX: usize = 2_000;
/// Bytes of a link's text; longer text is cut at a character.
pub const LINK_TEXT_BYTES_MAX: usize = 300;
/// Bytes of an address; a link with a longer one is left out.
pub const URL_BYTES_MAX: usize = 4_096;
/// Bytes of one metadata field; longer text is cut at a character.
pub const FIELD_BYTES_MAX: usize = 1_000;

/// Extracts one page: the answer as the ABI defines it.
///
/// `url` is the page's own address, for its links; any string is taken, and without a usable one
/// relative links are left out. Time and memory grow faster than the input on hostile pages, so an
/// untrusted page belongs in the sandbox.
#[must_use]
pub fn extract(html: &str, url: &str, options: &Options) -> Vec<u8> {
    let page = match options.kind {
        Kind::Article => article::article(html, url, options.about),
        Kind::Full => article::full(html, url, options.about),
    };
    document::write(&page, options.formats)
}

#[cfg(test)]
mod tests;
