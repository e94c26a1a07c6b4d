//! When to try again: exponential backoff with jitter, `Retry-After`, and one
//! deadline for the whole operation.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::time::Instant;

use super::error::{RegistryError, Subject};

/// Times and counts that bound an operation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// To open a connection.
    pub connect: Duration,
    /// Without a single byte from the registry.
    pub stall: Duration,
    /// To resolve a reference or to push a manifest, all requests and retries together.
    pub resolve: Duration,
    /// To fetch or push one blob, all requests and retries together.
    pub blob: Duration,
    /// Failures in a row, without progress, that are survived.
    pub retries: u32,
    /// Pause before the first retry, on average; it doubles with each further one.
    pub backoff: Duration,
    /// Longest pause, also where the registry asks for a longer one: then the operation fails.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            resolve: Duration::from_secs(300),
            blob: Duration::from_secs(3600),
            retries: 5,
            backoff: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// The retries of one operation.
#[derive(Debug)]
pub(super) struct Retry {
    limits: Limits,
    limit: Duration,
    deadline: Instant,
    failures: u32,
}

impl Retry {
    /// Starts an operation that may take `limit`.
    pub(super) fn new(limits: &Limits, limit: Duration) -> Self {
        Self {
            limits: limits.clone(),
            limit,
            deadline: Instant::now() + limit,
            failures: 0,
        }
    }

    /// Runs one attempt within the operation's deadline.
    pub(super) async fn attempt<T>(
        &self,
        subject: &Subject,
        attempt: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout_at(self.deadline, attempt).await {
            Ok(result) => result,
            Err(_) => Err(RegistryError::Deadline {
                subject: subject.clone(),
                limit: self.limit,
            }),
        }
    }

    /// Forgets earlier failures: something was achieved.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Pauses after `error`, or gives it back where trying again makes no sense.
    pub(super) async fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let pause = self.next_pause(error)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Counts a failure; gives the pause after it, or the error back.
    fn next_pause(&mut self, error: RegistryError) -> Result<Duration, RegistryError> {
        self.failures += 1;
        if !error.may_pass() {
            return Err(error);
        }
        let Some(pause) = pause_after(&self.limits, self.failures, error.retry_after()) else {
            return Err(error);
        };
        if Instant::now() + pause >= self.deadline {
            return Err(error);
        }
        tracing::debug!(failures = self.failures, ?pause, %error, "trying again");
        Ok(pause)
    }
}

/// The pause after so many failures in a row, where the server asked for one or not; none
/// if it is time to give up.
pub(crate) fn pause_after(
    limits: &Limits,
    failures: u32,
    asked: Option<Duration>,
) -> Option<Duration> {
    match asked {
        _ if failures > limits.retries => None,
        Some(asked) => (asked <= limits.longest_pause).then_some(asked),
        None => Some(backoff(limits.backoff, failures, limits.longest_pause)),
    }
}

/// The pause after so many failures: between half and one and a half of the doubled
/// base, so that jobs that failed together don't come back together.
pub(crate) fn backoff(base: Duration, failures: u32, longest: Duration) -> Duration {
    jittered(base, failures, longest, random())
}

fn jittered(base: Duration, failures: u32, longest: Duration, random: u64) -> Duration {
    let doubled = base.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let thousandths = 500 + u32::try_from(random % 1001).unwrap_or(0);
    (doubled.saturating_mul(thousandths) / 1000).min(longest)
}

/// A number good enough for jitter: the standard library's random hash keys.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// The time a `Retry-After` header asks for: seconds or an HTTP date (RFC 9110,
/// section 10.2.3).
pub(crate) fn retry_after(header: &str, now: OffsetDateTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(header, &Rfc2822).ok()?;
    Some(Duration::try_from(date - now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Act;

    #[test]
    fn pauses_double_with_jitter_up_to_the_longest() {
        let limits = Limits::default();
        let (base, longest) = (limits.backoff, limits.longest_pause);
        let ms = |failures, random| jittered(base, failures, longest, random).as_millis();
        assert_eq!((ms(1, 0), ms(1, 500), ms(1, 1000)), (250, 500, 750));
        assert_eq!((ms(2, 500), ms(3, 500)), (1000, 2000));
        assert_eq!(ms(u32::MAX, 1000), 60_000);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = OffsetDateTime::parse("Wed, 21 Oct 2015 07:28:00 GMT", &Rfc2822).unwrap();
        let after = |text| retry_after(text, now);
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            after("Wed, 21 Oct 2015 07:28:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(after("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }

    fn limited(retry_after: Option<Duration>) -> RegistryError {
        RegistryError::RateLimited {
            subject: Subject {
                act: Act::Get,
                what: "a".to_owned(),
                host: "h".into(),
            },
            retry_after,
        }
    }

    #[test]
    fn the_registrys_wish_is_honoured_up_to_a_limit() {
        let limits = Limits::default();
        let mut retry = Retry::new(&limits, Duration::from_secs(50));
        let mut asked = |seconds| {
            let wish = limited(Some(Duration::from_secs(seconds)));
            retry.next_pause(wish).ok().map(|pause| pause.as_secs())
        };
        assert_eq!(asked(42), Some(42));
        // Longer than the longest pause, and longer than the time that is left.
        assert_eq!(asked(61), None);
        assert_eq!(asked(55), None);
    }

    #[test]
    fn failures_in_a_row_are_counted() {
        let limits = Limits {
            retries: 2,
            ..Limits::default()
        };
        let mut retry = Retry::new(&limits, Duration::from_secs(100));
        let fails = |retry: &mut Retry| retry.next_pause(limited(None)).is_err();
        assert!(!fails(&mut retry) && !fails(&mut retry));
        retry.progressed();
        assert!(!fails(&mut retry) && !fails(&mut retry));
        assert!(fails(&mut retry));
    }
}
