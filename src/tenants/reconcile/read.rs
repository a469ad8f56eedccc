//! Reads and builds each tenant in isolation: a panic is a fault of ours that affects only this
//! tenant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Digest;
use crate::base::panic::caught_now;
use crate::bundle::{self, Entry, Loaded};
use crate::spec::TenantSpec;
use crate::tenants::build::Parts;
use crate::tenants::keeper::{LastGood, Revived};
use crate::tenants::look::Due;
use crate::tenants::scan::{Found, Signature};
use crate::tenants::tenant::{Tenant, TenantSlot};

/// What was read of one entry.
pub(super) struct Read {
    pub(super) stem: Arc<str>,
    pub(super) loaded: Loaded,
    pub(super) signature: Signature,
    /// The signature of the files after reading.
    pub(super) afterwards: Signature,
    pub(super) files: Arc<[PathBuf]>,
    /// The last good revision, if these files are not it.
    pub(super) revived: Option<Revived>,
    on_trial: bool,
}

impl Read {
    /// Whether the entry changed while it was read, is a zip that may be incomplete, or could not
    /// be read for a temporary reason. `is_new`: the entry did not exist before.
    pub(super) fn is_unsettled(&self, is_new: bool) -> bool {
        let is_doubtful = |spec: &TenantSpec| is_new && spec.access.is_open();
        self.afterwards != self.signature
            || (self.on_trial && self.loaded.spec.as_ref().is_none_or(is_doubtful))
            || self.loaded.lacked_resources()
    }
}

/// Reads one entry. Blocking.
pub(super) fn read(due: Due, last_good: Option<LastGood>, folder: &Path, context: &bundle::Context) -> Read {
    let Due { found: Found { entry, signature, .. }, on_trial } = due;
    let loaded = caught_now(|| bundle::load(&entry, context)).unwrap_or_else(|_| broken(&entry));
    let signature = signature.naming(&loaded.named);
    let afterwards = Signature::of(&entry, Arc::clone(signature.named()));
    let revive = |last_good: LastGood| last_good.revive(&loaded, &entry.files, folder, context);
    let revived = caught_now(|| last_good.and_then(revive)).unwrap_or_default();
    Read {
        stem: entry.stem.as_str().into(),
        loaded,
        signature,
        afterwards,
        files: entry.files.into(),
        revived,
        on_trial,
    }
}

/// Builds one tenant.
pub(super) fn build(
    parts: &Parts,
    stem: &str,
    spec: TenantSpec,
    revision: Digest,
    slot: Arc<TenantSlot>,
) -> Result<Arc<Tenant>, Report> {
    caught_now(|| parts.build(stem, spec, revision, slot))
        .unwrap_or_else(|_| Err(internal("building this tenant failed inside tenantd").into()))
}

fn broken(entry: &Entry) -> Loaded {
    let finding = internal("reading this entry failed inside tenantd");
    let located = match entry.files.first() {
        Some(file) => finding.at(Location::file(file)),
        None => finding,
    };
    let digest = Digest::of(entry.stem.as_bytes());
    let (report, named) = (Report::from(located), Vec::new());
    Loaded { digest, name: None, spec: None, access: None, guards: None, report, named, snapshot: None }
}

fn internal(message: &str) -> Diagnostic {
    Diagnostic::error("internal", message)
        .help("the log says where; please report it with the files that cause it")
}
