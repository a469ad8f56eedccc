//! The life of an entry as a state machine: all changes of its phase, by what causes them.
//!
//! | | `Unusable` | `Candidate` | `Live` | `LiveWithCandidate` |
//! |---|---|---|---|---|
//! | read: usable | `Candidate` | `Candidate` | `LiveWithCandidate` | `LiveWithCandidate` |
//! | read: the live revision | | | `Live`, open | `Live`, open |
//! | read: unusable | `Unusable` | `Unusable` | `Live`, closed if in doubt | as before |
//! | read: unusable, and a file of the live revision is gone | | | `Unusable` | `Unusable` |
//! | read: what a rollback replaced | `Unusable` | `Unusable` | `Live`, open | `Live`, open |
//! | restore | `Live` | `LiveWithCandidate` | | |
//! | reject | | `Candidate` | | `LiveWithCandidate`, closed if in doubt |
//! | hold back | | | | `LiveWithCandidate`, closed if in doubt |
//! | promote | | `Live`, open | | `Live`, open |
//! | promote, but building fails | | `Unusable` | | `Live`, closed if in doubt |
//! | roll back | `Candidate` | `Candidate` | `LiveWithCandidate` | `LiveWithCandidate` |
//! | pause or resume, but building fails | | | `Unusable` | `Candidate` |
//!
//! In doubt: unless the change certainly does not affect who may call.
//!
//! A rollback that is rejected or cannot be built leads back to the phase before it. Where a cell
//! is empty, the event cannot occur or changes nothing. A phase is taken out and put back within
//! one function, which calls nothing that may panic: builders catch panics.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::findings::rollback_lost_error;
use super::persisted::RestoredRevision;
use super::phase::{Candidate, ClaimDecision, LiveRevision, Phase, RevisionSource, Shelved};
use super::{Entry, UnwrittenRevision};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::bundle::LoadOutcome;
use crate::spec::{HoldChanges, TenantSpec};
use crate::tenants::scan::FileStamps;
use crate::tenants::tenant::{Tenant, TenantSlot};
use crate::tenants::tool_changes::{self, HeldChange};

/// Builds a tenant, and catches panics.
pub(in crate::tenants) trait BuildTenant:
    FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>
{
}

impl<F: FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>> BuildTenant for F {}

impl Entry {
    /// Updates the entry with what was read. Returns whether the content changed.
    pub(in crate::tenants) fn ingest(
        &mut self,
        mut loaded: LoadOutcome,
        stamps: FileStamps,
        files: Arc<[PathBuf]>,
    ) -> bool {
        self.stamps = stamps;
        let is_unchanged = self.on_disk == Some(loaded.digest) && self.files == files;
        self.files = files;
        if is_unchanged {
            return false;
        }
        self.on_disk = Some(loaded.digest);
        self.tool_text_warning = None;
        self.missed_rollback = None;
        self.clear_stale_rejection();
        self.name = loaded.name.take();
        self.report = mem::take(&mut loaded.report);
        self.restricted_data = loaded.restricted_data.take();
        let access = loaded.access_fingerprint;
        let candidate = Candidate::read(loaded, Arc::clone(&self.files)).map(Box::new);
        let (live, _) = mem::take(&mut self.phase).into_parts();
        self.phase = self.after_reading(live, candidate, access);
        true
    }

    /// Has the files read again in the next passes, unless they are in force as they are.
    pub(in crate::tenants) fn forget_refused_files(&mut self) {
        let in_force = self.phase.live().map(|live| live.tenant.revision);
        if in_force.is_none_or(|revision| self.on_disk != Some(revision))
            && !self.persisted.is_pinned(self.on_disk)
        {
            self.stamps = FileStamps::default();
            self.on_disk = None;
        }
    }

