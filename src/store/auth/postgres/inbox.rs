//! What a connection that listens has heard, between its task and whoever waits.

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::base::random;

/// What a connection has heard.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) changes: Notify,
    pub(super) trial: Notify,
    /// The channel on which nobody else says anything.
    pub(super) trial_channel: String,
    closed: CancellationToken,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let trial_channel = format!("tenantd_{}", random::hex::<8>());
        Self { changes: Notify::new(), trial: Notify::new(), trial_channel, closed: CancellationToken::new() }
    }

    pub(super) fn receive(&self, channel: &str) {
        match channel == self.trial_channel {
            true => self.trial.notify_one(),
            false => self.changes.notify_one(),
        }
    }

    /// Returns what fires when the connection has ended.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}
