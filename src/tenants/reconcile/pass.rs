//! One pass: scan → classify → load → decide → build → publish → announce.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::ReconcilerConfig;
use super::read::{LoadedEntry, build_tenant, load_entry};
use crate::base::task::Tasks;
use crate::bundle;
use crate::tenants::build::TenantDeps;
use crate::tenants::claim_index::ClaimIndex;
use crate::tenants::claims::{self, ClaimRejection};
use crate::tenants::companions::Companions;
use crate::tenants::debounce::ScanRequest;
use crate::tenants::drain::Drain;
use crate::tenants::entry::{Entry, EntryMap};
use crate::tenants::lookalikes::LookalikeIndex;
use crate::tenants::registry::Registry;
use crate::tenants::revision_writer::RevisionWriter;
use crate::tenants::scan::{self, FolderId, NamedFiles, Observation, STABLE_AFTER, ScanResult, ScannedEntry};
use crate::tenants::stability::{self, Observations, PendingLoad};
use crate::tenants::status_file::StatusFileWriter;
use crate::tenants::watch::{FolderWatch, POLL_INTERVAL, ParentWatch, WatchQueue};

/// The number of concurrent readers: the cores of the smallest machine.
const READERS: usize = 2;
/// The number of entries that are read, and persisted, in one batch: reading an entry takes more
/// memory than keeping it.
pub(super) const BATCH_SIZE: usize = 256;
/// How long tenants are kept after their folder was replaced by an empty one: a volume may be about
/// to be mounted.
pub(super) const EMPTY_FOLDER_GRACE: Duration = Duration::from_secs(30);

/// The ids of the entries that changed in a pass.
pub(super) type ChangedEntries = BTreeSet<Arc<str>>;

/// The state of the task.
pub(super) struct Reconciler {
    pub(super) folder: Arc<Path>,
    watch_mode: crate::settings::WatchMode,
    pub(super) context: Arc<bundle::LoadContext>,
    pub(super) tenant_deps: TenantDeps,
    pub(super) registry: Registry,
    watch_queue: WatchQueue,
    pub(super) drain: Drain,
    pub(super) status_files: StatusFileWriter,
    watch: Option<FolderWatch>,
    _parent_watch: Option<ParentWatch>,
    folder_id: Option<FolderId>,
    /// Since when the folder is suspiciously empty or cannot be listed.
    suspect_since: Option<Instant>,
    pub(super) entries: EntryMap,
    pub(super) claims: ClaimIndex,
    companions: Companions,
    pub(super) observations: Observations,
    lookalikes: LookalikeIndex,
    pub(super) revision_writer: RevisionWriter,
    /// Whether the folder was seen with entries in it, or counts as empty for good.
    pub(super) is_folder_confirmed: bool,
    pub(super) started: Instant,
    pub(super) generation: u64,
    pub(super) is_initial_scan_done: bool,
    last_full_scan: Instant,
}

