//! Checks what a guest answers, in one pass, without building anything from it.
//!
//! The bytes go out to clients as they are, inside a line of NDJSON, an SSE field or a WebSocket
//! message. So beyond RFC 8259 they must hold no raw control character (a newline would end the
//! line), no lone surrogate and no number that has no finite double (both break strict readers), and
//! nest no deeper than [`DEPTH_MAX`]. The check is iterative and linear.

use std::ops::Range;

/// Arrays and objects inside each other.
pub const DEPTH_MAX: u32 = 64;

/// Where the parts of an answer stand in its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The number, between 0 and 1.
    pub quality: Range<usize>,
    /// The object, braces included.
    pub document: Range<usize>,
    /// The object under `about`; empty where there is none.
    pub about: Range<usize>,
}

/// What is wrong with an answer, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: expected {expected}")]
pub struct JsonError {
    /// Offset of the first byte that does not fit.
    pub at: usize,
    /// What would have fitted.
    pub expected: &'static str,
}

/// Checks that `bytes` are exactly `{"quality_score":NUMBER,"document":OBJECT}`, with or without
/// `,"about":OBJECT` behind the document, and tells where the parts stand.
///
/// # Errors
///
/// The first byte that does not fit, and what would have.
pub fn answer(bytes: &[u8]) -> Result<Answer, JsonError> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(JsonError { at: error.valid_up_to(), expected: "UTF-8" });
    }
    let mut scan = Scanner { bytes, at: 0 };
    scan.literal(b"{\"quality_score\":", "{\"quality_score\":")?;
    let quality = scan.at..scan.number()?;
    if !(0.0..=1.0).contains(&scan.parsed(&quality)) {
        return Err(JsonError { at: quality.start, expected: "a quality_score from 0 to 1" });
    }
    let document = scan.member(b",\"document\":", ",\"document\":")?;
    let about = match scan.peek() {
        Some(b',') => scan.member(b",\"about\":", ",\"about\": or }")?,
        _ => scan.at..scan.at,
    };
    scan.literal(b"}", "} after the document")?;
    if scan.at != bytes.len() {
        return Err(scan.expected("nothing after the answer"));
    }
    Ok(Answer { quality, document, about })
}

/// Checks that `bytes` are one JSON value within this module's limits.
///
/// # Errors
///
/// The first byte that does not fit, and what would have.
pub fn value(bytes: &[u8]) -> Result<(), JsonError> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(JsonError { at: error.valid_up_to(), expected: "UTF-8" });
    }
    let mut scan = Scanner { bytes, at: 0 };
    scan.value()?;
    scan.spaces();
    if scan.at == bytes.len() { Ok(()) } else { Err(scan.expected("nothing after the value")) }
}

/// Entry for the fuzzer, and for a test over the same inputs: whatever the bytes, the check neither
/// panics nor lets a part stand outside of them.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(answer) = answer(bytes) {
        assert!(value(&bytes[answer.document]).is_ok(), "the document stands by itself");
        assert!(value(&bytes[answer.quality]).is_ok(), "so does the score");
        assert!(value(bytes).is_ok(), "so does the whole");
        assert!(!bytes.contains(&b'\n'), "one line");
    }
}

/// Bytes that end a run of plain characters in a string.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

struct Scanner<'a> {
    /// UTF-8.
    bytes: &'a [u8],
    /// The next byte; never behind the end.
    at: usize,
}

/// The open arrays and objects, one bit each.
#[derive(Default)]
struct Nesting {
    depth: u32,
    objects: u64,
}

impl Nesting {
    /// False when it would be too deep.
    fn push(&mut self, object: bool) -> bool {
        self.objects = (self.objects << 1) | u64::from(object);
        self.depth += 1;
        self.depth <= DEPTH_MAX
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError { at: self.at, expected }
    }

