//! Tells the other gateways of a cluster which entries this one has, and which revision of each is
//! in force: everything after the first pass, and then what changed. A database that is away is
//! told when it is back.

use std::sync::Arc;
use std::time::Duration;

use rpds::RedBlackTreeMapSync;

use super::published_entry::PublishedEntry;
use super::registry::Registry;
use crate::base::task::Tasks;
use crate::store::{self, ChangeBatch, ClusterStore, NodeEntry};

/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

type Entries = RedBlackTreeMapSync<Arc<str>, PublishedEntry>;

/// The task that tells.
pub(super) struct EntryReporter {
    cluster: ClusterStore,
    registry: Registry,
    /// What was told last; `None` if everything must be told.
    told: Option<Entries>,
    is_failing: bool,
}

impl EntryReporter {
    pub(super) fn start(cluster: ClusterStore, registry: Registry, tasks: &Tasks) {
        let shutdown = tasks.shutdown_signal().clone();
        let telling = tasks.supervise("entry reports", move || {
            let reporter =
                Self { cluster: cluster.clone(), registry: registry.clone(), told: None, is_failing: false };
            let shutdown = shutdown.clone();
            async move {
                let _stopped = shutdown.run_until_cancelled(reporter.run()).await;
            }
        });
        tasks.spawn("entry reports", telling);
    }

    async fn run(mut self) {
        let mut generation = self.registry.subscribe_generation();
        let mut changes = self.cluster.subscribe();
        loop {
            generation.mark_unchanged();
            match self.tell_changes().await {
                Ok(()) => self.is_failing = false,
                Err(error) => {
                    self.report_failure(&error);
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            }
            tokio::select! {
                changed = generation.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = until_everything(&mut changes) => self.told = None,
            }
        }
    }

    async fn tell_changes(&mut self) -> Result<(), store::Error> {
        let table = self.registry.load_full();
        if !table.is_initial_scan_done {
            return Ok(());
        }
        match &self.told {
            None => {
                let entries: Vec<_> = table.entries.values().map(PublishedEntry::to_node_entry).collect();
                self.cluster.replace_entries(&entries).await?;
            }
            Some(told) => {
                let (changed, gone) = find_changes(told, &table.entries);
                if !changed.is_empty() || !gone.is_empty() {
                    self.cluster.update_entries(&changed, &gone, table.entries.size()).await?;
                }
            }
        }
        self.told = Some(table.entries.clone());
        Ok(())
    }

    fn report_failure(&mut self, error: &store::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "the other gateways cannot be told which revisions are in force here; the \
                                    gateway tries again every 2 s");
        }
    }
}

/// Waits until so much is unknown that everything must be told again: the database may be another
/// one, or an older copy.
async fn until_everything(changes: &mut store::ChangeSubscription) {
    while changes.next().await != ChangeBatch::Everything {}
}

/// Returns the entries that are not as they were told, and the ids of those that are gone.
fn find_changes(told: &Entries, now: &Entries) -> (Vec<NodeEntry>, Vec<String>) {
    let is_news = |entry_id: &Arc<str>, entry: &PublishedEntry| {
        let before = told.get(entry_id);
        // Most are the very same.
        before.is_none_or(|before| !before.is_same(entry) && before.to_node_entry() != entry.to_node_entry())
    };
    let changed = now.iter().filter(|(entry_id, entry)| is_news(entry_id, entry));
    let gone = told.keys().filter(|entry_id| !now.contains_key(*entry_id));
    (changed.map(|(_, entry)| entry.to_node_entry()).collect(), gone.map(ToString::to_string).collect())
}
