//! The reconciler's state of each entry: the files as last read, and the revision in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::holdings::Held;
use super::keeper::Revived;
use super::plan::Applicant;
use super::published::{Facts, Published};
use super::scan::{NamedFiles, Signature};
use super::status::State;
use super::tenant::{Tenant, TenantSlot};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::bundle::{Loaded, Snapshot};
use crate::spec::{Holding, Reach, Reaches, Stake, TenantName, TenantSpec};
use crate::store;

/// All entries, by stem. Boxed, since the nodes of a map are half empty.
pub(super) type Roster = BTreeMap<Arc<str>, Box<Known>>;

/// The state of one entry.
pub(super) struct Known {
    /// The signature of the files as last read.
    pub(super) signature: Signature,
    files: Arc<[PathBuf]>,
    on_disk: Option<Digest>,
    name: Option<TenantName>,
    /// The findings about the current files.
    report: Report,
    /// What the files, as they are, give to some callers only.
    guards: Option<Box<Reaches>>,
    /// Another entry guards what this one gives to everybody.
    guarded: Option<Box<Diagnostic>>,
    /// Why the candidate may not serve; judged anew in every pass.
    refusal: Option<Box<Diagnostic>>,
    /// A valid revision that is not in force: just read, or refused because another entry holds
    /// what it claims.
    candidate: Option<Box<Candidate>>,
    live: Option<Live>,
    memory: Memory,
    /// Whether the claim that it holds, or its refused claim, changed and must be persisted.
    claims_changed: bool,
    /// The revision that was put in force and must be persisted.
    accepted: Option<Box<(Digest, Vec<u8>)>>,
    /// Whether the revision in force could not be persisted.
    unkept: bool,
    state: State,
    since: Timestamp,
}

/// The state of an entry that survives restarts.
#[derive(Default)]
pub(super) struct Memory {
    /// The number and digest of the revision that is, or was, in force.
    in_force: Option<(u64, Digest)>,
    /// The highest number assigned so far.
    last: u64,
    /// Whether an operator paused it.
    paused: bool,
    /// An operator put an older revision in force, for as long as the files have this digest.
    held_against: Option<Digest>,
    /// The claim that it held when it was last in force. It stays reserved while the files exist,
    /// even if they cannot be used.
    reserved: Option<Arc<Holding>>,
    /// Since when it holds its claim.
    held_since: Option<Timestamp>,
    /// The digest of the files whose claim was refused. The claim stays refused until they change
    /// or an operator accepts it.
    refused: Option<Digest>,
}

impl Memory {
    pub(super) fn of(entry: store::Entry) -> Self {
        let store::Entry { in_force, last, paused, held_against, holding, refused, stem: _ } = entry;
        let held_since = holding.as_ref().map(|holding| holding.since);
        Self { in_force, last, paused, held_against, reserved: holding, held_since, refused }
    }

    fn is_held(&self, on_disk: Option<Digest>) -> bool {
        self.held_against.is_some() && self.held_against == on_disk
    }
}

struct Candidate {
    spec: TenantSpec,
    revision: Digest,
    access: Option<Digest>,
    files: Arc<[PathBuf]>,
    /// The files with secrets that those files name.
    named: NamedFiles,
    /// The encoded snapshot to persist, or the number under which it is persisted already.
    source: Result<Vec<u8>, u64>,
    /// Whether an operator chose it, so that an earlier refusal does not count.
    by_order: bool,
}

/// The state before a persisted revision was made the candidate.
pub(super) struct Before {
    candidate: Option<Box<Candidate>>,
    refusal: Option<Box<Diagnostic>>,
    is_closed: bool,
}

struct Live {
    tenant: Arc<Tenant>,
    /// The files that it was built from.
    files: Arc<[PathBuf]>,
    /// The files with secrets that those files name.
    named: NamedFiles,
    /// The digest of everything that decides who may call it.
    access: Option<Digest>,
    number: u64,
    /// Whether its files enable it, regardless of an operator's pause.
    enabled: bool,
}

impl Live {
    /// Whether one of the files that it was built from, including those with secrets, is missing.
    fn lost_a_file(&self, files: &[PathBuf], signature: &Signature) -> bool {
        self.files.iter().any(|file| !files.contains(file)) || signature.lacks_one_of(&self.named)
    }

