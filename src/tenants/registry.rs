//! The published world: one immutable [`RoutingTable`] behind an atomic pointer, written by one task.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::status::TenantStatus;
use super::tenant::Tenant;
use crate::routing::Router;

/// One consistent world.
#[derive(Default)]
pub struct RoutingTable {
    pub router: Router<Arc<Tenant>>,
    /// By stem.
    pub statuses: BTreeMap<String, TenantStatus>,
    pub tenants: BTreeMap<String, Arc<Tenant>>,
    /// Counts published tables.
    pub generation: u64,
    /// The first pass over the folder is complete.
    pub settled: bool,
}

/// The reading end; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    table: Arc<ArcSwap<RoutingTable>>,
    generation: watch::Sender<u64>,
}

impl Registry {
    pub fn new() -> Self {
        Self {
            table: Arc::new(ArcSwap::from_pointee(RoutingTable::default())),
            generation: watch::Sender::new(0),
        }
    }

    /// The world as it is now. Take what you need and let go before any await.
    pub fn load(&self) -> arc_swap::Guard<Arc<RoutingTable>> {
        self.table.load()
    }

    /// Publishes a new world. Only the reconciler does.
    pub fn publish(&self, table: RoutingTable) {
        let generation = table.generation;
        self.table.store(Arc::new(table));
        self.generation.send_replace(generation);
    }

    /// The generation in force, to wait on.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}
