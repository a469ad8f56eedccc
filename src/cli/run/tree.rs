//! The folder in which an export was unpacked.

use std::path::{Path, PathBuf};

use crate::bundle;

/// Returns the folder above `mcp` if that was given, else the path itself.
pub(super) fn above_mcp(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_inner = absolute.file_name().is_some_and(|name| name == "mcp");
    match absolute.parent().filter(|parent| is_inner && bundle::is_unpacked_export(parent)) {
        Some(tree) => tree.to_owned(),
        None => path.to_owned(),
    }
}

/// Returns the export that is unpacked in the working directory.
pub(super) fn find_here() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let tree = above_mcp(&here);
    bundle::is_unpacked_export(&tree).then_some(tree)
}
