//! Words of any script.

/// Counts words: a run of letters and digits (with apostrophes, hyphens and the like inside) is
/// one; a Han or kana character is one by itself, because those scripts set no spaces.
pub(crate) fn count(text: &str) -> usize {
    let mut words = 0;
    let mut inside = false;
    for c in text.chars() {
        if stands_alone(c) {
            words += 1;
            inside = false;
        } else if c.is_alphanumeric() {
            words += usize::from(!inside);
            inside = true;
        } else if c.is_whitespace() || is_break(c) {
            inside = false;
        }
    }
    words
}

/// Characters that are not white space.
pub(crate) fn visible_chars(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}

/// Collapses white space and trims.
pub(crate) fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The longest start of `text` that has at most `bytes_max` bytes and ends at a character.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{323af}')
        && c != '\u{30fb}'
}

/// Punctuation that parts words even without a space beside it.
fn is_break(c: char) -> bool {
    matches!(
        c,
        '/' | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '('
            | ')'
            | '['
            | ']'
            | '|'
            | '—'
            | '…'
            | '\u{3001}'
            | '\u{3002}'
            | '\u{ff0c}'
            | '"'
            | '“'
            | '”'
            | '«'
            | '»'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_several_scripts() {
        assert_eq!(count(""), 0);
        assert_eq!(count(" – ! "), 0);
        assert_eq!(count("Don't split a well-known word, twice/thrice."), 7);
        assert_eq!(count("水曜日は休み"), 6);
        assert_eq!(count("iPhone手机"), 3);
        assert_eq!(count("한국어 문장"), 2);
        assert_eq!(count("Über 3.5 Mio. Menschen"), 4);
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(cut("水水", 4), "水");
        assert_eq!(cut("ab", 9), "ab");
        assert_eq!(squeeze("  a \n\u{a0}b "), "a b");
        assert_eq!(visible_chars(" a \n水 "), 2);
    }
}
