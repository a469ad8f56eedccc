//! What a gateway knows of the others with which it shares a database.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;

/// The families about the gateways that share a database. Without one a gateway is alone.
#[derive(Debug, Default)]
pub(super) struct ClusterMetrics {
    live_nodes: Gauge,
    silence: Gauge<f64, AtomicU64>,
    stale: Gauge,
}

impl ClusterMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.live_nodes.set(1);
        let live = "Gateways that share rates with this one, itself included";
        registry.register("tenantd_cluster_live_nodes", live, self.live_nodes.clone());
        let silence = "Seconds since this gateway last knew all that others had changed";
        registry.register("tenantd_cluster_silence_seconds", silence, self.silence.clone());
        let stale = "1 while this gateway cannot know what others revoked";
        registry.register("tenantd_cluster_stale", stale, self.stale.clone());
    }
}

impl Metrics {
    /// Sets the number of gateways among which rates are shared.
    pub fn set_live_nodes(&self, nodes: u32) {
        self.cluster.live_nodes.set(nodes.into());
    }

    /// Sets for how long nothing was heard of the others, and whether that is too long.
    pub fn set_cluster_silence(&self, silence: Duration, is_stale: bool) {
        self.cluster.silence.set(silence.as_secs_f64());
        self.cluster.stale.set(is_stale.into());
    }
}
