//! What the commands read from events: only what they show.

use serde::Deserialize;

/// An event as a client sees it; fields that are not shown are passed over.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Seen {
    /// The stream has begun.
    Metadata {
        /// URLs asked for.
        total_urls: u64,
        /// The stream's id.
        stream_id: String,
    },
    /// One URL's outcome.
    Result {
        /// What came of it.
        result: SeenResult,
    },
    /// Totals.
    Summary {
        /// URLs with a document.
        successful: u64,
        /// URLs with an error.
        failed: u64,
        /// URLs that were ended.
        cancelled: u64,
        /// `completed`, `cancelled` or `deadline_exceeded`.
        status: String,
        /// Milliseconds to the first result.
        ttfr_ms: Option<u64>,
        /// Milliseconds of the whole stream.
        total_processing_time_ms: u64,
    },
    /// The stream was given up.
    Error {
        /// Why.
        error: SeenError,
    },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// Of a `result` event.
#[derive(Debug, Deserialize)]
pub struct SeenResult {
    /// As asked for.
    pub url: String,
    /// The origin's status.
    pub status: u16,
    /// 0 to 1.
    pub quality_score: f64,
    /// Milliseconds.
    pub processing_time_ms: u64,
    /// The document.
    pub document: Option<SeenDocument>,
    /// Why there is none.
    pub error: Option<SeenError>,
}

/// Of a document.
#[derive(Debug, Deserialize)]
pub struct SeenDocument {
    /// The page's title.
    pub title: Option<String>,
    /// Words of the content.
    pub word_count: u64,
}

/// Of an error.
#[derive(Debug, Deserialize)]
pub struct SeenError {
    /// What kind.
    pub code: String,
    /// One sentence.
    pub message: String,
}

impl Seen {
    /// Reads an event's line; `None` where it is none.
    #[must_use]
    pub fn read(line: &[u8]) -> Option<Self> {
        simd_json::serde::from_slice(&mut line.to_vec()).ok()
    }
}
