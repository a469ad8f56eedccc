//! The lock on the state folder, which lets one process use it. The system releases the lock when
//! the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Error;

const LOCK_FILE: &str = "lock";

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of a folder, or fails with the process that holds it.
    pub(super) fn acquire(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(LOCK_FILE);
        let writable =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        // An existing lock file can be locked on a read-only mount too.
        let mut file = writable
            .or_else(|error| File::open(&path).map_err(|_| error))
            .map_err(|cause| Error::File { verb: "made", path: path.clone(), cause })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use_error(folder, &mut file)),
            Err(TryLockError::Error(cause)) => {
                return Err(Error::File { verb: "locked", path, cause });
            }
        }
        // The process id in the file is for people; the lock itself is the system's.
        let _unsaid = write_pid(&mut file);
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn in_use_error(folder: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    let read = file.take(20).read_to_string(&mut pid).is_ok();
    let known = read && !pid.trim().is_empty();
    let pid = if known { pid.trim().to_owned() } else { "unknown".to_owned() };
    Error::InUse { folder: folder.to_owned(), pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_who_can_be_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = FolderLock::acquire(folder.path()).expect("free");
        let refused = FolderLock::acquire(folder.path()).expect_err("held").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains(&folder.path().display().to_string()), "{refused}");
        drop(held);
        assert!(FolderLock::acquire(folder.path()).is_ok());
    }
}