    /// After a refused change the live revision stays: open if the change certainly does not affect
    /// who may call, otherwise closed. If a file of that revision was deleted, the operator meant
    /// to remove it, and the revision ends.
    fn after_reading(
        &mut self,
        live: Option<LiveRevision>,
        candidate: Option<Box<Candidate>>,
        access: Option<Digest>,
    ) -> Phase {
        let is_pinned = self.persisted.is_pinned(self.on_disk);
        match (live, candidate) {
            (Some(live), _) if is_pinned => {
                live.open();
                Phase::Live(live)
            }
            (None, _) if is_pinned => {
                self.report.push(rollback_lost_error());
                Phase::Unusable
            }
            (Some(live), Some(candidate)) if candidate.revision == live.tenant.revision => {
                live.open();
                Phase::Live(live)
            }
            (Some(live), None) if live.has_lost_file(&self.files, &self.stamps) => {
                self.remember_claim(&live);
                Phase::Unusable
            }
            (Some(live), None) => {
                live.close_unless_access_unchanged(access);
                Phase::Live(live)
            }
            (live, candidate) => Phase::from_parts(live, candidate),
        }
    }

    /// Clears the rejection of a claim if the files changed since, so that the new claim is decided
    /// like any other.
    fn clear_stale_rejection(&mut self) {
        if self.persisted.rejected_digest.is_some() && self.persisted.rejected_digest != self.on_disk {
            self.persisted.rejected_digest = None;
            self.claims_changed = true;
        }
    }

    /// Puts the last good revision in force after a restart, until the entry's files are validated.
    pub(in crate::tenants) fn restore(
        &mut self,
        restored: RestoredRevision,
        now: Timestamp,
        build: impl BuildTenant,
    ) {
        let RestoredRevision { number, loaded, files } = restored;
        let restored = Candidate::stored(loaded, number, files).filter(|_| self.phase.live().is_none());
        // A revision that can no longer be built counts as none.
        let Some(Ok(live)) = restored.map(|restored| self.build_live(restored, Arc::default(), build)) else {
            return;
        };
        self.take_claim(None, &live, now);
        let (_, candidate) = mem::take(&mut self.phase).into_parts();
        self.phase = Phase::from_parts(Some(live), candidate);
    }

    /// Rejects the candidate. Returns whether that is new.
    ///
    /// If the candidate would change who may call, the live revision is closed, whatever the
    /// reason. A rejection that `lasts` stands until the files change or an operator accepts the
    /// claim. A rejected rollback is over.
    pub(in crate::tenants) fn reject(&mut self, rejection: Diagnostic, lasts: bool) -> bool {
        let (live, candidate) = match &mut self.phase {
            Phase::Unusable | Phase::Live(_) => return false,
            Phase::Candidate(candidate) => (None, candidate),
            Phase::LiveWithCandidate(live, candidate) => (Some(&*live), candidate),
        };
        if let Some(shelved) = candidate.shelved.take() {
            self.abandon_rollback(shelved, rejection.message);
            return true;
        }
        if let Some(live) = live {
            live.close_unless_access_unchanged(candidate.access_fingerprint);
        }
        let rejected = Some(candidate.revision).filter(|_| lasts && !candidate.is_forced());
        let is_first = rejected.is_some() && self.persisted.rejected_digest != rejected;
        if is_first {
            self.persisted.rejected_digest = rejected;
            self.claims_changed = true;
        }
        let is_news = is_first || candidate.rejection() != Some(&rejection);
        candidate.decision = ClaimDecision::Rejected(Box::new(rejection));
        is_news
    }

    /// Holds the candidate back if it changes what an operator wants to see first. Returns whether
    /// that is new.
    ///
    /// If the candidate would change who may call, or whether anybody may, the live revision is
    /// closed: what was revoked must not go on because of a text. A rollback is not held back,
    /// since an operator ordered it.
    pub(in crate::tenants) fn hold_back(&mut self) -> bool {
        let Phase::LiveWithCandidate(live, candidate) = &mut self.phase else { return false };
        let is_decided = candidate.is_held() || candidate.is_approved || candidate.shelved.is_some();
        if is_decided || candidate.spec.hold_changes == HoldChanges::Nothing {
            return false;
        }
        if self.orders.approved == Some(candidate.revision) {
            candidate.is_approved = true;
            return false;
        }
        let changes = tool_changes::compare(&live.tenant.spec, &candidate.spec);
        if changes.is_empty() {
            return false;
        }
        match candidate.spec.enabled || !live.is_enabled_by_files {
            true => live.close_unless_access_unchanged(candidate.access_fingerprint),
            false => live.tenant.slot.set_closed(true),
        }
        let documents = match &candidate.source {
            RevisionSource::New(documents) => documents.clone(),
            RevisionSource::Stored(_) => Vec::new(),
        };
        let finding = tool_changes::held_finding(&changes, live.tenant.spec.name.as_str());
        candidate.held = Some(Arc::new(HeldChange { revision: candidate.revision, documents, finding }));
        true
    }

