//! The reconciler's state of each entry: the files as last read, and the revision in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::claim_index::ClaimBasis;
use super::claims::ClaimRequest;
use super::published_entry::{EntryDetails, PublishedEntry};
use super::revision_writer::RestoredRevision;
use super::scan::{NamedFiles, Signature};
use super::status::TenantState;
use super::tenant::{Tenant, TenantSlot};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::bundle::{LoadOutcome, Snapshot};
use crate::spec::{HeldClaim, Reach, Reaches, TenantClaim, TenantName, TenantSpec};
use crate::store;

/// All entries, by entry id. Boxed, since the nodes of a map are half empty.
pub(super) type EntryMap = BTreeMap<Arc<str>, Box<Entry>>;

/// The state of one entry.
pub(super) struct Entry {
    /// The signature of the files as last read.
    pub(super) signature: Signature,
    files: Arc<[PathBuf]>,
    on_disk: Option<Digest>,
    name: Option<TenantName>,
    /// The findings about the current files.
    report: Report,
    /// What the files, as last read, give to authorized callers only.
    guards: Option<Box<Reaches>>,
    /// The warning that another entry guards what this one gives to everybody.
    guarded: Option<Box<Diagnostic>>,
    /// Why the candidate may not serve; judged anew in every pass.
    rejection: Option<Box<Diagnostic>>,
    /// A valid revision that is not in force: just read, or refused because another entry holds
    /// what it claims.
    candidate: Option<Box<Candidate>>,
    live: Option<LiveRevision>,
    persisted: PersistedState,
    /// Whether the claim that it holds, or its refused claim, changed and must be persisted.
    claims_changed: bool,
    /// The revision that was put in force and must be persisted.
    unwritten_revision: Option<Box<(Digest, Vec<u8>)>>,
    /// Whether the revision in force could not be persisted.
    is_unpersisted: bool,
    state: TenantState,
    since: Timestamp,
}

/// The state of an entry that survives restarts.
#[derive(Default)]
pub(super) struct PersistedState {
    /// The number and digest of the revision that is, or was, in force.
    in_force: Option<(u64, Digest)>,
    /// The highest number assigned so far.
    last_number: u64,
    /// Whether an operator paused it.
    is_paused: bool,
    /// An operator put an older revision in force, for as long as the files have this digest.
    pinned_digest: Option<Digest>,
    /// The claim that it held when it was last in force. It stays reserved while the files exist,
    /// even if they cannot be used.
    last_held: Option<Arc<HeldClaim>>,
    /// Since when it holds its claim.
    held_since: Option<Timestamp>,
    /// The digest of the files whose claim was refused. The claim stays refused until they change
    /// or an operator accepts it.
    rejected_digest: Option<Digest>,
}

impl PersistedState {
    pub(super) fn from_stored(entry: store::StoredEntry) -> Self {
        let store::StoredEntry {
            live: in_force,
            last_number: last,
            paused,
            pinned_against: held_against,
            claim: holding,
            rejected_claim: refused,
            entry_id: _,
        } = entry;
        let held_since = holding.as_ref().map(|holding| holding.since);
        Self {
            in_force,
            last_number: last,
            is_paused: paused,
            pinned_digest: held_against,
            last_held: holding,
            held_since,
            rejected_digest: refused,
        }
    }

    fn is_pinned(&self, on_disk: Option<Digest>) -> bool {
        self.pinned_digest.is_some() && self.pinned_digest == on_disk
    }
}

struct Candidate {
    spec: TenantSpec,
    revision: Digest,
    access_fingerprint: Option<Digest>,
    files: Arc<[PathBuf]>,
    /// The files with secrets that those files name.
    named: NamedFiles,
    /// The encoded snapshot to persist, or the number under which it is persisted already.
    source: Result<Vec<u8>, u64>,
    /// Whether an operator chose it, so that an earlier refusal does not count.
    is_forced: bool,
}

