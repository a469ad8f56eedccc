//! Files with keys: private to their owner, replaced atomically, and set aside instead of deleted.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::base::disk;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The time in UTC that is appended to files set aside.
const ASIDE_TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// The largest file that is read, in bytes; far more than a chain and its key need.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;
const OTHERS_ANY_ACCESS: u32 = 0o077;
/// Writable for users that are neither owner nor in the group.
const OTHERS_WRITE_ACCESS: u32 = 0o002;
/// Readable for group or others.
const OTHERS_READ_ACCESS: u32 = 0o044;

/// Creates the folder if it is missing, and closes it to other users if it was open.
///
/// A volume of Kubernetes belongs to root and is given to the pod by its group, so it cannot be
/// closed. It is used as it is, since the files in it are private.
pub(super) fn ensure_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & OTHERS_ANY_ACCESS == 0 {
        return Ok(());
    }
    match fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)) {
        Ok(()) => {
            tracing::info!(folder = %folder.display(), "protected the certs folder from other users");
            Ok(())
        }
        Err(error) if is_open_to_group_only(mode) && error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(folder = %folder.display(), "the certs folder belongs to another user");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether users outside of the folder's group cannot replace files in it.
fn is_open_to_group_only(mode: u32) -> bool {
    mode & OTHERS_WRITE_ACCESS == 0
}

/// Closes a key file to other users, and logs a warning, if it was open.
pub(super) fn restrict_to_owner(path: &Path) -> io::Result<()> {
    if is_readable_by_others(path) {
        tracing::warn!(
            file = %path.display(),
            "other users of this machine could read this key; it is protected now; delete it to get a new \
             one"
        );
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
    }
    Ok(())
}

/// Returns whether group or others may read a file.
pub(super) fn is_readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_READ_ACCESS != 0)
}

/// Replaces a file by `bytes`, readable for its owner only. After a crash there is either the old
/// file or the new one.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk::replace_durably(path, bytes, FILE_MODE)
}

/// Moves an unusable file to `<name>.bad-<time>` and returns its new path.
pub(super) fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let aside = path.with_file_name(format!("{}{}", aside_prefix(path), now.strftime(ASIDE_TIME_FORMAT)));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Returns the times at which a file of this name was set aside, sorted.
pub(super) fn set_aside_times(path: &Path) -> Vec<Timestamp> {
    let prefix = aside_prefix(path);
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let time = |name: &str| {
        let time = name.strip_prefix(&prefix)?;
        TimeZone::UTC.to_timestamp(DateTime::strptime(ASIDE_TIME_FORMAT, time).ok()?).ok()
    };
    let mut times: Vec<_> = entries.filter_map(|entry| time(&entry.file_name().to_string_lossy())).collect();
    times.sort();
    times
}

/// Returns `text` with everything replaced that has no place in a file name.
pub(super) fn sanitize_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    text.chars().map(plain).collect()
}

fn aside_prefix(path: &Path) -> String {
    format!("{}.bad-", path.file_name().unwrap_or_default().to_string_lossy())
}
