//! Floor 1: reads the files of an entry, within limits, and turns them into a [`TenantSpec`].
//!
//! Files → [`EntryFiles`] (the files of one entry) → [`LoadOutcome`] (digest, and a spec or
//! findings). Pure apart from reading those files: no network, no clock, no state.
//!
//! The steps: [`list_entries()`] groups files into entries; [`load`] reads them into layers
//! (`layers`: `archive`, `yaml`, `dotenv`, `document`, `shape`), then validates every value
//! (`validate`). All findings are reported at once, and none ever contains a secret (`excerpt`).
//! Only `contract` knows the vendor's API.

mod archive;
mod confinement;
mod contract;
mod data_fingerprints;
mod discover;
mod document;
mod dotenv;
mod excerpt;
mod fields;
mod given;
mod layers;
mod load_state;
mod lookalike;
pub mod notation;
mod pack;
mod placeholder;
pub mod sample;
mod secret_file;
mod secret_refs;
mod shape;
mod single;
mod slim;
mod snapshot;
mod source_text;
mod tenant_name;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::routing::GatewayHosts;
use crate::spec::{BackendOnly, DataFingerprints, HoldChanges, TenantListeners, TenantName, TenantSpec};

pub use archive::MAX_ARCHIVE;
pub use confinement::secret_file_owner;
pub use discover::{
    FolderListing, entry_id_of, find_stray_files, folder_like, is_unpacked_export, list_entries, list_folder,
};
pub use given::GivenValues;
pub use lookalike::lookalike_keys;
pub use pack::pack;
pub use secret_file::{Presence, SecretFile};
pub use single::{list_single, single_entry_id, watched_folders};
pub use slim::SlimExport;
pub use snapshot::{DiffLine, DocumentDiff, Draft, Snapshot};
pub use tree::{ConfigKey, ConfigNode, ConfigValue, Position, SyntaxError, ValueStyle};

use load_state::LoadState;
use snapshot::SourceReader;

/// The code of the finding for files that could not be read because the machine was out of file
/// descriptors or memory.
const OUT_OF_RESOURCES: &str = "out-of-resources";
const OUT_OF_RESOURCES_HELP: &str =
    "the gateway tries again; raise the limit of open files (ulimit -n, LimitNOFILE=)";

/// An error on its way to the report.
type BoxedDiagnostic = Box<Diagnostic>;

/// The files of one entry, which share an entry id: `acme.zip` + `acme.yaml` + `acme.env`, or the
/// folder `acme/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFiles {
    /// The entry id: the common file stem, as it is on disk.
    pub id: String,
    /// The tenant's own folder, if it has one. Files with secrets may be in it.
    pub folder: Option<PathBuf>,
    /// The paths of the files (a folder's contents listed), in order of precedence, lowest first.
    pub files: Vec<PathBuf>,
    /// Configuration files of other entries whose names are almost this entry's.
    pub lookalikes: Vec<PathBuf>,
    /// Findings about the grouping itself (two zips, `acme.yaml` and `acme.yml`).
    pub report: Report,
}

/// The facts about this gateway that loading depends on.
#[derive(Debug, Clone)]
pub struct LoadContext {
    /// `https://host[:port]`, no slash at its end.
    pub public_base: String,
    /// The gateway's own hosts; a `public_url` on another host gives the tenant a host of its own.
    pub hosts: GatewayHosts,
    /// The listeners that a tenant may have for itself.
    pub tenant_listeners: TenantListeners,
    /// Which changes wait for approval, where a tenant's files do not say.
    pub hold_changes: HoldChanges,
    /// Whether an export may give itself a host of its own.
    pub zip_hosts_allowed: bool,
    /// Loopback and other networks that are forbidden unless listed here, for backends.
    pub backend_allow: Vec<IpNet>,
    /// Where backends may be at all.
    pub backend_only: BackendOnly,
    /// Our own listeners, which no backend may be.
    pub own_addresses: Vec<std::net::SocketAddr>,
    /// Whether open tenants are refused.
    pub require_auth: bool,
    /// The folders that `x_file:` and links in a tenant's own folder may lead into, besides that
    /// folder.
    pub secret_roots: Vec<PathBuf>,
    /// Whether a tenant may use only the variables, and the subfolder of each secret root, that
    /// have its name.
    pub confine_tenants: bool,
    /// The largest request that the gateway ever has memory for, in bytes.
    pub largest_request: usize,
    /// Variables that `${TENANT_…}` may name.
    pub env: std::collections::BTreeMap<String, crate::base::secret::Secret>,
    /// What flags and variables give the tenant; `None` if the gateway has more than one.
    pub given: Option<Arc<GivenValues>>,
}

impl LoadContext {
    /// Whether the gateway has only one tenant.
    pub(crate) fn has_single_tenant(&self) -> bool {
        self.given.is_some()
    }
}

