//! Adds a file that an operator uploads: validates it together with the entry's other files, then
//! puts it into the folder in one step.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::ReconcilerHandle;
use crate::base::diagnostic::Report;
use crate::base::disk;
use crate::bundle::{self, Draft, LoadContext};
use crate::tenants::TenantsSource;
use crate::tenants::status::TenantStatus;

/// The largest file that can be uploaded, in bytes: somewhat more than the largest archive that is
/// loaded, so that a finding says why a larger one is refused.
pub const MAX_UPLOAD_BYTES: usize = 33 << 20;

/// Why a file was not put into the folder.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(
        "\"{0}\" is not a valid name for a tenant's file: it must end in .zip, .yaml, .yml or .env and must \
         not contain a folder"
    )]
    InvalidName(String),
    #[error("{0} exists already; use --replace to replace it")]
    AlreadyExists(String),
    #[error("this gateway has only one tenant (tenantd run); change its files instead")]
    SingleTenant,
    #[error(
        "this gateway's tenants are Secrets of Kubernetes (tenants_from: kubernetes); apply a Secret with kubectl \
         instead"
    )]
    FromKubernetes,
    #[error("the tenant would be refused")]
    Rejected(Report),
    #[error("the tenants folder cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// What a file would come to, together with the entry's other files.
#[derive(Debug, Clone)]
pub struct CheckedUpload {
    /// The entry that the file belongs to.
    pub entry_id: String,
    /// What was found.
    pub report: Report,
    /// Whether the entry could be served.
    pub is_acceptable: bool,
    /// Whether there is a file of this name already.
    pub exists: bool,
}

impl ReconcilerHandle {
    /// Validates a file as [`ReconcilerHandle::upload`] does, and changes nothing.
    ///
    /// # Errors
    /// Fails if the name is not a tenant file's, or if the folder cannot be read.
    pub async fn check_upload(&self, name: String, bytes: Vec<u8>) -> Result<CheckedUpload, UploadError> {
        let shared = Arc::clone(&self.shared);
        refuse_unless_taken(&shared.source)?;
        let context = Arc::clone(&shared.context.borrow());
        let check = move || check_file(shared.source.folder(), &name, bytes, &context);
        let checked = tokio::task::spawn_blocking(check).await;
        checked.map_err(|error| UploadError::Io(io::Error::other(error)))?.map(|(_, checked)| checked)
    }

    /// Validates a file, puts it into the folder, and returns the status of its entry after a
    /// reload.
    ///
    /// # Errors
    /// Fails if the name is not a tenant file's, if the file exists and `replace` is false, if the
    /// tenant would be refused, or if the folder cannot be written.
    pub async fn upload(
        &self,
        name: String,
        bytes: Vec<u8>,
        replace: bool,
    ) -> Result<Option<TenantStatus>, UploadError> {
        let shared = Arc::clone(&self.shared);
        refuse_unless_taken(&shared.source)?;
        let context = Arc::clone(&shared.context.borrow());
        let store = move || store_file(shared.source.folder(), &name, bytes, replace, &context);
        let stored = tokio::task::spawn_blocking(store).await;
        let entry_id = stored.map_err(|error| UploadError::Io(std::io::Error::other(error)))??;
        self.reload().await;
        Ok(self.shared.registry.load().entries.get(entry_id.as_str()).map(|entry| entry.status()))
    }
}

fn refuse_unless_taken(source: &TenantsSource) -> Result<(), UploadError> {
    match source {
        TenantsSource::Folder(_) => Ok(()),
        TenantsSource::Single(_) => Err(UploadError::SingleTenant),
        TenantsSource::Kubernetes(_) => Err(UploadError::FromKubernetes),
    }
}

/// Validates a file together with the entry's other files. Blocking.
fn check_file(
    folder: &Path,
    name: &str,
    bytes: Vec<u8>,
    context: &LoadContext,
) -> Result<(Draft, CheckedUpload), UploadError> {
    let path = folder.join(name);
    let entry_id =
        bundle::entry_id_of(folder, &path).filter(|entry_id| entry_id != name && !name.contains(['/', '\\']));
    let entry_id = entry_id.ok_or_else(|| UploadError::InvalidName(name.to_owned()))?;
    let exists = path.symlink_metadata().is_ok();
    let draft = Draft { path, bytes };
    let outcome = bundle::load_with_draft(folder, &entry_id, &draft, context)?;
    let is_acceptable = outcome.spec.is_some();
    Ok((draft, CheckedUpload { entry_id, report: outcome.report, is_acceptable, exists }))
}

/// Puts a file into the folder and returns the id of its entry. Blocking.
fn store_file(
    folder: &Path,
    name: &str,
    bytes: Vec<u8>,
    replace: bool,
    context: &LoadContext,
) -> Result<String, UploadError> {
    let (draft, checked) = check_file(folder, name, bytes, context)?;
    if checked.exists && !replace {
        return Err(UploadError::AlreadyExists(name.to_owned()));
    }
    if !checked.is_acceptable {
        return Err(UploadError::Rejected(checked.report));
    }
    disk::replace_durably(&draft.path, &draft.bytes, 0o600)?;
    Ok(checked.entry_id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bundle::sample::sample_context;

    const GOOD: &str = "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\n\
                        connection_id: c\napi_key: key-0001\n";

    #[test]
    fn a_good_file_is_put_in_and_a_bad_one_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let add = |name: &str, text: &str, replace| {
            store_file(folder.path(), name, text.as_bytes().to_vec(), replace, &sample_context())
        };
        assert_eq!(add("acme.yaml", GOOD, false).expect("added"), "acme");
        assert!(matches!(add("bad.yaml", "api_key: [", false), Err(UploadError::Rejected(_))));
        assert!(matches!(add("acme.yaml", GOOD, false), Err(UploadError::AlreadyExists(_))));
        assert!(matches!(add("acme.yaml", "api_key: [", true), Err(UploadError::Rejected(_))));
        assert_eq!(fs::read_to_string(folder.path().join("acme.yaml")).expect("there"), GOOD);
        assert_eq!(add("acme.env", "PATH_PREFIX=/x\n", false).expect("an overlay"), "acme");
        assert!(matches!(add("acme.env", "PATH_PREFIX=../x\n", true), Err(UploadError::Rejected(_))));
        let context = sample_context();
        let check = |text: &str| {
            check_file(folder.path(), "acme.yaml", text.as_bytes().to_vec(), &context).expect("checked").1
        };
        assert!(check(GOOD).is_acceptable && check(GOOD).exists && check(GOOD).entry_id == "acme");
        assert!(!check("api_key: [").is_acceptable && check("api_key: [").report.has_errors());
        for bad in ["../acme.zip", "acme", ".acme.zip", "acme.zip.part", "a/b.yaml", "notes.txt", ""] {
            assert!(matches!(add(bad, GOOD, false), Err(UploadError::InvalidName(_))), "{bad}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2);
    }
}
