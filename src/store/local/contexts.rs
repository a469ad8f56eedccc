//! Persists the last good context of each tenant, so that instructions are complete right after a
//! restart.
//!
//! Each is in `<state>/contexts/<tenant>.sealed`, mode 0600, sealed for its tenant and backend, and
//! replaced atomically. This is a cache: a failed read or write is logged at most, and a file that
//! was sealed for another tenant or backend does not open.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::disk;
use crate::base::json::{JsonDocument, JsonLimits};
use crate::spec::TenantName;
use crate::store::keyring::{Keyring, SealContext};

/// A received context is at most 1 MiB, and its compact form is no longer.
const LARGEST: usize = 2 << 20;
const LIMITS: JsonLimits = JsonLimits { bytes: LARGEST, depth: 127, values: usize::MAX };

/// The folder of persisted contexts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContextStore {
    keyring: Arc<Keyring>,
    folder: Arc<Path>,
}

impl ContextStore {
    /// Opens the store of contexts in `<state>/contexts`.
    pub(in crate::store) fn new(state: &Path, keyring: Arc<Keyring>) -> Self {
        Self { folder: state.join("contexts").into(), keyring }
    }

    /// Loads the last context of this backend, if it exists and is intact.
    pub async fn load(&self, tenant: &TenantName, backend: Digest) -> Option<JsonDocument> {
        let (this, tenant) = (self.clone(), tenant.clone());
        let read = move || {
            let sealed = disk::read_no_follow(&this.path(&tenant), 2 * LARGEST as u64).ok()?;
            let text = this.keyring.open(&seal_context(&tenant, &backend.to_string()), &sealed)?;
            JsonDocument::parse(text, &LIMITS).ok()
        };
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// Stores the context of a backend; a failure is logged.
    pub async fn save(&self, tenant: &TenantName, backend: Digest, context: Arc<JsonDocument>) {
        let (this, named) = (self.clone(), tenant.clone());
        let write = move || {
            let text = context.as_str().as_bytes();
            if text.len() > LARGEST {
                return Ok(());
            }
            let sealed = this.keyring.seal(&seal_context(&named, &backend.to_string()), text);
            replace(&this.path(&named), &sealed)
        };
        let written = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(tenant = tenant.as_str(), %error, "the semantic context could not be stored");
        }
    }

    /// Deletes the contexts of tenants; a failure is logged.
    pub async fn remove(&self, tenants: Vec<TenantName>) {
        let this = self.clone();
        let remove = move || tenants.iter().for_each(|tenant| this.remove_file(tenant));
        if tokio::task::spawn_blocking(remove).await.is_err() {
            tracing::error!("removing the contexts of removed tenants failed inside tenantd");
        }
    }

    fn remove_file(&self, tenant: &TenantName) {
        if let Err(error) = fs::remove_file(self.path(tenant))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(tenant = tenant.as_str(), %error, "the stored context could not be removed");
        }
    }

    fn path(&self, tenant: &TenantName) -> PathBuf {
        self.folder.join(format!("{tenant}.sealed"))
    }
}

fn seal_context<'a>(tenant: &'a TenantName, backend: &'a str) -> SealContext<'a> {
    SealContext { purpose: "context", tenant: tenant.as_str(), row: backend }
}

/// Replaces a file without fsync: losing the latest context in a crash is harmless.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("the path has the folder in front");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    disk::replace(path, bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::store::{KeySource, Store};

    #[tokio::test]
    async fn a_context_loads_for_its_backend_only() {
        let state = tempfile::tempdir().expect("a folder");
        let store = Store::open(state.path(), &KeySource::State).expect("opened").contexts();
        let tenant = TenantName::parse("acme").expect("a name");
        let (ours, other) = (Digest::of(b"ours"), Digest::of(b"other"));
        assert_eq!(store.load(&tenant, ours).await, None);

        let context = JsonDocument::from_value(&json!({"entities": ["Customer"]}));
        store.save(&tenant, ours, Arc::new(context.clone())).await;
        assert_eq!(store.load(&tenant, ours).await, Some(context));
        assert_eq!(store.load(&tenant, other).await, None);

        let path = state.path().join("contexts/acme.sealed");
        let bytes = fs::read(&path).expect("the file");
        assert!(!bytes.windows(8).any(|text| text == b"Customer"), "it can be read");
        let beta = TenantName::parse("beta").expect("a name");
        fs::copy(&path, state.path().join("contexts/beta.sealed")).expect("copied");
        assert_eq!(store.load(&beta, ours).await, None);
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{ torn").expect("written");
        assert_eq!(store.load(&tenant, ours).await, None);
        store.remove(vec![tenant]).await;
        assert!(!path.exists());
    }
}
