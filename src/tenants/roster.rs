//! What the reconciler remembers of each entry: what lay on disk when it was last read, and what is in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::plan::Applicant;
use super::registry::Published;
use super::scan::Signature;
use super::status::{State, TenantStatus};
use super::tenant::{Tenant, TenantSlot};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::bundle::Loaded;
use crate::spec::{Mount, TenantName, TenantSpec};

/// All entries, by stem.
pub(super) type Roster = BTreeMap<Arc<str>, Known>;

/// What is known of one entry.
pub(super) struct Known {
    /// Of the files as they were last read.
    pub(super) signature: Signature,
    files: Vec<PathBuf>,
    on_disk: Option<Digest>,
    name: Option<TenantName>,
    /// About the files as they are.
    report: Report,
    /// Why the candidate may not serve; judged anew in every pass.
    refusal: Option<Diagnostic>,
    /// Fit to serve, but not in force: just read, or another holds what it claims.
    candidate: Option<Candidate>,
    live: Option<Live>,
    state: State,
    since: Timestamp,
}

#[derive(Clone)]
struct Candidate {
    spec: TenantSpec,
    revision: Digest,
    access: Option<Digest>,
}

struct Live {
    tenant: Arc<Tenant>,
    /// What it was made of.
    files: Vec<PathBuf>,
    /// Of all that decides who may call it.
    access: Option<Digest>,
}

impl Live {
    /// Whether one of the files it was made of is not among these.
    fn lost_a_file(&self, files: &[PathBuf]) -> bool {
        self.files.iter().any(|file| !files.contains(file))
    }

    /// A change was refused: the revision answers on if the change is surely not about who may call.
    fn close_unless_same(&self, access: Option<Digest>) {
        self.tenant.slot.close(access.is_none() || access != self.access);
    }
}

impl Known {
    /// An entry seen for the first time.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            signature: Signature::default(),
            files: Vec::new(),
            on_disk: None,
            name: None,
            report: Report::new(),
            refusal: None,
            candidate: None,
            live: None,
            state: State::Loading,
            since: now,
        }
    }

    /// Takes in what was read. Says whether the content is another than before.
    ///
    /// A refused change leaves the revision in force: open if the change is surely not about who may call, else closed.
    /// Where a file of that revision was deleted, its operator has spoken: the revision does not live on.
    pub(super) fn take_in(&mut self, loaded: Loaded, signature: Signature, files: Vec<PathBuf>) -> bool {
        self.signature = signature;
        let unchanged = self.on_disk == Some(loaded.digest) && self.files == files;
        self.files = files;
        if unchanged {
            return false;
        }
        self.on_disk = Some(loaded.digest);
        self.name = loaded.name;
        self.report = loaded.report;
        self.refusal = None;
        let revision = loaded.digest;
        self.candidate = loaded.spec.map(|spec| Candidate { spec, revision, access: loaded.access });
        match (&self.candidate, &self.live) {
            (Some(candidate), Some(live)) if candidate.revision == live.tenant.revision => self.restore(),
            (None, Some(live)) if live.lost_a_file(&self.files) => self.live = None,
            (None, Some(live)) => live.close_unless_same(loaded.access),
            _ => {}
        }
        true
    }

    /// What lies on disk is what is in force again.
    fn restore(&mut self) {
        self.candidate = None;
        if let Some(live) = &self.live {
            live.tenant.slot.close(false);
        }
    }

    /// What the entry wants and holds, for the judgement of claims.
    pub(super) fn applicant<'a>(&'a self, stem: &'a str) -> Applicant<'a> {
        fn claim(spec: &TenantSpec) -> (&TenantName, &[Mount]) {
            (&spec.name, spec.mounts.as_slice())
        }
        Applicant {
            stem,
            wants: self.candidate.as_ref().map(|candidate| claim(&candidate.spec)),
            holds: self.live.as_ref().map(|live| claim(&live.tenant.spec)),
        }
    }

    /// Whether the entry waits for a verdict.
    pub(super) fn has_candidate(&self) -> bool {
        self.candidate.is_some()
    }

    /// The candidate may not serve, for this reason. Says whether that is news.
    ///
    /// What it would have changed about who may call closes the revision in force, whatever it was refused for.
    pub(super) fn refuse(&mut self, refusal: Diagnostic) -> bool {
        if let (Some(live), Some(candidate)) = (&self.live, &self.candidate) {
            live.close_unless_same(candidate.access);
        }
        let refusal = Some(refusal);
        let news = self.refusal != refusal;
        self.refusal = refusal;
        news
    }

    /// The candidate may serve: builds it with `build`, on the slot of the revision in force. Its findings refuse it.
    pub(super) fn promote(
        &mut self,
        build: impl FnOnce(TenantSpec, Digest, Arc<TenantSlot>) -> Result<Arc<Tenant>, Report>,
    ) {
        let Some(candidate) = self.candidate.take() else { return };
        self.refusal = None;
        let slot = self.live.as_ref().map(|live| Arc::clone(&live.tenant.slot)).unwrap_or_default();
        match build(candidate.spec, candidate.revision, slot) {
            Ok(tenant) => {
                tenant.slot.close(false);
                self.live = Some(Live { tenant, files: self.files.clone(), access: candidate.access });
            }
            Err(report) => {
                self.report.extend(report);
                if let Some(live) = &self.live {
                    live.close_unless_same(candidate.access);
                }
            }
        }
    }

    /// The entry as the world is told, its state brought up to date.
    pub(super) fn publish(&mut self, stem: &str, folder: &Path, now: Timestamp) -> Published {
        let state = self.current_state();
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
        let live = self.live.as_ref().map(|live| &live.tenant);
        let spec = live.map(|tenant| &tenant.spec);
        let name = spec.map(|spec| &spec.name).or(self.name.as_ref());
        let status = TenantStatus {
            name: name.map_or(stem, TenantName::as_str).to_owned(),
            stem: stem.to_owned(),
            state,
            since: self.since,
            connector_url: spec.map(|spec| spec.public_url.connector()),
            title: spec.map(|spec| spec.title.to_string()),
            access: live.map(|tenant| tenant.bearer.describe()),
            on_disk: self.on_disk.map(|digest| digest.short()),
            in_force: live.map(|tenant| tenant.revision.short()),
            trouble: None,
            closed: live.is_some_and(|tenant| tenant.slot.is_closed()),
            findings: self.findings(),
            files: self.files.iter().map(|file| relative(file, folder)).collect(),
        };
        Published::new(status, live.cloned())
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

    fn findings(&self) -> serde_json::Value {
        let findings: Vec<_> = self.report.iter().chain(&self.refusal).collect();
        serde_json::to_value(findings).expect("findings are plain data")
    }

    /// The findings, for the log.
    pub(super) fn all_findings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.report.iter().chain(&self.refusal)
    }

    /// Its state, as last published.
    pub(super) fn state(&self) -> State {
        self.state
    }
}

fn relative(file: &Path, folder: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}
