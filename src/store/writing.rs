//! Whether the store can be written. Every write reports its outcome, so the first login,
//! revocation or revision that meets a full disk reports it, and the first that succeeds clears it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode, MAIN_DB};

use super::{Error, Store};
use crate::base::random;

/// Called with the new state whenever the store becomes writable or unwritable.
type Watcher = Box<dyn Fn(bool) + Send + Sync>;

/// The outcome of the last write.
pub(super) struct Writing {
    refuses: AtomicBool,
    watcher: OnceLock<Watcher>,
}

impl Writing {
    /// Takes the initial state from a connection that was just opened, perhaps read-only.
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

    /// Records the outcome of a change. `written` says whether anything went to the disk: a change
    /// without effect proves nothing.
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
    /// Returns whether the last write succeeded.
    pub fn is_writable(&self) -> bool {
        !self.writing.refuses.load(Ordering::Relaxed)
    }

    /// Calls `watcher` now and whenever [`Store::is_writable`] changes. There is one watcher at
    /// most.
    pub fn watch_writing(&self, watcher: impl Fn(bool) + Send + Sync + 'static) {
        watcher(self.is_writable());
        let set = self.writing.watcher.set(Box::new(watcher));
        debug_assert!(set.is_ok(), "somebody watches already");
    }

    /// Writes a value that nothing reads, to find out whether the store can be written.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot.
    pub fn try_writing(&self) -> Result<(), Error> {
        const MARK: &str = "INSERT INTO marks (name, value) VALUES ('tried', ?1)
                            ON CONFLICT (name) DO UPDATE SET value = ?1";
        self.commit(|connection| connection.execute(MARK, [random::bytes::<8>()]).map(drop))
    }
}

/// Returns whether rows were changed since `before`.
pub(super) fn has_written(connection: &Connection, before: u64) -> bool {
    connection.total_changes() != before
}

/// Returns whether the disk is full, read-only or failing. Other errors have nothing to do with the
/// disk.
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
