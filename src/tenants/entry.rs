//! The reconciler's state of each entry: the files as last read, and the revision in force.
//!
//! An entry's life is a state machine: `phase` has its phases, `transitions` all that changes them.

mod findings;
mod orders;
mod persisted;
mod phase;
mod transitions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use self::phase::{LiveRevision, Phase};
use super::claims::ClaimRequest;
use super::published_entry::{EntryDetails, PublishedEntry};
use super::scan::FileStamps;
use super::status::TenantState;
use super::tenant::Tenant;
use super::tool_changes::HeldChange;
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::spec::{DataFingerprint, DataFingerprints, HeldClaim, TenantClaim, TenantName};
use crate::store::{self, EntryOrders};

pub(super) use self::orders::RollbackNeed;
pub(super) use self::persisted::{LastGoodRevision, PersistedState, RestoredRevision};
pub(super) use self::phase::Candidate;
pub(super) use self::transitions::BuildTenant;

/// All entries, by entry id. Boxed, since the nodes of a map are half empty.
pub(super) type EntryMap = BTreeMap<Arc<str>, Box<Entry>>;

/// The state of one entry.
pub(super) struct Entry {
    /// The stamps of the files as last read.
    pub(super) stamps: FileStamps,
    files: Arc<[PathBuf]>,
    on_disk: Option<Digest>,
    name: Option<TenantName>,
    /// The findings about the current files.
    report: Report,
    /// What the files, as last read, give to authorized callers only.
    restricted_data: Option<Box<DataFingerprints>>,
    /// The warning that another entry guards what this one gives to everybody.
    open_data_warning: Option<Box<Diagnostic>>,
    /// The warning that the live revision changed what the model reads.
    tool_text_warning: Option<Box<Diagnostic>>,
    phase: Phase,
    persisted: PersistedState,
    /// Whether the claim that it holds, or its rejected claim, changed and must be persisted.
    claims_changed: bool,
    /// The revision that was put in force and must be persisted.
    unwritten_revision: Option<Box<UnwrittenRevision>>,
    /// Whether the revision in force could not be persisted.
    is_unpersisted: bool,
    /// Why the last rollback failed, until that is announced.
    rollback_failure: Option<Box<str>>,
    /// What operators ordered about it in a cluster.
    orders: EntryOrders,
    /// Whether what they ordered is to be written to this gateway's store.
    is_order_unwritten: bool,
    /// Why the revision that an order puts in force instead of the files is not in force.
    missed_rollback: Option<Box<Diagnostic>>,
    state: TenantState,
    since: Timestamp,
}

/// A revision in force that is not persisted.
struct UnwrittenRevision {
    digest: Digest,
    /// The encoded snapshot.
    documents: Vec<u8>,
}

/// How an entry holds its claim.
#[derive(Clone)]
pub(super) enum ClaimBasis {
    /// With the revision in force.
    Live(Arc<Tenant>),
    /// With the last one that was: its files cannot be used now, or were not read since the process
    /// started.
    LastHeld(Arc<HeldClaim>),
}

