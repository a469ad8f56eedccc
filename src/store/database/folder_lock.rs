//! The lock on the state folder, which lets one process use it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::process_lock::{self, ProcessLock};
use crate::store::Error;

const LOCK_FILE: &str = "lock";

/// Takes the lock of a folder, or fails with the process that holds it.
pub(in crate::store) fn acquire(folder: &Path) -> Result<ProcessLock, Error> {
    let path = folder.join(LOCK_FILE);
    let writable =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    // An existing lock file can be locked on a read-only mount too.
    let file = writable
        .or_else(|error| File::open(&path).map_err(|_| error))
        .map_err(|cause| Error::File { action: "created", path: path.clone(), cause })?;
    let mut lock = ProcessLock::acquire(file).map_err(|error| match error {
        process_lock::Error::Held(pid) => Error::InUse {
            folder: folder.to_owned(),
            pid: pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()),
        },
        process_lock::Error::Io(cause) => Error::File { action: "locked", path, cause },
    })?;
    // The process id in the file is for people; the lock itself is the system's.
    let _unsaid = lock.write_pid();
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_folder_is_refused_with_the_process_id_of_its_holder() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = acquire(folder.path()).expect("free");
        let refused = acquire(folder.path()).expect_err("held").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains(&folder.path().display().to_string()), "{refused}");
        drop(held);
        assert!(acquire(folder.path()).is_ok());
    }
}
