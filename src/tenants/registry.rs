//! The published state: one immutable [`RoutingTable`] behind an atomic pointer, written by one
//! task. Its maps are persistent, so that a new table shares everything unchanged with the last
//! one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rpds::RedBlackTreeMapSync;
use tokio::sync::watch;

use super::published_entry::PublishedEntry;
use super::status::TenantState;
use super::tenant::Tenant;
use crate::routing::Router;
use crate::spec::HostName;

/// One consistent state of all tenants.
#[derive(Clone, Default)]
pub struct RoutingTable {
    /// Routes a host and path to a tenant.
    pub router: Router<Arc<Tenant>>,
    /// The state of every entry in the folder, by entry id.
    pub entries: RedBlackTreeMapSync<Arc<str>, PublishedEntry>,
    /// The number of entries in each state, in the order of [`TenantState::ALL`].
    pub counts: [usize; TenantState::ALL.len()],
    /// The number of tables published so far.
    pub generation: u64,
    /// Whether the first pass over the folder is complete.
    pub is_initial_scan_done: bool,
}

impl RoutingTable {
    /// Returns the entry with this name or id.
    pub fn find_entry(&self, name: &str) -> Option<&PublishedEntry> {
        let named = |entry: &&PublishedEntry| entry.name() == name;
        self.entries.get(name).or_else(|| self.entries.values().find(named))
    }

    /// Returns the number of entries in each current state, degraded ones included. Visits every
    /// tenant, so it is meant for monitoring and not for requests.
    pub fn count_current_states(&self) -> [(&'static str, i64); TenantState::ALL.len()] {
        let mut counts = TenantState::ALL.map(|state| (state.as_str(), 0));
        self.entries.values().for_each(|entry| counts[entry.current_state() as usize].1 += 1);
        counts
    }

    /// Returns the tenants' own hosts, for certificates.
    pub fn tenant_hosts(&self) -> impl Iterator<Item = &HostName> {
        self.router.tenant_hosts()
    }

    /// Removes an entry with all its mounts.
    pub(super) fn remove_entry(&mut self, entry_id: &str) {
        let Some(entry) = self.entries.get(entry_id) else { return };
        self.counts[entry.last_state() as usize] -= 1;
        let mounts = entry.tenant.iter().flat_map(|tenant| &tenant.spec.mounts);
        mounts.for_each(|mount| self.router.remove(mount));
        self.entries.remove_mut(entry_id);
    }

    /// Inserts an entry that is not in the table.
    pub(super) fn insert_entry(&mut self, entry_id: &Arc<str>, entry: PublishedEntry) {
        self.counts[entry.last_state() as usize] += 1;
        if let Some(tenant) = &entry.tenant {
            tenant.spec.mounts.iter().for_each(|mount| self.router.insert(mount, Arc::clone(tenant)));
        }
        self.entries.insert_mut(Arc::clone(entry_id), entry);
    }
}

/// The readers' handle on the published table. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    table: Arc<ArcSwap<RoutingTable>>,
    generation: watch::Sender<u64>,
}

impl Registry {
    /// Returns the current table. Do not hold it across an await.
    pub fn load(&self) -> arc_swap::Guard<Arc<RoutingTable>> {
        self.table.load()
    }

    /// Returns the current table, to be held across an await.
    pub fn load_full(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// Subscribes to the generation of the current table.
    pub fn subscribe_generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// The right to publish tables, which only the reconciler has. Cheap to clone.
#[derive(Clone)]
pub struct TablePublisher(Registry);

impl Default for TablePublisher {
    /// Creates a registry with an empty table.
    fn default() -> Self {
        Self(Registry { table: Arc::default(), generation: watch::Sender::new(0) })
    }
}

impl TablePublisher {
    /// Returns the readers' handle.
    pub fn registry(&self) -> &Registry {
        &self.0
    }

    /// Publishes a new table.
    pub fn publish(&self, table: RoutingTable) {
        let generation = table.generation;
        self.0.table.store(Arc::new(table));
        self.0.generation.send_replace(generation);
    }
}
