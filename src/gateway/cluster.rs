//! One gateway among those that share a database: says that it is there, hears what the others
//! changed, and hands it on. Without a database there is nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::base::task::Tasks;
use crate::store::{ChangeCursor, ClusterStore, HEARTBEAT, NodeState};

/// How often a node asks for changes of which nobody told it.
const POLL: Duration = Duration::from_secs(1);
/// How often old records are removed, in heartbeats.
const HEARTBEATS_PER_CLEANING: u32 = 20;
/// How long to wait before listening again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// The same where notifications did not arrive: the pooler in between may be gone one day.
const LISTEN_PAUSE_BEHIND_POOLER: Duration = Duration::from_secs(300);
/// The time for saying that this node goes.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Begins to follow the other nodes. Returns what fires if a copy of this node has taken its place.
pub(super) fn follow(cluster: Option<ClusterStore>, tasks: &Tasks) -> CancellationToken {
    let replaced = CancellationToken::new();
    let Some(cluster) = cluster else { return replaced };
    let abort = tasks.abort_signal().clone();
    let (fired, node) = (replaced.clone(), cluster.clone());
    tasks.spawn_detached("cluster heartbeat", async move {
        if abort.run_until_cancelled(run_heartbeat(&node)).await.is_some() {
            tracing::error!("another gateway was started with this one's node id: this one ends");
            fired.cancel();
        }
    });
    let wake = Arc::new(Notify::new());
    let (abort, node, woken) = (tasks.abort_signal().clone(), cluster.clone(), Arc::clone(&wake));
    tasks.spawn_detached("cluster notifications", async move {
        abort.run_until_cancelled(follow_notifications(&node, &woken)).await;
    });
    let abort = tasks.abort_signal().clone();
    tasks.spawn_detached("cluster changes", async move {
        abort.run_until_cancelled(follow_changes(&cluster, &wake)).await;
    });
    replaced
}

/// Says that this node goes.
pub(super) async fn leave(cluster: &ClusterStore) {
    if let Ok(Err(error)) = tokio::time::timeout(LEAVE_TIMEOUT, cluster.leave()).await {
        tracing::debug!(%error, "other gateways will find out in 15 seconds that this one is gone");
    }
}

/// Says again and again that this node is there, until another one has taken its place.
async fn run_heartbeat(cluster: &ClusterStore) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = 0_u32;
    loop {
        heartbeat.tick().await;
        // That the database is away is in the log already; the next one may come through in time.
        if matches!(cluster.send_heartbeat().await, Ok(NodeState::Replaced)) {
            return;
        }
        if beats.is_multiple_of(HEARTBEATS_PER_CLEANING) {
            let _tried_again_in_a_minute = cluster.remove_old_records().await;
        }
        beats = beats.wrapping_add(1);
    }
}

/// Wakes whoever asks for changes whenever there are some.
async fn follow_notifications(cluster: &ClusterStore, wake: &Notify) {
    let mut is_told = false;
    loop {
        let pause = match cluster.listen().await {
            Ok(Some(notifications)) => {
                is_told = false;
                // What happened before is found out by asking.
                wake.notify_one();
                while notifications.next().await {
                    wake.notify_one();
                }
                LISTEN_PAUSE
            }
            Ok(None) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(
                        "notifications of the database do not arrive here, as behind a pooler in transaction mode: \
                         what other gateways changed is asked for every second"
                    );
                }
                LISTEN_PAUSE_BEHIND_POOLER
            }
            Err(error) => {
                tracing::debug!(%error, "the database cannot be listened to");
                LISTEN_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Asks for changes and hands them on.
async fn follow_changes(cluster: &ClusterStore, wake: &Notify) {
    let mut cursor = cluster.first_cursor();
    loop {
        let _polled = tokio::time::timeout(POLL, wake.notified()).await;
        while let Some(is_partial) = ask(cluster, &mut cursor).await {
            if !is_partial {
                break;
            }
        }
    }
}

/// Asks for changes once. Returns whether there are more, or `None` if the database is away.
async fn ask(cluster: &ClusterStore, cursor: &mut ChangeCursor) -> Option<bool> {
    let heard = cluster.load_changes(cursor).await.ok()?;
    if !heard.batch.is_empty() {
        cluster.publish(heard.batch);
    }
    *cursor = heard.cursor;
    Some(heard.is_partial)
}
