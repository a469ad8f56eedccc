//! Progress notifications while a call waits for its answer.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;
use tokio::time::Interval;

use crate::mcp::timing::Timing;

/// Sends progress notifications to a client that asked for them.
pub(super) struct ProgressNotifier<'a> {
    peer: &'a Peer<RoleServer>,
    token: ProgressToken,
    /// What the call waits for.
    what: &'static str,
    ticks: Interval,
    interval: Duration,
    count: u32,
}

impl<'a> ProgressNotifier<'a> {
    pub(super) fn new(
        peer: &'a Peer<RoleServer>,
        token: ProgressToken,
        what: &'static str,
        timing: &Timing,
    ) -> Self {
        let interval = timing.progress_interval;
        Self { peer, token, what, ticks: tokio::time::interval(interval), interval, count: 0 }
    }

    /// Sends the next notification when it is due, the first one at once. Progress is measured in
    /// seconds, without a total.
    pub(super) async fn notify(&mut self) {
        self.ticks.tick().await;
        let waited = (self.interval * self.count).as_secs_f64();
        let message = match self.count {
            0 => format!("asking {}", self.what),
            _ => format!("waiting for {}, {waited:.0} s", self.what),
        };
        self.count += 1;
        let notification = ProgressNotificationParam::new(self.token.clone(), waited).with_message(message);
        // Sending fails when the client has disconnected, which the cancellation reports as well.
        let _gone = self.peer.notify_progress(notification).await;
    }
}