/// The state before a persisted revision was made the candidate.
pub(super) struct StagedRollback {
    candidate: Option<Box<Candidate>>,
    rejection: Option<Box<Diagnostic>>,
    is_closed: bool,
}

struct LiveRevision {
    tenant: Arc<Tenant>,
    /// The files that it was built from.
    files: Arc<[PathBuf]>,
    /// The files with secrets that those files name.
    named: NamedFiles,
    /// The digest of everything that decides who may call it.
    access_fingerprint: Option<Digest>,
    number: u64,
    /// Whether its files enable it, regardless of an operator's pause.
    is_enabled_by_files: bool,
}

impl LiveRevision {
    /// Whether one of the files that it was built from, including those with secrets, is missing.
    fn has_lost_file(&self, files: &[PathBuf], signature: &Signature) -> bool {
        self.files.iter().any(|file| !files.contains(file)) || signature.lacks_one_of(&self.named)
    }

    /// Handles a refused change: closes the revision unless the change certainly does not
    /// affect who may call.
    fn close_unless_access_unchanged(&self, access: Option<Digest>) {
        self.tenant.slot.set_closed(access.is_none() || access != self.access_fingerprint);
    }
}

impl Entry {
    /// Creates the state of an entry that is seen for the first time.
    pub(super) fn new(now: Timestamp, memory: PersistedState) -> Self {
        Self {
            signature: Signature::default(),
            files: Arc::default(),
            on_disk: None,
            name: None,
            report: Report::new(),
            guards: None,
            guarded: None,
            rejection: None,
            candidate: None,
            live: None,
            persisted: memory,
            claims_changed: false,
            unwritten_revision: None,
            is_unpersisted: false,
            state: TenantState::Loading,
            since: now,
        }
    }

    /// Updates the entry with what was read. Returns whether the content changed.
    ///
    /// After a refused change the revision stays in force: open if the change certainly does not
    /// affect who may call, otherwise closed. If a file of that revision was deleted, the operator
    /// meant to remove it, and the revision ends.
    pub(super) fn ingest(
        &mut self,
        mut loaded: LoadOutcome,
        signature: Signature,
        files: Arc<[PathBuf]>,
    ) -> bool {
        self.signature = signature;
        let unchanged = self.on_disk == Some(loaded.digest) && self.files == files;
        self.files = files;
        if unchanged {
            return false;
        }
        self.on_disk = Some(loaded.digest);
        self.clear_stale_rejection();
        self.name = loaded.name.take();
        self.report = std::mem::take(&mut loaded.report);
        self.guards = loaded.guards.take();
        self.rejection = None;
        let held = self.persisted.is_pinned(self.on_disk);
        let access = loaded.access_fingerprint;
        let source = loaded.snapshot.as_ref().map(Snapshot::encode).ok_or(0);
        self.candidate = Candidate::new(loaded, self.files.clone(), source).filter(|_| !held).map(Box::new);
        match (&self.candidate, &self.live) {
            (_, Some(live)) if held => live.tenant.slot.set_closed(false),
            (_, None) if held => self.report.push(rollback_lost_error()),
            (Some(candidate), Some(live)) if candidate.revision == live.tenant.revision => self.reopen_live(),
            (None, Some(live)) if live.has_lost_file(&self.files, &self.signature) => self.retire_live(),
            (None, Some(live)) => live.close_unless_access_unchanged(access),
            _ => {}
        }
        true
    }

    /// Reopens the revision in force, since the files are the same again.
    fn reopen_live(&mut self) {
        self.candidate = None;
        if let Some(live) = &self.live {
            live.tenant.slot.set_closed(false);
        }
    }

    /// Clears the refusal of a claim if the files changed since, so that the new claim is decided
    /// like any other.
    fn clear_stale_rejection(&mut self) {
        if self.persisted.rejected_digest.is_some() && self.persisted.rejected_digest != self.on_disk {
            self.persisted.rejected_digest = None;
            self.claims_changed = true;
        }
    }

