//! What the receiver last did with one signal, told in the log once for each state.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use super::receiver::{ExportError, ExportOutcome};
use crate::base::backoff::Backoff;

/// The pause after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// However long a receiver asks to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How the receiver takes one signal.
#[derive(Debug)]
pub(super) struct ExportHealth {
    signal: &'static str,
    failures: u32,
    state: ToldState,
    retry_after: Duration,
}

/// What the log was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToldState {
    Taken,
    PartlyTaken,
    Failing(Discriminant<ExportError>),
}

impl ExportHealth {
    pub(super) fn new(signal: &'static str) -> Self {
        Self { signal, failures: 0, state: ToldState::Taken, retry_after: Duration::ZERO }
    }

    /// Notes how a batch went, and logs it if that is another state than before.
    pub(super) fn record(&mut self, outcome: &ExportOutcome) {
        (self.failures, self.retry_after) = match outcome {
            Ok(_) | Err(ExportError::Refused(_)) => (0, Duration::ZERO),
            Err(error) => (self.failures.saturating_add(1), error.retry_after().min(MAX_RETRY_AFTER)),
        };
        let state = match outcome {
            Ok(rejected) if rejected.count > 0 => ToldState::PartlyTaken,
            Ok(_) => ToldState::Taken,
            Err(error) => ToldState::Failing(discriminant(error)),
        };
        if std::mem::replace(&mut self.state, state) != state {
            self.tell(outcome);
        }
    }

    fn tell(&self, outcome: &ExportOutcome) {
        let signal = self.signal;
        match outcome {
            Ok(rejected) if rejected.count > 0 => {
                let (count, reason) = (rejected.count, &*rejected.reason);
                tracing::warn!(
                    signal,
                    count,
                    reason,
                    "the OTLP receiver takes only a part of what it is sent; the rest is dropped"
                );
            }
            Ok(_) => tracing::info!(signal, "the OTLP receiver takes what it is sent again"),
            Err(error @ ExportError::Refused(_)) => {
                tracing::warn!(signal, %error, "the OTLP receiver refuses what it is sent, which is dropped");
            }
            Err(error) => {
                tracing::warn!(signal, %error, "the OTLP receiver takes nothing; a bounded part waits for it");
            }
        }
    }

    /// Returns how long to wait before the next batch, at least `interval`.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        let pause = match self.failures {
            0 => interval,
            failures => BACKOFF.pause_after(failures - 1),
        };
        pause.max(interval).max(self.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::super::receiver::RejectedItems;
    use super::*;

    fn busy(retry_after: u64) -> ExportOutcome {
        Err(ExportError::Busy(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(retry_after)))
    }

    #[test]
    fn pauses_grow_with_failures_and_obey_the_receiver_within_reason() {
        let mut health = ExportHealth::new("traces");
        let second = Duration::from_secs(1);
        let mut pause_after = |outcome: &ExportOutcome| {
            health.record(outcome);
            health.pause(second).as_secs()
        };
        assert_eq!(pause_after(&Ok(RejectedItems::default())), 1);
        let pauses: Vec<u64> = (0..7).map(|_| pause_after(&busy(0))).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause_after(&busy(120)), 120);
        assert_eq!(pause_after(&busy(1_000_000)), 300);
        assert_eq!(pause_after(&Err(ExportError::Refused(StatusCode::BAD_REQUEST))), 1);
    }
}
