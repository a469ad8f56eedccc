//! Which folder a spool has. During an upgrade two processes have the same sink for a while, so a
//! folder belongs to the process that has locked it; the other one takes a folder beside it, and
//! whoever is left takes over what is in the folders that nobody has locked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More processes than ever have one sink at once.
const MAX_FOLDERS: usize = 8;
const LOCK_FILE: &str = "lock";

/// A folder that no other process uses while this lives.
pub(super) struct ClaimedFolder {
    pub(super) path: PathBuf,
    /// Without it the folder cannot be written, or the system has no locks.
    lock: Option<File>,
}

impl ClaimedFolder {
    /// Claims the folder, or one beside it.
    pub(super) fn claim(first: &Path) -> Self {
        for path in folders(first) {
            match lock(&path, true) {
                Ok(Some(lock)) => return Self { path, lock: Some(lock) },
                Ok(None) => {}
                Err(_) => break,
            }
        }
        Self { path: first.to_owned(), lock: None }
    }

    /// Claims the folders beside this one that no process uses any more.
    pub(super) fn claim_abandoned(&self, first: &Path) -> Vec<Self> {
        if self.lock.is_none() {
            return Vec::new();
        }
        let others = folders(first).filter(|path| *path != self.path && path.is_dir());
        others
            .filter_map(|path| {
                let lock = lock(&path, false).ok().flatten()?;
                Some(Self { path, lock: Some(lock) })
            })
            .collect()
    }

    /// Removes the folder with what is in it besides segments; not if a segment is left.
    pub(super) fn remove(self, position_file: &str) {
        let _gone = fs::remove_file(self.path.join(position_file));
        let _gone = fs::remove_file(self.path.join(LOCK_FILE));
        let _gone = fs::remove_dir(&self.path);
    }
}

/// Returns the places of a spool's folders, the usual one first. A sink's name has no dot.
fn folders(first: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = (1..MAX_FOLDERS).map(|number| first.with_extension(number.to_string()));
    std::iter::once(first.to_owned()).chain(beside)
}

/// Locks a folder; `None` if another process has it.
fn lock(folder: &Path, is_created: bool) -> io::Result<Option<File>> {
    if is_created {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
