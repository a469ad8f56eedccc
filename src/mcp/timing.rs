//! Timing of the endpoint.

use std::time::Duration;

/// Durations that tests shorten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// A response that takes longer becomes a stream, since clients and load balancers give up on
    /// silence.
    pub(super) stream_after: Duration,
    /// The interval of comments on a waiting stream; below the idle timeouts of common proxies.
    pub(super) keep_alive_interval: Duration,
    /// The interval of progress notifications.
    pub(super) progress_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            stream_after: Duration::from_secs(3),
            keep_alive_interval: Duration::from_secs(12),
            progress_interval: Duration::from_secs(5),
        }
    }
}
