//! `subscriptions/listen` (2026-07-28): notifies open streams when a reload changed the tools.
//!
//! A reload never changes a server, it replaces it. A stream follows the line of successors, so it
//! survives any number of reloads and ends, with its final result, when the last server of the line
//! is closed.

use std::sync::OnceLock;

use rmcp::ErrorData;
use rmcp::service::SubscriptionContext;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::permissions::ToolListChange;
use crate::oauth::bearer::Principal;

/// A server's place in its tenant's line of servers. Allocated on first use, since most tenants are
/// idle.
#[derive(Debug, Default)]
pub(super) struct Lineage(OnceLock<Box<LineageNode>>);

#[derive(Debug)]
struct LineageNode {
    succession: watch::Sender<Option<Handover>>,
    closing: CancellationToken,
    /// Ends the streams; may fire before `closing`, never after it.
    streams: CancellationToken,
}

impl Default for LineageNode {
    fn default() -> Self {
        let closing = CancellationToken::new();
        let streams = closing.child_token();
        Self { succession: watch::Sender::default(), closing, streams }
    }
}

/// The handover to the server that replaces this one.
#[derive(Debug, Clone)]
struct Handover {
    /// The change of tools, if they differ.
    change: Option<ToolListChange>,
    next: Subscription,
}

/// A subscription to what happens to a server.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    succession: watch::Receiver<Option<Handover>>,
    ending: CancellationToken,
}

impl Lineage {
    /// Hands the followers over to the successor.
    pub(super) fn hand_over(&self, change: Option<ToolListChange>, successor: &Self) {
        let next = successor.subscribe();
        self.place().succession.send_replace(Some(Handover { change, next }));
    }

    pub(super) fn close(&self) {
        self.place().closing.cancel();
    }

    /// Ends the streams that follow this server; calls go on.
    pub(super) fn end_streams(&self) {
        self.place().streams.cancel();
    }

    /// Waits until the server is closed.
    pub(super) async fn closed(&self) {
        self.place().closing.cancelled().await;
    }

    pub(super) fn subscribe(&self) -> Subscription {
        let place = self.place();
        Subscription { succession: place.succession.subscribe(), ending: place.streams.clone() }
    }

    /// Returns a successor that is closed together with this server.
    #[cfg(feature = "conformance")]
    pub(super) fn extend(&self) -> Self {
        let LineageNode { closing, streams, .. } = self.place();
        let (closing, streams) = (closing.clone(), streams.clone());
        Self(OnceLock::from(Box::new(LineageNode { succession: watch::Sender::default(), closing, streams })))
    }

    fn place(&self) -> &LineageNode {
        self.0.get_or_init(Box::default)
    }
}

impl Subscription {
    /// Waits for the next handover. Returns `None` when streams must end, or the server was dropped
    /// without a successor.
    async fn next(&mut self) -> Option<Handover> {
        tokio::select! {
            // Biased: a server that was replaced and then closed leaves its streams to the
            // successor.
            biased;
            succession = self.succession.wait_for(Option::is_some) => succession.ok()?.clone(),
            () = self.ending.cancelled() => None,
        }
    }
}

/// Serves one stream until its client disconnects or the line ends. It notifies `caller` only of
/// tools that they may see.
pub(super) async fn listen(
    mut follower: Subscription,
    stream: &SubscriptionContext,
    caller: &Principal,
) -> Result<(), ErrorData> {
    let wants_tools = stream.accepted().tools_list_changed == Some(true);
    loop {
        let succession = tokio::select! {
            succession = follower.next() => succession,
            () = stream.cancelled() => None,
        };
        let Some(succession) = succession else { return Ok(()) };
        let concerned = succession.change.is_some_and(|change| change.is_visible_to(caller));
        if concerned && wants_tools && stream.sink().notify_tool_list_changed().await.is_err() {
            return Ok(());
        }
        follower = succession.next;
    }
}
