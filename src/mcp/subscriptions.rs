//! `subscriptions/listen` (2026-07-28): open streams hear that the tools changed when a reload changed them.
//!
//! A server is never changed, it is succeeded. A stream follows the line of successors, so it outlives any number of
//! reloads and ends, with its final result, when the last of the line is closed.

use std::sync::OnceLock;

use rmcp::ErrorData;
use rmcp::service::SubscriptionContext;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::rights::Change;
use crate::oauth::bearer::Principal;

/// A server's place in the line of its tenant. Made when somebody asks: most of many tenants are idle.
#[derive(Debug, Default)]
pub(super) struct Line(OnceLock<Box<Place>>);

#[derive(Debug)]
struct Place {
    succession: watch::Sender<Option<Succession>>,
    closing: CancellationToken,
    /// Streams may end before calls do, never after.
    streams: CancellationToken,
}

impl Default for Place {
    fn default() -> Self {
        let closing = CancellationToken::new();
        let streams = closing.child_token();
        Self { succession: watch::Sender::default(), closing, streams }
    }
}

/// Another server took the place.
#[derive(Debug, Clone)]
struct Succession {
    /// Of the tools, if they are others.
    change: Option<Change>,
    next: Follower,
}

/// Who wants to hear what becomes of a server.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    succession: watch::Receiver<Option<Succession>>,
    ending: CancellationToken,
}

impl Line {
    pub(super) fn hand_over(&self, change: Option<Change>, successor: &Self) {
        let next = successor.follower();
        self.place().succession.send_replace(Some(Succession { change, next }));
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

    pub(super) fn follower(&self) -> Follower {
        let place = self.place();
        Follower { succession: place.succession.subscribe(), ending: place.streams.clone() }
    }

    /// A place that is closed together with this one.
    #[cfg(feature = "conformance")]
    pub(super) fn continued(&self) -> Self {
        let Place { closing, streams, .. } = self.place();
        let (closing, streams) = (closing.clone(), streams.clone());
        Self(OnceLock::from(Box::new(Place { succession: watch::Sender::default(), closing, streams })))
    }

    fn place(&self) -> &Place {
        self.0.get_or_init(Box::default)
    }
}

impl Follower {
    /// The next succession; `None` when streams are to end, or the server is gone without a successor.
    async fn next(&mut self) -> Option<Succession> {
        tokio::select! {
            // A server that was succeeded and then closed leaves its streams to the successor.
            biased;
            succession = self.succession.wait_for(Option::is_some) => succession.ok()?.clone(),
            () = self.ending.cancelled() => None,
        }
    }
}

/// Serves one stream until its client leaves or the line ends. It tells `caller` of tools that they may see.
pub(super) async fn listen(
    mut follower: Follower,
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
        let concerned = succession.change.is_some_and(|change| change.concerns(caller));
        if concerned && wants_tools && stream.sink().notify_tool_list_changed().await.is_err() {
            return Ok(());
        }
        follower = succession.next;
    }
}