    /// Spaces only: the other white space of JSON is made of control characters.
    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn literal(&mut self, literal: &[u8], expected: &'static str) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(literal) {
            return Err(self.expected(expected));
        }
        self.at += literal.len();
        Ok(())
    }

    /// A key, and the object under it.
    fn member(&mut self, key: &[u8], expected: &'static str) -> Result<Range<usize>, JsonError> {
        self.literal(key, expected)?;
        if self.peek() != Some(b'{') {
            return Err(self.expected("an object"));
        }
        let start = self.at;
        self.value()?;
        Ok(start..self.at)
    }

    /// RFC 8259 §3: any value.
    fn value(&mut self) -> Result<(), JsonError> {
        let mut nesting = Nesting::default();
        loop {
            self.spaces();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if !nesting.push(open == b'{') {
                        return Err(self.expected("at most 64 levels"));
                    }
                    self.at += 1;
                    self.spaces();
                    if self.peek() == Some(if open == b'{' { b'}' } else { b']' }) {
                        self.at += 1;
                        nesting.pop();
                    } else {
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal(b"true", "true")?,
                Some(b'f') => self.literal(b"false", "false")?,
                Some(b'n') => self.literal(b"null", "null")?,
                _ => return Err(self.expected("a value")),
            }
            if !self.next_in(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. True when another value follows.
    fn next_in(&mut self, nesting: &mut Nesting) -> Result<bool, JsonError> {
        while nesting.depth > 0 {
            self.spaces();
            match (self.peek(), nesting.in_object()) {
                (Some(b','), in_object) => {
                    self.at += 1;
                    if in_object {
                        self.spaces();
                        self.key()?;
                    }
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    nesting.pop();
                }
                (_, true) => return Err(self.expected(", or }")),
                (_, false) => return Err(self.expected(", or ]")),
            }
        }
        Ok(false)
    }

    fn key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        self.string()?;
        self.spaces();
        self.literal(b":", ":")
    }

    /// RFC 8259 §7.
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let plain = rest.iter().position(|&byte| SPECIAL[usize::from(byte)]);
            self.at += plain.unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.expected("an escape for a control character")),
                None => return Err(self.expected("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit()?;
                if (0xd800..0xe000).contains(&unit) {
                    self.second_half(unit)?;
                }
            }
            _ => return Err(self.expected("an escape")),
        }
        Ok(())
    }

    /// After the first half of a surrogate pair: the second.
    fn second_half(&mut self, first: u32) -> Result<(), JsonError> {
        if first >= 0xdc00 {
            return Err(self.expected("the first half of a surrogate pair before"));
        }
        if self.peek() == Some(b'\\') && matches!(self.unit(), Ok(0xdc00..0xe000)) {
            return Ok(());
        }
        Err(self.expected("the second half of a surrogate pair"))
    }

    /// A `\uXXXX`.
    fn unit(&mut self) -> Result<u32, JsonError> {
        let digits =
            self.bytes.get(self.at..self.at + 6).and_then(|unit| unit.strip_prefix(b"\\u"));
        let unit = digits.and_then(|digits| {
            digits.iter().try_fold(0, |sum, &d| Some(sum * 16 + char::from(d).to_digit(16)?))
        });
        let unit = unit.ok_or_else(|| self.expected("\\u and four hexadecimal digits"))?;
        self.at += 6;
        Ok(unit)
    }

    /// RFC 8259 §6; returns the offset behind it.
    fn number(&mut self) -> Result<usize, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && zero {
            return Err(JsonError { at: start, expected: "a number without leading zeros" });
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        if !self.parsed(&(start..self.at)).is_finite() {
            return Err(JsonError { at: start, expected: "a number that fits a double" });
        }
        Ok(self.at)
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        if count == 0 {
            return Err(self.expected("a digit"));
        }
        self.at += count;
        Ok(count)
    }

    /// The double of a number's text; infinite when it has none.
    fn parsed(&self, number: &Range<usize>) -> f64 {
        let text = std::str::from_utf8(&self.bytes[number.clone()]).unwrap_or("");
        text.parse().unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests;
