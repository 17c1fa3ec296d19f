//! What a job may be asked to do: a crawl with many more URLs, and perhaps a webhook.

use super::webhook::{self, Webhook};
use crate::config::Config;
use crate::crawl::request::{self, CrawlRequest, Options, OrderName};
use crate::error::{ApiCode, ApiError};
use crate::limits::{WEBHOOK_SECRET_BYTES_MAX, WEBHOOK_SECRET_BYTES_MIN, WEBHOOK_URL_BYTES_MAX};
use crate::proto::text::Texts;
use crate::stream::idempotency::Fingerprint;
use serde::Deserialize;

/// Milliseconds between two `progress` events of a job, at least.
const PROGRESS_MS_MIN: u64 = 1_000;

/// A validated job.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// What to fetch, and how; its `deadline_ms` is the job's.
    pub crawl: CrawlRequest,
    /// The options as the client wrote them, for nodes that read them again.
    pub options_json: String,
    /// Who is told when it has ended.
    pub webhook: Option<Webhook>,
    /// What the body is known by.
    pub fingerprint: Fingerprint,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(deserialize_with = "request::texts")]
    urls: Texts,
    #[serde(default)]
    options: Options,
    #[serde(default)]
    webhook: Option<WebhookBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookBody {
    url: String,
    secret: String,
    #[serde(default)]
    events: Option<Vec<webhook::Event>>,
}

/// What has another default than a crawl's, and the options as they were written.
#[derive(Debug, Default, Deserialize)]
struct Peek {
    #[serde(default)]
    options: serde_json::Map<String, serde_json::Value>,
}

/// Reads and checks the body of a job. Takes milliseconds where it is long: not for a loop then.
///
/// # Errors
/// As [`request::parse_crawl`], with `webhook` among the fields at fault.
pub fn parse(body: &mut [u8], config: &Config) -> Result<JobRequest, ApiError> {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    let fingerprint = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    // What the strict reading below refuses needs no peek.
    let peek: Peek = serde_json::from_slice(body).unwrap_or_default();
    let body: Body = request::parse_json(body)?;
    let options_json = serde_json::Value::Object(peek.options.clone()).to_string();
    let mut crawl = request::check_job(body.urls, body.options, config.jobs_urls_max)?;
    if crawl.options.follow.is_some() && !config.redis_url.reveal().is_empty() {
        let message = "links are not followed by jobs that are in Redis";
        return Err(ApiError::new(ApiCode::ValidationError, message)
            .field("options.follow", "nothing, where jobs are in Redis"));
    }
    let has_deadline = peek.options.contains_key("deadline_ms");
    crawl.options = job_options(Options::clone(&crawl.options), has_deadline, config)?.into();
    let webhook = body.webhook.map(check_webhook).transpose()?;
    Ok(JobRequest { crawl, options_json, webhook, fingerprint })
}

/// Reads options that were checked when the job was made, on whichever node.
///
/// # Errors
/// They were written by a node of another version.
pub fn reread(text: &str, config: &Config) -> Result<Options, ApiError> {
    let unknown = |error: serde_json::Error| {
        ApiError::new(ApiCode::InternalError, format!("a job's options: {error}"))
    };
    let peek: serde_json::Map<_, _> = serde_json::from_str(text).map_err(unknown)?;
    let options = serde_json::from_str(text).map_err(unknown)?;
    job_options(options, peek.contains_key("deadline_ms"), config)
}

fn job_options(options: Options, has_deadline: bool, config: &Config) -> Result<Options, ApiError> {
    if options.order == Some(OrderName::Input) {
        let message = "the results of a job come in the order in which they are ready";
        return Err(
            ApiError::new(ApiCode::ValidationError, message).field("options.order", "completion")
        );
    }
    let most = config.jobs_deadline_s * 1000;
    let deadline_ms = if has_deadline { options.deadline_ms.min(most) } else { most };
    let progress_ms = match options.progress_ms {
        0 => 0,
        some => some.max(PROGRESS_MS_MIN),
    };
    Ok(Options { deadline_ms, progress_ms, ..options })
}

