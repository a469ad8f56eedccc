//! `subscriptions/listen` (2026-07-28): notifies open streams when the tools changed.

use rmcp::ErrorData;
use rmcp::service::SubscriptionContext;

use crate::mcp::lineage::{LineageEvent, Subscription};
use crate::oauth::bearer::Principal;

/// Serves one stream until its client disconnects or the line of servers (a server and those that
/// replace it at reloads) ends, with its final result. It notifies `caller` only of tools that they
/// may see.
pub(super) async fn listen(
    mut follower: Subscription,
    stream: &SubscriptionContext,
    caller: &Principal,
) -> Result<(), ErrorData> {
    let wants_tools = stream.accepted().tools_list_changed == Some(true);
    loop {
        let event = tokio::select! {
            event = follower.next() => event,
            () = stream.cancelled() => None,
        };
        let (change, next) = match event {
            None => return Ok(()),
            Some(LineageEvent::Change(change)) => (Some(change), None),
            Some(LineageEvent::Handover(handover)) => (handover.change, Some(handover.next)),
        };
        let concerned = change.is_some_and(|change| change.is_visible_to(caller));
        if concerned && wants_tools && stream.sink().notify_tool_list_changed().await.is_err() {
            return Ok(());
        }
        if let Some(next) = next {
            follower = next;
        }
    }
}
