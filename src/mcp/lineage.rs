//! A tenant's line of servers, and what streams that follow it hear of.
//!
//! A reload never changes a server, it replaces it. A follower follows the line of successors, so
//! it survives any number of reloads, and ends when the last server of the line is closed.

use std::future::pending;
use std::sync::OnceLock;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::permissions::ToolListChange;

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
pub(super) struct Handover {
    /// The change of tools, if they differ.
    pub(super) change: Option<ToolListChange>,
    pub(super) next: Subscription,
}

/// Changes of the tools that no reload makes.
#[derive(Debug, Clone)]
pub(super) struct SourceChanges {
    /// Changes whenever the tools do.
    pub(super) receiver: watch::Receiver<u64>,
    /// The tools that may have changed.
    pub(super) change: ToolListChange,
}

/// A subscription to what happens to a server.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    succession: watch::Receiver<Option<Handover>>,
    ending: CancellationToken,
    changes: Option<SourceChanges>,
}

/// Something that happened to a server.
#[derive(Debug)]
pub(super) enum LineageEvent {
    /// It was replaced.
    Handover(Handover),
    /// Its tools changed.
    Change(ToolListChange),
}

impl Lineage {
    /// Hands the followers over to the successor.
    pub(super) fn hand_over(&self, change: Option<ToolListChange>, next: Subscription) {
        self.node().succession.send_replace(Some(Handover { change, next }));
    }

    pub(super) fn close(&self) {
        self.node().closing.cancel();
    }

    /// Ends the streams that follow this server; calls go on.
    pub(super) fn end_streams(&self) {
        self.node().streams.cancel();
    }

    /// Waits until the server is closed.
    pub(super) async fn closed(&self) {
        self.node().closing.cancelled().await;
    }

    /// Returns a follower, which also hears of the changes of the source.
    pub(super) fn subscribe(&self, changes: Option<SourceChanges>) -> Subscription {
        let node = self.node();
        Subscription { succession: node.succession.subscribe(), ending: node.streams.clone(), changes }
    }

    fn node(&self) -> &LineageNode {
        self.0.get_or_init(Box::default)
    }
}

impl Subscription {
    /// Waits for what happens next. Returns `None` when streams must end, or the server was dropped
    /// without a successor.
    pub(super) async fn next(&mut self) -> Option<LineageEvent> {
        tokio::select! {
            // Biased: a server that was replaced and then closed leaves its streams to the
            // successor.
            biased;
            succession = self.succession.wait_for(Option::is_some) => {
                succession.ok()?.clone().map(LineageEvent::Handover)
            }
            () = self.ending.cancelled() => None,
            change = next_change(&mut self.changes) => Some(LineageEvent::Change(change)),
        }
    }
}

/// Waits until the source changes by itself; forever if it does not.
async fn next_change(changes: &mut Option<SourceChanges>) -> ToolListChange {
    let Some(changes) = changes else { return pending().await };
    match changes.receiver.changed().await {
        Ok(()) => changes.change.clone(),
        Err(_source_is_gone) => pending().await,
    }
}
