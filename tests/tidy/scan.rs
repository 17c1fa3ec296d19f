//! Reads Rust source well enough for the rules: what is code, what is comment, where functions,
//! attributes, modules and paths are. It expects code that rustfmt has laid out.

/// A source text taken apart; both halves keep the line structure of the original.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text with comments and the insides of literals blanked.
    pub(crate) code: String,
    /// The comments alone.
    pub(crate) comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

/// What kind of text the lexer stands in.
enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

impl Source {
    /// Takes `text` apart in one pass.
    pub(crate) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut halves = Self { code: String::new(), comments: String::new() };
        let (mut state, mut at) = (State::Code, 0);
        while at < chars.len() {
            let (taken, next) = step(&state, &chars, at);
            let comment = in_comment(next.as_ref().unwrap_or(&state)) || in_comment(&state);
            let literal = taken > 1 && chars[at] == '\'';
            let code = matches!(state, State::Code) && next.is_none() && !literal;
            for &c in &chars[at..at + taken] {
                halves.push(c, code, comment);
            }
            state = next.unwrap_or(state);
            at += taken;
        }
        halves
    }

    fn push(&mut self, c: char, keep_code: bool, keep_comment: bool) {
        let blank = if c == '\n' { '\n' } else { ' ' };
        self.code.push(if keep_code { c } else { blank });
        self.comments.push(if keep_comment { c } else { blank });
    }

    /// Every identifier of the code, with its byte offset.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut rest = 0;
        std::iter::from_fn(move || {
            let start = rest + self.code[rest..].find(is_word)?;
            let len = self.code[start..].find(|c| !is_word(c)).unwrap_or(self.code.len() - start);
            rest = start + len;
            Some((start, &self.code[start..rest]))
        })
    }

    /// The line of a byte offset into the code, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.code[..offset].matches('\n').count()
    }

    /// Every function that has a body, with its length in lines.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, word) in self.words() {
            let after = self.code[at + word.len()..].trim_start();
            if word != "fn" || !after.starts_with(is_word) {
                continue; // `fn(u8) -> u8` is a type
            }
            let name = after.split(|c| !is_word(c)).next().unwrap_or("").to_owned();
            let Some(open) = body_start(&self.code, at) else { continue };
            let end = matching(&self.code, open);
            let line = self.line(at);
            found.push(Function { name, line, lines: self.line(end) - line + 1 });
        }
        found
    }

    /// Every attribute: byte offset and text between its brackets, literals blanked.
    pub(crate) fn attributes(&self) -> Vec<(usize, &str)> {
        let starts = self.code.match_indices('#').filter_map(|(at, _)| {
            let rest = &self.code[at + 1..];
            let open = at + 1 + usize::from(rest.starts_with('!'));
            self.code[open..].starts_with('[').then_some((at, open))
        });
        starts.map(|(at, open)| (at, &self.code[open + 1..matching(&self.code, open)])).collect()
    }

    /// Every `mod name;`: byte offset and name.
    pub(crate) fn modules(&self) -> Vec<(usize, &str)> {
        let words: Vec<_> = self.words().collect();
        let pairs = words.windows(2).filter(|pair| {
            let end = pair[1].0 + pair[1].1.len();
            pair[0].1 == "mod" && self.code[end..].starts_with(';')
        });
        pairs.map(|pair| (pair[0].0, pair[1].1)).collect()
    }

    /// The first segments of every path that starts at `root` (`crate` or the package's name),
    /// groups resolved: `use crate::{a, b::c}` names `a` and `b`.
    pub(crate) fn named_under(&self, root: &str) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (at, word) in self.words() {
            let Some(path) = self.code[at + word.len()..].strip_prefix("::") else { continue };
            if word != root {
                continue;
            }
            let start = self.code.len() - path.len();
            if path.starts_with('{') {
                let end = matching(&self.code, start);
                found.extend(group_heads(&path[1..end - start]).map(|name| (at, name)));
            } else {
                found.extend(path.split(|c| !is_word(c)).next().map(|name| (at, name)));
            }
        }
        found
    }
}

