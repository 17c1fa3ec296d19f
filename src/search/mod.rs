//! Where a deepsearch gets its hits from: a provider on the network, or the [`local`] index of the
//! pages that this server has extracted.
//!
//! Everything here is without sockets: [`call`] says what a provider is to be sent, in the words that
//! it knows ([`dialect`]), [`answer`] reads what it sends back, [`admission`] says when it may be asked at all. `crawl` does the asking,
//! through the same fetcher and the same guard as every page.
//!
//! A provider's answer is as hostile as any page: bounded in bytes and hits, and an error where it is
//! not what its documentation says. A key is never logged, never in an error and never in a URL.

pub mod admission;
pub mod answer;
pub mod call;
pub mod dialect;
pub mod local;

use crate::config::{Config, SearchProvider, Wrong};
use crate::error::{ApiCode, ApiError};
use admission::Admission;
use answer::Answer;
use local::Local;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When to come back where nothing says better.
const LATER: Duration = Duration::from_secs(30);
/// The same where somebody has to change something first.
const MUCH_LATER: Duration = Duration::from_secs(60);

/// What is searched for; every field within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The words.
    pub text: String,
    /// Hits wanted, at least 1.
    pub limit: usize,
    /// Two letters, lower case (ISO 3166-1).
    pub country: Option<String>,
    /// Language, with a region or without: `en`, `pt-BR` (BCP 47).
    pub locale: Option<String>,
}

/// One hit, checked: its URL is one that can be fetched, its texts are plain and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Where.
    pub url: String,
    /// Its title, may be empty.
    pub title: String,
    /// A piece of its text, plain, may be empty.
    pub snippet: String,
}

/// Why there are no hits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// `search.provider = off`.
    #[error("no search provider is configured")]
    Off,
    /// The server's own limit of queries is used up.
    #[error("the limit of search queries is used up")]
    Quota(Duration),
    /// It has failed too often, or asked to be left alone.
    #[error("the search provider is left alone after failures")]
    Resting(Duration),
    /// It answers 429.
    #[error("the search provider is asked too often")]
    RateLimited(Duration),
    /// It answers 401, 402 or 403: the key is wrong or used up, or JSON is not allowed there.
    #[error("the search provider refuses this server: status {0}")]
    Refused(u16),
    /// It documents a longest query, and this one is longer.
    #[error(
        "the search provider takes queries of at most {characters} characters and {words} words"
    )]
    TooLong {
        /// Characters that it takes.
        characters: usize,
        /// Words that it takes.
        words: usize,
    },
    /// It answers that the query is at fault: 400, 413, 414 or 422.
    #[error("the search provider does not take this query: status {0}")]
    NotTaken(u16),
    /// It answers something else that is no 200.
    #[error("the search provider answers status {0}")]
    Status(u16),
    /// It can't be reached, or not in time.
    #[error("the search provider can't be reached: {0}")]
    Unreachable(String),
    /// It answers what its documentation does not know.
    #[error("the search provider's answer can't be read: {0}")]
    Unreadable(&'static str),
    /// The local index took too long, or has too many questions already.
    #[error("the local index is busy")]
    Busy,
    /// The local index can't be used.
    #[error("the local index has failed")]
    Broken,
    /// Nobody wants the hits any more.
    #[error("the search was ended before it was done")]
    Cancelled,
}

impl SearchError {
    /// The API's code for it.
    #[must_use]
    pub const fn code(&self) -> ApiCode {
        match self {
            Self::TooLong { .. } | Self::NotTaken(_) => ApiCode::ValidationError,
            _ => ApiCode::SearchUnavailable,
        }
    }

    /// When the same search may well work, if it may.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Quota(after) | Self::Resting(after) | Self::RateLimited(after) => *after,
            Self::Off | Self::Refused(_) | Self::Broken => MUCH_LATER,
            Self::Busy | Self::Cancelled => Duration::from_secs(1),
            Self::TooLong { .. } | Self::NotTaken(_) => Duration::ZERO,
            Self::Status(_) | Self::Unreachable(_) | Self::Unreadable(_) => LATER,
        }
    }

    /// Whether it says something about the provider's health.
    #[must_use]
    pub const fn is_the_providers(&self) -> bool {
        matches!(
            self,
            Self::RateLimited(_)
                | Self::Refused(_)
                | Self::Status(_)
                | Self::Unreachable(_)
                | Self::Unreadable(_)
        )
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        let told = Self::new(error.code(), error.to_string());
        match error {
            SearchError::TooLong { characters, words } => {
                told.field("query", format!("at most {characters} characters and {words} words"))
            }
            SearchError::NotTaken(_) => told.field("query", "what the search provider takes"),
            _ => told.retry_after(error.retry_after()),
        }
    }
}

