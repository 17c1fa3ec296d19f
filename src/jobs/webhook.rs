//! Webhooks as Standard Webhooks has them (standardwebhooks.com, 1.0.0): what is signed, how, and when
//! a delivery is tried again. Without IO and clock.

use crate::config::Config;
use crate::limits::WEBHOOK_PAUSE_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// What a secret begins with that is written in base64.
const SECRET_PREFIX: &str = "whsec_";

/// What is told; each job ends in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Event {
    /// Every URL has its result.
    #[serde(rename = "job.completed")]
    Completed,
    /// The job was given up: its deadline has passed, or its server went down.
    #[serde(rename = "job.failed")]
    Failed,
    /// Its client has ended it.
    #[serde(rename = "job.cancelled")]
    Cancelled,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::Cancelled];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "job.completed",
            Self::Failed => "job.failed",
            Self::Cancelled => "job.cancelled",
        }
    }
}

/// Who is told of what.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// What signs it.
    pub secret: Secret,
    /// Of what.
    pub events: Vec<Event>,
}

/// A key that receiver and sender share; shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads a secret: `whsec_` and base64, or any text. `None` for base64 that is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        match text.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).ok().map(Self),
            None => Some(Self(text.as_bytes().to_vec())),
        }
    }

    /// As [`Secret::read`] takes it.
    #[must_use]
    pub fn write(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// Bytes of the key.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `webhook-signature`: HMAC-SHA256 (RFC 2104) over id, time and body.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(set)")
    }
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has answered with this status.
    Answered(u16),
    /// It was not reached; why, and whether that may change.
    Unreached {
        /// The error's code.
        code: &'static str,
        /// Whether another attempt may go better.
        retryable: bool,
    },
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has arrived.
    Delivered,
    /// It will not arrive.
    GivenUp,
    /// It is tried again after this time.
    Again(Duration),
}

/// When a delivery is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Attempts, the first one included.
    pub attempts_max: u32,
    /// From the first attempt to the second.
    pub pause: Duration,
    /// For one attempt.
    pub timeout: Duration,
}

impl Policy {
    /// By the settings.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            attempts_max: config.jobs_webhook_attempts_max,
            pause: Duration::from_millis(config.jobs_webhook_backoff_ms),
            timeout: Duration::from_millis(config.jobs_webhook_timeout_ms),
        }
    }

    /// What follows when the attempt of this number, from 1, went so. `random` is any number: it
    /// spreads the attempts of many over half of each pause.
    #[must_use]
    pub fn judge(&self, number: u32, attempt: &Attempt, random: u64) -> Verdict {
        let again = match attempt {
            Attempt::Answered(200..=299) => return Verdict::Delivered,
            // Standard Webhooks: 410 says that nobody wants it any more.
            Attempt::Answered(410) => false,
            Attempt::Answered(_) => true,
            Attempt::Unreached { retryable, .. } => *retryable,
        };
        if !again || number >= self.attempts_max {
            return Verdict::GivenUp;
        }
        let doubled = self.pause.saturating_mul(1 << number.saturating_sub(1).min(20));
        let pause = doubled.min(WEBHOOK_PAUSE_MAX);
        let part = u32::try_from(random % 1024).unwrap_or(0);
        Verdict::Again(pause / 2 + pause / 2 * part / 1024)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_signature_is_the_one_of_the_specification() {
        // The example that the reference libraries of Standard Webhooks are tested with.
        let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(Secret::read(&secret.write()), Some(secret));
    }

    #[test]
    fn a_secret_is_base64_or_text() {
        assert_eq!(Secret::read("plain").unwrap().len(), 5);
        assert_eq!(Secret::read("whsec_!"), None);
        assert_eq!(format!("{:?}", Secret::read("plain").unwrap()), "(set)");
    }

    #[test]
    fn what_can_not_get_better_is_not_tried_again() {
        let policy = Policy {
            attempts_max: 3,
            pause: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        assert_eq!(policy.judge(1, &Attempt::Answered(204), 0), Verdict::Delivered);
        assert_eq!(policy.judge(1, &Attempt::Answered(410), 0), Verdict::GivenUp);
        let refused = Attempt::Unreached { code: "blocked_egress", retryable: false };
        assert_eq!(policy.judge(1, &refused, 0), Verdict::GivenUp);
        assert_eq!(policy.judge(3, &Attempt::Answered(500), 0), Verdict::GivenUp);
        let again = policy.judge(2, &Attempt::Answered(302), 0);
        assert_eq!(again, Verdict::Again(Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn pauses_double_with_jitter_up_to_the_longest(number in 1_u32..40, random: u64) {
            let pause = Duration::from_millis(100);
            let policy = Policy { attempts_max: 64, pause, timeout: pause };
            let verdict = policy.judge(number, &Attempt::Answered(503), random);
            let whole = pause.saturating_mul(1 << (number - 1).min(20)).min(WEBHOOK_PAUSE_MAX);
            let Verdict::Again(wait) = verdict else { panic!("{verdict:?}") };
            prop_assert!(wait >= whole / 2 && wait <= whole);
        }
    }
}
