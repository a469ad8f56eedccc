//! Where the reconciler finds entries: a folder of them, or one at a path.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::secret_findings;
use crate::base::diagnostic::Report;
use crate::bundle::{self, FolderListing};
use crate::settings::{Settings, TenantsFrom};

/// Where the entries are.
#[derive(Debug, Clone)]
pub enum TenantsSource {
    /// A folder of entries.
    Folder(PathBuf),
    /// One entry: an unpacked export, or a tenant's file. The gateway has no other tenant.
    Single(PathBuf),
    /// A folder of entries that the gateway itself copies from Secrets of Kubernetes.
    Kubernetes(PathBuf),
}

/// The folder of the copies, within the tenants folder. Its name keeps it from being an entry.
const COPIES: &str = ".kubernetes";

impl TenantsSource {
    /// Returns where the settings say that entries are.
    pub fn from_settings(settings: &Settings) -> Self {
        match settings.tenants_from {
            TenantsFrom::Folder => Self::Folder(settings.tenants.clone()),
            TenantsFrom::Kubernetes => Self::Kubernetes(settings.tenants.join(COPIES)),
        }
    }

    /// Returns the folder in which the entries lie.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) | Self::Kubernetes(folder) => folder,
            Self::Single(path) => path.parent().unwrap_or(Path::new("")),
        }
    }

    /// Returns the folder of the entries, or the path of the only one.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Single(path) | Self::Kubernetes(path) => path,
        }
    }

    /// Whether operators may put files in and remove them over the admin listener, and status files
    /// lie beside them. The files of a single entry belong to the operator alone, and copies of
    /// Secrets follow the Secrets.
    pub(super) fn takes_files(&self) -> bool {
        matches!(self, Self::Folder(_))
    }

    /// Has findings name what an operator can change: of a copy, the Secret and its key.
    pub(super) fn name_places(&self, entry_id: &str, report: &mut Report) {
        let Self::Kubernetes(folder) = self else { return };
        report.extend(secret_findings::size_warning(entry_id, &folder.join(entry_id)).into_iter().collect());
        report.move_files(|file| secret_findings::place_in_secret(folder, file));
    }

    /// Lists the entries, or some of them.
    pub(super) fn list(&self, only: Option<&BTreeSet<String>>) -> io::Result<FolderListing> {
        match self {
            Self::Folder(folder) | Self::Kubernetes(folder) => bundle::list_folder(folder, only),
            Self::Single(path) => {
                let mut listing = bundle::list_single(path);
                listing.entries.retain(|entry| only.is_none_or(|only| only.contains(&entry.id)));
                Ok(listing)
            }
        }
    }

    /// Returns the id of the entry that a path belongs to, `None` for ignored names.
    pub(super) fn entry_id_of(&self, path: &Path) -> Option<String> {
        match self {
            Self::Folder(folder) | Self::Kubernetes(folder) => bundle::entry_id_of(folder, path),
            Self::Single(single) => {
                let id = bundle::single_entry_id(single)?;
                let is_its_own = path.starts_with(single)
                    || bundle::entry_id_of(self.folder(), path).is_some_and(|other| other == id)
                    || path.file_name().and_then(|name| bundle::secret_file_owner(name.to_str()?))
                        == Some(id);
                is_its_own.then(|| id.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_beside_the_only_entry_are_none_of_its_business() {
        let folder = tempfile::tempdir().expect("a folder");
        let zip = folder.path().join("mcp_export.zip");
        std::fs::write(&zip, "x").expect("written");
        let source = TenantsSource::Single(zip);
        let id = |name: &str| source.entry_id_of(&folder.path().join(name));
        for own in ["mcp_export.zip", "mcp_export.yaml", "mcp_export.env", "mcp_export.key"] {
            assert_eq!(id(own).as_deref(), Some("mcp_export"), "{own}");
        }
        for other in ["other.zip", "notes.txt", "mcp_export.zip.part", "x/mcp_export.txt"] {
            assert_eq!(id(other), None, "{other}");
        }
        let tree = TenantsSource::Single(folder.path().to_owned());
        let inside = folder.path().join("mcp/server/configs/sales.yaml");
        assert_eq!(tree.entry_id_of(&inside), bundle::single_entry_id(folder.path()).map(str::to_owned));
        assert_eq!(tree.entry_id_of(&folder.path().with_extension("other")), None);
    }
}