/// Searching, as all cores share it.
pub struct Search {
    provider: SearchProvider,
    admission: Mutex<Admission>,
    local: Option<Local>,
    timeout: Duration,
    endpoint: String,
    key: String,
    by_owner: bool,
}

impl Search {
    /// Opens the index where the provider is the local one.
    ///
    /// # Errors
    /// Why the index can't be opened, in a sentence.
    pub fn start(config: &Config) -> Result<Self, String> {
        let wants = config.search_provider == SearchProvider::Local;
        let local = (wants && config.search_index_bytes_max > 0)
            .then(|| {
                Local::start(config.search_index_dir.as_deref(), config.search_index_bytes_max)
            })
            .transpose()?;
        Ok(Self {
            provider: config.search_provider,
            admission: Mutex::new(Admission::new(config.search_queries_per_min)),
            local,
            timeout: Duration::from_millis(config.search_timeout_ms),
            endpoint: call::endpoint(config.search_provider, &config.search_url),
            key: config.search_key.reveal().to_owned(),
            // An index on disk may hold what keys of an earlier run have fetched.
            by_owner: !config.search_shared
                && (config.auth_keys_file.is_some() || config.search_index_dir.is_some()),
        })
    }

    /// All that would keep [`Search::start`] from working, as far as that shows without making the index
    /// or taking it from a server that has it open.
    #[must_use]
    pub fn check(config: &Config) -> Vec<Wrong> {
        let wants = config.search_provider == SearchProvider::Local;
        let folder = config.search_index_dir.as_deref();
        let folder = folder.filter(|_| wants && config.search_index_bytes_max > 0);
        let wrong = folder.and_then(|folder| {
            let error = local::check(folder).err()?;
            Some(Wrong::new("search.index_dir", format!("{}: {error}", folder.display())))
        });
        wrong.into_iter().collect()
    }

    /// The name in the `search` event.
    #[must_use]
    pub const fn provider(&self) -> &'static str {
        self.provider.as_str()
    }

    /// How long a search may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The local index, where it is the provider.
    #[must_use]
    pub const fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }

    /// Whether whoever asks finds only what it has fetched itself.
    #[must_use]
    pub const fn by_owner(&self) -> bool {
        self.by_owner
    }

    /// What a provider on the network is to be sent for a page of hits, the first being 0.
    #[must_use]
    pub fn call(&self, query: &Query, page: usize) -> call::Call {
        call::call(self.provider, &self.endpoint, &self.key, query, page)
    }

    /// How many pages of hits it is asked for at most.
    #[must_use]
    pub const fn pages_max(&self, query: &Query) -> usize {
        call::pages_max(self.provider, query.limit)
    }

    /// Reads what it answered.
    ///
    /// # Errors
    /// [`SearchError`], by the status or by what can't be read.
    pub fn read(
        &self,
        status: u16,
        retry_after: Option<Duration>,
        body: &mut [u8],
    ) -> Result<Answer, SearchError> {
        match status {
            200 => answer::read(self.provider, body),
            429 => Err(SearchError::RateLimited(retry_after.unwrap_or(LATER))),
            401..=403 => Err(SearchError::Refused(status)),
            400 | 422 if answer::is_about_the_key(self.provider, body) => {
                Err(SearchError::Refused(status))
            }
            400 | 413 | 414 | 422 => Err(SearchError::NotTaken(status)),
            _ => Err(SearchError::Status(status)),
        }
    }

    /// Whether a search may begin; takes its place in the quota. Each page of hits is one.
    ///
    /// # Errors
    /// What is known before anything is asked: `Off`, `TooLong`, `Quota`, `Resting`, `Broken`.
    pub fn admit(&self, query: &Query, now: Instant) -> Result<(), SearchError> {
        dialect::check(self.provider, query)?;
        match (self.provider, &self.local) {
            (SearchProvider::Off, _) | (SearchProvider::Local, None) => Err(SearchError::Off),
            (SearchProvider::Local, Some(local)) => local.check(),
            _ => self.admission.lock().unwrap_or_else(PoisonError::into_inner).admit(now),
        }
    }

    /// What came of what was admitted.
    pub fn note(&self, now: Instant, outcome: Result<(), &SearchError>) {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => admission.succeeded(),
            Err(error) if error.is_the_providers() => {
                let rests = matches!(error, SearchError::RateLimited(_) | SearchError::Refused(_));
                admission.failed(now, rests.then(|| error.retry_after()));
            }
            Err(_) => admission.given_up(now),
        }
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        if let Some(local) = &self.local {
            local.tick();
        }
    }

    /// Writes what is not written yet, and ends the index's threads. Blocks: not for a loop.
    pub fn stop(&self) {
        if let Some(local) = &self.local {
            local.stop();
        }
    }
}