impl ClaimBasis {
    /// Returns the claim.
    pub(super) fn claim(&self) -> TenantClaim<'_> {
        match self {
            Self::Live(tenant) => tenant.spec.claim(),
            Self::LastHeld(held) => held.claim(),
        }
    }

    /// Whether both are the same tenant or the same record.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live(one), Self::Live(other)) => Arc::ptr_eq(one, other),
            (Self::LastHeld(one), Self::LastHeld(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Entry {
    /// Creates the state of an entry that is seen for the first time.
    pub(super) fn new(now: Timestamp, persisted: PersistedState) -> Self {
        Self {
            stamps: FileStamps::default(),
            files: Arc::default(),
            on_disk: None,
            name: None,
            report: Report::new(),
            restricted_data: None,
            open_data_warning: None,
            tool_text_warning: None,
            phase: Phase::default(),
            persisted,
            claims_changed: false,
            unwritten_revision: None,
            is_unpersisted: false,
            rollback_failure: None,
            orders: EntryOrders::default(),
            is_order_unwritten: false,
            missed_rollback: None,
            state: TenantState::Loading,
            since: now,
        }
    }

    /// Returns what the entry wants and holds, for the resolution of claims.
    pub(super) fn claim_request<'a>(&'a self, entry_id: &'a str) -> ClaimRequest<'a> {
        // One that waits for approval keeps what it has and takes nothing yet.
        let candidate = self.phase.candidate().filter(|candidate| !candidate.is_held());
        // Earlier versions stored no claims: a revision in force with these very files holds what
        // they claim.
        let was_in_force = |candidate: &&Candidate| {
            self.persisted.in_force.is_some_and(|(_, digest)| digest == candidate.revision)
        };
        let unrecorded = candidate.filter(was_in_force).map(|candidate| candidate.spec.claim());
        let is_rejected = |candidate: &Candidate| {
            !candidate.is_forced() && self.persisted.rejected_digest == Some(candidate.revision)
        };
        let newly_open_data = candidate.filter(|it| !was_in_force(it)).map(|it| self.newly_open_data(it));
        ClaimRequest {
            entry_id,
            wanted: candidate.map(|candidate| candidate.spec.claim()),
            held: self.held_claim().or(unrecorded),
            was_rejected: candidate.is_some_and(is_rejected),
            newly_open_data: newly_open_data.unwrap_or_default(),
            restricted_data: self.restricted_data(),
        }
    }

    /// Returns what a candidate would newly give to everybody without an explicit order in its
    /// files or by an operator.
    fn newly_open_data(&self, candidate: &Candidate) -> Vec<DataFingerprint> {
        if candidate.is_forced() || !candidate.spec.enabled {
            return Vec::new();
        }
        let is_open = |live: &&LiveRevision| live.is_enabled_by_files && live.tenant.spec.access.is_open();
        let live = self.phase.live().filter(is_open);
        let before = live.map(|live| live.tenant.spec.backend.data.effective.as_slice()).unwrap_or_default();
        candidate
            .spec
            .implicitly_open_data()
            .iter()
            .filter(|fingerprint| !before.contains(fingerprint))
            .copied()
            .collect()
    }

    /// Returns what the entry gives to authorized callers only: by its candidate, or without one by
    /// the live revision and the files as last read.
    pub(super) fn restricted_data(&self) -> Vec<DataFingerprint> {
        if let Some(candidate) = self.phase.candidate().filter(|candidate| !candidate.is_held()) {
            return candidate.spec.restricted_data().into_iter().flat_map(DataFingerprints::all).collect();
        }
        let live = self.phase.live().and_then(|live| live.tenant.spec.restricted_data());
        live.into_iter().chain(self.restricted_data.as_deref()).flat_map(DataFingerprints::all).collect()
    }

    /// Returns what the live revision gives to everybody without an explicit order in its files.
    pub(super) fn implicitly_open_data(&self) -> &[DataFingerprint] {
        let answers = |live: &&LiveRevision| live.is_enabled_by_files && !live.tenant.slot.is_closed();
        self.phase
            .live()
            .filter(answers)
            .map(|live| live.tenant.spec.implicitly_open_data())
            .unwrap_or_default()
    }

    /// Sets the warning that another entry guards what this one gives to everybody. Returns whether
    /// it changed.
    pub(super) fn set_open_data_warning(&mut self, warning: Option<Diagnostic>) -> bool {
        let warning = warning.map(Box::new);
        let is_news = self.open_data_warning != warning;
        self.open_data_warning = warning;
        is_news
    }

    fn held_claim(&self) -> Option<TenantClaim<'_>> {
        let live = self.phase.live().map(|live| live.tenant.spec.claim());
        live.or_else(|| self.persisted.last_held.as_deref().map(HeldClaim::claim))
    }

    /// Returns the claim that no other entry may have: that of the revision in force, or of the
    /// last one that was.
    pub(super) fn claim_basis(&self) -> Option<ClaimBasis> {
        let live = self.tenant().map(|tenant| ClaimBasis::Live(Arc::clone(tenant)));
        live.or_else(|| self.persisted.last_held.clone().map(ClaimBasis::LastHeld))
    }

    /// Returns what it holds and which of its claims was rejected, if that must be persisted.
    pub(super) fn take_claims_change(&mut self, entry_id: &Arc<str>) -> Option<store::EntryClaims> {
        if !std::mem::take(&mut self.claims_changed) {
            return None;
        }
        let since = self.persisted.held_since.unwrap_or_default();
        let live = self.tenant().map(|tenant| Arc::new(tenant.spec.claim().to_held(since)));
        Some(store::EntryClaims {
            entry_id: Arc::clone(entry_id),
            claim: live.or_else(|| self.persisted.last_held.clone()),
            rejected_claim: self.persisted.rejected_digest,
        })
    }

    /// Returns the findings about the files, if they prevent serving.
    pub(super) fn error_report(&self) -> Option<&Report> {
        Some(&self.report).filter(|report| report.has_errors())
    }

    /// Returns why the candidate was rejected, if it was.
    pub(super) fn rejection(&self) -> Option<&Diagnostic> {
        self.phase.candidate().and_then(Candidate::rejection)
    }

    /// Returns the tenant of the revision in force, if any.
    pub(super) fn tenant(&self) -> Option<&Arc<Tenant>> {
        self.phase.live().map(|live| &live.tenant)
    }

    /// Returns the listener of its own that the candidate wants.
    pub(super) fn wanted_listener(&self) -> Option<SocketAddr> {
        self.phase.candidate().and_then(|candidate| candidate.spec.listener())
    }

    /// Whether a change waits for an operator's approval.
    pub(super) fn is_held(&self) -> bool {
        self.held_change().is_some()
    }

    /// Returns the change that waits for an operator's approval.
    pub(super) fn held_change(&self) -> Option<&Arc<HeldChange>> {
        self.phase.candidate()?.held.as_ref()
    }

    /// Whether the entry waits for a decision.
    pub(super) fn has_candidate(&self) -> bool {
        self.phase.candidate().is_some()
    }

    /// Returns why the last rollback failed, once.
    pub(super) fn take_rollback_failure(&mut self) -> Option<Box<str>> {
        self.rollback_failure.take()
    }

    /// Returns the digest of the files that the older revision in force replaces.
    pub(super) fn pinned_digest(&self) -> Option<Digest> {
        self.persisted.pinned_digest
    }

    /// Returns the paths of the files as last read.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns the revision that was put in force since the last call, to be persisted.
    pub(super) fn take_unwritten_revision(
        &mut self,
        entry_id: &str,
        at: Timestamp,
    ) -> Option<store::AcceptedRevision> {
        let UnwrittenRevision { digest, documents } = *self.unwritten_revision.take()?;
        Some(store::AcceptedRevision {
            entry_id: entry_id.to_owned(),
            number: self.phase.live()?.number,
            digest,
            accepted_at: at,
            documents,
        })
    }

    /// Records whether the revision in force could not be persisted. Returns whether that is new.
    pub(super) fn set_unpersisted(&mut self, is_unpersisted: bool) -> bool {
        std::mem::replace(&mut self.is_unpersisted, is_unpersisted) != is_unpersisted
    }

    /// Returns the digest of the files as last read.
    pub(super) fn digest_on_disk(&self) -> Option<Digest> {
        self.on_disk
    }

    /// Returns number and digest of the revision in force.
    pub(super) fn revision_in_force(&self) -> Option<(u64, Digest)> {
        self.phase.live().map(|live| (live.number, live.tenant.revision))
    }

    /// Whether an operator paused the entry.
    pub(super) fn is_paused(&self) -> bool {
        self.persisted.is_paused
    }

    /// Updates the entry's state and returns it for publication.
    pub(super) fn publish(
        &mut self,
        entry_id: &Arc<str>,
        folder: &Arc<Path>,
        now: Timestamp,
    ) -> PublishedEntry {
        let state = self.compute_state();
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
        let tenant = self.tenant();
        let details = EntryDetails {
            entry_id: Arc::clone(entry_id),
            name: tenant.map(|tenant| &tenant.spec.name).or(self.name.as_ref()).cloned(),
            state: self.state,
            since: self.since,
            on_disk: self.on_disk,
            revision: self.phase.live().map(|live| live.number),
            rolled_back: self.is_rolled_back(),
            paused: self.persisted.is_paused,
            closed: tenant.is_some_and(|tenant| tenant.slot.is_closed()),
            held: self.held_change().cloned(),
            findings: self.collect_findings(),
            files: Arc::clone(&self.files),
            folder: Arc::clone(folder),
        };
        PublishedEntry::new(details, tenant.cloned())
    }

    fn compute_state(&self) -> TenantState {
        match &self.phase {
            Phase::Unusable | Phase::Candidate(_) => TenantState::Rejected,
            Phase::LiveWithCandidate(_, candidate) if candidate.is_held() => TenantState::Held,
            Phase::LiveWithCandidate(..) => TenantState::Stale,
            Phase::Live(_) if self.report.has_errors() || self.missed_rollback.is_some() => {
                TenantState::Stale
            }
            Phase::Live(live) if live.tenant.spec.enabled => TenantState::Serving,
            Phase::Live(_) => TenantState::Disabled,
        }
    }

    pub(super) fn is_rolled_back(&self) -> bool {
        self.phase.live().is_some() && self.persisted.is_pinned(self.on_disk)
    }

    fn collect_findings(&self) -> Box<[Diagnostic]> {
        let rolled_back = self.is_rolled_back().then(findings::rolled_back_notice);
        let unpersisted = self.is_unpersisted.then(findings::unpersisted_warning);
        self.all_findings().cloned().chain(rolled_back).chain(unpersisted).collect()
    }

    /// Returns the findings for the log.
    pub(super) fn all_findings(&self) -> impl Iterator<Item = &Diagnostic> {
        let held = self.held_change().map(|held| &held.finding);
        let warnings = [self.open_data_warning.as_deref(), self.tool_text_warning.as_deref(), held];
        let errors = self.rejection().into_iter().chain(self.missed_rollback.as_deref());
        self.report.iter().chain(errors).chain(warnings.into_iter().flatten())
    }
}
