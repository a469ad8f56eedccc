//! The published world: one immutable [`RoutingTable`] behind an atomic pointer, written by one task. Its maps are
//! persistent: the next world shares with the last one all that has not changed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rpds::RedBlackTreeMapSync;
use tokio::sync::watch;

use super::published::Published;
use super::status::State;
use super::tenant::Tenant;
use crate::routing::Router;
use crate::spec::HostName;

/// One consistent world.
#[derive(Clone, Default)]
pub struct RoutingTable {
    pub router: Router<Arc<Tenant>>,
    /// One for each entry in the folder, by stem.
    pub entries: RedBlackTreeMapSync<Arc<str>, Published>,
    /// How many entries are in each state, in the order of [`State::ALL`].
    pub counts: [usize; State::ALL.len()],
    /// Counts published tables.
    pub generation: u64,
    /// The first pass over the folder is complete.
    pub settled: bool,
}

impl RoutingTable {
    /// The entry of this name or stem.
    pub fn entry(&self, name: &str) -> Option<&Published> {
        let named = |entry: &&Published| entry.name() == name;
        self.entries.get(name).or_else(|| self.entries.values().find(named))
    }

    /// How many entries are in each state now: the trouble of backends and logins included, which no pass has seen. It
    /// asks every tenant, so it is for those who watch, not for requests.
    pub fn counts_now(&self) -> [(&'static str, i64); State::ALL.len()] {
        let mut counts = State::ALL.map(|state| (state.label(), 0));
        self.entries.values().for_each(|entry| counts[entry.state_now() as usize].1 += 1);
        counts
    }

    /// The tenants' own hosts, for certificates.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.router.hosts()
    }

    /// Takes an entry out, with all its mounts.
    pub(super) fn take_out(&mut self, stem: &str) {
        let Some(entry) = self.entries.get(stem) else { return };
        self.counts[entry.state() as usize] -= 1;
        let mounts = entry.tenant.iter().flat_map(|tenant| &tenant.spec.mounts);
        mounts.for_each(|mount| self.router.remove(mount));
        self.entries.remove_mut(stem);
    }

    /// Puts in an entry that is not there.
    pub(super) fn put_in(&mut self, stem: &Arc<str>, entry: Published) {
        self.counts[entry.state() as usize] += 1;
        if let Some(tenant) = &entry.tenant {
            tenant.spec.mounts.iter().for_each(|mount| self.router.insert(mount, Arc::clone(tenant)));
        }
        self.entries.insert_mut(Arc::clone(stem), entry);
    }
}

/// The reading end; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    table: Arc<ArcSwap<RoutingTable>>,
    generation: watch::Sender<u64>,
}

impl Registry {
    /// A world without tenants.
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

    /// The world as it is now, to keep across an await.
    pub fn load_full(&self) -> Arc<RoutingTable> {
        self.table.load_full()
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
