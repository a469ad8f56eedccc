//! Locks that one process holds. The system releases a lock when the process ends, however it ends.
//! The process's id is in the file, for people.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct ProcessLock(File);

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
    pub fn acquire(mut file: File) -> Result<Self, Error> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Held(read_pid(&mut file))),
            Err(TryLockError::Error(error)) => Err(Error::Io(error)),
        }
    }

    /// Writes this process's id into the file.
    ///
    /// # Errors
    /// The file cannot be written. The lock is held all the same.
    pub fn write_pid(&mut self) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "{}", std::process::id())
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut pid = String::new();
    file.take(20).read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}