    /// Handles a refused change: closes the revision unless the change certainly does not
    /// affect who may call.
    fn close_unless_same(&self, access: Option<Digest>) {
        self.tenant.slot.close(access.is_none() || access != self.access);
    }
}

impl Known {
    /// Creates the state of an entry that is seen for the first time.
    pub(super) fn new(now: Timestamp, memory: Memory) -> Self {
        Self {
            signature: Signature::default(),
            files: Arc::default(),
            on_disk: None,
            name: None,
            report: Report::new(),
            guards: None,
            guarded: None,
            refusal: None,
            candidate: None,
            live: None,
            memory,
            claims_changed: false,
            accepted: None,
            unkept: false,
            state: State::Loading,
            since: now,
        }
    }

    /// Updates the entry with what was read. Returns whether the content changed.
    ///
    /// After a refused change the revision stays in force: open if the change certainly does not
    /// affect who may call, otherwise closed. If a file of that revision was deleted, the operator
    /// meant to remove it, and the revision ends.
    pub(super) fn take_in(
        &mut self,
        mut loaded: Loaded,
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
        self.forget_refusal_of_others();
        self.name = loaded.name.take();
        self.report = std::mem::take(&mut loaded.report);
        self.guards = loaded.guards.take();
        self.refusal = None;
        let held = self.memory.is_held(self.on_disk);
        let access = loaded.access;
        let source = loaded.snapshot.as_ref().map(Snapshot::encode).ok_or(0);
        self.candidate = Candidate::of(loaded, self.files.clone(), source).filter(|_| !held).map(Box::new);
        match (&self.candidate, &self.live) {
            (_, Some(live)) if held => live.tenant.slot.close(false),
            (_, None) if held => self.report.push(hold_lost()),
            (Some(candidate), Some(live)) if candidate.revision == live.tenant.revision => self.restore(),
            (None, Some(live)) if live.lost_a_file(&self.files, &self.signature) => self.stop(),
            (None, Some(live)) => live.close_unless_same(access),
            _ => {}
        }
        true
    }

    /// Reopens the revision in force, since the files are the same again.
    fn restore(&mut self) {
        self.candidate = None;
        if let Some(live) = &self.live {
            live.tenant.slot.close(false);
        }
    }

    /// Clears the refusal of a claim if the files changed since, so that the new claim is decided
    /// like any other.
    fn forget_refusal_of_others(&mut self) {
        if self.memory.refused.is_some() && self.memory.refused != self.on_disk {
            self.memory.refused = None;
            self.claims_changed = true;
        }
    }

    /// Returns what the entry wants and holds, for the resolution of claims.
    pub(super) fn applicant<'a>(&'a self, stem: &'a str) -> Applicant<'a> {
        let candidate = self.candidate.as_deref();
        // Earlier versions stored no claims: a revision in force with these very files holds what
        // they claim.
        let was_in_force = |candidate: &&Candidate| {
            self.memory.in_force.is_some_and(|(_, digest)| digest == candidate.revision)
        };
        let unrecorded = candidate.filter(was_in_force).map(|candidate| candidate.spec.stake());
        Applicant {
            stem,
            wants: candidate.map(|candidate| candidate.spec.stake()),
            holds: self.stake().or(unrecorded),
            waits: candidate.is_some_and(|candidate| self.waits(candidate)),
            opens: candidate.filter(|it| !was_in_force(it)).map(|it| self.opened_by(it)).unwrap_or_default(),
            guards: self.guards(),
        }
    }

    /// What a candidate would give to everybody, where nothing says that this is meant: neither its files nor an operator, and
    /// it was not so before.
    fn opened_by(&self, candidate: &Candidate) -> Vec<Reach> {
        if candidate.by_order || !candidate.spec.enabled {
            return Vec::new();
        }
        let live = self.live.as_ref().filter(|live| live.enabled && live.tenant.spec.access.is_open());
        let before = live.map(|live| live.tenant.spec.backend.reaches.own.as_slice()).unwrap_or_default();
        candidate.spec.opens().iter().filter(|reach| !before.contains(reach)).copied().collect()
    }

