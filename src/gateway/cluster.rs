//! One gateway among those that share a database: says that it is there, hears what the others
//! changed, and hands it on. Without a database there is nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::oauth::context::AuthContext;
use crate::store::{ChangeBatch, ChangeCursor, ClusterStore, HEARTBEAT, HeartbeatOutcome, Joining};
use crate::telemetry::metrics::Metrics;

/// How often a node asks for changes of which nobody told it.
const POLL: Duration = Duration::from_secs(1);
/// How often a node looks whether it has heard anything.
const FRESHNESS_INTERVAL: Duration = Duration::from_millis(500);
/// How often old records are removed, in heartbeats.
const HEARTBEATS_PER_CLEANING: u32 = 20;
/// How long to wait before listening again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// The same where notifications did not arrive: the pooler in between may be gone one day.
const LISTEN_PAUSE_BEHIND_POOLER: Duration = Duration::from_secs(300);
/// How soon a database that was away at the start is tried again.
const JOIN_PAUSE: Duration = Duration::from_secs(2);
/// The time for saying that this node goes.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who in this process wants to know of the other nodes.
pub(super) struct Followers {
    pub(super) logins: Option<Arc<AuthContext>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Begins to follow the other nodes, once the database is joined. Returns what fires if a copy of
/// this node has taken its place.
pub(super) fn follow(
    cluster: Option<ClusterStore>,
    joining: Option<Joining>,
    followers: Followers,
    tasks: &Tasks,
) -> CancellationToken {
    let replaced = CancellationToken::new();
    let Some(cluster) = cluster else { return replaced };
    let Some(joining) = joining else {
        start_following(cluster, followers, replaced.clone(), tasks);
        return replaced;
    };
    let (abort, fired, spawner) = (tasks.abort_signal().clone(), replaced.clone(), tasks.clone());
    tasks.spawn_detached("cluster join", async move {
        match abort.run_until_cancelled(Box::pin(join(&joining, &followers))).await {
            Some(JoinOutcome::Joined) => start_following(cluster, followers, fired, &spawner),
            Some(JoinOutcome::IsCopy) => fired.cancel(),
            None => {}
        }
    });
    replaced
}

/// Whether a database that was away is in use now.
enum JoinOutcome {
    /// It is.
    Joined,
    /// Another gateway uses it with this one's node id.
    IsCopy,
}

/// Joins a database that was away at the start, however long that takes, and puts in force what it
/// has.
async fn join(joining: &Joining, followers: &Followers) -> JoinOutcome {
    let mut told = String::new();
    loop {
        match Box::pin(joining.attempt()).await {
            Ok(()) => break,
            Err(error) if error.is_copied_node() => {
                tracing::error!(%error, "this gateway ends");
                return JoinOutcome::IsCopy;
            }
            Err(error) => {
                let text = error.to_string();
                if !error.is_passing() && told != text {
                    tracing::error!(%error, "the database of logins cannot be used; the gateway tries again every 2 s");
                }
                told = text;
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    while let Some(logins) = &followers.logins
        && Box::pin(logins.load_late()).await.is_err()
    {
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    // Whoever asked in vain asks again at once.
    joining.cluster().publish(ChangeBatch::Everything);
    JoinOutcome::Joined
}

fn start_following(cluster: ClusterStore, followers: Followers, replaced: CancellationToken, tasks: &Tasks) {
    let abort = tasks.abort_signal().clone();
    let (fired, node) = (replaced, cluster.clone());
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
    let followers = Arc::new(followers);
    let (abort, node, own) = (tasks.abort_signal().clone(), cluster.clone(), Arc::clone(&followers));
    tasks.spawn_detached("cluster changes", async move {
        abort.run_until_cancelled(follow_changes(&node, &own, &wake)).await;
    });
    let abort = tasks.abort_signal().clone();
    tasks.spawn_detached("cluster freshness", async move {
        abort.run_until_cancelled(watch_freshness(&cluster, &followers)).await;
    });
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
        if matches!(cluster.send_heartbeat().await, Ok(HeartbeatOutcome::Replaced)) {
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
async fn follow_changes(cluster: &ClusterStore, followers: &Followers, wake: &Notify) {
    let mut cursor = cluster.first_cursor();
    loop {
        let _polled = tokio::time::timeout(POLL, wake.notified()).await;
        while ask(cluster, followers, &mut cursor).await == Some(true) {}
    }
}

/// Asks for changes once. Returns whether there are more, or `None` if the database is away. What
/// logins could not take is asked for again.
async fn ask(cluster: &ClusterStore, followers: &Followers, cursor: &mut ChangeCursor) -> Option<bool> {
    let asked_at = followers.clock.monotonic();
    let heard = cluster.load_changes(cursor).await.ok()?;
    if !heard.batch.is_empty() {
        if let Some(logins) = &followers.logins {
            Box::pin(logins.follow(&heard.batch)).await.ok()?;
        }
        cluster.publish(heard.batch);
    }
    *cursor = heard.cursor;
    if !heard.is_partial {
        cluster.freshness().record(asked_at, heard.others);
    }
    Some(heard.is_partial)
}

/// Says when this node does not know any more what others changed, and when it does again.
async fn watch_freshness(cluster: &ClusterStore, followers: &Followers) {
    let mut was_stale = false;
    loop {
        let now = followers.clock.monotonic();
        let (silence, is_stale) = (cluster.freshness().silence(now), cluster.freshness().is_stale(now));
        followers.metrics.set_cluster_silence(silence, is_stale);
        if is_stale && !was_stale {
            tracing::error!(
                silence_s = silence.as_secs(),
                "nothing was heard of the database for ten seconds, while other gateways use it too: whom they kept \
                 out since is not known here, so calls of tenants with a login get 503, or go on if store_stale is \
                 serve"
            );
        } else if was_stale && !is_stale {
            tracing::info!("the database was heard of again: this gateway knows what the others changed");
        }
        // Again and again: a call may have been checked just before.
        if let Some(logins) = followers.logins.as_ref().filter(|_| is_stale) {
            logins.end_stale_calls();
        }
        was_stale = is_stale;
        tokio::time::sleep(FRESHNESS_INTERVAL).await;
    }
}
