//! The piece of a page's text that shows best why it was found, as plain text.

use super::words::is_dense;
use crate::limits::SEARCH_SNIPPET_BYTES_MAX;
use std::cmp::Reverse;
use std::collections::HashMap;
use tantivy::tokenizer::TextAnalyzer;

/// Places of words that are weighed against each other.
const PLACES_MAX: usize = 512;
/// Bytes before the first found word that are shown, where there are any.
const LEAD_BYTES: usize = 40;

/// A word of the query in the text: which one, and where.
struct Place {
    term: usize,
    from: usize,
    to: usize,
}

/// The stretch of at most [`SEARCH_SNIPPET_BYTES_MAX`] bytes that holds most of the terms; the text's
/// start where it holds none.
pub(super) fn snippet(analyzer: &mut TextAnalyzer, text: &str, terms: &[String]) -> String {
    let terms: HashMap<&str, usize> =
        terms.iter().enumerate().map(|(at, term)| (term.as_str(), at)).collect();
    let mut places: Vec<Place> = Vec::new();
    let mut stream = analyzer.token_stream(text);
    while places.len() < PLACES_MAX && stream.advance() {
        let token = stream.token();
        if let Some(&term) = terms.get(token.text.as_str()) {
            places.push(Place { term, from: token.offset_from, to: token.offset_to });
        }
    }
    drop(stream);
    let start = best(&places, terms.len());
    show(text, start)
}

/// Where the best stretch begins: that with the most terms, where they stand closest together, the
/// first of several. A window over the places, each entering and leaving it once.
fn best(places: &[Place], terms: usize) -> usize {
    let window = SEARCH_SNIPPET_BYTES_MAX - 2 * LEAD_BYTES;
    let (mut inside, mut distinct) = (vec![0_u32; terms], 0);
    let (mut first, mut best, mut start) = (0, (0, Reverse(0)), 0);
    for place in places {
        inside[place.term] += 1;
        distinct += usize::from(inside[place.term] == 1);
        // What is too far away goes, and what comes again later in the window.
        while place.to - places[first].from > window || inside[places[first].term] > 1 {
            let gone = places[first].term;
            inside[gone] -= 1;
            distinct -= usize::from(inside[gone] == 0);
            first += 1;
        }
        let found = (distinct, Reverse(place.to - places[first].from));
        if found > best {
            (best, start) = (found, places[first].from);
        }
    }
    start
}

fn show(text: &str, start: usize) -> String {
    // Near the text's end more of what stands before fits.
    let last = text.len().saturating_sub(SEARCH_SNIPPET_BYTES_MAX - 8);
    let mut from = text.floor_char_boundary(start.saturating_sub(LEAD_BYTES).min(last));
    // Begin at a word: at one before, or at the found one, unless words have no ends here.
    if from > 0 {
        match text[from..start].find(char::is_whitespace) {
            Some(gap) => from += gap,
            None if !text[from..start].chars().any(is_dense) => from = start,
            None => {}
        }
    }
    let mut to = text.floor_char_boundary((from + SEARCH_SNIPPET_BYTES_MAX - 8).min(text.len()));
    if to < text.len()
        && let Some(gap) = text[from..to].rfind(char::is_whitespace)
        && gap > (to - from) / 2
    {
        to = from + gap;
    }
    let mut shown = String::with_capacity(to - from + 8);
    if from > 0 {
        shown.push('…');
    }
    for (at, word) in text[from..to].split_whitespace().enumerate() {
        if at > 0 || from > 0 {
            shown.push(' ');
        }
        shown.push_str(word);
    }
    if to < text.len() {
        shown.push_str(" …");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::words::analyzer;
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, terms: &[&str]) -> String {
        let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
        snippet(&mut analyzer(), text, &terms)
    }

    #[test]
    fn the_stretch_with_most_terms_is_shown() {
        let filler = "nothing to see here, move along please. ".repeat(20);
        let text =
            format!("A weir. {filler}The old weir\nholds the mill's water back. {filler}Water.");
        let shown = of(&text, &["weir", "mill", "water"]);
        assert!(shown.contains("The old weir holds the mill's water back."), "{shown}");
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        let near = format!("Mill pond. {filler} The mill by the weir. {filler}");
        assert!(of(&near, &["weir", "mill"]).contains("The mill by the weir."), "{shown}");
        let far = format!("The mill in the meadow has no weir. {filler} The mill's weir. {filler}");
        assert!(of(&far, &["weir", "mill"]).contains("The mill's weir."));
        assert!(
            of(&format!("A weir. {filler} A weir."), &["weir"]).starts_with("A weir."),
            "the first"
        );
        assert_eq!(of("short text", &["absent"]), "short text");
        assert_eq!(of("", &["a"]), "");
    }

    #[test]
    fn no_word_is_cut() {
        let long = "x".repeat(60);
        let text = format!("{long} {long}-weir, and water {}", "y ".repeat(200));
        let shown = of(&text, &["weir"]);
        assert!(shown.starts_with("… weir, and water y y"), "{shown}");
        let words: Vec<String> = (0..200).map(|n| format!("word{n}")).collect();
        for term in ["word0", "word77", "word199"] {
            let shown = of(&words.join(" "), &[term]);
            let mut inside = shown.split_whitespace().filter(|word| *word != "…");
            assert!(inside.all(|word| words.iter().any(|other| other == word)), "{shown}");
            assert!(shown.contains(term) && shown.len() > 200, "{shown}");
        }
        let dense = "出汁のとり方".repeat(60);
        assert!(
            of(&format!("{dense}水門{dense}"), &["水門"]).contains("方水門出"),
            "some text before it"
        );
    }

    proptest! {
        #[test]
        fn any_text_has_a_short_snippet(text: String, terms in proptest::collection::vec("[a-z]{1,3}", 0..4)) {
            let shown = snippet(&mut analyzer(), &text, &terms);
            prop_assert!(shown.len() <= SEARCH_SNIPPET_BYTES_MAX);
        }

        #[test]
        fn so_has_any_long_one(words in proptest::collection::vec("[a-zäß水]{1,9}", 0..300)) {
            let shown = of(&words.join(" "), &["a", "水"]);
            prop_assert!(shown.len() <= SEARCH_SNIPPET_BYTES_MAX, "{}", shown.len());
        }
    }
}