    /// Approves the change that is held back, by order of an operator. Returns whether there is
    /// one.
    pub(in crate::tenants) fn approve(&mut self) -> bool {
        let Phase::LiveWithCandidate(_, candidate) = &mut self.phase else { return false };
        let was_held = candidate.held.take().is_some();
        candidate.is_approved |= was_held;
        was_held
    }

    /// Accepts the rejected claim by order of an operator, for the next decision. Returns whether
    /// there is one.
    pub(in crate::tenants) fn force(&mut self) -> bool {
        let (Phase::Candidate(candidate) | Phase::LiveWithCandidate(_, candidate)) = &mut self.phase else {
            return false;
        };
        let is_rejected = candidate.rejection().is_some();
        if is_rejected {
            candidate.decision = ClaimDecision::Forced;
        }
        is_rejected
    }

    /// Puts the candidate in force: builds it with `build`, in the slot of the live revision. If
    /// building fails, its findings reject it.
    pub(in crate::tenants) fn promote(&mut self, now: Timestamp, build: impl BuildTenant) {
        let (live, candidate) = mem::take(&mut self.phase).into_parts();
        let Some(mut candidate) = candidate else {
            self.phase = Phase::from_parts(live, None);
            return;
        };
        if self.persisted.rejected_digest == Some(candidate.revision) {
            self.persisted.rejected_digest = None;
            self.claims_changed = true;
        }
        let (access, shelved) = (candidate.access_fingerprint, candidate.shelved.take());
        let is_seen = candidate.is_approved || shelved.is_some();
        let tool_text_warning = live.as_ref().filter(|_| !is_seen).and_then(|live| {
            let changes = tool_changes::compare(&live.tenant.spec, &candidate.spec);
            (!changes.is_empty()).then(|| Box::new(tool_changes::live_finding(&changes)))
        });
        let slot = live.as_ref().map(|live| Arc::clone(&live.tenant.slot)).unwrap_or_default();
        match self.build_live(*candidate, slot, build) {
            Ok(promoted) => {
                promoted.open();
                self.missed_rollback.take_if(|_| shelved.is_some());
                self.tool_text_warning = tool_text_warning;
                self.persisted.pinned_digest =
                    self.on_disk.filter(|on_disk| shelved.is_some() && *on_disk != promoted.tenant.revision);
                self.take_claim(live.as_ref(), &promoted, now);
                self.phase = Phase::Live(promoted);
            }
            Err(report) => {
                self.report.extend(report);
                if let Some(live) = &live {
                    live.close_unless_access_unchanged(access);
                }
                self.phase = Phase::from_parts(live, None);
                if let Some(shelved) = shelved {
                    self.abandon_rollback(shelved, "the tenant cannot be built".to_owned());
                }
            }
        }
    }

    /// Makes a persisted revision the candidate, whatever the files say. If it is promoted, it
    /// stays until they change; if not, what waited before waits again, and
    /// [`take_rollback_failure`](Self::take_rollback_failure) says why.
    pub(in crate::tenants) fn roll_back(&mut self, revision: Candidate) {
        let (live, candidate) = mem::take(&mut self.phase).into_parts();
        let is_closed = live.as_ref().is_some_and(|live| live.tenant.slot.is_closed());
        let shelved = Some(Shelved { candidate, is_closed });
        let rollback = Box::new(Candidate { decision: ClaimDecision::Forced, shelved, ..revision });
        self.phase = Phase::from_parts(live, Some(rollback));
        self.rollback_failure = None;
    }

