//! Locks that one process holds. The system releases a lock when the process ends, however it ends.
//! The process's id is in the file, for people.
//!
//! A lock belongs to the open file, so a process that is handed the file holds the lock as well:
//! between the two there is no moment in which a third could take it.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, Weak};

use super::sync::lock;

/// The files of the locks that this process holds.
static HELD: Mutex<Vec<Weak<File>>> = Mutex::new(Vec::new());
/// Locked files that another process handed over, and that nobody asked for yet.
static INHERITED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct ProcessLock(Arc<File>);

/// Why a lock cannot be taken.
#[derive(Debug)]
pub enum Error {
    /// Another process holds it; its id, if known.
    Held(Option<u32>),
    /// The file cannot be locked.
    Io(io::Error),
}

impl ProcessLock {
    /// Locks an open file.
    ///
    /// # Errors
    /// [`Error::Held`] if another process holds the lock, [`Error::Io`] if the system refuses it.
    pub fn acquire(file: File) -> Result<Self, Error> {
        let mut file = take_inherited(&file).unwrap_or(file);
        match file.try_lock() {
            Ok(()) => Ok(Self::register(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Held(read_pid(&mut file))),
            Err(TryLockError::Error(error)) => Err(Error::Io(error)),
        }
    }

    fn register(file: File) -> Self {
        let file = Arc::new(file);
        let mut held = lock(&HELD);
        held.retain(|file| file.strong_count() > 0);
        held.push(Arc::downgrade(&file));
        Self(file)
    }

    /// Writes this process's id into the file.
    ///
    /// # Errors
    /// The file cannot be written. The lock is held all the same.
    pub fn write_pid(&mut self) -> io::Result<()> {
        write_pid(&self.0)
    }
}

/// Returns the files of all locks that this process holds, to hand them over.
pub fn held() -> Vec<Arc<File>> {
    lock(&HELD).iter().filter_map(Weak::upgrade).collect()
}

/// Keeps a locked file that another process handed over, until its lock is acquired here.
pub fn inherit(file: File) {
    lock(&INHERITED).push(file);
}

/// Writes this process's id into all files whose locks it holds, after another wrote its own.
pub fn write_pids_again() {
    for file in held() {
        // The id is for people; the lock itself is the system's.
        let _unsaid = write_pid(&file);
    }
}

/// Takes the file that was handed over and is the same one, if there is any.
fn take_inherited(file: &File) -> Option<File> {
    let identity = |file: &File| file.metadata().ok().map(|about| (about.dev(), about.ino()));
    let wanted = identity(file)?;
    let mut inherited = lock(&INHERITED);
    let index = inherited.iter().position(|file| identity(file) == Some(wanted))?;
    Some(inherited.swap_remove(index))
}

fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut pid = String::new();
    file.take(20).read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_handed_over_is_never_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(folder.path().join("lock"))
        };
        let first = ProcessLock::acquire(open().expect("a file")).expect("it is free");
        let handed_over = first.0.try_clone().expect("a second handle");
        inherit(handed_over);
        drop(first);
        let other = open().expect("a file");
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)), "a third process");
        let second = ProcessLock::acquire(open().expect("a file")).expect("it is ours");
        assert!(matches!(ProcessLock::acquire(open().expect("a file")), Err(Error::Held(_))), "taken once");
        drop(second);
        assert!(ProcessLock::acquire(open().expect("a file")).is_ok());
    }
}
