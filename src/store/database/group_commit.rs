//! Group commit: transactions that share one sync of the disk. The thread that gets the connection
//! first also makes the changes that others have queued, so that many writers cost hardly more than
//! one. Each change is made wholly or not at all, and its caller learns the outcome only once it is
//! on the disk.

use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};

use rusqlite::{Connection, ffi};

use super::Database;
use super::write_health::has_changed_rows;
use crate::base::sync::lock_unpoisoned;
use crate::store::Error;

/// Changes that wait for the connection.
#[derive(Default)]
pub(super) struct CommitQueue(Mutex<Vec<QueuedWork>>);

/// Makes its change within the transaction, and returns what to do once that has ended.
type QueuedWork = Box<dyn FnOnce(Result<&mut Connection, ffi::Error>) -> CompletionCallback + Send>;
type CompletionCallback = Box<dyn FnOnce(Result<(), ffi::Error>)>;

impl CommitQueue {
    fn push(&self, change: QueuedWork) {
        lock_unpoisoned(&self.0).push(change);
    }

    fn drain(&self) -> Vec<QueuedWork> {
        std::mem::take(&mut *lock_unpoisoned(&self.0))
    }
}

impl Database {
    /// Makes a change together with those of other callers. When this returns `Ok`, the change is
    /// on the disk; otherwise it was not made.
    pub(in crate::store) fn commit<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        self.commit_queue.push(Box::new(move |transaction| run_in_savepoint(transaction, work, sender)));
        let mut connection = self.connection();
        // Empty if the previous holder of the connection made this change along with its own.
        let changes = self.commit_queue.drain();
        if !changes.is_empty() {
            let before = connection.total_changes();
            let committed = commit_batch(&mut connection, changes).map_err(to_rusqlite_error);
            self.write_health.observe_outcome(&committed, has_changed_rows(&connection, before));
        }
        drop(connection);
        let outcome = receiver.recv().expect("the thread that runs a change sends its outcome");
        self.write_health.observe_outcome(&outcome, false);
        outcome.map_err(self.error())
    }
}

fn run_in_savepoint<T, W>(
    transaction: Result<&mut Connection, ffi::Error>,
    work: W,
    sender: SyncSender<rusqlite::Result<T>>,
) -> CompletionCallback
where
    T: 'static,
    W: FnOnce(&Connection) -> rusqlite::Result<T>,
{
    let outcome = transaction.map_err(to_rusqlite_error).and_then(|connection| {
        let savepoint = connection.savepoint()?;
        let value = work(&savepoint)?;
        savepoint.commit()?;
        Ok(value)
    });
    Box::new(move |committed| {
        let outcome = outcome.and_then(|value| committed.map(|()| value).map_err(to_rusqlite_error));
        // The caller waits for the outcome; nothing else needs it.
        let _sent = sender.send(outcome);
    })
}

fn commit_batch(connection: &mut Connection, changes: Vec<QueuedWork>) -> Result<(), ffi::Error> {
    let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(to_ffi_error);
    let run = |change: QueuedWork| change(begun.map(|()| &mut *connection));
    let completions: Vec<_> = changes.into_iter().map(run).collect();
    let committed = begun.and_then(|()| connection.execute_batch("COMMIT").map_err(to_ffi_error));
    if committed.is_err() && !connection.is_autocommit() {
        // If this fails, SQLite has rolled back already.
        let _rolled_back = connection.execute_batch("ROLLBACK");
    }
    completions.into_iter().for_each(|complete| complete(committed));
    committed
}

fn to_rusqlite_error(cause: ffi::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(cause, None)
}

fn to_ffi_error(error: rusqlite::Error) -> ffi::Error {
    error.sqlite_error().copied().unwrap_or_else(|| ffi::Error::new(ffi::SQLITE_ERROR))
}
