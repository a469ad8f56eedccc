//! The file system of the state folder. A network file system breaks what the store relies on:
//! locks may hold on one machine only, and synced data may be lost with the server. The store works
//! there all the same, with a warning.

use std::path::Path;

use crate::base::filesystem::{Filesystem, FilesystemKind};

/// Logs a warning if the folder lies on a network file system.
pub(in crate::store) fn warn_if_network_filesystem(folder: &Path) {
    let Ok(Filesystem { kind: FilesystemKind::Network, name: Some(kind), .. }) = Filesystem::find(folder)
    else {
        return;
    };
    tracing::warn!(
        folder = %folder.display(),
        kind,
        "the state folder is on a network file system: file locks may not exclude a second gateway, and data \
         may be lost with the server; use a local disk with --state"
    );
}
