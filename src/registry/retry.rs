//! When a failed request is sent again.

use super::Error;
use backon::{ExponentialBuilder, Retryable as _};
use std::future::Future;
use std::time::Duration;

/// How often and how fast failed requests are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all.
    pub attempts: u32,
    /// The pause after the first; each further one is twice as long, and all vary at random by up to their own length.
    pub first: Duration,
    /// The longest pause that kiln makes by itself, and the longest that a registry may ask for: one that asks for
    /// more won't answer in time.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first: Duration::from_millis(100), longest: Duration::from_secs(60) }
    }
}

impl Retry {
    /// Runs `once` until it succeeds, fails for good, or the tries are used up.
    pub(crate) async fn run<T, F, Fut>(self, once: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        once.retry(self.pauses()).when(Error::is_transient).adjust(|e, pause| self.adjusted(e, pause?)).await
    }

    pub(crate) fn pauses(self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest.min(Duration::from_secs(10)))
            .with_max_times(self.attempts.saturating_sub(1) as usize)
            .with_jitter()
    }

    /// The pause after `error`; `None` gives up.
    pub(crate) fn adjusted(self, error: &Error, pause: Duration) -> Option<Duration> {
        match (error, error.retry_after()) {
            (_, Some(asked)) if asked > self.longest => None,
            (_, Some(asked)) => Some(asked.max(pause)),
            // Where nothing listens, nothing will: a mistyped name should fail soon.
            (Error::Unreachable { .. }, None) if pause >= self.first * 4 => None,
            _ => Some(pause),
        }
    }
}

/// A `Retry-After` in seconds. The other form, a date, would need a clock that agrees with the server's; those who
/// send it get kiln's own pauses.
pub(crate) fn parse_retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn status(status: u16, retry_after: Option<u64>) -> Error {
        Error::Status {
            what: String::new(),
            host: String::new(),
            status,
            said: Default::default(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    async fn tries(error: Error) -> u32 {
        let count = Cell::new(0);
        let retry = Retry { first: Duration::from_millis(1), ..Retry::default() };
        let result: Result<(), Error> = retry
            .run(|| {
                count.set(count.get() + 1);
                let error = error.clone();
                async { Err(error) }
            })
            .await;
        assert!(result.is_err());
        count.get()
    }

    #[tokio::test]
    async fn bounded() {
        assert_eq!(tries(status(400, None)).await, 1);
        assert_eq!(tries(status(503, None)).await, 6);
        assert_eq!(tries(status(429, Some(0))).await, 6);
        assert_eq!(tries(status(429, Some(3600))).await, 1);
        let unreachable = Error::Unreachable { host: String::new(), why: String::new() };
        assert!((2..=3).contains(&tries(unreachable).await));
    }

    #[test]
    fn registries_may_ask_for_longer_pauses() {
        let (retry, ms) = (Retry::default(), Duration::from_millis);
        for (error, pause, want) in [
            (status(429, Some(7)), ms(100), Some(ms(7000))),
            (status(429, Some(1)), ms(3000), Some(ms(3000))),
            (status(429, Some(61)), ms(100), None),
            (status(503, None), ms(800), Some(ms(800))),
        ] {
            assert_eq!(retry.adjusted(&error, pause), want, "{error} {pause:?}");
        }
    }

    #[test]
    fn retry_after() {
        for (text, want) in [("5", Some(5)), (" 0 ", Some(0)), ("-1", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None)] {
            assert_eq!(parse_retry_after(text), want.map(Duration::from_secs), "{text}");
        }
    }
}
