//! The demo's folder: tenants, keys and state of its own, and an export (the ZIP that the vendor's
//! portal gives out) to drop in by hand.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::dataset::{Dataset, INVENTORY, SALES, SUPPORT};
use crate::base::disk;
use crate::bundle::sample;

/// The demo's folder. A second run reuses it, so that clients that trust the local CA still do.
#[derive(Debug)]
pub(super) struct DemoFolder {
    pub(super) root: PathBuf,
}

impl DemoFolder {
    /// Creates `requested`, or a folder in the system's temporary folder. The latter must be owned
    /// by this user: other users of the machine may have created it first.
    pub(super) fn prepare(requested: Option<&Path>) -> anyhow::Result<Self> {
        let root = requested.map_or_else(|| std::env::temp_dir().join("tenantd-demo"), Path::to_path_buf);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.with_context(|| format!("the demo's folder {} cannot be created", root.display()))?;
        if requested.is_none() {
            let ours = is_ours(&root).unwrap_or(false);
            ensure!(
                ours,
                "{} belongs to another user; give one of your own folders with --dir",
                root.display()
            );
            fs::set_permissions(&root, Permissions::from_mode(0o700))?;
        }
        let root = fs::canonicalize(root)?;
        let folder = Self { root };
        for path in [folder.tenants(), folder.state(), folder.next_folder()] {
            fs::create_dir_all(&path).with_context(|| format!("{} cannot be created", path.display()))?;
        }
        Ok(folder)
    }

    /// Writes the first two tenants, and the third one beside the tenants folder. Their files
    /// contain the API's port, which differs on each run.
    pub(super) fn write_exports(&self, api: SocketAddr) -> io::Result<()> {
        for dataset in [&SALES, &SUPPORT] {
            replace(&self.tenants().join(file_name(dataset)), &export(dataset, api))?;
        }
        replace(&self.third_export(), &export(&INVENTORY, api))?;
        match fs::remove_file(self.tenants().join(file_name(&INVENTORY))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn tenants(&self) -> PathBuf {
        self.root.join("tenants.d")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn certs(&self) -> PathBuf {
        self.root.join("certs")
    }

    /// Returns the export to drop in by hand.
    pub(super) fn third_export(&self) -> PathBuf {
        self.next_folder().join(file_name(&INVENTORY))
    }

    fn next_folder(&self) -> PathBuf {
        self.root.join("next")
    }
}

/// Returns whether this user owns a folder, and it is no symbolic link.
fn is_ours(folder: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(folder)?;
    let probe = folder.join(format!(".probe-{}", crate::base::random::hex::<8>()));
    let us = fs::File::create_new(&probe)?.metadata()?.uid();
    fs::remove_file(&probe)?;
    Ok(metadata.is_dir() && metadata.uid() == us)
}

/// Renames into place, as an operator's copy should do: the watcher never sees a partial file.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk::replace(path, bytes, 0o644)
}

fn file_name(dataset: &Dataset) -> String {
    format!("{}.zip", dataset.name)
}

fn export(dataset: &Dataset, api: SocketAddr) -> Vec<u8> {
    sample::build_export(dataset.name, &configuration(dataset, api))
}

fn configuration(dataset: &Dataset, api: SocketAddr) -> String {
    let Dataset { name, title, description, .. } = dataset;
    let (key, connection) = (dataset.api_key(), dataset.connection_id());
    let questions: String = dataset.samples.iter().map(|sample| format!("  - {sample}\n")).collect();
    format!(
        "search_url: http://{api}/nlp-search\ncontext_url: http://{api}/nlp-context\napi_key: {key}\n\
         connection_id: {connection}\ndataset: {name}\ndisplay_name: {title}\ndescription: {description}\n\
         sample_questions:\n{questions}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Severity;
    use crate::bundle;

    fn folder() -> (tempfile::TempDir, DemoFolder) {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = DemoFolder::prepare(Some(temporary.path())).expect("prepared");
        (temporary, folder)
    }

    const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 12345);

    #[test]
    fn the_samples_are_exports_without_findings() {
        let (_temporary, folder) = folder();
        folder.write_exports(API).expect("written");
        fs::copy(folder.third_export(), folder.tenants().join("inventory.zip")).expect("dropped");
        let context = bundle::LoadContext {
            backend_allow: vec!["127.0.0.0/8".parse().expect("a network")],
            ..bundle::sample::sample_context()
        };
        let entries = bundle::list_entries(&folder.tenants(), None).expect("listed");
        assert_eq!(entries.len(), 3);
        for entry in entries {
            let loaded = bundle::load(&entry, &context);
            let problems: Vec<_> =
                loaded.report.iter().filter(|finding| finding.severity > Severity::Notice).collect();
            assert!(problems.is_empty() && loaded.spec.is_some(), "{problems:?}");
        }
    }

    #[test]
    fn a_second_run_starts_with_two_tenants_again() {
        let (_temporary, folder) = folder();
        folder.write_exports(API).expect("written");
        fs::copy(folder.third_export(), folder.tenants().join("inventory.zip")).expect("dropped");
        folder.write_exports(API).expect("written");
        let mut names: Vec<_> =
            fs::read_dir(folder.tenants()).expect("listed").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["sales.zip", "support.zip"]);
    }

    #[test]
    fn a_symbolic_link_is_not_our_folder() {
        let temporary = tempfile::tempdir().expect("a folder");
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("linked");
        assert!(!is_ours(&link).unwrap_or(false));
        assert!(is_ours(temporary.path()).expect("looked at"));
    }
}
