//! What is found of tenants that are Secrets of Kubernetes, and how a finding names a place in one.

use std::path::{Path, PathBuf};

use crate::base::diagnostic::{Diagnostic, Location};

/// The most that Kubernetes takes in a Secret.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// The size from which on an operator should know of that.
const LARGE_SECRET_BYTES: u64 = MAX_SECRET_BYTES / 4 * 3;

/// Returns what a finding calls a copied file: `secret/acme/tenant.yaml` is the key `tenant.yaml` of
/// the Secret `acme`.
pub(super) fn place_in_secret(copies: &Path, file: &Path) -> Option<PathBuf> {
    Some(Path::new("secret").join(file.strip_prefix(copies).ok()?))
}

/// Warns of a Secret that is nearly as large as Kubernetes allows: the next export may not fit, and
/// then only `kubectl` says so. `copy` is the folder with its keys.
pub(super) fn size_warning(secret: &str, copy: &Path) -> Option<Diagnostic> {
    let files = copy.read_dir().ok()?.flatten();
    let sizes: Vec<_> = files.filter_map(|file| Some((file.metadata().ok()?.len(), file.path()))).collect();
    let total: u64 = sizes.iter().map(|(size, _)| size).sum();
    let (_, largest) = sizes.into_iter().max().filter(|_| total > LARGE_SECRET_BYTES)?;
    let message = format!(
        "the Secret {secret} has {} KiB, and Kubernetes takes at most {} KiB: a larger export would be refused",
        total / 1024,
        MAX_SECRET_BYTES / 1024
    );
    let help = "let `tenantd slim FILE.zip --out SMALLER.zip` keep what is read of the export, and put that into \
                the Secret";
    Some(Diagnostic::warning("secret-nearly-full", message).help(help).at(Location::file(largest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_the_secret_and_its_key() {
        let copies = Path::new("/data/tenants.d/.kubernetes");
        let place = |file: &str| place_in_secret(copies, Path::new(file));
        assert_eq!(place("/data/tenants.d/.kubernetes/acme/a.yaml"), Some("secret/acme/a.yaml".into()));
        assert_eq!(place("/data/other/acme/a.yaml"), None);
    }

    #[test]
    fn a_secret_that_is_nearly_full_is_told_with_its_largest_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, size: u64| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![0; usize::try_from(size).expect("small")]).expect("written");
            path
        };
        let zip = write("a.zip", LARGE_SECRET_BYTES);
        assert_eq!(size_warning("acme", folder.path()), None);
        write("a.key", 1);
        let told = size_warning("acme", folder.path()).expect("told");
        assert!(told.message.contains("Secret acme has 768 KiB"), "{told}");
        assert_eq!(told.location.expect("a place").file, zip);
    }
}
