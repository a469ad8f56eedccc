//! The state of the reconciler, and when its next scan is due.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::ReconcilerConfig;
use super::folder::TenantsFolder;
use super::order_book::OrderBook;
use crate::base::task::Tasks;
use crate::bundle;
use crate::tenants::build::TenantDeps;
use crate::tenants::claim_index::ClaimIndex;
use crate::tenants::data_index::DataIndex;
use crate::tenants::drain::Drain;
use crate::tenants::entry::EntryMap;
use crate::tenants::entry_reporter::EntryReporter;
use crate::tenants::lookalikes::LookalikeIndex;
use crate::tenants::registry::{Registry, TablePublisher};
use crate::tenants::revision_writer::RevisionWriter;
use crate::tenants::stability::Observations;
use crate::tenants::status_file::StatusFileWriter;
use crate::tenants::usage_file::UsageFileWriter;
use crate::tenants::watch::WatchQueue;

/// The ids of the entries that changed in a pass.
pub(super) type ChangedEntries = BTreeSet<Arc<str>>;

/// The state of the task.
pub(super) struct Reconciler {
    pub(super) folder: TenantsFolder,
    pub(super) context: Arc<bundle::LoadContext>,
    pub(super) tenant_deps: TenantDeps,
    pub(super) registry: Registry,
    pub(super) publisher: TablePublisher,
    pub(super) drain: Drain,
    pub(super) status_files: Option<StatusFileWriter>,
    pub(super) entries: EntryMap,
    pub(super) claims: ClaimIndex,
    pub(super) data_index: DataIndex,
    pub(super) observations: Observations,
    pub(super) lookalikes: LookalikeIndex,
    pub(super) revision_writer: RevisionWriter,
    /// What operators ordered, if this gateway is one of a cluster.
    pub(super) orders: Option<OrderBook>,
    pub(super) watch_queue: WatchQueue,
    pub(super) generation: u64,
    pub(super) is_initial_scan_done: bool,
    pub(super) last_full_scan: Instant,
}

impl Reconciler {
    pub(super) fn new(config: ReconcilerConfig, queue: WatchQueue, tasks: &Tasks) -> Self {
        let ReconcilerConfig {
            source,
            watch,
            context,
            tenant_deps,
            publisher,
            store,
            stored_entries,
            cluster,
            ..
        } = config;
        let now = tenant_deps.clock.monotonic();
        let (folder, registry): (Arc<Path>, _) = (source.folder().into(), publisher.registry().clone());
        let (revision_writer, mut claims) =
            (RevisionWriter::new(store, stored_entries), ClaimIndex::default());
        revision_writer.unseen_claims().for_each(|(entry_id, claim)| claims.insert_stored(entry_id, claim));
        if let Some(cluster) = cluster.clone() {
            EntryReporter::start(cluster, registry.clone(), tasks);
        }
        if source.takes_files() {
            let (usage, clock) = (Arc::clone(&tenant_deps.usage), Arc::clone(&tenant_deps.clock));
            UsageFileWriter { folder: Arc::clone(&folder), registry: registry.clone(), usage, clock }
                .start(tasks);
        }
        Self {
            drain: Drain::start(tasks, Arc::clone(&tenant_deps.clock), tenant_deps.drain_period),
            // Nothing is written beside files that belong to no tenants folder, or follow Secrets.
            status_files: source
                .takes_files()
                .then(|| StatusFileWriter::start(tasks, folder, registry.clone())),
            folder: TenantsFolder::new(Arc::new(source), watch, queue.clone(), now),
            watch_queue: queue,
            orders: cluster.map(OrderBook::new),
            context,
            tenant_deps,
            registry,
            publisher,
            entries: EntryMap::new(),
            claims,
            data_index: DataIndex::default(),
            observations: Observations::default(),
            lookalikes: LookalikeIndex::default(),
            revision_writer,
            generation: 0,
            is_initial_scan_done: false,
            last_full_scan: now,
        }
    }

    /// Replaces the context of loading, and reads entries that are refused again.
    pub(super) async fn change_context(&mut self, context: Arc<bundle::LoadContext>) {
        self.context = context;
        self.entries.values_mut().for_each(|entry| entry.forget_refused_files());
        self.scan_all().await;
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn now(&self) -> Instant {
        self.tenant_deps.clock.monotonic()
    }

    /// Whether no entry waits for another scan.
    pub(super) fn is_stable(&self) -> bool {
        self.observations.len() == 0
    }

    /// Waits until the next periodic full scan is due.
    pub(super) async fn until_full_scan_due(&self) {
        self.sleep_until(self.last_full_scan + self.folder.scan_interval()).await;
    }

    /// Waits until unstable entries are due for another scan; forever if there are none.
    pub(super) async fn until_recheck_due(&self) {
        match self.observations.next_due() {
            Some(due) => self.sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn sleep_until(&self, due: Instant) {
        tokio::time::sleep(due.saturating_duration_since(self.now())).await;
    }
}
