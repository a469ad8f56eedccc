//! One pass: scan → classify → load → decide → build → persist → publish → announce.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::reconciler::{ChangedEntries, Reconciler};
use crate::tenants::TenantsSource;
use crate::tenants::claims::{self, ClaimRejection};
use crate::tenants::entry::Entry;
use crate::tenants::scan::{self, ScanRequest, ScanResult, ScannedEntry, SecretFiles};
use crate::tenants::stability::ScanContext;

impl Reconciler {
    /// Runs the first pass, which takes the folder as it is.
    pub(super) async fn first_pass(&mut self) {
        self.scan_all().await;
        match &**self.folder.source() {
            TenantsSource::Single(path) => tracing::info!(path = %path.display(), "the export was read"),
            TenantsSource::Folder(folder) | TenantsSource::Kubernetes(folder) => {
                let (folder, entries) = (folder.display(), self.entries.len());
                tracing::info!(%folder, entries, "the tenants folder was read");
            }
        }
    }

    /// Runs one pass over all entries.
    pub(super) async fn scan_all(&mut self) {
        self.last_full_scan = self.now();
        self.folder.retry_watch_if_due();
        self.run_pass(ScanRequest::default()).await;
    }

    /// Runs one pass over the entries that were not stable.
    pub(super) async fn recheck_unstable(&mut self) {
        let entry_ids = self.observations.entry_ids().map(|entry_id| entry_id.to_string()).collect();
        self.run_pass(ScanRequest { entry_ids: Some(entry_ids), ..ScanRequest::default() }).await;
    }

    /// Runs one pass over the entries of a scan request.
    pub(super) async fn run_pass(&mut self, mut request: ScanRequest) {
        let started = self.now();
        let changed = match self.try_pass(&mut request).await {
            Ok(changed) => Some(changed),
            Err(error) => {
                self.observations.clear();
                self.folder.report_scan_error(&error, self.tenant_deps.clock.monotonic());
                None
            }
        };
        if !self.is_initial_scan_done {
            self.is_initial_scan_done = true;
            self.publish(&ChangedEntries::new()).await;
        }
        let elapsed = self.now().saturating_duration_since(started);
        let now = self.tenant_deps.clock.now().as_millisecond() as f64 / 1000.0;
        let metrics = &self.tenant_deps.metrics;
        metrics.record_pass(changed.is_some(), changed.unwrap_or(0), elapsed, now);
        metrics.set_folder_state(self.observations.len(), self.folder.has_notifications());
    }

    /// Returns how many entries changed.
    async fn try_pass(&mut self, request: &mut ScanRequest) -> io::Result<usize> {
        let is_replaced = self.folder.watch()?;
        if is_replaced || self.folder.is_suspect() {
            // In a replaced folder all entries must be scanned: no event names those that are
            // missing.
            request.entry_ids = None;
        }
        request.entry_ids.iter_mut().for_each(|entry_ids| self.lookalikes.add_lookalikes(entry_ids));
        let scanned = self.scan(request).await?;
        self.lookalikes.update(&scanned, request.entry_ids.is_none());
        let scanned = scanned.entries;
        if request.entry_ids.is_none() && self.suspects_absence(&scanned, is_replaced) {
            self.observations.clear();
            return Ok(0);
        }
        let now = self.now();
        self.forget_absent(&scanned, request);
        self.watch_entry_folders(&scanned);
        let is_first = !self.is_initial_scan_done;
        let context = ScanContext { request, entries: &self.entries, now, is_first };
        let outcome = context.classify(scanned, &mut self.observations);
        let mut changed: ChangedEntries = outcome.removed.into_iter().collect();
        for entry_id in &changed {
            self.remove_entry(entry_id);
        }
        let ingested = self.load_and_ingest(outcome.to_load, now).await;
        self.follow_orders(&ingested, &mut changed).await;
        if request.entry_ids.is_none() {
            self.retry_missed_rollbacks(&mut changed).await;
        }
        changed.extend(ingested);
        self.resolve_and_build(&mut changed);
        self.note_missed_rollbacks(&mut changed);
        let news = self.persist(&changed).await;
        changed.extend(news);
        self.persist_orders(&changed).await;
        if !changed.is_empty() {
            self.is_initial_scan_done = true;
            self.publish(&changed).await;
        }
        Ok(changed.len())
    }

    async fn scan(&self, request: &ScanRequest) -> io::Result<ScanResult> {
        let (source, only) = (Arc::clone(self.folder.source()), request.entry_ids.clone());
        let secret_files = self.secret_files(request);
        let scan =
            tokio::task::spawn_blocking(move || scan::scan_folder(&source, only.as_ref(), &secret_files));
        scan.await.map_err(io::Error::other)?
    }

    /// Returns the files that the entries' files name, as last read, whether or not that was
    /// accepted.
    fn secret_files(&self, request: &ScanRequest) -> HashMap<Arc<str>, SecretFiles> {
        let read = self.entries.iter().map(|(entry_id, entry)| (entry_id, entry.stamps.secret_files()));
        let read = read.filter(|(_, secret_files)| !secret_files.is_empty());
        let secret_files = read.chain(self.observations.secret_files());
        let secret_files = secret_files.filter(|(entry_id, _)| request.includes(entry_id));
        secret_files
            .map(|(entry_id, secret_files)| (Arc::clone(entry_id), Arc::clone(secret_files)))
            .collect()
    }

