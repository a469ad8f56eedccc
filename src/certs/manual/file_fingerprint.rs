//! Detects which files there are, and cheaply whether one has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::disk::Stamp;
use crate::certs::key_files;
use crate::certs::self_signed::OWN_FILES;

const EXTENSIONS: [&str; 5] = ["pem", "crt", "cer", "key", "ca-bundle"];

/// Each candidate file with what the file system says of it.
pub(super) type FileFingerprints = BTreeMap<PathBuf, Stamp>;

/// Lists the candidates in a folder and one level below it. An unreadable folder has none.
pub(super) fn fingerprint_folder(folder: &Path) -> FileFingerprints {
    let mut stamps = FileFingerprints::new();
    for (path, metadata) in visible_entries(folder) {
        if metadata.is_dir() {
            stamps.extend(visible_entries(&path).filter_map(fingerprint_candidate));
        } else {
            stamps.extend(fingerprint_candidate((path, metadata)));
        }
    }
    stamps
}

/// Returns the entries that are not hidden. Follows links, since mounted secrets are links.
fn visible_entries(folder: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| Some((entry.path(), fs::metadata(entry.path()).ok()?)))
}

fn fingerprint_candidate((path, metadata): (PathBuf, fs::Metadata)) -> Option<(PathBuf, Stamp)> {
    let ours = path.file_name().is_some_and(|name| OWN_FILES.iter().any(|own| name == *own));
    let extension = path.extension()?.to_str()?;
    let candidate = metadata.is_file()
        && metadata.len() <= key_files::MAX_FILE_BYTES
        && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known));
    (candidate && !ours).then(|| (path, Stamp::from(&metadata)))
}
