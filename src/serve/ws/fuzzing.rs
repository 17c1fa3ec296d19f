//! An entry function for fuzzing: it takes any bytes and panics if an invariant does not hold.

use super::op::{Op, Refused, parse};
use crate::config::Config;
use crate::crawl::request::check_url;
use crate::crawl::request::fuzzing::{check_crawl, judge};
use crate::error::ApiCode;
use crate::limits::{WS_CREDIT_MAX, WS_ID_BYTES_MAX};

/// Any text as an op of a WebSocket's client; other bytes never come that far.
pub fn fuzz_op(message: &[u8], config: &Config) {
    if std::str::from_utf8(message).is_err() {
        return;
    }
    let named = |id: &str| (1..=WS_ID_BYTES_MAX).contains(&id.len());
    let read = parse(&mut message.to_vec(), config);
    judge(message, read.as_ref().err().map(|refused| &refused.error));
    let op = match read {
        Ok(op) => op,
        Err(refused) => {
            assert!(refused.id.as_deref().is_none_or(named), "{refused:?}");
            assert_eq!(refused.code, ApiCode::BadMessage, "whatever is wrong with it");
            let narrower = refused.error.code;
            let later = Refused::state(refused.id, refused.error);
            assert_eq!(later.code, narrower, "what can't be obeyed now says why");
            return;
        }
    };
    match op {
        Op::Crawl { id, request, credit } => {
            check_crawl(&request, config.urls_max);
            assert!(named(&id) && credit.is_none_or(|credit| credit <= WS_CREDIT_MAX));
        }
        Op::Deepsearch { id, request, credit } => {
            assert!(named(&id) && credit.is_none_or(|credit| credit <= WS_CREDIT_MAX));
            assert!(request.search.is_some() && request.urls.is_empty());
        }
        Op::Add { id, urls } => {
            assert!(named(&id) && (1..=config.urls_max).contains(&urls.len()));
            assert!(urls.iter().all(|url| check_url(url).is_ok()));
        }
        Op::Cancel { id } => assert!(named(&id)),
        Op::Ack { id, seq } => {
            let written = message.iter().filter(|byte| byte.is_ascii_digit()).count();
            assert!(named(&id) && seq.to_string().len() <= written, "no number out of nothing");
        }
        Op::Credit { id, n } => assert!(named(&id) && n <= WS_CREDIT_MAX),
        Op::Resume { id, stream_id, after, credit } => {
            assert!(id.as_deref().is_none_or(named) && stream_id.len() <= message.len());
            let written = message.iter().filter(|byte| byte.is_ascii_digit()).count();
            assert!(after.is_none_or(|after| after.to_string().len() <= written));
            assert!(credit.is_none_or(|credit| credit <= WS_CREDIT_MAX));
        }
        Op::Ping { id } | Op::Status { id } => assert!(id.as_deref().is_none_or(named)),
    }
}
