//! Timing of the endpoint.

use std::time::Duration;

/// Durations that tests shorten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A response that takes longer becomes a stream, since clients and load balancers give up on
    /// silence.
    pub(super) upgrade_after: Duration,
    /// The interval of comments on a waiting stream; below the idle timeouts of common proxies.
    pub(super) keep_alive: Duration,
    /// The interval of progress notifications.
    pub(super) progress: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            upgrade_after: Duration::from_secs(3),
            keep_alive: Duration::from_secs(12),
            progress: Duration::from_secs(5),
        }
    }
}
