//! One walk over the extracted content: its links, and the sizes that the quality score needs.

use std::collections::HashSet;

use dom_query::NodeRef;

use crate::tree::{Visitor, walk};
use crate::url::Base;
use crate::{LINK_TEXT_BYTES_MAX, LINKS_MAX, URL_BYTES_MAX, words};

/// A link of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Absolute `http` or `https` address.
    pub(crate) href: String,
    /// Its text, white space collapsed; may be empty.
    pub(crate) text: String,
}

/// What a walk over the content found. Sizes are in characters other than white space.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) links: Vec<Link>,
    pub(crate) chars: usize,
    /// Of these, inside `<a href>`.
    pub(crate) link_chars: usize,
    /// Of these, inside elements that hold running text.
    pub(crate) block_chars: usize,
    /// Elements inside each other, at most.
    pub(crate) depth: usize,
}

/// Walks the content below `root`.
pub(crate) fn survey(root: NodeRef<'_>, base: &Base) -> Content {
    let mut surveyor = Surveyor {
        base,
        content: Content::default(),
        seen: HashSet::new(),
        open_links: 0,
        open_blocks: 0,
        link: None,
        elements: Vec::new(),
    };
    walk(root, &mut surveyor);
    surveyor.content
}

/// What an open element counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Link,
    Block,
    Other,
}

struct Surveyor<'a> {
    base: &'a Base,
    content: Content,
    seen: HashSet<String>,
    open_links: usize,
    open_blocks: usize,
    link: Option<Link>,
    elements: Vec<Role>,
}

impl Visitor for Surveyor<'_> {
    fn open(&mut self, node: NodeRef<'_>, name: &str) -> bool {
        let role = match name {
            "a" => match node.attr("href") {
                Some(href) => {
                    self.link = self.link(&href);
                    self.open_links += 1;
                    Role::Link
                }
                None => Role::Other,
            },
            "p" | "li" | "pre" | "blockquote" | "td" | "th" | "dd" | "dt" | "h1" | "h2" | "h3"
            | "h4" | "h5" | "h6" | "figcaption" => {
                self.open_blocks += 1;
                Role::Block
            }
            _ => Role::Other,
        };
        self.elements.push(role);
        self.content.depth = self.content.depth.max(self.elements.len());
        true
    }

    fn close(&mut self, _: &str) {
        match self.elements.pop() {
            Some(Role::Link) => {
                self.open_links -= 1;
                self.keep_link();
            }
            Some(Role::Block) => self.open_blocks -= 1,
            Some(Role::Other) | None => {}
        }
    }

    fn text(&mut self, text: &str) {
        let chars = words::visible_chars(text);
        self.content.chars += chars;
        if self.open_links > 0 {
            self.content.link_chars += chars;
        }
        if self.open_blocks > 0 {
            self.content.block_chars += chars;
        }
        if let Some(link) = &mut self.link
            && link.text.len() <= LINK_TEXT_BYTES_MAX
        {
            link.text.push_str(words::cut(text, 2 * LINK_TEXT_BYTES_MAX));
        }
    }
}

impl Surveyor<'_> {
    /// The link to collect text for, unless its address is of no use or known already.
    fn link(&self, href: &str) -> Option<Link> {
        if self.content.links.len() >= LINKS_MAX || href.len() > URL_BYTES_MAX {
            return None;
        }
        let href = self.base.page_link(href)?;
        if href.len() > URL_BYTES_MAX || self.seen.contains(&href) {
            return None;
        }
        Some(Link { href, text: String::new() })
    }

    fn keep_link(&mut self) {
        if let Some(mut link) = self.link.take() {
            let text = words::squeeze(&link.text);
            link.text = words::cut(&text, LINK_TEXT_BYTES_MAX).to_owned();
            self.seen.insert(link.href.clone());
            self.content.links.push(link);
        }
    }
}
