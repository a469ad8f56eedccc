//! Which files there are, and a cheap sign of whether one changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::digest::{Digest, Hasher};
use crate::certs::self_signed::OWN_FILES;
use crate::certs::storage;

const EXTENSIONS: [&str; 4] = ["pem", "crt", "cer", "key"];

/// Each candidate file with a digest of what the file system says of it. `ctime` moves with every change, even one
/// that restores size and `mtime`; the inode moves when a mounted secret swaps its link.
pub(super) type Stamps = BTreeMap<PathBuf, Digest>;

/// Looks at a folder and one level below it. An unreadable folder has no files.
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

/// Entries that aren't hidden; links are followed, since mounted secrets are links.
fn visible(folder: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| Some((entry.path(), fs::metadata(entry.path()).ok()?)))
}

fn stamped((path, metadata): (PathBuf, fs::Metadata)) -> Option<(PathBuf, Digest)> {
    let ours = path.file_name().is_some_and(|name| OWN_FILES.iter().any(|own| name == *own));
    let extension = path.extension()?.to_str()?;
    let candidate =
        metadata.is_file() && metadata.len() <= storage::LARGEST && EXTENSIONS.contains(&extension);
    (candidate && !ours).then(|| (path, sign(&metadata)))
}

fn sign(metadata: &fs::Metadata) -> Digest {
    let mut hasher = Hasher::new();
    let numbers = [metadata.dev(), metadata.ino(), metadata.len()];
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    numbers.iter().for_each(|number| hasher.update(&number.to_be_bytes()));
    times.iter().for_each(|time| hasher.update(&time.to_be_bytes()));
    hasher.finish()
}