    /// Returns what the entry wants and holds, for the resolution of claims.
    pub(super) fn claim_request<'a>(&'a self, stem: &'a str) -> ClaimRequest<'a> {
        let candidate = self.candidate.as_deref();
        // Earlier versions stored no claims: a revision in force with these very files holds what
        // they claim.
        let was_in_force = |candidate: &&Candidate| {
            self.persisted.in_force.is_some_and(|(_, digest)| digest == candidate.revision)
        };
        let unrecorded = candidate.filter(was_in_force).map(|candidate| candidate.spec.claim());
        ClaimRequest {
            entry_id: stem,
            wanted: candidate.map(|candidate| candidate.spec.claim()),
            held: self.held_claim().or(unrecorded),
            was_rejected: candidate.is_some_and(|candidate| self.is_rejected(candidate)),
            opens: candidate.filter(|it| !was_in_force(it)).map(|it| self.opened_by(it)).unwrap_or_default(),
            guards: self.guards(),
        }
    }

    /// Returns what a candidate would newly give to everybody without an explicit order in its
    /// files or by an operator.
    fn opened_by(&self, candidate: &Candidate) -> Vec<Reach> {
        if candidate.is_forced || !candidate.spec.enabled {
            return Vec::new();
        }
        let live =
            self.live.as_ref().filter(|live| live.is_enabled_by_files && live.tenant.spec.access.is_open());
        let before = live.map(|live| live.tenant.spec.backend.reaches.own.as_slice()).unwrap_or_default();
        candidate.spec.opens().iter().filter(|reach| !before.contains(reach)).copied().collect()
    }

    /// Returns what the entry gives to authorized callers only: by its candidate, or without one by
    /// the live revision and the files as last read.
    pub(super) fn guards(&self) -> Vec<Reach> {
        if let Some(candidate) = &self.candidate {
            return candidate.spec.guards().into_iter().flat_map(Reaches::all).collect();
        }
        let live = self.live.as_ref().and_then(|live| live.tenant.spec.guards());
        live.into_iter().chain(self.guards.as_deref()).flat_map(Reaches::all).collect()
    }

    /// Returns what the live revision gives to everybody without an explicit order in its files.
    pub(super) fn open(&self) -> &[Reach] {
        let answers = |live: &&LiveRevision| live.is_enabled_by_files && !live.tenant.slot.is_closed();
        self.live.as_ref().filter(answers).map(|live| live.tenant.spec.opens()).unwrap_or_default()
    }

    /// Sets the warning that another entry guards what this one gives to everybody. Returns whether
    /// it changed.
    pub(super) fn note_guarded(&mut self, found: Option<Diagnostic>) -> bool {
        let found = found.map(Box::new);
        let news = self.guarded != found;
        self.guarded = found;
        news
    }

    /// Whether the candidate's claim was rejected before, and neither the files changed nor an
    /// operator accepted it since.
    fn is_rejected(&self, candidate: &Candidate) -> bool {
        !candidate.is_forced && self.persisted.rejected_digest == Some(candidate.revision)
    }

