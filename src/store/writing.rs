//! Whether the store takes what is written to it. Whatever writes says how it went, so that a full disk is known by the first
//! login, revocation or revision that meets it, and room on it by the first that does not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode, MAIN_DB};

use super::{Error, Store};
use crate::base::random;

/// Told whenever the store begins or ceases to take what is written.
type Watcher = Box<dyn Fn(bool) + Send + Sync>;

/// How the last writing went.
pub(super) struct Writing {
    refuses: AtomicBool,
    watcher: OnceLock<Watcher>,
}

impl Writing {
    /// Of a file that was just opened, perhaps for reading only.
    pub(super) fn of(connection: &Connection) -> Self {
        let refuses = connection.is_readonly(MAIN_DB).unwrap_or(true);
        Self { refuses: refuses.into(), watcher: OnceLock::new() }
    }

    fn note(&self, refuses: bool) {
        let news = self.refuses.swap(refuses, Ordering::Relaxed) != refuses;
        if let Some(watcher) = self.watcher.get().filter(|_| news) {
            watcher(!refuses);
        }
    }

    /// Takes note of how a change ended. `written`: whether something of it went to the disk; what changed nothing shows
    /// nothing.
    pub(super) fn ended<T>(&self, outcome: &rusqlite::Result<T>, written: bool) {
        match outcome {
            Ok(_) if written => self.note(false),
            Ok(_) => {}
            Err(error) if is_of_the_disk(error) => self.note(true),
            Err(_) => {}
        }
    }
}

impl Store {
    /// Whether the last that was written was taken.
    pub fn is_writable(&self) -> bool {
        !self.writing.refuses.load(Ordering::Relaxed)
    }

    /// Calls `watcher` whenever [`Store::is_writable`] changes; one watcher at most.
    pub fn watch_writing(&self, watcher: impl Fn(bool) + Send + Sync + 'static) {
        watcher(self.is_writable());
        let set = self.writing.watcher.set(Box::new(watcher));
        debug_assert!(set.is_ok(), "somebody watches already");
    }

    /// Writes something that nobody needs, to see whether the store takes it.
    pub fn try_writing(&self) -> Result<(), Error> {
        const MARK: &str = "INSERT INTO marks (name, value) VALUES ('tried', ?1)
                            ON CONFLICT (name) DO UPDATE SET value = ?1";
        self.commit(|connection| connection.execute(MARK, [random::bytes::<8>()]).map(drop))
    }
}

/// Whether rows were changed since `before`.
pub(super) fn has_written(connection: &Connection, before: u64) -> bool {
    connection.total_changes() != before
}

/// The disk is full, read-only or failing. Anything else is no fault of where the file lies.
fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    let of_the_disk = [
        ErrorCode::DiskFull,
        ErrorCode::ReadOnly,
        ErrorCode::SystemIoFailure,
        ErrorCode::CannotOpen,
        ErrorCode::PermissionDenied,
    ];
    error.sqlite_error_code().is_some_and(|code| of_the_disk.contains(&code))
}
