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