    /// What is given to some callers only: as the candidate would; where there is none, as is in force or the files say.
    pub(super) fn guards(&self) -> Vec<Reach> {
        if let Some(candidate) = &self.candidate {
            return candidate.spec.guards().into_iter().flat_map(Reaches::all).collect();
        }
        let live = self.live.as_ref().and_then(|live| live.tenant.spec.guards());
        live.into_iter().chain(self.guards.as_deref()).flat_map(Reaches::all).collect()
    }

    /// What is in force gives to everybody, where nothing says that this is meant.
    pub(super) fn open(&self) -> &[Reach] {
        let answers = |live: &&Live| live.enabled && !live.tenant.slot.is_closed();
        self.live.as_ref().filter(answers).map(|live| live.tenant.spec.opens()).unwrap_or_default()
    }

    /// Takes note of whether another entry guards what this one gives to everybody. Says whether that is news.
    pub(super) fn note_guarded(&mut self, found: Option<Diagnostic>) -> bool {
        let found = found.map(Box::new);
        let news = self.guarded != found;
        self.guarded = found;
        news
    }

    /// Whether a candidate was refused before, and nothing has happened since that lets it be judged anew.
    fn waits(&self, candidate: &Candidate) -> bool {
        !candidate.by_order && self.memory.refused == Some(candidate.revision)
    }

