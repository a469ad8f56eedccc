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
    beat: Interval,
    every: Duration,
    beats: u32,
}

impl<'a> ProgressNotifier<'a> {
    pub(super) fn new(
        peer: &'a Peer<RoleServer>,
        token: ProgressToken,
        what: &'static str,
        pace: &Timing,
    ) -> Self {
        let every = pace.progress_interval;
        Self { peer, token, what, beat: tokio::time::interval(every), every, beats: 0 }
    }

    /// Sends the next notification when it is due, the first one at once. Progress is measured in
    /// seconds, without a total.
    pub(super) async fn notify(&mut self) {
        self.beat.tick().await;
        let waited = (self.every * self.beats).as_secs_f64();
        let message = match self.beats {
            0 => format!("asking {}", self.what),
            _ => format!("waiting for {}, {waited:.0} s", self.what),
        };
        self.beats += 1;
        let note = ProgressNotificationParam::new(self.token.clone(), waited).with_message(message);
        // Sending fails when the client has disconnected, which the cancellation reports as well.
        let _gone = self.peer.notify_progress(note).await;
    }
}