    fn held_claim(&self) -> Option<TenantClaim<'_>> {
        let live = self.live.as_ref().map(|live| live.tenant.spec.claim());
        live.or_else(|| self.persisted.last_held.as_deref().map(HeldClaim::claim))
    }

    /// Returns the claim that no other entry may have: that of the revision in force, or of the
    /// last one that was.
    pub(super) fn claim_basis(&self) -> Option<ClaimBasis> {
        let live = self.live.as_ref().map(|live| ClaimBasis::Live(Arc::clone(&live.tenant)));
        live.or_else(|| self.persisted.last_held.clone().map(ClaimBasis::LastHeld))
    }

    /// Returns what it holds and which of its claims was refused, if that must be persisted.
    pub(super) fn take_claims_change(&mut self, stem: &Arc<str>) -> Option<store::EntryClaims> {
        if !std::mem::take(&mut self.claims_changed) {
            return None;
        }
        let held_since = |live: &LiveRevision| {
            let since = self.persisted.held_since.unwrap_or_default();
            Arc::new(live.tenant.spec.claim().to_held(since))
        };
        let holding = self.live.as_ref().map(held_since).or_else(|| self.persisted.last_held.clone());
        Some(store::EntryClaims {
            entry_id: Arc::clone(stem),
            claim: holding,
            rejected_claim: self.persisted.rejected_digest,
        })
    }

    fn set_live(&mut self, live: LiveRevision, now: Timestamp) {
        if !self.held_claim().is_some_and(|stake| stake.is_same_as(&live.tenant.spec.claim())) {
            self.persisted.held_since = Some(now);
            self.claims_changed = true;
        }
        self.persisted.last_held = None;
        self.live = Some(live);
    }

    /// Takes the revision out of force. Its claim stays reserved for the entry.
    fn retire_live(&mut self) {
        let Some(live) = self.live.take() else { return };
        let since = self.persisted.held_since.unwrap_or_default();
        self.persisted.last_held = Some(Arc::new(live.tenant.spec.claim().to_held(since)));
    }

    /// Accepts the refused claim by order of an operator, for the next decision. Returns whether
    /// there is one.
    pub(super) fn force_candidate(&mut self) -> bool {
        let waits = self.candidate.is_some() && self.rejection.is_some();
        if let Some(candidate) = self.candidate.as_mut().filter(|_| waits) {
            candidate.is_forced = true;
        }
        waits
    }

    /// Ends the acceptance after the decision; an error says why the claim was refused again.
    pub(super) fn finish_forced(&mut self) -> Result<(), String> {
        let Some(candidate) = &mut self.candidate else { return Ok(()) };
        candidate.is_forced = false;
        Err(self.rejection.as_ref().map(|refusal| refusal.message.clone()).unwrap_or_default())
    }

    /// Returns the findings about the files, if they prevent serving.
    pub(super) fn error_report(&self) -> Option<&Report> {
        Some(&self.report).filter(|report| report.has_errors())
    }

    /// Returns the revision in force, if any.
    pub(super) fn tenant(&self) -> Option<&Arc<Tenant>> {
        self.live.as_ref().map(|live| &live.tenant)
    }

    /// Whether the entry waits for a decision.
    pub(super) fn has_candidate(&self) -> bool {
        self.candidate.is_some()
    }

    /// Refuses the candidate. Returns whether that is new.
    ///
    /// If the candidate would change who may call, the revision in force is closed, whatever the
    /// refusal. A refusal that `lasts` stands until the files change or an operator accepts the
    /// claim.
    pub(super) fn reject(&mut self, refusal: Diagnostic, lasts: bool) -> bool {
        if let (Some(live), Some(candidate)) = (&self.live, &self.candidate) {
            live.close_unless_access_unchanged(candidate.access_fingerprint);
        }
        let judged = self.candidate.as_ref().filter(|it| lasts && !it.is_forced).map(|it| it.revision);
        let stands_now = judged.is_some() && self.persisted.rejected_digest != judged;
        if stands_now {
            self.persisted.rejected_digest = judged;
            self.claims_changed = true;
        }
        let refusal = Some(Box::new(refusal));
        let news = stands_now || self.rejection != refusal;
        self.rejection = refusal;
        news
    }

    /// Puts the candidate in force: builds it with `build`, in the slot of the revision in force.
    /// If building fails, its findings refuse it.
    pub(super) fn promote(&mut self, now: Timestamp, build: impl BuildTenant) {
        let Some(candidate) = self.candidate.take() else { return };
        self.rejection = None;
        if self.persisted.rejected_digest == Some(candidate.revision) {
            self.persisted.rejected_digest = None;
            self.claims_changed = true;
        }
        let access = candidate.access_fingerprint;
        match self.build_live(*candidate, build) {
            Ok(live) => {
                live.tenant.slot.set_closed(false);
                self.persisted.pinned_digest = None;
                self.set_live(live, now);
            }
            Err(report) => {
                self.report.extend(report);
                if let Some(live) = &self.live {
                    live.close_unless_access_unchanged(access);
                }
            }
        }
    }

    fn build_live(&mut self, candidate: Candidate, build: impl BuildTenant) -> Result<LiveRevision, Report> {
        let Candidate { mut spec, revision, access_fingerprint: access, files, named, source, is_forced: _ } =
            candidate;
        let slot = self.live.as_ref().map(|live| Arc::clone(&live.tenant.slot)).unwrap_or_default();
        let enabled = spec.enabled;
        spec.enabled &= !self.persisted.is_paused;
        let tenant = build(spec, revision, slot)?;
        let number = match (source, self.persisted.in_force) {
            (Err(number), _) => number,
            (Ok(_), Some((number, digest))) if digest == revision => number,
            (Ok(documents), _) => {
                self.unwritten_revision = Some(Box::new((revision, documents)));
                self.persisted.last_number += 1;
                self.persisted.last_number
            }
        };
        self.persisted.in_force = Some((number, revision));
        Ok(LiveRevision {
            tenant,
            files,
            named,
            access_fingerprint: access,
            number,
            is_enabled_by_files: enabled,
        })
    }

    /// Puts the last good revision in force after a restart, until the entry's files are validated.
    pub(super) fn restore_last_good(
        &mut self,
        revived: RestoredRevision,
        now: Timestamp,
        build: impl BuildTenant,
    ) {
        let RestoredRevision { number, loaded, files } = revived;
        let candidate = Candidate::new(loaded, files, Err(number));
        let Some(candidate) = candidate.filter(|_| self.live.is_none()) else { return };
        // A revision that can no longer be built counts as none.
        if let Ok(live) = self.build_live(candidate, build) {
            self.set_live(live, now);
        }
    }

    /// Pauses or resumes the entry by order of an operator.
    pub(super) fn set_paused(&mut self, paused: bool, build: impl BuildTenant) {
        self.persisted.is_paused = paused;
        let Some(live) = &mut self.live else { return };
        let enabled = live.is_enabled_by_files && !paused;
        if live.tenant.spec.enabled == enabled {
            return;
        }
        let spec = TenantSpec { enabled, ..live.tenant.spec.clone() };
        match build(spec, live.tenant.revision, Arc::clone(&live.tenant.slot)) {
            Ok(tenant) => live.tenant = tenant,
            Err(report) => {
                self.report.extend(report);
                self.retire_live();
            }
        }
    }

    /// Makes a persisted revision the candidate, whatever the files say. The caller must pass the
    /// result to [`Entry::commit_rollback`].
    pub(super) fn stage_rollback(
        &mut self,
        loaded: LoadOutcome,
        number: u64,
        files: Arc<[PathBuf]>,
    ) -> StagedRollback {
        let is_closed = self.live.as_ref().is_some_and(|live| live.tenant.slot.is_closed());
        let before =
            StagedRollback { candidate: self.candidate.take(), rejection: self.rejection.take(), is_closed };
        let candidate = Candidate::new(loaded, files, Err(number));
        let put_up = |candidate| Candidate { is_forced: true, ..candidate };
        self.candidate = candidate.map(|candidate| Box::new(put_up(candidate)));
        before
    }

    /// Keeps the revision from `Entry::stage_rollback` in force until the files change. If it was
    /// refused, restores the earlier state and returns the reason.
    pub(super) fn commit_rollback(&mut self, number: u64, before: StagedRollback) -> Result<(), String> {
        if let Some(live) =
            self.live.as_ref().filter(|live| live.number == number && self.candidate.is_none())
        {
            let is_older = self.on_disk != Some(live.tenant.revision);
            self.persisted.pinned_digest = self.on_disk.filter(|_| is_older);
            return Ok(());
        }
        let why =
            self.rejection.take().map_or_else(|| "it cannot be built".to_owned(), |refusal| refusal.message);
        (self.candidate, self.rejection) = (before.candidate, before.rejection);
        if let Some(live) = &self.live {
            live.tenant.slot.set_closed(before.is_closed);
        }
        Err(why)
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
        stem: &str,
        at: Timestamp,
    ) -> Option<store::AcceptedRevision> {
        let (digest, documents) = *self.unwritten_revision.take()?;
        let number = self.live.as_ref()?.number;
        Some(store::AcceptedRevision {
            entry_id: stem.to_owned(),
            number,
            digest,
            accepted_at: at,
            documents,
        })
    }

    /// Records whether the revision in force could be persisted. Returns whether that is new.
    pub(super) fn set_unpersisted(&mut self, unkept: bool) -> bool {
        std::mem::replace(&mut self.is_unpersisted, unkept) != unkept
    }

    /// Whether an operator paused the entry.
    pub(super) fn is_paused(&self) -> bool {
        self.persisted.is_paused
    }

    /// Updates the entry's state and returns it for publication.
    pub(super) fn publish(&mut self, stem: &Arc<str>, folder: &Arc<Path>, now: Timestamp) -> PublishedEntry {
        let state = self.compute_state();
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
        let live = self.live.as_ref().map(|live| &live.tenant);
        let facts = EntryDetails {
            entry_id: Arc::clone(stem),
            name: live.map(|tenant| &tenant.spec.name).or(self.name.as_ref()).cloned(),
            state: self.state,
            since: self.since,
            on_disk: self.on_disk,
            revision: self.live.as_ref().map(|live| live.number),
            rolled_back: self.is_rolled_back(),
            paused: self.persisted.is_paused,
            closed: live.is_some_and(|tenant| tenant.slot.is_closed()),
            findings: self.collect_findings(),
            files: Arc::clone(&self.files),
            folder: Arc::clone(folder),
        };
        PublishedEntry::new(facts, live.cloned())
    }

    fn compute_state(&self) -> TenantState {
        let refused = self.candidate.is_some() || self.report.has_errors();
        match &self.live {
            Some(_) if refused => TenantState::Stale,
            Some(live) if !live.tenant.spec.enabled => TenantState::Disabled,
            Some(_) => TenantState::Serving,
            None => TenantState::Rejected,
        }
    }

    fn is_rolled_back(&self) -> bool {
        self.live.is_some() && self.persisted.is_pinned(self.on_disk)
    }

    fn collect_findings(&self) -> Box<[Diagnostic]> {
        let rolled_back = self.is_rolled_back().then(rolled_back_notice);
        let unkept = self.is_unpersisted.then(unpersisted_warning);
        self.all_findings().cloned().chain(rolled_back).chain(unkept).collect()
    }

    /// Returns the findings for the log.
    pub(super) fn all_findings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.report.iter().chain(self.rejection.as_deref()).chain(self.guarded.as_deref())
    }
}

