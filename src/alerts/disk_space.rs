//! How much room a folder's disk has. A disk that does not answer holds up nobody: it is asked on a
//! thread of its own, once at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::base::sync::lock;

/// A disk is low on space below a twentieth of its size, or below this, whichever is less.
const MIN_FREE_BYTES: u64 = 256 << 20;

/// The room on a folder's disk.
pub(super) struct DiskSpace {
    folder: PathBuf,
    reading: Arc<Mutex<DiskReading>>,
}

#[derive(Default)]
struct DiskReading {
    is_awaited: bool,
    last: Option<Room>,
}

/// Bytes of a disk: free for this user, and in all.
#[derive(Debug, Clone, Copy)]
struct Room {
    free: u64,
    total: u64,
}

impl DiskSpace {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, reading: Arc::default() }
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns what is wrong, as of the last answer, and asks again.
    pub(super) fn trouble(&mut self) -> Option<String> {
        self.ask();
        lock(&self.reading).last?.trouble(&self.folder)
    }

    fn ask(&self) {
        if std::mem::replace(&mut lock(&self.reading).is_awaited, true) {
            return;
        }
        let (folder, reading) = (self.folder.clone(), Arc::clone(&self.reading));
        tokio::task::spawn_blocking(move || {
            let room = rustix::fs::statvfs(&folder).ok().map(|disk| Room {
                free: disk.f_bavail.saturating_mul(disk.f_frsize),
                total: disk.f_blocks.saturating_mul(disk.f_frsize),
            });
            let mut reading = lock(&reading);
            // A folder that is missing is others' news.
            (reading.is_awaited, reading.last) = (false, room);
        });
    }
}

impl Room {
    fn trouble(self, folder: &Path) -> Option<String> {
        let enough = (self.total / 20).min(MIN_FREE_BYTES);
        // Some file systems do not know their size.
        if self.total == 0 || self.free >= enough {
            return None;
        }
        // Rounded, so that the text is not new with every file.
        let share = 100 * self.free / self.total;
        Some(format!("the disk of {} is almost full: {share} % is free", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_a_twentieth_or_256_mib() {
        let is_low = |free, total| Room { free, total }.trouble(Path::new("/srv")).is_some();
        assert!(!is_low(6, 100) && is_low(4, 100));
        assert!(!is_low(257 << 20, 1 << 40) && is_low(255 << 20, 1 << 40));
        assert!(!is_low(0, 0), "its size is not known");
    }
}