/// The result of loading an entry.
#[derive(Debug, Clone)]
pub struct LoadOutcome {
    /// The digest of everything that was read, including secret files and variables: equal digests
    /// mean that nothing changed.
    pub digest: Digest,
    /// The tenant's name, if it is valid; known even if the rest is not.
    pub name: Option<TenantName>,
    /// The dataset's name in the export, if there is an export that can be read.
    pub dataset: Option<String>,
    /// The tenant, if there are no errors.
    pub spec: Option<TenantSpec>,
    /// The digest of everything that decides who may call; `None` if some of it could not be read
    /// with certainty.
    pub access_fingerprint: Option<Digest>,
    /// What the files give to authorized callers only, or might, even if they cannot be served.
    pub restricted_data: Option<Box<DataFingerprints>>,
    /// The findings about the files.
    pub report: Report,
    /// The files with secrets that the tenant's files name, readable or not.
    pub secret_files: Vec<SecretFile>,
    /// What was read, if there is a spec.
    pub snapshot: Option<Snapshot>,
}

impl LoadOutcome {
    /// Whether a read failed for lack of resources, which will pass and is no fault of the files.
    pub fn is_out_of_resources(&self) -> bool {
        self.report.iter().any(|finding| finding.code == OUT_OF_RESOURCES)
    }
}

/// Reads and validates one entry. Blocking. Never panics, and is bounded in time and memory.
pub fn load(entry: &EntryFiles, context: &LoadContext) -> LoadOutcome {
    load_from_source(SourceReader::new(entry, None), entry, context)
}

/// Validates an entry as it would be with a file that is not in the folder yet. Blocking.
///
/// # Errors
/// Fails if the folder cannot be listed. Problems with the files are findings in the result.
pub fn load_with_draft(
    folder: &Path,
    stem: &str,
    draft: &Draft,
    context: &LoadContext,
) -> std::io::Result<LoadOutcome> {
    let entry = discover::entry_with_file(folder, stem, &draft.path)?;
    Ok(load_from_source(SourceReader::with_draft(&entry, draft), &entry, context))
}

/// Validates an earlier snapshot by today's rules without reading the disk. `root` is the tenants
/// folder.
pub fn load_snapshot(snapshot: &Snapshot, root: &Path, context: &LoadContext) -> LoadOutcome {
    let entry = snapshot.to_entry_files(root);
    load_from_source(SourceReader::new(&entry, Some(snapshot)), &entry, context)
}

/// Validates bytes as the only file of an entry that is not on disk.
#[cfg(feature = "fuzzing")]
pub(crate) fn load_bytes(path: PathBuf, bytes: Vec<u8>, context: &LoadContext) -> LoadOutcome {
    let (files, namesakes) = (vec![path.clone()], Vec::new());
    let entry =
        EntryFiles { id: "acme".into(), folder: None, files, lookalikes: namesakes, report: Report::new() };
    load_from_source(SourceReader::with_draft(&entry, &Draft { path, bytes }), &entry, context)
}

fn load_from_source(source: SourceReader<'_>, entry: &EntryFiles, context: &LoadContext) -> LoadOutcome {
    let mut report = entry.report.clone();
    let mut state = LoadState::new(source, entry, context);
    let gathered = layers::read_layers(entry, &mut state, &mut report);
    let lookalikes = lookalike::read_lookalikes(entry, &mut state);
    let name = tenant_name::resolve_name(entry, &gathered, context, &mut report);
    // A value that seems missing may be in the file that could not be read, so further findings
    // would mislead.
    let judged = (!gathered.incomplete && !entry.files.is_empty())
        .then(|| validate::validate_tenant(&gathered, name.as_ref(), &lookalikes, &mut state, &mut report));
    let validate::Verdict { access, is_open, spec } = judged.unwrap_or_default();
    let access = access.filter(|_| !entry.report.has_errors());
    let is_surely_open = is_open && access.is_some();
    let restricted_data = (!is_surely_open).then(|| restricted_data(&gathered, spec.as_ref()));
    let spec = spec.filter(|_| !report.has_errors());
    LoadOutcome {
        snapshot: spec.is_some().then(|| state.source.take_snapshot(entry)),
        digest: state.hasher.finish(),
        name,
        dataset: gathered.dataset,
        spec,
        access_fingerprint: access,
        restricted_data: restricted_data.map(Box::new),
        report: state.scrubber.scrub(&report),
        secret_files: state.secret_files,
    }
}

/// Returns what a tenant gives access to; if it is too broken for that, what its export alone gives
/// access to.
fn restricted_data(gathered: &layers::GatheredLayers, spec: Option<&TenantSpec>) -> DataFingerprints {
    match spec {
        Some(spec) => spec.backend.data.clone(),
        None => DataFingerprints {
            effective: Vec::new(),
            export_only: data_fingerprints::compute_export_only(&gathered.layers),
        },
    }
}
