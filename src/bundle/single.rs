//! The entry of a gateway that has only one: an unpacked export, a zip or another file of a tenant,
//! at a path that the operator gave.
//!
//! Files beside it with the same stem belong to it, as in a tenants folder.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::FolderListing;
use super::discover::{self, EntryGroup};

/// Returns the id of the entry at a path; `None` if the path has no name.
pub fn single_entry_id(path: &Path) -> Option<&str> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    Some(if path.is_dir() { name } else { discover::entry_id_of_name(name) })
}

/// Lists the entry at a path as a folder with this one entry; with none if there is no such file.
pub fn list_single(path: &Path) -> FolderListing {
    let Some(id) = single_entry_id(path).filter(|_| path.exists()) else {
        return FolderListing::default();
    };
    let around = path.parent().unwrap_or(Path::new(""));
    let mut group = match path.is_dir() {
        true => EntryGroup::default(),
        false => discover::probe_group(around, id).unwrap_or_default(),
    };
    group.set_single(path);
    let mut entry = group.into_entry_files(id.to_owned());
    // If the folder around cannot be listed, nothing in it can be mistaken for the tenant's.
    entry.lookalikes.extend(discover::lookalikes_in(around, id).unwrap_or_default());
    FolderListing { entries: vec![entry], misnamed: Vec::new() }
}

/// Returns the folders to watch for changes of a tenant's own folder, and whether what lies below
/// them counts too. In an unpacked export that would be the vendor's thousands of Python files.
pub fn watched_folders(folder: &Path) -> (Vec<PathBuf>, bool) {
    let configs: BTreeSet<PathBuf> = discover::unpacked_configs(folder)
        .iter()
        .filter_map(|config| config.parent().map(Path::to_path_buf))
        .collect();
    let has_export = !configs.is_empty();
    (std::iter::once(folder.to_owned()).chain(configs).collect(), !has_export)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "x").expect("written");
        }
        folder
    }

    /// Returns the files of the entry at a path, and the codes of its findings.
    fn listed(folder: &Path, name: &str) -> Option<(Vec<String>, Vec<&'static str>)> {
        let entry = list_single(&folder.join(name)).entries.into_iter().next()?;
        let inside = |path: &PathBuf| path.strip_prefix(folder).expect("inside").display().to_string();
        let codes = entry.report.iter().map(|finding| finding.code).collect();
        Some((entry.files.iter().map(inside).collect(), codes))
    }

    #[test]
    fn a_folder_counts_as_the_vendors_server_sees_it() {
        let unpacked = "t/mcp/server/configs/sales.yaml";
        let folder = folder(&[unpacked, "t/mcp_export.zip", "t/compose.yaml", "t/mcp/run.sh", "t/own.yaml"]);
        let (files, codes) = listed(folder.path(), "t").expect("an entry");
        assert_eq!(files, [unpacked, "t/own.yaml"]);
        assert_eq!(codes, ["zip-ignored"]);
        let (watched, is_deep) = watched_folders(&folder.path().join("t"));
        assert!(!is_deep, "the vendor's program would be watched");
        assert_eq!(watched, [folder.path().join("t"), folder.path().join("t/mcp/server/configs")]);
    }

    #[test]
    fn a_zip_has_the_files_of_its_stem_and_no_others() {
        let folder =
            folder(&["server.zip", "server.yaml", "server.env", "other.zip", "compose.yaml", ".mine/x.zip"]);
        let (files, codes) = listed(folder.path(), "server.zip").expect("an entry");
        assert_eq!(
            (files, codes),
            (["server.zip", "server.yaml", "server.env"].map(str::to_owned).to_vec(), vec![])
        );
        // The path was given, so its name may be one that a tenants folder ignores.
        assert_eq!(listed(folder.path(), ".mine").expect("an entry").0, [".mine/x.zip"]);
        assert_eq!(listed(folder.path(), "nowhere.zip"), None);
    }
}
