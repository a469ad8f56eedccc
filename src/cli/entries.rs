//! The entries that a path on the command line stands for.

use std::io;
use std::path::Path;

use crate::base::diagnostic::Report;
use crate::bundle::{self, EntryFiles};

/// Returns the entries of a tenants folder, or those that a single file or a tenant's own folder
/// belongs to, with findings about files that belong to no entry.
///
/// # Errors
/// The path or its folder cannot be read.
pub(super) fn find_entries(path: &Path) -> io::Result<(Vec<EntryFiles>, Report)> {
    if path.is_dir() && !is_tenants_own(path) {
        return Ok((bundle::list_entries(path, None)?, bundle::find_stray_files(path)?));
    }
    // A bare "acme.zip" has an empty parent, which stands for the working directory.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::metadata(path)?;
    let Some(stem) = bundle::entry_id_of(folder, &folder.join(path.file_name().unwrap_or_default())) else {
        return Ok((Vec::new(), Report::new()));
    };
    // Files with almost the same name affect whether the tenant would be served.
    let mut entries = bundle::list_entries(folder, None)?;
    entries.retain(|entry| {
        entry.id == stem || entry.lookalikes.iter().any(|file| file.file_name() == path.file_name())
    });
    Ok((entries, Report::new()))
}

fn is_tenants_own(folder: &Path) -> bool {
    folder.join("server.zip").exists() || bundle::is_unpacked_export(folder)
}
