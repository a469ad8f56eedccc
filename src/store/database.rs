//! The open SQLite file: one connection, shared by all parts of the store.

pub(super) mod filesystem;
pub(super) mod folder_lock;
mod group_commit;
mod write_health;

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OpenFlags};

use self::group_commit::CommitQueue;
use self::write_health::WriteHealth;
use super::{Error, WAL, schema};
use crate::base::process_lock::ProcessLock;
use crate::base::sync::lock_unpoisoned;

/// The file, and the lock of the folder that it is in.
pub(super) struct Database {
    connection: Mutex<Connection>,
    commit_queue: CommitQueue,
    pub(super) write_health: WriteHealth,
    pub(super) file: PathBuf,
    /// Another process has the file now.
    is_handed_over: AtomicBool,
    _lock: ProcessLock,
}

impl Database {
    pub(super) fn new(connection: Connection, file: PathBuf, lock: ProcessLock) -> Self {
        let write_health = WriteHealth::from_connection(&connection);
        let commit_queue = CommitQueue::default();
        Self {
            connection: Mutex::new(connection),
            commit_queue,
            write_health,
            file,
            is_handed_over: AtomicBool::new(false),
            _lock: lock,
        }
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        lock_unpoisoned(&self.connection)
    }

    /// Returns the conversion of SQLite's errors into those of the store.
    pub(super) fn error(&self) -> impl Fn(rusqlite::Error) -> Error {
        |cause| match self.is_handed_over.load(Ordering::Relaxed) {
            true => Error::Interrupted,
            false => Error::Database { file: self.file.clone(), cause: cause.into() },
        }
    }

    /// From now on, what fails does so because another process has the file.
    pub(super) fn set_handed_over(&self) {
        self.is_handed_over.store(true, Ordering::Relaxed);
    }
}

/// Opens the file for writing, or for reading if it exists and cannot be written.
pub(super) fn open_file(file: &Path) -> Result<Connection, Error> {
    // SQLite would make the file readable for everybody. The files it creates beside it get the
    // same mode.
    let made = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    match (made, file.exists()) {
        (Ok(_), _) => {}
        (Err(_), true) => return open_read_only(file),
        (Err(cause), false) => return Err(Error::File { action: "created", path: file.to_owned(), cause }),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(file, flags).and_then(|connection| {
        schema::configure(&connection)?;
        Ok(connection)
    });
    opened.map_err(|cause| schema::to_store_error(file, cause))
}

/// Opens an existing file so that neither it nor its write-ahead log changes.
pub(super) fn open_unchanged(file: &Path) -> Result<Connection, Error> {
    if fs::OpenOptions::new().append(true).open(file).is_err() {
        return open_read_only(file);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(file, flags).and_then(|connection| {
        schema::configure_for_reading(&connection)?;
        Ok(connection)
    });
    opened.map_err(|cause| schema::to_store_error(file, cause))
}

/// Opens a file on a read-only mount. The write-ahead log of a killed process would be ignored
/// there, so it must be empty.
fn open_read_only(file: &Path) -> Result<Connection, Error> {
    let log = file.with_file_name(WAL);
    if fs::metadata(&log).is_ok_and(|about| about.len() > 0) {
        let cause = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        return Err(Error::File { action: "brought up to date", path: log, cause });
    }
    tracing::warn!(file = %file.display(), "the state folder is read-only: nothing new will survive a restart");
    let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags);
    opened.map_err(|cause| schema::to_store_error(file, cause))
}
