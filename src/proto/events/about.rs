//! What a page tells crawlers about itself: never written into an event, but kept with the page.

use crate::proto::text::Text;
use std::sync::Arc;

/// See the module. Every URL is one that can be fetched, in normal form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// It wants to be in no index.
    pub noindex: bool,
    /// It wants none of its links to be followed.
    pub nofollow: bool,
    /// Under which URL it wants to be known.
    pub canonical: Option<Text>,
    /// Its links, each once, as far as they were asked for.
    pub links: Arc<[Text]>,
}

impl About {
    /// Bytes of its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let links: usize = self.links.iter().map(|link| link.len() + size_of::<Text>()).sum();
        links + self.canonical.as_ref().map_or(0, |url| url.len()) + size_of::<Self>()
    }
}