    /// Restores the phase before a rollback.
    fn abandon_rollback(&mut self, shelved: Shelved, why: String) {
        let (live, _) = mem::take(&mut self.phase).into_parts();
        if let Some(live) = &live {
            live.tenant.slot.set_closed(shelved.is_closed);
        }
        self.phase = Phase::from_parts(live, shelved.candidate);
        self.rollback_failure = Some(why.into());
    }

    /// Pauses or resumes the entry by order of an operator.
    pub(in crate::tenants) fn set_paused(&mut self, is_paused: bool, build: impl BuildTenant) {
        self.persisted.is_paused = is_paused;
        let (Phase::Live(live) | Phase::LiveWithCandidate(live, _)) = &self.phase else { return };
        let enabled = live.is_enabled_by_files && !is_paused;
        if live.tenant.spec.enabled == enabled {
            return;
        }
        let spec = TenantSpec { enabled, ..live.tenant.spec.clone() };
        self.rebuild_from(spec, build);
    }

    /// Builds the live tenant again, because something changed that is not in its files.
    pub(in crate::tenants) fn rebuild(&mut self, build: impl BuildTenant) {
        let (Phase::Live(live) | Phase::LiveWithCandidate(live, _)) = &self.phase else { return };
        let spec = live.tenant.spec.clone();
        self.rebuild_from(spec, build);
    }

    fn rebuild_from(&mut self, spec: TenantSpec, build: impl BuildTenant) {
        let (Phase::Live(live) | Phase::LiveWithCandidate(live, _)) = &mut self.phase else { return };
        match build(spec, live.tenant.revision, Arc::clone(&live.tenant.slot)) {
            Ok(tenant) => live.tenant = tenant,
            Err(report) => {
                self.report.extend(report);
                self.retire();
            }
        }
    }

    /// Takes the live revision out of force. Its claim stays reserved for the entry.
    fn retire(&mut self) {
        let (live, candidate) = mem::take(&mut self.phase).into_parts();
        if let Some(live) = live {
            self.remember_claim(&live);
        }
        self.phase = Phase::from_parts(None, candidate);
    }

    fn build_live(
        &mut self,
        candidate: Candidate,
        slot: Arc<TenantSlot>,
        build: impl BuildTenant,
    ) -> Result<LiveRevision, Report> {
        let Candidate { mut spec, revision, access_fingerprint, files, secret_files, source, .. } = candidate;
        let is_enabled_by_files = spec.enabled;
        spec.enabled &= !self.persisted.is_paused;
        let tenant = build(spec, revision, slot)?;
        let number = self.number(source, revision);
        self.persisted.in_force = Some((number, revision));
        Ok(LiveRevision { tenant, files, secret_files, access_fingerprint, number, is_enabled_by_files })
    }

    /// Returns the number of a revision. A new one gets the next, and is to be persisted.
    fn number(&mut self, source: RevisionSource, revision: Digest) -> u64 {
        match (source, self.persisted.in_force) {
            (RevisionSource::Stored(number), _) => number,
            (RevisionSource::New(_), Some((number, digest))) if digest == revision => number,
            (RevisionSource::New(documents), _) => {
                self.unwritten_revision = Some(Box::new(UnwrittenRevision { digest: revision, documents }));
                self.persisted.last_number += 1;
                self.persisted.last_number
            }
        }
    }

    /// Records that the entry holds the claim of a revision that becomes live, since `now` if it
    /// held another one before.
    fn take_claim(&mut self, before: Option<&LiveRevision>, live: &LiveRevision, now: Timestamp) {
        let held = before.map(|before| before.tenant.spec.claim());
        let held = held.or_else(|| self.persisted.last_held.as_deref().map(|held| held.claim()));
        if !held.is_some_and(|held| held.is_same_as(&live.tenant.spec.claim())) {
            self.persisted.held_since = Some(now);
            self.claims_changed = true;
        }
        self.persisted.last_held = None;
    }

    /// Keeps the claim of a revision that ends reserved for the entry.
    fn remember_claim(&mut self, live: &LiveRevision) {
        let since = self.persisted.held_since.unwrap_or_default();
        self.persisted.last_held = Some(Arc::new(live.tenant.spec.claim().to_held(since)));
    }
}

#[cfg(test)]
mod tests;
