//! Event streams as the WHATWG HTML standard §9.2.6 interprets them.

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One dispatched event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// `event`, or `message`.
    pub(crate) event: String,
    /// `data` lines joined by line feeds.
    pub(crate) data: String,
    /// The last event id at that time.
    pub(crate) id: String,
}

/// Takes an event stream apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    started: bool,
    after_cr: bool,
    event: String,
    data: String,
    has_data: bool,
    id: String,
    /// The reconnection time that the server gave, in milliseconds.
    pub(crate) retry_ms: Option<u64>,
    /// Comment lines seen: the server's keep-alive.
    pub(crate) comments: u64,
}

impl SseParser {
    /// Takes bytes, hands over each event as it is complete.
    ///
    /// # Errors
    /// When a line is beyond any bound.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(SseEvent),
    ) -> Result<(), String> {
        if self.after_cr && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        self.after_cr &= bytes.is_empty();
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            let cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if cr && bytes.first() == Some(&b'\n') {
                bytes = &bytes[1..];
            } else if cr && bytes.is_empty() {
                self.after_cr = true;
            }
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, &mut sink);
            self.line = line;
            self.line.clear();
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LINE_BYTES_MAX {
            return Err(format!("an event-stream line above {LINE_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], sink: &mut impl FnMut(SseEvent)) {
        let text = String::from_utf8_lossy(line);
        let mut text = text.as_ref();
        if !self.started {
            self.started = true;
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if text.is_empty() {
            self.dispatch(sink);
            return;
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, sink: &mut impl FnMut(SseEvent)) {
        let event = std::mem::take(&mut self.event);
        if !std::mem::take(&mut self.has_data) {
            return;
        }
        sink(SseEvent {
            event: if event.is_empty() { "message".to_owned() } else { event },
            data: std::mem::take(&mut self.data),
            id: self.id.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str, piece: usize) -> (Vec<SseEvent>, SseParser) {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for part in text.as_bytes().chunks(piece) {
            parser.feed(part, |event| events.push(event)).unwrap();
        }
        (events, parser)
    }

    #[test]
    fn the_standards_examples() {
        // WHATWG HTML §9.2.6: the stock ticker, the four blocks, and the two odd data fields.
        for piece in [1, 2, 3, 1000] {
            let (events, _) = parse("data: YHOO\ndata: +2\ndata: 10\n\n", piece);
            assert_eq!(events[0].data, "YHOO\n+2\n10");
            let text = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
            let (events, parser) = parse(text, piece);
            let seen: Vec<_> = events.iter().map(|e| (e.data.as_str(), e.id.as_str())).collect();
            assert_eq!(seen, [("first event", "1"), ("second event", ""), (" third event", "")]);
            assert_eq!(parser.comments, 1);
            let (events, _) = parse("data\n\ndata\ndata\n\ndata:", piece);
            let seen: Vec<_> = events.iter().map(|e| e.data.as_str()).collect();
            assert_eq!(seen, ["", "\n"]);
        }
    }

    #[test]
    fn every_line_end_counts_once() {
        for piece in [1, 2, 5, 100] {
            let text = "\u{feff}retry: 1000\r\nevent: a\r\ndata: 1\r\n\r\nevent: b\rdata: 2\r\rdata: 3\n\n";
            let (events, parser) = parse(text, piece);
            let seen: Vec<_> = events.iter().map(|e| (e.event.as_str(), e.data.as_str())).collect();
            assert_eq!(seen, [("a", "1"), ("b", "2"), ("message", "3")], "pieces of {piece}");
            assert_eq!(parser.retry_ms, Some(1000));
        }
    }
}