impl Reconciler {
    pub(super) fn new(ground: ReconcilerConfig, bell: WatchQueue, tasks: &Tasks) -> Self {
        let ReconcilerConfig {
            folder,
            watch,
            context,
            tenant_deps: parts,
            registry,
            store,
            stored_entries: kept,
        } = ground;
        let looked_at_all = parts.clock.monotonic();
        let folder: Arc<Path> = folder.into();
        let drain = Drain::start(tasks, Arc::clone(&parts.clock), parts.drain_period);
        let surroundings = ParentWatch::start(&folder, watch, &bell);
        let clerk = StatusFileWriter::start(tasks, Arc::clone(&folder), registry.clone());
        let (keeper, mut holdings) = (RevisionWriter::new(store, kept), ClaimIndex::default());
        keeper.unseen_claims().for_each(|(stem, holding)| holdings.insert_stored(stem, holding));
        Self {
            folder,
            watch_mode: watch,
            context,
            tenant_deps: parts,
            registry,
            watch_queue: bell,
            drain,
            status_files: clerk,
            watch: None,
            _parent_watch: surroundings,
            folder_id: None,
            suspect_since: None,
            entries: EntryMap::new(),
            claims: holdings,
            companions: Companions::default(),
            observations: Observations::new(),
            lookalikes: LookalikeIndex::default(),
            revision_writer: keeper,
            is_folder_confirmed: false,
            started: looked_at_all,
            generation: 0,
            is_initial_scan_done: false,
            last_full_scan: looked_at_all,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn now(&self) -> Instant {
        self.tenant_deps.clock.monotonic()
    }

    /// Whether no entry waits for another scan.
    pub(super) fn is_stable(&self) -> bool {
        self.observations.is_empty()
    }

    /// Runs the first pass, which takes the folder as it is.
    pub(super) async fn first_pass(&mut self) {
        self.scan_all().await;
        tracing::info!(folder = %self.folder.display(), entries = self.entries.len(), "tenants folder read");
    }

    pub(super) async fn scan_all(&mut self) {
        self.last_full_scan = self.tenant_deps.clock.monotonic();
        if let Some(watch) = &mut self.watch {
            watch.retry_if_due(&self.watch_queue);
        }
        self.run_pass(ScanRequest::default()).await;
    }

    /// Waits until the next periodic full scan is due.
    pub(super) async fn until_full_scan_due(&self) {
        // No event would announce that a missing folder is back, so it is polled.
        let due = self.last_full_scan + self.watch.as_ref().map_or(POLL_INTERVAL, FolderWatch::scan_interval);
        tokio::time::sleep(due.saturating_duration_since(self.tenant_deps.clock.monotonic())).await;
    }

    /// Waits until entries that have not settled are due for another scan; forever if there are
    /// none.
    pub(super) async fn until_recheck_due(&self) {
        let Some(first) = self.observations.values().map(|sighting| sighting.at).min() else {
            return std::future::pending().await;
        };
        let due = first + STABLE_AFTER;
        tokio::time::sleep(due.saturating_duration_since(self.tenant_deps.clock.monotonic())).await;
    }

    pub(super) async fn recheck_unstable(&mut self) {
        let stems = self.observations.keys().map(|stem| stem.to_string()).collect();
        self.run_pass(ScanRequest { entry_ids: Some(stems), ..ScanRequest::default() }).await;
    }

    /// Runs one pass over the entries of a scan request.
    pub(super) async fn run_pass(&mut self, mut look: ScanRequest) {
        let started = self.tenant_deps.clock.monotonic();
        let changed = match self.try_pass(&mut look).await {
            Ok(changed) => Some(changed),
            Err(error) => {
                self.report_scan_error(&error);
                None
            }
        };
        if !self.is_initial_scan_done {
            self.is_initial_scan_done = true;
            self.publish(&ChangedEntries::new()).await;
        }
        let clock = &self.tenant_deps.clock;
        let elapsed = clock.monotonic().saturating_duration_since(started);
        let now = clock.now().as_millisecond() as f64 / 1000.0;
        self.tenant_deps.metrics.record_pass(changed.is_some(), changed.unwrap_or(0), elapsed, now);
        self.tenant_deps.metrics.set_folder_state(
            self.observations.len(),
            self.watch.as_ref().is_some_and(FolderWatch::has_notifications),
        );
    }

    async fn try_pass(&mut self, look: &mut ScanRequest) -> io::Result<usize> {
        let moved = self.watch_folder()?;
        if moved || self.suspect_since.is_some() {
            // In a replaced folder all entries must be scanned: no event names those that are
            // missing.
            look.entry_ids = None;
        }
        look.entry_ids.iter_mut().for_each(|stems| self.lookalikes.add_lookalikes(stems));
        let scanned = self.scan(look).await?;
        self.lookalikes.update(&scanned, look.entry_ids.is_none());
        let found = scanned.entries;
        if self.is_suspiciously_empty(&found, look, moved) {
            return Ok(0);
        }
        let now = self.tenant_deps.clock.monotonic();
        let cold = !self.is_initial_scan_done;
        self.remove_absent(&found, look);
        self.watch_entry_folders(&found);
        let outcome = stability::classify(look, found, &self.entries, &mut self.observations, now, cold);
        let mut changed: ChangedEntries = outcome.removed.into_iter().collect();
        for stem in &changed {
            self.remove_entry(stem);
        }
        changed.extend(self.load_and_ingest(outcome.to_load, now).await);
        self.resolve_and_build(&mut changed);
        let news = self.persist(&changed).await;
        changed.extend(news);
        if !changed.is_empty() {
            self.is_initial_scan_done = true;
            self.publish(&changed).await;
        }
        Ok(changed.len())
    }

    /// Watches the current folder. Returns whether it was replaced.
    fn watch_folder(&mut self) -> io::Result<bool> {
        let id = FolderId::read(&self.folder)?;
        if self.folder_id == Some(id) && self.watch.is_some() {
            return Ok(false);
        }
        let moved = self.folder_id.replace(id).is_some_and(|before| before != id);
        self.watch = Some(FolderWatch::start(&self.folder, self.watch_mode, &self.watch_queue));
        Ok(moved)
    }

    async fn scan(&self, look: &ScanRequest) -> io::Result<ScanResult> {
        let (folder, only) = (self.folder.clone(), look.entry_ids.clone());
        let holders_of_name = self.named_files(look);
        let scan =
            tokio::task::spawn_blocking(move || scan::scan_folder(&folder, only.as_ref(), &holders_of_name));
        scan.await.map_err(io::Error::other)?
    }

    /// Returns the files that the entries' files name, as last read, whether or not that was
    /// accepted.
    fn named_files(&self, look: &ScanRequest) -> HashMap<Arc<str>, NamedFiles> {
        let is_looked_at = |stem: &str| look.entry_ids.as_ref().is_none_or(|stems| stems.contains(stem));
        let known = self.entries.iter().map(|(stem, known)| (stem, known.signature.named()));
        let known = known.filter(|(_, holders_of_name)| !holders_of_name.is_empty());
        let observe_unstable = self.observations.iter();
        let observe_unstable = observe_unstable
            .filter_map(|(stem, sighting)| Some((stem, sighting.signature.as_ref()?.named())));
        let holders_of_name = known.chain(observe_unstable).filter(|(stem, _)| is_looked_at(stem));
        holders_of_name
            .map(|(stem, holders_of_name)| (Arc::clone(stem), Arc::clone(holders_of_name)))
            .collect()
    }

    /// Whether an empty full scan may mean that the folder itself is missing.
    fn is_suspiciously_empty(&mut self, found: &[ScannedEntry], look: &ScanRequest, moved: bool) -> bool {
        if look.entry_ids.is_some() {
            return false;
        }
        if !found.is_empty() || self.entries.is_empty() {
            if self.suspect_since.take().is_some() {
                tracing::info!(folder = %self.folder.display(), "the tenants folder is there again");
            }
            return false;
        }
        let now = self.tenant_deps.clock.monotonic();
        if moved {
            self.suspect_since = Some(now);
            tracing::warn!(
                folder = %self.folder.display(),
                "the tenants folder was replaced by an empty one; its tenants are kept for 30 s in case it is being mounted"
            );
        }
        let doubtful = self.suspect_since.is_some_and(|since| now.duration_since(since) < EMPTY_FOLDER_GRACE);
        if doubtful {
            self.observations.clear();
        } else {
            self.suspect_since = None;
        }
        doubtful
    }

    fn report_scan_error(&mut self, error: &io::Error) {
        self.watch = None;
        self.observations.clear();
        if self.suspect_since.is_none() {
            self.suspect_since = Some(self.tenant_deps.clock.monotonic());
            tracing::warn!(
                %error,
                folder = %self.folder.display(),
                "the tenants folder cannot be read; its tenants go on as they are. Check that it exists and that this user may read it"
            );
        }
    }

    /// Watches tenants that are folders. A folder that changed may have been replaced, so its watch
    /// is renewed.
    fn watch_entry_folders(&mut self, found: &[ScannedEntry]) {
        let Some(watch) = &mut self.watch else { return };
        for found in found.iter().filter(|found| found.is_folder) {
            let stem = found.files.id.as_str();
            let is_as_it_was = self.entries.get(stem).is_some_and(|known| known.signature == found.signature);
            if !(is_as_it_was && watch.is_watching(stem)) {
                watch.watch_entry_folder(stem);
            }
        }
    }

    /// Reads entries in batches and updates the entry map. Returns those that changed.
    async fn load_and_ingest(&mut self, due: Vec<PendingLoad>, now: Instant) -> ChangedEntries {
        let (mut due, mut changed) = (due.into_iter(), ChangedEntries::new());
        while due.len() > 0 {
            let read = self.load_batch(due.by_ref().take(BATCH_SIZE).collect()).await;
            changed.extend(read.into_iter().filter_map(|read| self.ingest(read, now)));
        }
        changed
    }

    /// Reads entries on blocking threads, in a few shares. Returns them in order of their ids.
    async fn load_batch(&self, due: Vec<PendingLoad>) -> Vec<LoadedEntry> {
        let mut readers = JoinSet::new();
        let per_reader = due.len().div_ceil(READERS).max(1);
        let kept = |due: PendingLoad| (self.revision_writer.find_last_good(&due.scanned.files.id), due);
        let mut due: Vec<_> = due.into_iter().map(kept).collect();
        while !due.is_empty() {
            let rest = due.split_off(due.len().min(per_reader));
            let share = std::mem::replace(&mut due, rest);
            let (context, folder) = (Arc::clone(&self.context), self.folder.clone());
            let read_one = move |(last_good, due)| load_entry(due, last_good, &folder, &context);
            readers.spawn_blocking(move || share.into_iter().map(read_one).collect::<Vec<_>>());
        }
        let mut read: Vec<LoadedEntry> = readers.join_all().await.into_iter().flatten().collect();
        read.sort_by(|a, b| a.entry_id.cmp(&b.entry_id));
        read
    }

    /// Updates the entry map with what was read of an entry, unless it is still being written.
    fn ingest(&mut self, read: LoadedEntry, now: Instant) -> Option<Arc<str>> {
        if read.is_unstable(!self.entries.contains_key(&read.entry_id)) {
            stability::observe_unstable(&mut self.observations, read.entry_id, read.signature_after, now);
            return None;
        }
        self.observations.remove(&read.entry_id);
        let since = self.tenant_deps.clock.now();
        let known = self.entries.entry(Arc::clone(&read.entry_id)).or_insert_with(|| {
            Box::new(Entry::new(since, self.revision_writer.take_persisted(&read.entry_id)))
        });
        if let Some(revived) = read.restored {
            known.restore_last_good(revived, since, |spec, revision, slot| {
                build_tenant(&self.tenant_deps, &read.entry_id, spec, revision, slot)
            });
        }
        known.ingest(read.loaded, read.signature, read.files).then_some(read.entry_id)
    }

    pub(super) fn remove_entry(&mut self, stem: &Arc<str>) {
        let paused = self.entries.remove(stem).is_some_and(|known| known.is_paused());
        self.revision_writer.enqueue_removal(stem, paused);
        self.observations.remove(stem);
        tracing::info!(entry = %stem, "tenant removed");
    }

    /// Resolves all claims and builds the candidates that may serve; adds to `changed` the entries
    /// whose state changed.
    pub(super) fn resolve_and_build(&mut self, changed: &mut ChangedEntries) {
        self.update_claims(changed);
        if !self.claims.candidates().is_empty() {
            self.judge(changed);
            self.update_claims(changed);
        }
        self.warn_of_guards(changed);
    }

    fn judge(&mut self, changed: &mut ChangedEntries) {
        let now = self.tenant_deps.clock.now();
        let (holdings, sightings) = (&self.claims, &self.observations);
        let refused = claims::resolve(&self.claims.claim_requests(&self.entries, &self.companions));
        for stem in self.claims.candidates().clone() {
            let Some(known) = self.entries.get_mut(&stem) else { continue };
            let news = match refused.get(&*stem) {
                Some(refusal) => known
                    .reject(refusal.to_diagnostic(&stem), !is_holder_absent(refusal, holdings, sightings)),
                None => {
                    known.promote(now, |spec, revision, slot| {
                        build_tenant(&self.tenant_deps, &stem, spec, revision, slot)
                    });
                    true
                }
            };
            if news {
                changed.insert(stem);
            }
        }
    }

    fn update_claims(&mut self, changed: &ChangedEntries) {
        for stem in changed {
            let known = self.entries.get(stem).map(|known| &**known);
            self.claims.update(stem, known);
            let guards = known.map(Entry::guards).unwrap_or_default();
            let open = known.map(|known| known.open().to_vec()).unwrap_or_default();
            self.companions.note(stem, guards, open);
        }
    }

    /// Warns open entries if another entry guards the same data, and adds those whose warning
    /// changed to `changed`.
    fn warn_of_guards(&mut self, changed: &mut ChangedEntries) {
        for stem in self.companions.concerned(changed) {
            let Some(known) = self.entries.get_mut(&stem) else { continue };
            let guard = self.companions.guard(&stem, known.open());
            if known.note_guarded(guard.map(|by| claims::stays_open(by))) {
                changed.insert(stem);
            }
        }
    }
}

/// Whether the holder's files were missing in the last scan. The newcomer may be there to replace
/// them; the next scan shows whether they are gone, so the refusal does not last.
fn is_holder_absent(refusal: &ClaimRejection, holdings: &ClaimIndex, sightings: &Observations) -> bool {
    let away = |stem: &str| sightings.get(stem).is_some_and(Observation::is_absent);
    match refusal {
        ClaimRejection::NameTaken { holder, .. } => away(holder),
        ClaimRejection::MountTaken(conflict) => {
            holdings.holders_of_name(&conflict.holder).any(|stem| away(stem))
        }
        // When a guard goes away, that does not open the entries that it closed.
        ClaimRejection::NeedsAcceptance { .. } | ClaimRejection::Guarded { .. } => false,
    }
}
