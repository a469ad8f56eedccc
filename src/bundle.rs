//! Floor 1: what an operator drops, read under caps and made into a [`TenantSpec`].
//!
//! Files → [`Entry`] (which files belong to one tenant) → [`Loaded`] (digest, spec or reasons). Pure apart from reading
//! those files: no network, no clock, no state.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::base::diagnostic::Report;
use crate::base::digest::Digest;
use crate::spec::{HostName, TenantName, TenantSpec};

/// One tenant's files in the folder, grouped by stem: `acme.zip` + `acme.yaml` + `acme.env`, or the folder `acme/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The common stem as it is on disk: the entry's identity in the folder.
    pub stem: String,
    /// The files, resolved (a folder's contents listed), in order of precedence, lowest first.
    pub files: Vec<PathBuf>,
    /// What is odd about the grouping itself (two zips, `acme.yaml` and `acme.yml`).
    pub report: Report,
}

/// What loading needs to know about this gateway.
#[derive(Debug, Clone)]
pub struct Context {
    /// `https://host[:port]`, no slash at its end.
    pub public_base: String,
    /// The gateway's own host names; a `public_url` elsewhere makes a tenant's own host.
    pub hosts: Vec<HostName>,
    /// Loopback (and other forbidden) networks that backends may be in after all.
    pub backend_allow: Vec<IpNet>,
    /// Our own listeners, which no backend may be.
    pub own_addresses: Vec<std::net::SocketAddr>,
    /// Open tenants are refused.
    pub require_auth: bool,
    /// Folders below which `x_file:` may point, besides the tenant's own.
    pub secret_roots: Vec<PathBuf>,
    /// Variables that `${TENANT_…}` may name.
    pub env: std::collections::BTreeMap<String, crate::base::secret::Secret>,
}

/// What became of an entry.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Over everything that was read, secret files and variables included: equal digests mean nothing changed.
    pub digest: Digest,
    /// The tenant's name, known even when the rest is refused.
    pub name: Option<TenantName>,
    /// The tenant, if nothing refuses it.
    pub spec: Option<TenantSpec>,
    /// Over all that decides who may call; `None` when that could not be read with certainty.
    pub access: Option<Digest>,
    pub report: Report,
}

/// Lists a folder and groups what lies in it, ordered by stem. `only` restricts the listing to some stems.
/// Ignored names (dot files, `*~`, `*.tmp`, `*.part`, `*.swp`, `*.status.json`, our own README) are left out.
pub fn discover(_folder: &Path, _only: Option<&BTreeSet<String>>) -> std::io::Result<Vec<Entry>> {
    unimplemented!("owner: bundle")
}

/// The stem that a path in the folder belongs to, `None` for ignored names. For events: which entry to look at.
pub fn stem_of(_folder: &Path, _path: &Path) -> Option<String> {
    unimplemented!("owner: bundle")
}

/// Reads and judges one entry. Blocking; call it where blocking is fine. Never panics, bounded in time and memory.
pub fn load(_entry: &Entry, _context: &Context) -> Loaded {
    unimplemented!("owner: bundle")
}
