//! What a page tells crawlers about itself, beside its document.

use crate::json;
use crate::options::Wanted;
use crate::url::Base;
use crate::{LINKS_MAX, URL_BYTES_MAX};

/// Bytes of all `<meta name=robots>` together.
const ROBOTS_BYTES_MAX: usize = 1_000;

/// See the module; references are as the page wrote them.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The content of `<meta name=robots>`, several ones separated by commas.
    pub(crate) robots: String,
    /// The first `<link rel=canonical>`.
    pub(crate) canonical: Option<String>,
    /// `<a href>` and `<area href>` without `rel=nofollow`.
    pub(crate) links: Vec<String>,
}

impl Told {
    pub(crate) fn robots(&mut self, content: &str) {
        if self.robots.len() + content.len() < ROBOTS_BYTES_MAX {
            if !self.robots.is_empty() {
                self.robots.push(',');
            }
            self.robots.push_str(content);
        }
    }

    pub(crate) fn canonical(&mut self, href: &str) {
        if self.canonical.is_none() && href.len() <= URL_BYTES_MAX {
            self.canonical = Some(href.to_owned());
        }
    }

    pub(crate) fn link(&mut self, href: &str, rel: Option<&str>) {
        let nofollow = rel
            .is_some_and(|rel| rel.split_whitespace().any(|r| r.eq_ignore_ascii_case("nofollow")));
        // Some of them are of no use and go when they are resolved.
        if !nofollow && self.links.len() < 2 * LINKS_MAX && href.len() <= URL_BYTES_MAX {
            self.links.push(href.to_owned());
        }
    }

    /// Appends `,"about":{…}`, if anything is wanted and there is anything to tell.
    pub(crate) fn write(&self, out: &mut Vec<u8>, wanted: Wanted, base: &Base) {
        let robots = wanted.robots && !self.robots.is_empty();
        if !robots && !wanted.links {
            return;
        }
        out.extend_from_slice(b",\"about\":{\"robots\":");
        json::nullable(out, Some(self.robots.as_str()).filter(|_| robots));
        if wanted.links {
            out.extend_from_slice(b",\"canonical\":");
            let canonical = self.canonical.as_deref().and_then(|href| base.resolve(href));
            json::nullable(out, canonical.as_deref());
            out.extend_from_slice(b",\"links\":[");
            let links = self.links.iter().filter_map(|href| base.page_link(href));
            for (n, link) in links.take(LINKS_MAX).enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                json::string(out, &link);
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}
