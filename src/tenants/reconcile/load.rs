//! Reads the entries that are due, each in isolation: a panic is a fault of ours that affects only
//! this entry.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::reconciler::{ChangedEntries, Reconciler};
use crate::base::diagnostic::{Location, Report};
use crate::base::digest::Digest;
use crate::base::panic::catch_panic_sync;
use crate::bundle::{self, EntryFiles, LoadOutcome};
use crate::spec::TenantSpec;
use crate::tenants::TenantsSource;
use crate::tenants::build::internal_error;
use crate::tenants::entry::{Entry, LastGoodRevision, RestoredRevision};
use crate::tenants::scan::{FileStamps, ScannedEntry};
use crate::tenants::stability::PendingLoad;

/// The number of concurrent readers: the cores of the smallest machine.
const READERS: usize = 2;
/// The number of entries that are read in one batch: reading an entry takes more memory than
/// keeping it.
const BATCH_SIZE: usize = 256;

/// What was read of one entry.
struct LoadedEntry {
    entry_id: Arc<str>,
    loaded: LoadOutcome,
    stamps: FileStamps,
    /// The stamps of the files after reading.
    stamps_after: FileStamps,
    files: Arc<[PathBuf]>,
    /// The last good revision, if these files are not it.
    restored: Option<RestoredRevision>,
    is_provisional: bool,
}

impl Reconciler {
    /// Reads entries in batches and updates the entry map. Returns those that changed.
    pub(super) async fn load_and_ingest(&mut self, due: Vec<PendingLoad>, now: Instant) -> ChangedEntries {
        let (mut due, mut changed) = (due.into_iter(), ChangedEntries::new());
        while due.len() > 0 {
            let batch = self.load_batch(due.by_ref().take(BATCH_SIZE).collect()).await;
            changed.extend(batch.into_iter().filter_map(|loaded| self.ingest(loaded, now)));
        }
        changed
    }

    /// Reads entries on blocking threads, in a few shares. Returns them in order of their ids.
    async fn load_batch(&self, due: Vec<PendingLoad>) -> Vec<LoadedEntry> {
        let mut readers = JoinSet::new();
        let per_reader = due.len().div_ceil(READERS).max(1);
        let with_last_good =
            |due: PendingLoad| (self.revision_writer.find_last_good(&due.scanned.files.id), due);
        let mut due: Vec<_> = due.into_iter().map(with_last_good).collect();
        while !due.is_empty() {
            let rest = due.split_off(due.len().min(per_reader));
            let share = std::mem::replace(&mut due, rest);
            let (context, source) = (Arc::clone(&self.context), Arc::clone(self.folder.source()));
            let load = move |(last_good, due)| load_entry(due, last_good, &source, &context);
            readers.spawn_blocking(move || share.into_iter().map(load).collect::<Vec<_>>());
        }
        let mut loaded: Vec<LoadedEntry> = readers.join_all().await.into_iter().flatten().collect();
        loaded.sort_by(|a, b| a.entry_id.cmp(&b.entry_id));
        loaded
    }

    /// Updates the entry map with what was read of an entry, unless it is unstable. Returns its id
    /// if it changed.
    fn ingest(&mut self, read: LoadedEntry, now: Instant) -> Option<Arc<str>> {
        let LoadedEntry { entry_id, loaded, stamps, stamps_after, files, restored, is_provisional } = read;
        let is_new = !self.entries.contains_key(&entry_id);
        if stamps_after != stamps || is_in_doubt(&loaded, is_provisional, is_new) {
            self.observations.observe(&entry_id, Some(stamps_after), now);
            return None;
        }
        self.observations.remove(&entry_id);
        let since = self.tenant_deps.clock.now();
        let entry = self
            .entries
            .entry(Arc::clone(&entry_id))
            .or_insert_with(|| Box::new(Entry::new(since, self.revision_writer.take_persisted(&entry_id))));
        if let Some(restored) = restored {
            entry.restore(restored, since, self.tenant_deps.builder(&entry_id));
        }
        entry.ingest(loaded, stamps, files).then_some(entry_id)
    }
}

/// Whether an entry may be incomplete, or could not be read for a temporary reason. A new one that
/// is only a zip and open to everybody is: the overlay that restricts it may still be coming.
fn is_in_doubt(loaded: &LoadOutcome, is_provisional: bool, is_new: bool) -> bool {
    let is_newly_open = |spec: &TenantSpec| is_new && spec.access.is_open();
    (is_provisional && loaded.spec.as_ref().is_none_or(is_newly_open)) || loaded.is_out_of_resources()
}

/// Reads one entry. Blocking.
fn load_entry(
    due: PendingLoad,
    last_good: Option<LastGoodRevision>,
    source: &TenantsSource,
    context: &bundle::LoadContext,
) -> LoadedEntry {
    let PendingLoad { scanned: ScannedEntry { files: entry, stamps, .. }, is_provisional } = due;
    let mut loaded =
        catch_panic_sync(|| bundle::load(&entry, context)).unwrap_or_else(|_| failed_load(&entry));
    let stamps = stamps.with_secret_files(&loaded.secret_files);
    let stamps_after = FileStamps::read(&entry, Arc::clone(stamps.secret_files()));
    let restore =
        |last_good: LastGoodRevision| last_good.restore(&loaded, &entry.files, source.folder(), context);
    let restored = catch_panic_sync(|| last_good.and_then(restore)).unwrap_or_default();
    source.name_places(&entry.id, &mut loaded.report);
    let (entry_id, files) = (entry.id.as_str().into(), entry.files.into());
    LoadedEntry { entry_id, loaded, stamps, stamps_after, files, restored, is_provisional }
}

fn failed_load(entry: &EntryFiles) -> LoadOutcome {
    let finding = internal_error("reading this entry failed inside tenantd");
    let located = match entry.files.first() {
        Some(file) => finding.at(Location::file(file)),
        None => finding,
    };
    LoadOutcome {
        digest: Digest::of(entry.id.as_bytes()),
        name: None,
        dataset: None,
        spec: None,
        access_fingerprint: None,
        restricted_data: None,
        report: Report::from(located),
        secret_files: Vec::new(),
        snapshot: None,
    }
}
