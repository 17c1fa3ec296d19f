//! A result that is kept apart from its stream: what the page came to is written where it was worked
//! on, its place in the stream where it is read.

use super::{
    Counts, Event, Kind, PageResult, answer_bytes, answer_end, answer_facts, result_end, times,
};
use crate::proto::json;
use bytes::{BufMut, Bytes, BytesMut};

/// The JSON under `result`, in the pieces that it was written in.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Up to the document.
    pub head: Bytes,
    /// The document, or `null`.
    pub document: Bytes,
    /// After it.
    pub tail: Bytes,
}

impl Answer {
    /// The whole text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        [&self.head[..], &self.document, &self.tail].concat()
    }
}

/// Writes what a page came to, as `result` of [`super::result`].
pub fn answer(out: &mut BytesMut, page: &PageResult) -> Answer {
    out.put_slice(b"{\"url\":");
    json::string(out, &page.url);
    answer_facts(out, page, page.cache);
    times(out, &page.timings);
    answer_bytes(out, page);
    let head = out.split().freeze();
    answer_end(out, page);
    Answer { head, document: page.document_json(), tail: out.split().freeze() }
}

/// Writes the event around a result that was kept.
pub fn kept_result(
    out: &mut BytesMut,
    seq: u64,
    index: u64,
    answer: Bytes,
    counts: &Counts,
) -> Event {
    out.put_slice(b"{\"type\":\"result\",\"seq\":");
    json::integer(out, seq);
    out.put_slice(b",\"index\":");
    json::integer(out, index);
    out.put_slice(b",\"result\":");
    let head = out.split().freeze();
    result_end(out, counts);
    Event { kind: Kind::Result, seq, head, body: answer, tail: out.split().freeze() }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, result};
    use super::*;
    use crate::error::{PageCode, PageError, Stage};

    #[test]
    fn kept_apart_and_put_together_is_the_same_event() {
        let failure = PageError::new(PageCode::DnsFailed, Stage::Dns, "no \"such\" host");
        let failed = PageResult::failed("http://a.test/\"".into(), failure);
        let good = PageResult {
            document: Some(Document {
                json: Bytes::from_static(b"{\"a\":1}"),
                quality: Bytes::from_static(b"0.5"),
            }),
            error: None,
            ..failed.clone()
        };
        let counts = Counts { total: 9, successful: 3, ..Counts::default() };
        for page in [failed, good] {
            let out = &mut BytesMut::new();
            let whole = result(out, 4, 2, &page, &counts);
            let kept = answer(out, &page).text().into();
            let again = kept_result(out, 4, 2, kept, &counts);
            let text = |event: &Event| [&event.head[..], &event.body, &event.tail].concat();
            assert_eq!(text(&whole), text(&again));
        }
    }
}
