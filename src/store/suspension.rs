//! Lending the store to another process: its file is closed, whoever asks the store waits, and then
//! either it is opened again or the other process keeps it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::database::{self, Database};
use super::{Error, Store, WAL, schema};

/// The copy that is kept while a process with a newer schema has the store.
const COPY: &str = "tenantd.db.before-upgrade";

/// A store whose file is closed. Calls of its functions wait; if this is dropped, the file is
/// opened again.
#[derive(Debug)]
pub struct SuspendedStore {
    decision: mpsc::Sender<Decision>,
    outcome: oneshot::Receiver<Result<(), Error>>,
}

#[derive(Debug, Clone, Copy)]
enum Decision {
    Resume,
    HandOver,
}

impl Store {
    /// Finishes the writes under way and closes the file, for a process that writes the schema
    /// `successor_schema`. If that is newer, a copy is made first. The lock of the folder stays.
    ///
    /// # Errors
    /// The file cannot be closed or copied. The store goes on then.
    pub async fn suspend(&self, successor_schema: i64) -> Result<SuspendedStore, Error> {
        let store = self.clone();
        let (decision, decided) = mpsc::channel();
        let (closed_sender, closed) = oneshot::channel();
        let (outcome_sender, outcome) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let database = &store.database;
            // Held until the decision: this is what everybody else waits for.
            let mut connection = database.connection();
            let is_newer = successor_schema > schema::CURRENT_VERSION;
            let copy = match close(&mut connection, database, is_newer) {
                Ok(copy) => copy,
                Err(error) => {
                    let _unheard = closed_sender.send(Err(error));
                    return;
                }
            };
            let has_asker = closed_sender.send(Ok(())).is_ok();
            let outcome = match decided.recv().unwrap_or(Decision::Resume) {
                Decision::HandOver if has_asker => {
                    database.set_handed_over();
                    copy.iter().for_each(|copy| _ = fs::remove_file(copy));
                    Ok(())
                }
                Decision::HandOver | Decision::Resume => reopen(&mut connection, database, copy.as_deref()),
            };
            drop(connection);
            // Nobody may wait for it.
            let _unheard = outcome_sender.send(outcome);
        });
        closed.await.map_err(|_| Error::Interrupted)??;
        Ok(SuspendedStore { decision, outcome })
    }
}

impl SuspendedStore {
    /// Opens the file again, after the other process has ended. What that wrote is kept, unless it
    /// changed the schema.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn resume(self) -> Result<(), Error> {
        self.decide(Decision::Resume).await
    }

    /// Leaves the file to the other process. Calls that waited fail with [`Error::Interrupted`].
    pub async fn hand_over(self) {
        // Nothing is opened, so nothing can fail but the runtime's end.
        let _ended = self.decide(Decision::HandOver).await;
    }

    async fn decide(self, decision: Decision) -> Result<(), Error> {
        // An error would mean that the thread has ended; then there is no outcome either.
        let _gone = self.decision.send(decision).is_err();
        self.outcome.await.map_err(|_| Error::Interrupted)?
    }
}

/// Closes the file, and copies it if it `is_copied`. On failure the connection is as before.
fn close(
    connection: &mut Connection,
    database: &Database,
    is_copied: bool,
) -> Result<Option<PathBuf>, Error> {
    let stand_in = Connection::open_in_memory().map_err(database.error())?;
    let before = std::mem::replace(connection, stand_in);
    if let Err((before, cause)) = before.close() {
        *connection = before;
        return Err(database.error()(cause));
    }
    if !is_copied {
        return Ok(None);
    }
    let copy = database.file.with_file_name(COPY);
    match fs::copy(&database.file, &copy) {
        Ok(_) => Ok(Some(copy)),
        Err(cause) => {
            reopen(connection, database, None)?;
            Err(Error::File { action: "created", path: copy, cause })
        }
    }
}

/// Opens the file again, or its copy if the file has a newer schema now.
fn reopen(connection: &mut Connection, database: &Database, copy: Option<&Path>) -> Result<(), Error> {
    let mut opened = database::open_file(&database.file)?;
    if let Some(copy) = copy {
        if schema::version(&opened).map_err(database.error())? > schema::CURRENT_VERSION {
            drop(opened);
            let failed = |cause| Error::File { action: "restored", path: database.file.clone(), cause };
            match fs::remove_file(database.file.with_file_name(WAL)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            fs::rename(copy, &database.file).map_err(failed)?;
            opened = database::open_file(&database.file)?;
        } else {
            // A copy that stays is in nobody's way.
            let _stays = fs::remove_file(copy);
        }
    }
    *connection = opened;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KeySource;

    fn opened(folder: &Path) -> Store {
        Store::open(folder, &KeySource::State).expect("a store")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_suspended_store_is_closed_its_callers_wait_and_then_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = opened(folder.path());
        let suspended = store.suspend(schema::CURRENT_VERSION).await.expect("suspended");
        let file = folder.path().join("tenantd.db");
        let other = Connection::open(&file).expect("another process opens it");
        other.execute("INSERT INTO marks (name, value) VALUES ('other', x'2a')", []).expect("and writes");
        other.close().expect("and ends");
        let local = store.local().clone();
        let mut asking = Box::pin(async move { local.set_paused("a", true).await });
        assert!(futures_util::poll!(asking.as_mut()).is_pending());
        suspended.resume().await.expect("opened again");
        asking.await.expect("it only waited");
        let connection = store.database.connection();
        let found: Vec<u8> = connection
            .query_row("SELECT value FROM marks WHERE name = 'other'", [], |row| row.get(0))
            .expect("it is kept");
        assert_eq!(found, [42]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_is_handed_over_is_another_processs() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = opened(folder.path());
        store.suspend(schema::CURRENT_VERSION).await.expect("suspended").hand_over().await;
        assert!(matches!(store.local().set_paused("a", true).await, Err(Error::Interrupted)));
        let other = Connection::open(folder.path().join("tenantd.db")).expect("another process opens it");
        schema::configure(&other).expect("it is free");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_schema_that_a_failed_successor_changed_is_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = opened(folder.path());
        let newer = schema::CURRENT_VERSION + 1;
        let suspended = store.suspend(newer).await.expect("suspended");
        let file = folder.path().join("tenantd.db");
        let other = Connection::open(&file).expect("another process opens it");
        other.execute_batch("CREATE TABLE later (x)").expect("and changes it");
        other.pragma_update(None, "user_version", newer).expect("for good");
        other.close().expect("and ends");
        suspended.resume().await.expect("opened again");
        store.local().set_paused("a", true).await.expect("it can be written");
        assert_eq!(schema::version(&store.database.connection()), Ok(schema::CURRENT_VERSION));
        drop(store);
        opened(folder.path());
        assert!(!folder.path().join(COPY).exists());
    }
}