/// Builds a tenant.
pub(super) trait BuildTenant:
    FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>
{
}

impl<F: FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>> BuildTenant for F {}

impl Candidate {
    fn new(loaded: LoadOutcome, files: Arc<[PathBuf]>, source: Result<Vec<u8>, u64>) -> Option<Self> {
        let LoadOutcome { digest: revision, spec, access_fingerprint: access, named, .. } = loaded;
        let named = named.into_iter().map(|named| named.path).collect();
        Some(Self {
            spec: spec?,
            revision,
            access_fingerprint: access,
            files,
            named,
            source,
            is_forced: false,
        })
    }
}

fn rolled_back_notice() -> Diagnostic {
    Diagnostic::notice(
        "rolled-back",
        "an older revision is in force instead of these files, as an operator wished",
    )
    .help("it stays until the files change")
}

fn rollback_lost_error() -> Diagnostic {
    Diagnostic::error(
        "rollback-lost",
        "the older revision that an operator put in force is not kept, or is refused by today's rules",
    )
    .help("change the files, or choose another revision with \"tenantd tenants rollback\"")
}

fn unpersisted_warning() -> Diagnostic {
    Diagnostic::warning(
        "not-kept",
        "this revision could not be written to the state folder: it would not survive a restart",
    )
    .help("make room on the disk of the state folder, or make it writable; it is tried again every 10 s")
}
