//! Pages that are the same for everybody: the console, the readable description of the API, and the
//! description itself. They are written when the server starts, those that tell of settings again when
//! a reload has changed some, and compressed once, each in every coding that a browser may ask for.

use super::ask::Ask;
use super::conn::{Conn, Gone};
use super::reply::{JSON, PAGE_FIELDS, Reply};
use super::route::Route;
use super::{console, mcp, openapi};
use crate::config::Config;
use crate::proto::h1::{Request, list_members};
use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};

/// HTML's content type.
pub const HTML: &str = "text/html; charset=utf-8";

/// A content coding (RFC 9110 §8.4.1), the one that is liked best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 9659).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
    /// None at all.
    Identity,
}

impl Coding {
    /// The codings that need work.
    const COMPRESSED: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// The token in `Accept-Encoding` and `Content-Encoding`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    /// Compresses as well as can be: it is done once.
    fn encode(self, plain: &[u8]) -> io::Result<Bytes> {
        Ok(match self {
            Self::Br => {
                let mut out = Vec::new();
                let params = brotli::enc::BrotliEncoderParams { quality: 9, ..Default::default() };
                brotli::BrotliCompress(&mut &plain[..], &mut out, &params)?;
                out.into()
            }
            Self::Zstd => zstd::bulk::compress(plain, 19)?.into(),
            Self::Gzip => {
                let mut out = GzEncoder::new(Vec::new(), Compression::best());
                out.write_all(plain)?;
                out.finish()?.into()
            }
            Self::Identity => Bytes::copy_from_slice(plain),
        })
    }
}

/// What a browser says about the form in which it wants a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Browse {
    /// The codings that it takes, best first; never empty.
    codings: Vec<Coding>,
    /// `If-None-Match`.
    has: Option<Box<[u8]>>,
}

impl Browse {
    /// Looks at a request's head.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let members: Vec<&[u8]> =
            request.fields().all("accept-encoding").flat_map(list_members).collect();
        Self { codings: accepted(&members), has: request.field("if-none-match").map(Box::from) }
    }

    /// Whether the browser has this entity already: weak comparison (RFC 9110 §13.1.2).
    fn has(&self, tag: &str) -> bool {
        let Some(field) = &self.has else { return false };
        list_members(field).any(|member| {
            member == b"*" || member.strip_prefix(b"W/").unwrap_or(member) == tag.as_bytes()
        })
    }
}

/// Codings by weight (RFC 9110 §12.5.3); of equal ones the best is first. Without any that is
/// acceptable the page goes out as it is.
fn accepted(members: &[&[u8]]) -> Vec<Coding> {
    let weights: Vec<(String, f32)> = members
        .iter()
        .map(|member| {
            let text = String::from_utf8_lossy(member).to_ascii_lowercase();
            let mut parts = text.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_owned();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            (name, weight.unwrap_or(1.0))
        })
        .collect();
    let of =
        |name: &str| weights.iter().find(|(other, _)| other == name).map(|(_, weight)| *weight);
    let mut found: Vec<(Coding, f32)> = Coding::COMPRESSED
        .into_iter()
        .filter_map(|coding| Some((coding, of(coding.as_str()).or_else(|| of("*"))?)))
        .filter(|(_, weight)| *weight > 0.0)
        .collect();
    // A page as it is, is always acceptable where nothing is said of it, but last.
    found.push((Coding::Identity, of("identity").unwrap_or(f32::MIN_POSITIVE)));
    found.sort_by(|one, other| other.1.total_cmp(&one.1));
    found.into_iter().map(|(coding, _)| coding).collect()
}

/// One page in all its forms.
#[derive(Debug)]
pub struct Page {
    content_type: &'static str,
    /// `Content-Security-Policy`, where it is something that a browser shows.
    policy: Option<String>,
    digest: String,
    plain: Bytes,
    compressed: [OnceLock<Bytes>; 3],
}

impl Page {
    fn new(content_type: &'static str, policy: Option<String>, text: String) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let digest = digest.as_ref().iter().take(12).fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String does not fail");
            hex
        });
        Self { content_type, policy, digest, plain: text.into(), compressed: Default::default() }
    }

    fn compress(&self) {
        for (coding, place) in Coding::COMPRESSED.into_iter().zip(&self.compressed) {
            match coding.encode(&self.plain) {
                Ok(bytes) => drop(place.set(bytes)),
                Err(error) => tracing::warn!("a page has no {} form: {error}", coding.as_str()),
            }
        }
    }

    /// The form that the browser likes best of those that are there.
    fn choose(&self, browse: &Browse) -> (Coding, &Bytes) {
        let form = |coding: Coding| match coding {
            Coding::Br => self.compressed[0].get(),
            Coding::Zstd => self.compressed[1].get(),
            Coding::Gzip => self.compressed[2].get(),
            Coding::Identity => Some(&self.plain),
        };
        let found = browse.codings.iter().find_map(|coding| Some((*coding, form(*coding)?)));
        found.unwrap_or((Coding::Identity, &self.plain))
    }

    fn reply(&self, browse: &Browse) -> Reply {
        let (coding, bytes) = self.choose(browse);
        // RFC 9110 §8.8.3: each form is an entity of its own.
        let tag = format!("\"{}-{}\"", self.digest, coding.as_str());
        let mut reply = if browse.has(&tag) {
            Reply::empty(304)
        } else {
            Reply::new(200, self.content_type, bytes.clone())
        };
        if reply.status == 200 && coding != Coding::Identity {
            reply = reply.field("Content-Encoding", coding.as_str());
        }
        if let Some(policy) = &self.policy {
            reply = reply.field("Content-Security-Policy", policy.clone());
            for (name, value) in PAGE_FIELDS {
                reply = reply.field(name, value);
            }
        }
        reply.field("ETag", tag).field("Vary", "Accept-Encoding").field("Cache-Control", "no-cache")
    }
}

