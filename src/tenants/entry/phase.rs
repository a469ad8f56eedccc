//! The phases of an entry's life: which of its revisions is live, and which one waits.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::bundle::{LoadOutcome, Snapshot};
use crate::spec::TenantSpec;
use crate::tenants::scan::{FileStamps, SecretFiles};
use crate::tenants::tenant::Tenant;
use crate::tenants::tool_changes::HeldChange;

/// Where an entry is in its life. Only `transitions` changes it.
#[derive(Default)]
pub(super) enum Phase {
    /// Nothing of it is live, and its files cannot be used.
    #[default]
    Unusable,
    /// Nothing of it is live. The revision in its files waits, or its claim (to a name, paths and
    /// hosts) was rejected.
    Candidate(Box<Candidate>),
    /// A revision is live and none waits: the entry's files are this revision, or cannot be used,
    /// or an operator put this one in force instead of them.
    Live(LiveRevision),
    /// A revision is live, and another one waits or was rejected.
    LiveWithCandidate(LiveRevision, Box<Candidate>),
}

/// A revision that is fit to serve and not live.
pub(in crate::tenants) struct Candidate {
    pub(super) spec: TenantSpec,
    /// The digest of everything that it was read from.
    pub(super) revision: Digest,
    /// The digest of everything that decides who may call it, if that is certain.
    pub(super) access_fingerprint: Option<Digest>,
    /// The files that it was read from.
    pub(super) files: Arc<[PathBuf]>,
    /// The files with secrets that those files name.
    pub(super) secret_files: SecretFiles,
    pub(super) source: RevisionSource,
    pub(super) decision: ClaimDecision,
    /// What waits for an operator's approval, if it is held back for that.
    pub(super) held: Option<Arc<HeldChange>>,
    /// Whether an operator approved it.
    pub(super) is_approved: bool,
    /// What a rollback to this revision put aside; `None` if it is no rollback.
    pub(super) shelved: Option<Shelved>,
}

/// Where a revision comes from.
pub(super) enum RevisionSource {
    /// It was just read. This is its encoded snapshot, to be persisted.
    New(Vec<u8>),
    /// It is persisted under this number.
    Stored(u64),
}

/// What was decided about a candidate's claim.
pub(super) enum ClaimDecision {
    /// Nothing yet.
    Pending,
    /// An operator ordered it: an earlier rejection does not count in the next decision.
    Forced,
    /// It was rejected, for this reason. Decided anew in every pass.
    Rejected(Box<Diagnostic>),
}

/// What waited before a rollback, to wait again if the rollback fails.
pub(super) struct Shelved {
    pub(super) candidate: Option<Box<Candidate>>,
    /// Whether the live revision was closed.
    pub(super) is_closed: bool,
}

/// A revision that is live.
pub(super) struct LiveRevision {
    pub(super) tenant: Arc<Tenant>,
    /// The files that it was built from.
    pub(super) files: Arc<[PathBuf]>,
    /// The files with secrets that those files name.
    pub(super) secret_files: SecretFiles,
    /// The digest of everything that decides who may call it, if that is certain.
    pub(super) access_fingerprint: Option<Digest>,
    /// Its number, which counts up for each entry.
    pub(super) number: u64,
    /// Whether its files enable it, regardless of an operator's pause.
    pub(super) is_enabled_by_files: bool,
}

impl Phase {
    pub(super) fn from_parts(live: Option<LiveRevision>, candidate: Option<Box<Candidate>>) -> Self {
        match (live, candidate) {
            (None, None) => Self::Unusable,
            (None, Some(candidate)) => Self::Candidate(candidate),
            (Some(live), None) => Self::Live(live),
            (Some(live), Some(candidate)) => Self::LiveWithCandidate(live, candidate),
        }
    }

    pub(super) fn into_parts(self) -> (Option<LiveRevision>, Option<Box<Candidate>>) {
        match self {
            Self::Unusable => (None, None),
            Self::Candidate(candidate) => (None, Some(candidate)),
            Self::Live(live) => (Some(live), None),
            Self::LiveWithCandidate(live, candidate) => (Some(live), Some(candidate)),
        }
    }

    /// Returns the live revision, if any.
    pub(super) fn live(&self) -> Option<&LiveRevision> {
        match self {
            Self::Live(live) | Self::LiveWithCandidate(live, _) => Some(live),
            Self::Unusable | Self::Candidate(_) => None,
        }
    }

    /// Returns the candidate, if any.
    pub(super) fn candidate(&self) -> Option<&Candidate> {
        match self {
            Self::Candidate(candidate) | Self::LiveWithCandidate(_, candidate) => Some(candidate),
            Self::Unusable | Self::Live(_) => None,
        }
    }
}

impl Candidate {
    /// Creates the candidate of what was just read; `None` if that cannot be used.
    pub(super) fn read(loaded: LoadOutcome, files: Arc<[PathBuf]>) -> Option<Self> {
        let source = RevisionSource::New(loaded.snapshot.as_ref().map(Snapshot::encode)?);
        Self::new(loaded, files, source)
    }

    /// Creates the candidate of a persisted revision; `None` if that cannot be used today.
    pub(in crate::tenants) fn stored(
        loaded: LoadOutcome,
        number: u64,
        files: Arc<[PathBuf]>,
    ) -> Option<Self> {
        Self::new(loaded, files, RevisionSource::Stored(number))
    }

    /// Creates the candidate of a revision that another gateway shared; `None` if it cannot be used
    /// today.
    pub(in crate::tenants) fn received(
        loaded: LoadOutcome,
        documents: Vec<u8>,
        files: Arc<[PathBuf]>,
    ) -> Option<Self> {
        Self::new(loaded, files, RevisionSource::New(documents))
    }

    fn new(loaded: LoadOutcome, files: Arc<[PathBuf]>, source: RevisionSource) -> Option<Self> {
        let LoadOutcome { digest, spec, access_fingerprint, secret_files, .. } = loaded;
        let (decision, shelved) = (ClaimDecision::Pending, None);
        let secret_files = secret_files.into_iter().map(|file| file.path).collect();
        Some(Self {
            spec: spec?,
            revision: digest,
            access_fingerprint,
            files,
            secret_files,
            source,
            decision,
            held: None,
            is_approved: false,
            shelved,
        })
    }

    /// Whether it waits for an operator's approval.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether an operator ordered it, so that an earlier rejection does not count.
    pub(super) fn is_forced(&self) -> bool {
        matches!(self.decision, ClaimDecision::Forced)
    }

    /// Returns why it was rejected, if it was.
    pub(super) fn rejection(&self) -> Option<&Diagnostic> {
        match &self.decision {
            ClaimDecision::Rejected(rejection) => Some(rejection),
            ClaimDecision::Pending | ClaimDecision::Forced => None,
        }
    }
}

impl LiveRevision {
    /// Whether one of the files that it was built from, including those with secrets, is missing.
    pub(super) fn has_lost_file(&self, files: &[PathBuf], stamps: &FileStamps) -> bool {
        self.files.iter().any(|file| !files.contains(file)) || stamps.misses_any_of(&self.secret_files)
    }

    pub(super) fn open(&self) {
        self.tenant.slot.set_closed(false);
    }

    /// Handles a refused change: closes the revision unless the change certainly does not
    /// affect who may call.
    pub(super) fn close_unless_access_unchanged(&self, access: Option<Digest>) {
        self.tenant.slot.set_closed(access.is_none() || access != self.access_fingerprint);
    }
}