    fn stake(&self) -> Option<Stake<'_>> {
        let live = self.live.as_ref().map(|live| live.tenant.spec.stake());
        live.or_else(|| self.memory.reserved.as_deref().map(Holding::stake))
    }

    /// Returns the claim that no other entry may have: that of the revision in force, or of the
    /// last one that was.
    pub(super) fn held(&self) -> Option<Held> {
        let live = self.live.as_ref().map(|live| Held::Live(Arc::clone(&live.tenant)));
        live.or_else(|| self.memory.reserved.clone().map(Held::Reserved))
    }

    /// Returns what it holds and which of its claims was refused, if that must be persisted.
    pub(super) fn take_claims(&mut self, stem: &Arc<str>) -> Option<store::Claims> {
        if !std::mem::take(&mut self.claims_changed) {
            return None;
        }
        let held_since = |live: &Live| {
            let since = self.memory.held_since.unwrap_or_default();
            Arc::new(live.tenant.spec.stake().held_since(since))
        };
        let holding = self.live.as_ref().map(held_since).or_else(|| self.memory.reserved.clone());
        Some(store::Claims { stem: Arc::clone(stem), holding, refused: self.memory.refused })
    }

    fn put_in_force(&mut self, live: Live, now: Timestamp) {
        if !self.stake().is_some_and(|stake| stake.equals(&live.tenant.spec.stake())) {
            self.memory.held_since = Some(now);
            self.claims_changed = true;
        }
        self.memory.reserved = None;
        self.live = Some(live);
    }

    /// Takes the revision out of force. Its claim stays reserved for the entry.
    fn stop(&mut self) {
        let Some(live) = self.live.take() else { return };
        let since = self.memory.held_since.unwrap_or_default();
        self.memory.reserved = Some(Arc::new(live.tenant.spec.stake().held_since(since)));
    }

    /// Accepts the refused claim by order of an operator, for the next decision. Returns whether
    /// there is one.
    pub(super) fn admit(&mut self) -> bool {
        let waits = self.candidate.is_some() && self.refusal.is_some();
        if let Some(candidate) = self.candidate.as_mut().filter(|_| waits) {
            candidate.by_order = true;
        }
        waits
    }

    /// Ends the acceptance after the decision; an error says why the claim was refused again.
    pub(super) fn admitted(&mut self) -> Result<(), String> {
        let Some(candidate) = &mut self.candidate else { return Ok(()) };
        candidate.by_order = false;
        Err(self.refusal.as_ref().map(|refusal| refusal.message.clone()).unwrap_or_default())
    }

    /// Returns the findings about the files, if they prevent serving.
    pub(super) fn errors(&self) -> Option<&Report> {
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
    pub(super) fn refuse(&mut self, refusal: Diagnostic, lasts: bool) -> bool {
        if let (Some(live), Some(candidate)) = (&self.live, &self.candidate) {
            live.close_unless_same(candidate.access);
        }
        let judged = self.candidate.as_ref().filter(|it| lasts && !it.by_order).map(|it| it.revision);
        let stands_now = judged.is_some() && self.memory.refused != judged;
        if stands_now {
            self.memory.refused = judged;
            self.claims_changed = true;
        }
        let refusal = Some(Box::new(refusal));
        let news = stands_now || self.refusal != refusal;
        self.refusal = refusal;
        news
    }

    /// Puts the candidate in force: builds it with `build`, in the slot of the revision in force.
    /// If building fails, its findings refuse it.
    pub(super) fn promote(&mut self, now: Timestamp, build: impl Build) {
        let Some(candidate) = self.candidate.take() else { return };
        self.refusal = None;
        if self.memory.refused == Some(candidate.revision) {
            self.memory.refused = None;
            self.claims_changed = true;
        }
        let access = candidate.access;
        match self.make(*candidate, build) {
            Ok(live) => {
                live.tenant.slot.close(false);
                self.memory.held_against = None;
                self.put_in_force(live, now);
            }
            Err(report) => {
                self.report.extend(report);
                if let Some(live) = &self.live {
                    live.close_unless_same(access);
                }
            }
        }
    }

    fn make(&mut self, candidate: Candidate, build: impl Build) -> Result<Live, Report> {
        let Candidate { mut spec, revision, access, files, named, source, by_order: _ } = candidate;
        let slot = self.live.as_ref().map(|live| Arc::clone(&live.tenant.slot)).unwrap_or_default();
        let enabled = spec.enabled;
        spec.enabled &= !self.memory.paused;
        let tenant = build(spec, revision, slot)?;
        let number = match (source, self.memory.in_force) {
            (Err(number), _) => number,
            (Ok(_), Some((number, digest))) if digest == revision => number,
            (Ok(documents), _) => {
                self.accepted = Some(Box::new((revision, documents)));
                self.memory.last += 1;
                self.memory.last
            }
        };
        self.memory.in_force = Some((number, revision));
        Ok(Live { tenant, files, named, access, number, enabled })
    }

    /// Puts the last good revision in force after a restart, until the entry's files are validated.
    pub(super) fn revive(&mut self, revived: Revived, now: Timestamp, build: impl Build) {
        let Revived { number, loaded, files } = revived;
        let candidate = Candidate::of(loaded, files, Err(number));
        let Some(candidate) = candidate.filter(|_| self.live.is_none()) else { return };
        // A revision that can no longer be built counts as none.
        if let Ok(live) = self.make(candidate, build) {
            self.put_in_force(live, now);
        }
    }

    /// Pauses or resumes the entry by order of an operator.
    pub(super) fn pause(&mut self, paused: bool, build: impl Build) {
        self.memory.paused = paused;
        let Some(live) = &mut self.live else { return };
        let enabled = live.enabled && !paused;
        if live.tenant.spec.enabled == enabled {
            return;
        }
        let spec = TenantSpec { enabled, ..live.tenant.spec.clone() };
        match build(spec, live.tenant.revision, Arc::clone(&live.tenant.slot)) {
            Ok(tenant) => live.tenant = tenant,
            Err(report) => {
                self.report.extend(report);
                self.stop();
            }
        }
    }

    /// Makes a persisted revision the candidate, whatever the files say. The caller must pass the
    /// result to [`Known::hold`].
    pub(super) fn put_up(&mut self, loaded: Loaded, number: u64, files: Arc<[PathBuf]>) -> Before {
        let is_closed = self.live.as_ref().is_some_and(|live| live.tenant.slot.is_closed());
        let before = Before { candidate: self.candidate.take(), refusal: self.refusal.take(), is_closed };
        let candidate = Candidate::of(loaded, files, Err(number));
        let put_up = |candidate| Candidate { by_order: true, ..candidate };
        self.candidate = candidate.map(|candidate| Box::new(put_up(candidate)));
        before
    }

    /// Keeps the revision from `Known::put_up` in force until the files change. If it was
    /// refused, restores the earlier state and returns the reason.
    pub(super) fn hold(&mut self, number: u64, before: Before) -> Result<(), String> {
        if let Some(live) =
            self.live.as_ref().filter(|live| live.number == number && self.candidate.is_none())
        {
            let is_older = self.on_disk != Some(live.tenant.revision);
            self.memory.held_against = self.on_disk.filter(|_| is_older);
            return Ok(());
        }
        let why =
            self.refusal.take().map_or_else(|| "it cannot be built".to_owned(), |refusal| refusal.message);
        (self.candidate, self.refusal) = (before.candidate, before.refusal);
        if let Some(live) = &self.live {
            live.tenant.slot.close(before.is_closed);
        }
        Err(why)
    }

    /// Returns the digest of the files that the older revision in force replaces.
    pub(super) fn held_against(&self) -> Option<Digest> {
        self.memory.held_against
    }

    /// Returns the paths of the files as last read.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns the revision that was put in force since the last call, to be persisted.
    pub(super) fn take_accepted(&mut self, stem: &str, at: Timestamp) -> Option<store::Accepted> {
        let (digest, documents) = *self.accepted.take()?;
        let number = self.live.as_ref()?.number;
        Some(store::Accepted { stem: stem.to_owned(), number, digest, at, documents })
    }

    /// Records whether the revision in force could be persisted. Returns whether that is new.
    pub(super) fn note_unkept(&mut self, unkept: bool) -> bool {
        std::mem::replace(&mut self.unkept, unkept) != unkept
    }

    /// Whether an operator paused the entry.
    pub(super) fn is_paused(&self) -> bool {
        self.memory.paused
    }

    /// Updates the entry's state and returns it for publication.
    pub(super) fn publish(&mut self, stem: &Arc<str>, folder: &Arc<Path>, now: Timestamp) -> Published {
        let state = self.current_state();
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
        let live = self.live.as_ref().map(|live| &live.tenant);
        let facts = Facts {
            stem: Arc::clone(stem),
            name: live.map(|tenant| &tenant.spec.name).or(self.name.as_ref()).cloned(),
            state: self.state,
            since: self.since,
            on_disk: self.on_disk,
            revision: self.live.as_ref().map(|live| live.number),
            rolled_back: self.is_rolled_back(),
            paused: self.memory.paused,
            closed: live.is_some_and(|tenant| tenant.slot.is_closed()),
            findings: self.findings(),
            files: Arc::clone(&self.files),
            folder: Arc::clone(folder),
        };
        Published::new(facts, live.cloned())
    }

    fn current_state(&self) -> State {
        let refused = self.candidate.is_some() || self.report.has_errors();
        match &self.live {
            Some(_) if refused => State::Stale,
            Some(live) if !live.tenant.spec.enabled => State::Disabled,
            Some(_) => State::Serving,
            None => State::Rejected,
        }
    }

    fn is_rolled_back(&self) -> bool {
        self.live.is_some() && self.memory.is_held(self.on_disk)
    }

    fn findings(&self) -> Box<[Diagnostic]> {
        let rolled_back = self.is_rolled_back().then(rolled_back);
        let unkept = self.unkept.then(unkept);
        self.all_findings().cloned().chain(rolled_back).chain(unkept).collect()
    }

    /// Returns the findings for the log.
    pub(super) fn all_findings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.report.iter().chain(self.refusal.as_deref()).chain(self.guarded.as_deref())
    }
}

/// Builds a tenant.
pub(super) trait Build:
    FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>
{
}

impl<F: FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>> Build for F {}

impl Candidate {
    fn of(loaded: Loaded, files: Arc<[PathBuf]>, source: Result<Vec<u8>, u64>) -> Option<Self> {
        let Loaded { digest: revision, spec, access, named, .. } = loaded;
        let named = named.into_iter().map(|named| named.path).collect();
        Some(Self { spec: spec?, revision, access, files, named, source, by_order: false })
    }
}

fn rolled_back() -> Diagnostic {
    Diagnostic::notice(
        "rolled-back",
        "an older revision is in force instead of these files, as an operator wished",
    )
    .help("it stays until the files change")
}

fn hold_lost() -> Diagnostic {
    Diagnostic::error(
        "rollback-lost",
        "the older revision that an operator put in force is not kept, or is refused by today's rules",
    )
    .help("change the files, or choose another revision with \"tenantd tenants rollback\"")
}

fn unkept() -> Diagnostic {
    Diagnostic::warning(
        "not-kept",
        "this revision could not be written to the state folder: it would not survive a restart",
    )
    .help("make room on the disk of the state folder, or make it writable; it is tried again every 10 s")
}