/// Every page of the server.
#[derive(Debug)]
pub struct Site {
    console: Page,
    described: ArcSwap<Described>,
}

/// What tells of the settings' bounds, and is written anew when they change.
#[derive(Debug)]
pub struct Described {
    docs: Page,
    openapi: Page,
    /// The tools of the Model Context Protocol, as JSON.
    pub tools: String,
}

impl Described {
    fn new(config: &Config) -> Arc<Self> {
        let docs = console::docs(config);
        Arc::new(Self {
            docs: Page::new(HTML, Some(docs.policy), docs.text),
            openapi: Page::new(JSON, None, openapi::document(config)),
            tools: mcp::list(config),
        })
    }

    fn compress(&self) {
        [&self.docs, &self.openapi].into_iter().for_each(Page::compress);
    }
}

impl Site {
    /// Writes the pages; their compressed forms follow from a thread of its own.
    #[must_use]
    pub fn start(config: &Config) -> Arc<Self> {
        let console = console::console();
        let site = Arc::new(Self {
            console: Page::new(HTML, Some(console.policy), console.text),
            described: ArcSwap::new(Described::new(config)),
        });
        let (work, described) = (Arc::clone(&site), site.described());
        in_background(move || {
            work.console.compress();
            described.compress();
        });
        site
    }

    /// What is told of the settings in force.
    #[must_use]
    pub fn described(&self) -> Arc<Described> {
        self.described.load_full()
    }

    /// Tells of other settings from now on. Takes milliseconds: for the control thread.
    pub fn renew(&self, config: &Config) {
        let described = Described::new(config);
        self.described.store(Arc::clone(&described));
        in_background(move || described.compress());
    }
}

fn in_background(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name("pages".into()).spawn(work) {
        tracing::warn!("pages go out uncompressed: {error}");
    }
}

/// Answers with the page of a route.
pub(super) async fn answer(conn: &mut Conn, ask: &Ask, route: Route) -> Result<(), Gone> {
    let site = Arc::clone(&conn.site);
    let described = site.described();
    let page = match route {
        Route::Docs => &described.docs,
        Route::OpenApi => &described.openapi,
        _ => &site.console,
    };
    let any = Browse { codings: vec![Coding::Identity], has: None };
    conn.reply(page.reply(ask.browse.as_deref().unwrap_or(&any))).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::io::Read as _;

    fn codings(field: &str) -> Vec<Coding> {
        accepted(&list_members(field.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn the_best_coding_that_is_acceptable_wins() {
        use Coding::{Br, Gzip, Identity, Zstd};
        assert_eq!(codings(""), [Identity]);
        assert_eq!(codings("gzip, deflate, br, zstd"), [Br, Zstd, Gzip, Identity]);
        assert_eq!(codings("gzip;q=1.0, br;q=0.5"), [Gzip, Br, Identity]);
        assert_eq!(codings("br;q=0, *"), [Zstd, Gzip, Identity]);
        assert_eq!(codings("identity, gzip;q=0.5"), [Identity, Gzip]);
        assert_eq!(codings("GZIP;q=nonsense"), [Gzip, Identity]);
    }

    #[test]
    fn every_form_holds_the_same_page_under_a_tag_of_its_own() {
        let text = "a page ".repeat(500);
        let page = Page::new(HTML, None, text.clone());
        let browse = |field: &str| Browse { codings: codings(field), has: None };
        assert_eq!(page.choose(&browse("br")).0, Coding::Identity, "not compressed yet");
        page.compress();
        let mut tags = Vec::new();
        for (field, plain) in [
            ("", text.clone()),
            ("gzip", {
                let mut plain = String::new();
                let form = page.choose(&browse("gzip")).1.clone();
                flate2::read::GzDecoder::new(&form[..]).read_to_string(&mut plain).unwrap();
                plain
            }),
            ("zstd", {
                let form = page.choose(&browse("zstd")).1.clone();
                String::from_utf8(zstd::bulk::decompress(&form, 1 << 20).unwrap()).unwrap()
            }),
            ("br", {
                let mut plain = String::new();
                let form = page.choose(&browse("br")).1.clone();
                brotli::Decompressor::new(&form[..], 4096).read_to_string(&mut plain).unwrap();
                plain
            }),
        ] {
            assert_eq!(plain, text, "{field}");
            let reply = page.reply(&browse(field));
            let tag = reply.fields.iter().find(|(name, _)| *name == "ETag").unwrap().1.clone();
            let known = Browse { has: Some(tag.to_vec().into()), ..browse(field) };
            assert_eq!(page.reply(&known).status, 304);
            tags.push(tag);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 4);
    }
}
