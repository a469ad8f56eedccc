//! Whether the store can be written. Every write reports its outcome, so the first login,
//! revocation or revision that meets a full disk reports it, and the first that succeeds clears it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode, MAIN_DB};

use super::Database;
use crate::base::random;
use crate::store::Error;

/// Called with the new state whenever the store becomes writable or unwritable.
type WriteHealthCallback = Box<dyn Fn(bool) + Send + Sync>;

/// The outcome of the last write.
pub(in crate::store) struct WriteHealth {
    is_refusing: AtomicBool,
    callback: OnceLock<WriteHealthCallback>,
}

impl WriteHealth {
    /// Takes the initial state from a connection that was just opened, perhaps read-only.
    pub(super) fn from_connection(connection: &Connection) -> Self {
        let refuses = connection.is_readonly(MAIN_DB).unwrap_or(true);
        Self { is_refusing: refuses.into(), callback: OnceLock::new() }
    }

    fn set_refusing(&self, refuses: bool) {
        let has_changed = self.is_refusing.swap(refuses, Ordering::Relaxed) != refuses;
        if let Some(on_change) = self.callback.get().filter(|_| has_changed) {
            on_change(!refuses);
        }
    }

    /// Records the outcome of a change. `written` says whether anything went to the disk: a change
    /// without effect proves nothing.
    pub(in crate::store) fn observe_outcome<T>(&self, outcome: &rusqlite::Result<T>, written: bool) {
        match outcome {
            Ok(_) if written => self.set_refusing(false),
            Ok(_) => {}
            Err(error) if is_disk_error(error) => self.set_refusing(true),
            Err(_) => {}
        }
    }
}

impl Database {
    /// Returns whether the last write succeeded.
    pub(in crate::store) fn is_writable(&self) -> bool {
        !self.write_health.is_refusing.load(Ordering::Relaxed)
    }

    /// Calls `on_change` now and whenever [`Database::is_writable`] changes. There is one callback
    /// at most.
    pub(in crate::store) fn on_writable_change(&self, on_change: impl Fn(bool) + Send + Sync + 'static) {
        on_change(self.is_writable());
        let set = self.write_health.callback.set(Box::new(on_change));
        debug_assert!(set.is_ok(), "there is a callback already");
    }

    /// Writes a value that nothing reads, to find out whether the store can be written.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot.
    pub(in crate::store) fn probe_write(&self) -> Result<(), Error> {
        const MARK: &str = "INSERT INTO marks (name, value) VALUES ('tried', ?1)
                            ON CONFLICT (name) DO UPDATE SET value = ?1";
        self.commit(|connection| connection.execute(MARK, [random::bytes::<8>()]).map(drop))
    }
}

/// Returns whether rows were changed since `before`.
pub(super) fn has_changed_rows(connection: &Connection, before: u64) -> bool {
    connection.total_changes() != before
}

/// Returns whether the disk is full, read-only or failing. Other errors have nothing to do with the
/// disk.
fn is_disk_error(error: &rusqlite::Error) -> bool {
    let disk_errors = [
        ErrorCode::DiskFull,
        ErrorCode::ReadOnly,
        ErrorCode::SystemIoFailure,
        ErrorCode::CannotOpen,
        ErrorCode::PermissionDenied,
    ];
    error.sqlite_error_code().is_some_and(|code| disk_errors.contains(&code))
}
