//! Finds the lines of a head as its bytes arrive, each byte looked at once.

/// One complete line of a head, as offsets into the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// First byte.
    pub(super) start: usize,
    /// End of the content; the line end follows.
    pub(super) end: usize,
    /// First byte of the next line.
    pub(super) next: usize,
}

impl Line {
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A line end that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadLineEnd {
    /// A carriage return that no line feed follows.
    BareCr,
    /// A line feed without a carriage return, where only CRLF is taken.
    BareLf,
}

/// Remembers how far the search for a line's end got, so that a head dripped byte by byte costs
/// linear time. The buffer must only grow between calls.
#[derive(Debug, Clone, Default)]
pub(super) struct LineScanner {
    /// Everything before it was looked at and holds no end of the current line.
    examined: usize,
    line_start: usize,
    /// Whether a bare line feed was taken for a line end.
    pub(super) saw_bare_lf: bool,
    #[cfg(test)]
    pub(super) work_bytes: usize,
}

impl LineScanner {
    /// Where the current, unfinished line starts.
    pub(super) fn line_start(&self) -> usize {
        self.line_start
    }

    /// The next complete line of `buf`, or none yet. With `bare_lf` a lone LF ends a line, too.
    pub(super) fn next_line(
        &mut self,
        buf: &[u8],
        bare_lf: bool,
    ) -> Result<Option<Line>, BadLineEnd> {
        let fresh = buf.get(self.examined..).unwrap_or_default();
        let Some(found) = memchr::memchr2(b'\r', b'\n', fresh) else {
            self.count(fresh.len());
            self.examined = buf.len().max(self.examined);
            return Ok(None);
        };
        self.count(found + 1);
        let end = self.examined + found;
        let next = match (buf[end], buf.get(end + 1)) {
            (b'\n', _) if bare_lf => {
                self.saw_bare_lf = true;
                end + 1
            }
            (b'\n', _) => return Err(BadLineEnd::BareLf),
            (_, Some(b'\n')) => end + 2,
            (_, Some(_)) => return Err(BadLineEnd::BareCr),
            (_, None) => {
                self.examined = end;
                return Ok(None);
            }
        };
        let line = Line { start: self.line_start, end, next };
        self.examined = next;
        self.line_start = next;
        Ok(Some(line))
    }

    #[cfg(test)]
    fn count(&mut self, bytes: usize) {
        self.work_bytes += bytes;
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the twin of a counter that only tests have")]
    fn count(&mut self, _bytes: usize) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn lines(input: &[u8], bare_lf: bool) -> (Vec<Line>, Option<BadLineEnd>) {
        let mut scanner = LineScanner::default();
        let mut lines = Vec::new();
        for end in 0..=input.len() {
            loop {
                match scanner.next_line(&input[..end], bare_lf) {
                    Ok(Some(line)) => lines.push(line),
                    Ok(None) => break,
                    Err(error) => return (lines, Some(error)),
                }
            }
        }
        (lines, None)
    }

    #[test]
    fn a_dripped_buffer_gives_its_lines() {
        let (found, error) = lines(b"ab\r\n\r\ncd\r\nrest", false);
        let spans: Vec<_> = found.iter().map(|l| (l.start, l.end, l.next)).collect();
        assert_eq!(spans, [(0, 2, 4), (4, 4, 6), (6, 8, 10)]);
        assert_eq!(error, None);
    }

    #[test]
    fn bare_line_ends_are_told_apart() {
        assert_eq!(lines(b"ab\ncd", false).1, Some(BadLineEnd::BareLf));
        assert_eq!(lines(b"ab\rcd", false).1, Some(BadLineEnd::BareCr));
        assert_eq!(lines(b"ab\r\r\n", false).1, Some(BadLineEnd::BareCr));
        assert_eq!(lines(b"ab\ncd\n", true).0.len(), 2);
        assert_eq!(lines(b"ab\rcd", true).1, Some(BadLineEnd::BareCr));
    }
}
