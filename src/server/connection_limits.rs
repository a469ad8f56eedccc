//! Limits on connections: in total and per client network.

use std::net::IpAddr;
use std::sync::Arc;

use super::connection::Activity;
use crate::base::evicting_limiter::{AcceptPermit, EvictablePermit, EvictingLimiter};
use crate::settings::Limits;
use crate::telemetry::metrics::Metrics;

/// Admits connections: a permit is acquired before accepting, the client network is counted after.
pub(super) struct ConnectionLimiter {
    limiter: Arc<EvictingLimiter<Activity>>,
    metrics: Arc<Metrics>,
}

/// The permit of one connection; returned when dropped.
pub(super) struct ConnectionPermit {
    permit: EvictablePermit<Activity>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self { limiter: EvictingLimiter::new(limits.connections, limits.connections_per_ip), metrics }
    }

    /// Changes how many connections there may be, of all and of one client network. Those that are
    /// open stay.
    pub(super) fn set_limits(&self, limits: &Limits) {
        self.limiter.set_max(limits.connections);
        self.limiter.set_per_network(limits.connections_per_ip);
    }

    /// Whether any connection waits for its client's next request.
    pub(super) fn has_waiting(&self) -> bool {
        self.limiter.has_waiting()
    }

    /// Waits until one more connection may be accepted; further connections queue in the kernel.
    pub(super) async fn acquire(&self) -> AcceptPermit {
        if self.limiter.is_full() {
            self.metrics.record_refused_connection("cap");
        }
        self.limiter.acquire(|| self.metrics.record_refused_connection("gave_way")).await
    }

    /// Counts a connection from `address` (IPv6: its /64). Returns `None` if that network has
    /// reached its limit.
    pub(super) fn admit(
        &self,
        permit: AcceptPermit,
        address: IpAddr,
        activity: &Arc<Activity>,
    ) -> Option<ConnectionPermit> {
        let Some(permit) = self.limiter.admit(permit, address, Arc::clone(activity)) else {
            self.metrics.record_refused_connection("per_ip");
            return None;
        };
        self.metrics.add_connections(1);
        Some(ConnectionPermit { permit, metrics: Arc::clone(&self.metrics) })
    }
}

impl ConnectionPermit {
    /// Returns once the permit was given to another connection; this one must close at once.
    pub(super) async fn evicted(&self) {
        self.permit.evicted().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.metrics.add_connections(-1);
    }
}
