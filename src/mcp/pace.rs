//! How patient the endpoint is.

use std::time::Duration;

/// Durations that tests shorten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// After so long without an answer the response becomes a stream. Clients and load balancers give up on silence.
    pub(super) upgrade_after: Duration,
    /// Between two comments of a stream that waits; below the idle timeouts of common proxies.
    pub(super) keep_alive: Duration,
    /// Between two progress notifications.
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
