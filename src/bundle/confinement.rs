//! The files and variables of this machine that a tenant's files may refer to.
//!
//! Write access to one tenant's folder must not give read access to another's. Files in a tenant's
//! own folder must lie in it after following links (those of mounted Secrets and ConfigMaps do), or
//! below the folders that the settings allow. A file in the tenants folder itself may be a link to
//! anywhere: anyone who may write there controls all tenants anyway. Beside such files a tenant's
//! secrets may lie under its own stem (`acme.key`), which no other tenant has.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{EntryFiles, LoadContext};
use crate::base::disk;
use crate::spec::TenantName;

pub(super) const VARIABLE_PREFIX: &str = "TENANT_";
/// Separates the tenant's name from the rest of a variable's name.
const VARIABLE_SEPARATOR: &str = "__";
/// How files of secrets end that lie beside a tenant's files: `acme.key` is `acme`'s.
const SECRET_EXTENSIONS: &[&str] = &["key", "secret"];

/// Returns the stem of the tenant whose secret a file of this name may hold.
pub fn secret_file_owner(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    (!stem.is_empty() && SECRET_EXTENSIONS.contains(&extension)).then_some(stem)
}

/// The bounds of one entry.
pub(super) struct Confinement {
    /// The tenant's own folder, if it has one.
    folder: Option<PathBuf>,
    /// The folder and stem of its files, if it has no folder of its own.
    beside: Option<(PathBuf, String)>,
    roots: Vec<PathBuf>,
    /// The tenant part of the variables that may be used; `None`: all that begin with `TENANT_`.
    variable_owner: Option<String>,
}

impl Confinement {
    pub(super) fn new(entry: &EntryFiles, context: &LoadContext) -> Self {
        // The name comes from the files' stem, never from their contents, which could claim
        // another's.
        let name = TenantName::from_entry_id(&entry.id);
        let name = name.as_ref().map_or("", TenantName::as_str);
        let roots = context.secret_roots.iter();
        let (roots, variables_of) = match context.confine_tenants {
            false => (roots.cloned().collect(), None),
            true if name.is_empty() => (Vec::new(), Some(String::new())),
            true => (roots.map(|root| root.join(name)).collect(), Some(owner_segment(name))),
        };
        let around = entry.files.first().and_then(|file| file.parent()).filter(|_| entry.folder.is_none());
        let beside = around.map(|folder| (folder.to_owned(), entry.id.clone()));
        Self { folder: entry.folder.clone(), beside, roots, variable_owner: variables_of }
    }

    /// Whether the tenant has a folder of its own.
    pub(super) fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// Reads one of the tenant's files.
    pub(super) fn read(&self, path: &Path, cap: u64) -> Result<Vec<u8>, disk::Error> {
        match &self.folder {
            Some(_) => self.read_referenced(path, cap),
            None => disk::read(path, cap),
        }
    }

    /// Reads a file that one of the tenant's files refers to.
    pub(super) fn read_referenced(&self, path: &Path, cap: u64) -> Result<Vec<u8>, disk::Error> {
        // It counts as one of the tenant's files, and so may be a link.
        if self.is_its_own(path) {
            return disk::read(path, cap);
        }
        disk::read_below(path, self.folder.iter().chain(&self.roots).map(PathBuf::as_path), cap)
    }

    /// Describes where an operator may put the tenant's secrets, as an instruction.
    pub(super) fn describe_secret_location(&self) -> String {
        match &self.beside {
            Some((_, stem)) => {
                format!("name it {stem}.key or {stem}.secret and put it beside the tenant's files")
            }
            None => "put it in the tenant's own folder".to_owned(),
        }
    }

    /// Whether a file lies beside the tenant's files and has the name of its secrets.
    fn is_its_own(&self, path: &Path) -> bool {
        let Some((folder, stem)) = &self.beside else { return false };
        let name = path.file_name().and_then(OsStr::to_str);
        path.parent() == Some(folder) && name.and_then(secret_file_owner) == Some(stem)
    }

    /// Whether the tenant may use a variable.
    pub(super) fn allows_variable(&self, variable: &str) -> bool {
        let Some(allowed) = &self.variable_owner else { return true };
        let rest = variable.strip_prefix(VARIABLE_PREFIX);
        // The last separator counts, so that no tenant's prefix is a prefix of another's.
        rest.and_then(|rest| rest.rsplit_once(VARIABLE_SEPARATOR)).is_some_and(|(owner, _)| owner == allowed)
    }

    /// Returns the prefix of the variables that the tenant may use.
    pub(super) fn variable_prefix(&self) -> String {
        let of = self.variable_owner.as_deref().map(|owner| format!("{owner}{VARIABLE_SEPARATOR}"));
        format!("{VARIABLE_PREFIX}{}", of.unwrap_or_default())
    }
}

fn owner_segment(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Report;
    use crate::bundle::sample;

    fn bounds(stem: &str, confined: bool) -> Confinement {
        let (files, namesakes, report) = (Vec::new(), Vec::new(), Report::new());
        let entry = EntryFiles { id: stem.into(), folder: None, files, lookalikes: namesakes, report };
        let secret_roots = vec!["/run/secrets".into()];
        Confinement::new(
            &entry,
            &LoadContext { confine_tenants: confined, secret_roots, ..sample::sample_context() },
        )
    }

    #[test]
    fn a_confined_tenant_has_variables_and_a_folder_of_its_name() {
        let acme = bounds("Acme", true);
        assert_eq!(acme.roots, [PathBuf::from("/run/secrets/acme")]);
        assert!(acme.allows_variable("TENANT_ACME__KEY") && acme.allows_variable("TENANT_ACME__A_B"));
        for others in [
            "TENANT_ACME_KEY",
            "TENANT_ACME__PROD__KEY",
            "TENANT_ACME_PROD__KEY",
            "TENANT_B__KEY",
            "TENANT___KEY",
        ] {
            assert!(!acme.allows_variable(others), "{others}");
        }
        assert!(bounds("acme-prod", true).allows_variable("TENANT_ACME_PROD__KEY"));
        assert!(bounds("acme--prod", true).allows_variable("TENANT_ACME__PROD__KEY"));
        let nameless = bounds("日本", true);
        assert!(nameless.roots.is_empty() && !nameless.allows_variable("TENANT_X__KEY"));
        let free = bounds("acme", false);
        assert!(free.allows_variable("TENANT_B_KEY") && free.roots == [PathBuf::from("/run/secrets")]);
    }
}
