//! The last good context of each tenant on disk, so that instructions are warm right after a restart.
//!
//! `<state>/contexts/<tenant>.json`, mode 0600, replaced atomically. It is a cache: what cannot be read or written is
//! a line in the log, never a failure, and a file about another backend is ignored.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::digest::Digest;
use crate::spec::TenantName;

/// A context is at most 1 MiB when it comes in; its compact form is no longer.
const LARGEST: u64 = 2 << 20;

/// The folder of contexts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContextStore {
    folder: Arc<Path>,
}

#[derive(Serialize, Deserialize)]
struct Record<T> {
    /// Which backend it came from.
    backend: String,
    context: T,
}

impl ContextStore {
    /// Keeps contexts under `<state>/contexts`.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("contexts").into() }
    }

    /// The last context of this backend, if it is there and whole.
    pub(super) async fn load(&self, tenant: &TenantName, backend: Digest) -> Option<Value> {
        let path = self.path(tenant);
        tokio::task::spawn_blocking(move || read(&path, backend)).await.ok().flatten()
    }

    pub(super) async fn save(&self, tenant: &TenantName, backend: Digest, context: Arc<Value>) {
        let path = self.path(tenant);
        let written = tokio::task::spawn_blocking(move || write(&path, backend, &context)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(tenant = tenant.as_str(), %error, "the semantic context could not be stored");
        }
    }

    pub(super) fn forget(&self, tenant: &TenantName) {
        if let Err(error) = fs::remove_file(self.path(tenant))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(tenant = tenant.as_str(), %error, "the stored context could not be removed");
        }
    }

    fn path(&self, tenant: &TenantName) -> PathBuf {
        self.folder.join(format!("{tenant}.json"))
    }
}

fn read(path: &Path, backend: Digest) -> Option<Value> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
    let record: Record<Value> = serde_json::from_slice(&text).ok()?;
    (record.backend == backend.to_string()).then_some(record.context)
}

/// Without fsync: after a crash an older context, or none, is as good.
fn write(path: &Path, backend: Digest, context: &Value) -> io::Result<()> {
    let folder = path.parent().expect("the path has the folder in front");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let text = serde_json::to_vec(&Record { backend: backend.to_string(), context })?;
    if text.len() as u64 > LARGEST {
        return Ok(());
    }
    let fresh = path.with_extension("json.tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&text)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_context_comes_back_for_its_backend_only() {
        let state = tempfile::tempdir().expect("a folder");
        let store = ContextStore::new(state.path());
        let tenant = TenantName::parse("acme").expect("a name");
        let (ours, other) = (Digest::of(b"ours"), Digest::of(b"other"));
        assert_eq!(store.load(&tenant, ours).await, None);

        store.save(&tenant, ours, Arc::new(json!({"entities": ["Customer"]}))).await;
        assert_eq!(store.load(&tenant, ours).await, Some(json!({"entities": ["Customer"]})));
        assert_eq!(store.load(&tenant, other).await, None);

        let path = state.path().join("contexts/acme.json");
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{ torn").expect("written");
        assert_eq!(store.load(&tenant, ours).await, None);
        store.forget(&tenant);
        assert!(!path.exists());
    }
}