/// The byte offset of the bracket that closes the one at `open`, or the end of the text.
fn matching(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth <= 1 => return open + at,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn in_comment(state: &State) -> bool {
    matches!(state, State::LineComment | State::BlockComment { .. })
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How many characters belong together at `at`, and the state after them if it changes.
fn step(state: &State, chars: &[char], at: usize) -> (usize, Option<State>) {
    let next = chars.get(at + 1).copied().unwrap_or('\0');
    match (state, chars[at]) {
        (State::Code, '/') if next == '/' => (2, Some(State::LineComment)),
        (State::Code, '/') if next == '*' => (2, Some(State::BlockComment { depth: 1 })),
        (State::Code, '"') => (1, Some(State::Text)),
        (State::Code, '\'') => (char_literal(chars, at), None),
        (State::Code, 'r') if !at.checked_sub(1).is_some_and(|p| is_raw_prefix_end(chars, p)) => {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            match chars.get(at + 1 + hashes) {
                Some('"') => (2 + hashes, Some(State::RawText { hashes })),
                _ => (1, None),
            }
        }
        (State::LineComment, '\n') => (1, Some(State::Code)),
        (State::BlockComment { depth }, '/') if next == '*' => {
            (2, Some(State::BlockComment { depth: depth + 1 }))
        }
        (State::BlockComment { depth: 1 }, '*') if next == '/' => (2, Some(State::Code)),
        (State::BlockComment { depth }, '*') if next == '/' => {
            (2, Some(State::BlockComment { depth: depth - 1 }))
        }
        (State::Text, '\\') => (2.min(chars.len() - at), None),
        (State::Text, '"') => (1, Some(State::Code)),
        (State::RawText { hashes }, '"') => {
            let closing = chars[at + 1..].iter().take(*hashes).filter(|&&c| c == '#').count();
            if closing == *hashes { (1 + hashes, Some(State::Code)) } else { (1, None) }
        }
        _ => (1, None),
    }
}

/// Whether an `r` after the character at `before` belongs to a longer identifier; `br` and `cr`
/// are prefixes of raw literals, so `b` and `c` don't count.
fn is_raw_prefix_end(chars: &[char], before: usize) -> bool {
    let longer = before.checked_sub(1).is_some_and(|p| is_word(chars[p]));
    is_word(chars[before]) && (longer || !matches!(chars[before], 'b' | 'c'))
}

/// The length of a character literal at `at`; 1 where the quote starts a lifetime.
fn char_literal(chars: &[char], at: usize) -> usize {
    let escaped = chars.get(at + 1) == Some(&'\\');
    let first = if escaped { at + 3 } else { at + 2 };
    let last = if escaped { first + 10 } else { first };
    (first..=last).find(|&end| chars.get(end) == Some(&'\'')).map_or(1, |end| end - at + 1)
}

/// The opening brace of the body of the function whose `fn` is at `at`; `None` without a body.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' if depth == 0 => return Some(at + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The first segment of each item of a `use` group, `a, b::{c, d}` gives `a` and `b`.
fn group_heads(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let items = group.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    items.filter_map(|item| item.trim().split(|c| !is_word(c)).next()).filter(|i| !i.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::new(text).words().map(|(_, word)| word.to_owned()).collect()
    }

    #[test]
    fn literals_and_comments_are_no_code() {
        let code = "let a = \"b \\\" c\"; // d\n/* e /* f */ g */ h";
        assert_eq!(words(code), ["let", "a", "h"]);
        let raw = "let a = r#\"b \" c\"#; d(br\"e\", \"\\\\\"); f";
        assert_eq!(words(raw), ["let", "a", "d", "b", "f"]);
        let quotes = "for<'a> x('{', '\\'', '\\n', '\\u{1F600}') y";
        assert_eq!(words(quotes), ["for", "a", "x", "y"]);
        assert_eq!(words("bar\"x\""), ["bar"]);
        let source = Source::new("a // says b\n\"// no comment\"");
        assert_eq!(source.comments.trim(), "// says b");
        assert_eq!(source.code.lines().count(), 2);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "impl A {\n  fn a(f: fn(u8) -> [u8; 2]) -> B where C: D {\n    let s = \"}\";\n    \
                    { '}' }\n  }\n  fn b(&self);\n}\nconst fn c() {}\n";
        let functions = Source::new(text).functions();
        let expected = [("a", 2, 4), ("c", 8, 1)];
        assert_eq!(functions.len(), expected.len());
        for (function, (name, line, lines)) in functions.iter().zip(expected) {
            assert_eq!(
                (function.name.as_str(), function.line, function.lines),
                (name, line, lines)
            );
        }
    }

    #[test]
    fn attributes_modules_and_paths_are_found() {
        let text = "#![a(b)]\n#[c = \"]\"]\nmod d;\nmod e { use crate::{f, g::{h, i}, j}; }\n\
                    use crate::k::l; fn m() -> crate::n { super::o() }";
        let source = Source::new(text);
        let attributes: Vec<_> = source.attributes().iter().map(|a| a.1.trim_end()).collect();
        assert_eq!(attributes, ["a(b)", "c ="]);
        assert_eq!(source.modules(), [(source.code.find("mod d").unwrap_or(0), "d")]);
        let named: Vec<_> = source.named_under("crate").iter().map(|n| n.1).collect();
        assert_eq!(named, ["f", "g", "j", "k", "n"]);
    }
}
