//! Limits on connections: in total and per client network.

use std::net::IpAddr;
use std::sync::Arc;

use super::patience::Activity;
use crate::base::places::{self, Permit, Places};
use crate::settings::Limits;
use crate::telemetry::metrics::Metrics;

/// Admits connections: a permit is acquired before accepting, the client network is counted after.
pub(super) struct Admission {
    places: Arc<Places<Activity>>,
    metrics: Arc<Metrics>,
}

/// The permit of one connection; returned when dropped.
pub(super) struct Place {
    place: places::Place<Activity>,
    metrics: Arc<Metrics>,
}

impl Admission {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self { places: Places::new(limits.connections, limits.connections_per_ip), metrics }
    }

    /// Waits until one more connection may be accepted; further connections queue in the kernel.
    pub(super) async fn permit(&self) -> Permit {
        if self.places.are_taken() {
            self.metrics.connection_refused("cap");
        }
        self.places.permit(|| self.metrics.connection_refused("gave_way")).await
    }

    /// Counts a connection from `address` (IPv6: its /64). Returns `None` if that network has
    /// reached its limit.
    pub(super) fn admit(&self, permit: Permit, address: IpAddr, activity: &Arc<Activity>) -> Option<Place> {
        let Some(place) = self.places.admit(permit, address, Arc::clone(activity)) else {
            self.metrics.connection_refused("per_ip");
            return None;
        };
        self.metrics.connections(1);
        Some(Place { place, metrics: Arc::clone(&self.metrics) })
    }
}

impl Place {
    /// Returns once the permit was given to another connection; this one must close at once.
    pub(super) async fn taken_away(&self) {
        self.place.taken_away().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections(-1);
    }
}