fn check_webhook(body: WebhookBody) -> Result<Webhook, ApiError> {
    let wrong = |field: &str, expected: String| {
        let message = format!("{field}: expected {expected}");
        ApiError::new(ApiCode::ValidationError, message).field(field, expected)
    };
    if body.url.len() > WEBHOOK_URL_BYTES_MAX {
        return Err(wrong("webhook.url", format!("at most {WEBHOOK_URL_BYTES_MAX} bytes")));
    }
    if let Err(why) = request::check_url(&body.url) {
        let message = format!("webhook.url is no URL to call: {why}");
        let error = ApiError::new(ApiCode::InvalidUrl, message);
        return Err(error.field("webhook.url", "an absolute http or https URL"));
    }
    let bounds = WEBHOOK_SECRET_BYTES_MIN..=WEBHOOK_SECRET_BYTES_MAX;
    let secret = webhook::Secret::read(&body.secret).filter(|key| bounds.contains(&key.len()));
    let Some(secret) = secret else {
        let expected = format!(
            "{WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX} bytes, as text or as \
             whsec_ and base64"
        );
        return Err(wrong("webhook.secret", expected));
    };
    let events = match body.events {
        Some(events) if events.is_empty() => {
            return Err(wrong("webhook.events", "1 event or more".to_owned()));
        }
        Some(events) => events,
        None => webhook::Event::ALL.to_vec(),
    };
    Ok(Webhook { url: body.url, secret, events })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::limits::JOB_DEADLINE_S_MAX;

    fn read(text: &str) -> Result<JobRequest, ApiError> {
        let config = Config { jobs_urls_max: 2, jobs_deadline_s: 100, ..Config::default() };
        parse(&mut text.as_bytes().to_vec(), &config)
    }

    #[test]
    fn a_job_is_a_crawl_with_its_own_limits() {
        let job = read(r#"{"urls":["http://a.test/"]}"#).unwrap();
        assert_eq!(job.crawl.options.deadline_ms, 100_000);
        assert!(job.webhook.is_none());
        let job =
            read(r#"{"urls":["http://a.test/"],"options":{"deadline_ms":5,"formats":["text"]}}"#);
        let job = job.unwrap();
        assert_eq!(job.crawl.options.deadline_ms, 5);
        let config = Config { jobs_deadline_s: 100, ..Config::default() };
        assert_eq!(reread(&job.options_json, &config).unwrap(), *job.crawl.options);
    }

    #[test]
    fn a_job_may_be_given_days_and_no_more_than_the_server_gives() {
        let config = Config { jobs_deadline_s: 100_000, ..Config::default() };
        let read = |deadline_ms: u64| {
            let body = format!(
                "{{\"urls\":[\"http://a.test/\"],\"options\":{{\"deadline_ms\":{deadline_ms}}}}}"
            );
            parse(&mut body.into_bytes(), &config).map(|job| job.crawl.options.deadline_ms)
        };
        assert_eq!(read(90_000_000).unwrap(), 90_000_000);
        assert_eq!(read(JOB_DEADLINE_S_MAX * 1000).unwrap(), 100_000_000);
        let error = read(JOB_DEADLINE_S_MAX * 1000 + 1).unwrap_err();
        assert_eq!(error.details[0].field, "options.deadline_ms");
    }

    #[test]
    fn each_mistake_names_its_field() {
        let url = r#""urls":["http://a.test/"]"#;
        let hook = |fields: &str| format!("{{{url},\"webhook\":{{{fields}}}}}");
        let secret = r#""secret":"0123456789abcdef""#;
        for (text, code, field) in [
            (format!("{{{url},\"x\":1}}"), ApiCode::UnknownField, "x"),
            (
                r#"{"urls":["http://a/","http://b/","http://c/"]}"#.to_owned(),
                ApiCode::TooManyUrls,
                "urls",
            ),
            (
                format!("{{{url},\"options\":{{\"order\":\"input\"}}}}"),
                ApiCode::ValidationError,
                "options.order",
            ),
            (
                format!("{{{url},\"options\":{{\"concurrency\":0}}}}"),
                ApiCode::ValidationError,
                "options.concurrency",
            ),
            (hook(&format!("\"url\":\"ftp://a/\",{secret}")), ApiCode::InvalidUrl, "webhook.url"),
            (
                hook(r#""url":"http://a/","secret":"short""#),
                ApiCode::ValidationError,
                "webhook.secret",
            ),
            (
                hook(&format!("\"url\":\"http://a/\",{secret},\"events\":[]")),
                ApiCode::ValidationError,
                "webhook.events",
            ),
            (
                hook(&format!("\"url\":\"http://a/\",{secret},\"events\":[\"x\"]")),
                ApiCode::ValidationError,
                "webhook.events[0]",
            ),
        ] {
            let error = read(&text).expect_err(&text);
            assert_eq!(error.code, code, "{text}: {error:?}");
            assert_eq!(error.details[0].field, field, "{text}: {error:?}");
        }
        let job =
            read(&hook(&format!("\"url\":\"http://a/\",{secret},\"events\":[\"job.failed\"]")));
        assert_eq!(job.unwrap().webhook.unwrap().events, [webhook::Event::Failed]);
    }
}
