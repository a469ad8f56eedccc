//! What one gateway does of what all that live do together: its share of rates, and whether it tells
//! what all see alike. Without a database it does the whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Gateway;
use crate::alerts::Teller;
use crate::base::live_nodes::LiveNodes;
use crate::base::random;
use crate::store::{ClusterStore, Store};
use crate::telemetry::metrics::Metrics;
use crate::tenants::registry::Registry;

/// How often a gateway looks which others live.
const INTERVAL: Duration = Duration::from_secs(3);

/// Follows the gateways that live. While the database is away, what was known last stands.
pub(super) fn follow(gateway: &Gateway) -> Teller {
    let cluster = gateway.store.as_ref().and_then(Store::cluster);
    let (nodes, registry) = (gateway.tenant_deps.usage.live_nodes().clone(), gateway.registry.clone());
    let Some(cluster) = cluster else { return Teller::new(watch::channel(true).1) };
    let (tells, teller) = watch::channel(false);
    let metrics = Arc::clone(&gateway.tenant_deps.metrics);
    let shares =
        NodeShares { metrics, cluster, nodes, registry, teller: random::bytes(), tells, placed: (1, 0) };
    let abort = gateway.tasks.abort_signal().clone();
    gateway
        .tasks
        .spawn_detached("node shares", async move { _ = abort.run_until_cancelled(shares.run()).await });
    Teller::new(teller)
}

struct NodeShares {
    cluster: ClusterStore,
    nodes: LiveNodes,
    registry: Registry,
    metrics: Arc<Metrics>,
    /// This process among those that could tell.
    teller: [u8; 16],
    tells: watch::Sender<bool>,
    /// The number of gateways, and the generation of tenants, that places were shared out for.
    placed: (u32, u64),
}

impl NodeShares {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Whoever follows changes counts the others with each answer of the database.
            self.nodes.set(self.cluster.freshness().other_nodes().saturating_add(1));
            self.metrics.set_live_nodes(self.nodes.count());
            self.share_places();
            if let Ok(tells) = self.cluster.hold_telling(self.teller).await {
                self.tells.send_if_modified(|told| std::mem::replace(told, tells) != tells);
            }
        }
    }

    /// Gives each tenant its share of calls at once, if that has changed.
    fn share_places(&mut self) {
        let table = self.registry.load_full();
        let wanted = (self.nodes.count(), table.generation);
        if self.placed == wanted {
            return;
        }
        for tenant in table.entries.values().filter_map(|entry| entry.tenant.as_ref()) {
            let places = self.nodes.share_places(tenant.spec.limits.concurrent_calls);
            tenant.slot.backend.set_places(places);
        }
        self.placed = wanted;
    }
}