    /// Whether a full scan found nothing, although there were tenants, because the folder itself
    /// may be missing.
    fn suspects_absence(&mut self, scanned: &[ScannedEntry], is_replaced: bool) -> bool {
        if scanned.is_empty() && !self.entries.is_empty() {
            return self.folder.update_suspicion(is_replaced, self.tenant_deps.clock.monotonic());
        }
        self.folder.clear_suspicion();
        false
    }

    fn watch_entry_folders(&mut self, scanned: &[ScannedEntry]) {
        for scanned in scanned.iter().filter(|scanned| scanned.is_folder) {
            let entry = self.entries.get(scanned.files.id.as_str());
            let is_unchanged = entry.is_some_and(|entry| entry.stamps == scanned.stamps);
            self.folder.watch_entry_folder(&scanned.files.id, is_unchanged);
        }
    }

    /// Removes an entry whose files are gone.
    pub(super) fn remove_entry(&mut self, entry_id: &Arc<str>) {
        let is_paused = self.entries.remove(entry_id).is_some_and(|entry| entry.is_paused());
        self.revision_writer.enqueue_removal(entry_id, is_paused);
        self.observations.remove(entry_id);
        tracing::info!(entry = %entry_id, "tenant removed");
    }

    /// Resolves all claims and builds the candidates that may serve; adds to `changed` the entries
    /// whose state changed.
    pub(super) fn resolve_and_build(&mut self, changed: &mut ChangedEntries) {
        self.update_indexes(changed);
        if !self.claims.candidates().is_empty() {
            self.decide(changed);
            self.update_indexes(changed);
        }
        self.warn_of_open_data(changed);
    }

    /// Promotes or rejects each candidate.
    fn decide(&mut self, changed: &mut ChangedEntries) {
        let now = self.tenant_deps.clock.now();
        self.hold_back(changed);
        let rejections = claims::resolve(&self.claims.claim_requests(&self.entries, &self.data_index));
        for entry_id in self.claims.candidates().clone() {
            let lasts = |rejection| !self.is_holder_absent(rejection);
            let rejection = rejections.get(&*entry_id).map(|it| (it.to_diagnostic(&entry_id), lasts(it)));
            let Some(entry) = self.entries.get_mut(&entry_id).filter(|entry| !entry.is_held()) else {
                continue;
            };
            let is_news = match rejection {
                Some((rejection, lasts)) => entry.reject(rejection, lasts),
                None if let Some(taken) = self.tenant_deps.find_taken_listener(entry.wanted_listener()) => {
                    // Tried again in every pass.
                    entry.reject(taken, false)
                }
                None => {
                    entry.promote(now, self.tenant_deps.builder(&entry_id));
                    true
                }
            };
            if is_news {
                changed.insert(entry_id);
            }
        }
    }

    /// Holds back the candidates that an operator wants to see first. They claim nothing meanwhile.
    fn hold_back(&mut self, changed: &mut ChangedEntries) {
        for entry_id in self.claims.candidates() {
            if self.entries.get_mut(entry_id).is_some_and(|entry| entry.hold_back()) {
                changed.insert(Arc::clone(entry_id));
            }
        }
    }

    /// Whether the holder's files were missing in the last scan. The newcomer may be there to
    /// replace them; the next scan shows whether they are gone, so the rejection does not last.
    fn is_holder_absent(&self, rejection: &ClaimRejection) -> bool {
        match rejection {
            ClaimRejection::NameTaken { holder, .. } => self.observations.is_absent(holder),
            ClaimRejection::MountTaken(conflict) => {
                let mut holders = self.claims.holders_of_name(&conflict.holder);
                holders.any(|entry_id| self.observations.is_absent(entry_id))
            }
            // When a guard goes away, that does not open the entries that it closed.
            ClaimRejection::NeedsAcceptance { .. } | ClaimRejection::DataRestricted { .. } => false,
        }
    }

    fn update_indexes(&mut self, changed: &ChangedEntries) {
        for entry_id in changed {
            let entry = self.entries.get(entry_id).map(|entry| &**entry);
            self.claims.update(entry_id, entry);
            let guards = entry.map(Entry::restricted_data).unwrap_or_default();
            let open = entry.map(|entry| entry.implicitly_open_data().to_vec()).unwrap_or_default();
            self.data_index.update(entry_id, guards, open);
        }
    }

    /// Warns open entries if another entry guards the same data, and adds those whose warning
    /// changed to `changed`.
    fn warn_of_open_data(&mut self, changed: &mut ChangedEntries) {
        for entry_id in self.data_index.take_affected(changed) {
            let Some(entry) = self.entries.get_mut(&entry_id) else { continue };
            let guard = self.data_index.find_restricting_entry(&entry_id, entry.implicitly_open_data());
            if entry.set_open_data_warning(guard.map(|by| claims::open_data_warning(by))) {
                changed.insert(entry_id);
            }
        }
    }
}
