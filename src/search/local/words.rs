//! Texts as the terms of the index, for every language alike: runs of letters and digits, in lower
//! case and without the accents of Latin letters; where a script writes without spaces, pairs of
//! neighbouring characters.

use tantivy::tokenizer::{
    AsciiFoldingFilter, LowerCaser, RemoveLongFilter, TextAnalyzer, Token, TokenStream, Tokenizer,
};

/// Bytes of the longest term that is kept.
const TERM_BYTES_MAX: usize = 64;

/// The analyzer of all indexed text and of every query.
pub(super) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(TERM_BYTES_MAX))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

/// See the module.
#[derive(Debug, Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    text: &'a str,
    at: usize,
    /// The character before `at` is one of a script without spaces, and stands in a pair already.
    paired: bool,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, at: 0, paired: false, token: &mut self.token }
    }
}

impl WordStream<'_> {
    fn next_range(&mut self) -> Option<(usize, usize)> {
        loop {
            let (rest, from) = (&self.text[self.at..], self.at);
            let mut chars = rest.chars();
            let first = chars.next()?;
            if !first.is_alphanumeric() {
                self.at += first.len_utf8();
                self.paired = false;
            } else if is_dense(first) {
                self.at += first.len_utf8();
                let second = chars.next().filter(|next| is_dense(*next));
                let paired = std::mem::replace(&mut self.paired, second.is_some());
                match second {
                    Some(second) => return Some((from, self.at + second.len_utf8())),
                    None if !paired => return Some((from, self.at)),
                    None => {}
                }
            } else {
                let ends = |c: char| !c.is_alphanumeric() || is_dense(c);
                self.at += rest.find(ends).unwrap_or(rest.len());
                self.paired = false;
                return Some((from, self.at));
            }
        }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.token.text.clear();
        let Some((from, to)) = self.next_range() else { return false };
        self.token.position = self.token.position.wrapping_add(1);
        (self.token.offset_from, self.token.offset_to) = (from, to);
        self.token.text.push_str(&self.text[from..to]);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Characters of scripts that put no spaces between words.
pub(super) const fn is_dense(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}'       // Thai, Lao
        | '\u{1000}'..='\u{109f}'     // Myanmar
        | '\u{1780}'..='\u{17ff}'     // Khmer
        | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30ff}'     // Hiragana, Katakana
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{9fff}'     // Han
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        analyzer().token_stream(text).process(&mut |token| found.push(token.text.clone()));
        found
    }

    #[test]
    fn every_script_has_its_terms() {
        for (text, expected) in [
            ("Don't open: the WEIR-gate!", "don t open the weir gate"),
            ("Größe café naïve", "grosse cafe naive"),
            ("出汁のとり方", "出汁 汁の のと とり り方"),
            ("水", "水"),
            ("HTTP/2入門2024年", "http 2 入門 2024 年"),
            ("Как затачивают косу", "как затачивают косу"),
            ("", ""),
            (" .,-!", ""),
        ] {
            assert_eq!(words(text).join(" "), expected, "{text}");
        }
        assert_eq!(words(&"a".repeat(65)), [""; 0], "too long to be a word");
    }

    proptest! {
        #[test]
        fn offsets_are_those_of_the_text(text: String) {
            let mut ends = Vec::new();
            let mut own = Words::default();
            let mut stream = own.token_stream(&text);
            while stream.advance() {
                let token = stream.token();
                prop_assert_eq!(&text[token.offset_from..token.offset_to], &token.text);
                ends.push(token.offset_to);
            }
            prop_assert!(ends.is_sorted());
        }
    }
}
