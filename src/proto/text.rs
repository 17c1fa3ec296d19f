//! Texts cut from one shared block: the URLs of a request are one allocation, however many they are.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A text that is cheap to clone: a part of a block that others share.
#[derive(Clone)]
pub struct Text {
    block: Arc<str>,
    /// First byte in the block, and the one behind the last; both at a character's boundary.
    start: usize,
    end: usize,
}

/// Collects texts into one block.
#[derive(Debug, Default)]
pub struct Texts {
    block: String,
    ends: Vec<usize>,
}

impl Texts {
    /// No texts yet, with room for so many texts and bytes.
    #[must_use]
    pub fn with_capacity(texts: usize, bytes: usize) -> Self {
        Self { block: String::with_capacity(bytes), ends: Vec::with_capacity(texts) }
    }

    /// Appends a text.
    pub fn push(&mut self, text: &str) {
        self.block.push_str(text);
        self.ends.push(self.block.len());
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The texts, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.block[start..*end])
    }

    /// The texts, each sharing the block.
    #[must_use]
    pub fn share(self) -> Arc<[Text]> {
        let block: Arc<str> = self.block.into();
        let ends = self.ends.iter().enumerate();
        ends.map(|(at, &end)| {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            Text { block: Arc::clone(&block), start, end }
        })
        .collect()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.block[self.start..self.end]
    }
}

impl From<Arc<str>> for Text {
    fn from(block: Arc<str>) -> Self {
        Self { start: 0, end: block.len(), block }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Arc::<str>::from(text).into()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Arc::<str>::from(text).into()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(given: Vec<String>) {
            let mut texts = Texts::with_capacity(0, 0);
            given.iter().for_each(|text| texts.push(text));
            prop_assert!(texts.iter().eq(given.iter().map(String::as_str)));
            let shared = texts.share();
            prop_assert!(shared.iter().map(|text| &**text).eq(given.iter().map(String::as_str)));
        }
    }
}
