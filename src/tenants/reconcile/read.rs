//! Reads and builds each tenant in isolation: a panic is a fault of ours that affects only this
//! tenant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Digest;
use crate::base::panic::catch_panic_sync;
use crate::bundle::{self, EntryFiles, LoadOutcome};
use crate::spec::TenantSpec;
use crate::tenants::build::TenantDeps;
use crate::tenants::revision_writer::{LastGoodRevision, RestoredRevision};
use crate::tenants::scan::{ScannedEntry, Signature};
use crate::tenants::stability::PendingLoad;
use crate::tenants::tenant::{Tenant, TenantSlot};

/// What was read of one entry.
pub(super) struct LoadedEntry {
    pub(super) entry_id: Arc<str>,
    pub(super) loaded: LoadOutcome,
    pub(super) signature: Signature,
    /// The signature of the files after reading.
    pub(super) signature_after: Signature,
    pub(super) files: Arc<[PathBuf]>,
    /// The last good revision, if these files are not it.
    pub(super) restored: Option<RestoredRevision>,
    is_provisional: bool,
}

impl LoadedEntry {
    /// Whether the entry changed while it was read, is a zip that may be incomplete, or could not
    /// be read for a temporary reason. `is_new`: the entry did not exist before.
    pub(super) fn is_unstable(&self, is_new: bool) -> bool {
        let is_doubtful = |spec: &TenantSpec| is_new && spec.access.is_open();
        self.signature_after != self.signature
            || (self.is_provisional && self.loaded.spec.as_ref().is_none_or(is_doubtful))
            || self.loaded.is_out_of_resources()
    }
}

/// Reads one entry. Blocking.
pub(super) fn load_entry(
    due: PendingLoad,
    last_good: Option<LastGoodRevision>,
    folder: &Path,
    context: &bundle::LoadContext,
) -> LoadedEntry {
    let PendingLoad { scanned: ScannedEntry { files: entry, signature, .. }, is_provisional: on_trial } = due;
    let loaded = catch_panic_sync(|| bundle::load(&entry, context)).unwrap_or_else(|_| failed_load(&entry));
    let signature = signature.naming(&loaded.named);
    let afterwards = Signature::read(&entry, Arc::clone(signature.named()));
    let revive = |last_good: LastGoodRevision| last_good.restore(&loaded, &entry.files, folder, context);
    let revived = catch_panic_sync(|| last_good.and_then(revive)).unwrap_or_default();
    LoadedEntry {
        entry_id: entry.id.as_str().into(),
        loaded,
        signature,
        signature_after: afterwards,
        files: entry.files.into(),
        restored: revived,
        is_provisional: on_trial,
    }
}

/// Builds one tenant.
pub(super) fn build_tenant(
    parts: &TenantDeps,
    stem: &str,
    spec: TenantSpec,
    revision: Digest,
    slot: Arc<TenantSlot>,
) -> Result<Arc<Tenant>, Report> {
    catch_panic_sync(|| parts.build(stem, spec, revision, slot))
        .unwrap_or_else(|_| Err(internal_error("building this tenant failed inside tenantd").into()))
}

fn failed_load(entry: &EntryFiles) -> LoadOutcome {
    let finding = internal_error("reading this entry failed inside tenantd");
    let located = match entry.files.first() {
        Some(file) => finding.at(Location::file(file)),
        None => finding,
    };
    let digest = Digest::of(entry.id.as_bytes());
    let (report, named) = (Report::from(located), Vec::new());
    LoadOutcome {
        digest,
        name: None,
        spec: None,
        access_fingerprint: None,
        guards: None,
        report,
        named,
        snapshot: None,
    }
}

fn internal_error(message: &str) -> Diagnostic {
    Diagnostic::error("internal", message)
        .help("the log says where; please report it with the files that cause it")
}
