//! Detects which files there are, and cheaply whether one has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::file::Stamp;
use crate::certs::self_signed::OWN_FILES;
use crate::certs::storage;

const EXTENSIONS: [&str; 5] = ["pem", "crt", "cer", "key", "ca-bundle"];

/// Each candidate file with what the file system says of it.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

/// Lists the candidates in a folder and one level below it. An unreadable folder has none.
pub(super) fn of(folder: &Path) -> Stamps {
    let mut stamps = Stamps::new();
    for (path, metadata) in visible(folder) {
        if metadata.is_dir() {
            stamps.extend(visible(&path).filter_map(stamped));
        } else {
            stamps.extend(stamped((path, metadata)));
        }
    }
    stamps
}

/// Returns the entries that are not hidden. Follows links, since mounted secrets are links.
fn visible(folder: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| Some((entry.path(), fs::metadata(entry.path()).ok()?)))
}

fn stamped((path, metadata): (PathBuf, fs::Metadata)) -> Option<(PathBuf, Stamp)> {
    let ours = path.file_name().is_some_and(|name| OWN_FILES.iter().any(|own| name == *own));
    let extension = path.extension()?.to_str()?;
    let candidate = metadata.is_file()
        && metadata.len() <= storage::LARGEST
        && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known));
    (candidate && !ours).then(|| (path, Stamp::from(&metadata)))
}
