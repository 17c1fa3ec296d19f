//! An entry function for fuzzing: it takes any bytes and panics if an invariant does not hold.

use super::request::{parse, reread};
use crate::config::Config;
use crate::crawl::request::fuzzing::{check_crawl, judge};
use crate::limits::{WEBHOOK_SECRET_BYTES_MAX, WEBHOOK_SECRET_BYTES_MIN, WEBHOOK_URL_BYTES_MAX};

/// Any bytes as the body of `POST /jobs`: a job that is taken can be taken up by another node, which
/// reads its options as they were written.
pub fn fuzz_job(body: &[u8], config: &Config) {
    let read = parse(&mut body.to_vec(), config);
    judge(body, read.as_ref().err());
    let Ok(job) = read else { return };
    check_crawl(&job.crawl, config.jobs_urls_max);
    assert!(job.crawl.options.deadline_ms <= config.jobs_deadline_s * 1000);
    let again = reread(&job.options_json, config).expect("a job's options can be read again");
    assert_eq!(again, *job.crawl.options);
    if let Some(webhook) = &job.webhook {
        assert!(webhook.url.len() <= WEBHOOK_URL_BYTES_MAX && !webhook.events.is_empty());
        let bounds = WEBHOOK_SECRET_BYTES_MIN..=WEBHOOK_SECRET_BYTES_MAX;
        assert!(bounds.contains(&webhook.secret.len()));
    }
}
