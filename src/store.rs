//! Floor 2: the state that outlives the process. One SQLite file in the state folder, and the
//! master key that seals the secrets in it. No other module names rusqlite.
//!
//! Files: `<state>/tenantd.db` (write-ahead log, full sync), `<state>/master.key` and
//! `<state>/lock`. The folder has mode 0700, the files 0600.
//!
//! Guarantees: a transaction that returned survives a power cut, and only one process uses the
//! folder at a time. A file with a newer schema, a damaged file and a key that does not fit are
//! refused: they hold pauses and rollbacks, and a fresh store would reopen what an operator has
//! shut. A file that can be read but not *written* is opened, because what it says still counts.
//!
//! All functions block; call them where blocking is acceptable.

mod backup;
mod clients;
mod entry_claims;
mod entry_seal;
mod filesystem;
mod folder_lock;
mod grants;
mod group_commit;
mod incarnation;
mod incarnations;
mod keyring;
mod revisions;
mod schema;
mod signing_keys;
mod stored_entry;
#[cfg(test)]
pub(crate) mod testkit;
mod write_health;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::{Connection, OpenFlags};

pub use backup::{IntegrityReport, check, restore};
pub use entry_claims::EntryClaims;
pub use grants::{CreateGrant, Grant, GrantId, Revocation, RevokedSubject, RotateGrant, StoredRevocations};
pub use incarnation::{Incarnation, IncarnationId};
pub use incarnations::{IncarnationChange, IncarnationRecord};
pub use keyring::{Error as KeyError, KeySource, Keyring, SealContext};
pub use revisions::{AcceptedRevision, EntryChange, REVISIONS_KEPT, RevisionInfo};
pub use signing_keys::SigningKey;
pub use stored_entry::StoredEntry;

use self::group_commit::CommitQueue;
use self::write_health::WriteHealth;
use crate::base::process_lock::ProcessLock;

const DATABASE: &str = "tenantd.db";
const WAL: &str = "tenantd.db-wal";
/// The place of the value that shows whether the master key fits.
const KEY_CHECK: SealContext<'_> = SealContext { purpose: "witness", tenant: "", row: "" };

/// Why the store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the state folder {} is in use by another tenantd, process {pid}; stop that one, or give this one a folder of its own with --state",
        folder.display()
    )]
    InUse { folder: PathBuf, pid: String },
    #[error(
        "{} was written by a newer tenantd (schema {found}; this one knows up to {known}); run that version, or restore a backup made by this one with \"tenantd store restore\"",
        file.display()
    )]
    NewerSchema { file: PathBuf, found: i64, known: i64 },
    #[error(
        "{} is damaged ({what}); restore a backup with \"tenantd store restore PATH\". To begin anew instead, move the file and its -wal away: pauses, rollbacks and last good revisions are forgotten then",
        file.display()
    )]
    Damaged { file: PathBuf, what: String },
    #[error(transparent)]
    Key(#[from] keyring::Error),
    #[error("{} cannot be {verb}: {cause}", path.display())]
    File { verb: &'static str, path: PathBuf, cause: io::Error },
    #[error("{} cannot be used: {cause}", file.display())]
    Database { file: PathBuf, cause: rusqlite::Error },
    #[error("a value in the store cannot be opened: it was sealed with another key, or changed")]
    CannotUnseal,
}

impl Error {
    /// Returns whether there is no store yet and none can be written, so that going on without one
    /// forgets nothing.
    pub fn is_uncreatable(&self) -> bool {
        matches!(self, Self::File { verb: "made", .. } | Self::Key(keyring::Error::Make { .. }))
    }
}

/// The open store of this process, which owns the state folder until the store is dropped.
pub struct Store {
    connection: Mutex<Connection>,
    commit_queue: CommitQueue,
    write_health: WriteHealth,
    keyring: Arc<Keyring>,
    file: PathBuf,
    _lock: ProcessLock,
}

/// Says who has the state folder, if somebody has: [`Error::InUse`].
pub fn is_free(folder: &Path) -> Result<(), Error> {
    folder_lock::acquire(folder).map(drop)
}

impl Store {
    /// Opens the store of a state folder, and creates it if there is none.
    ///
    /// # Errors
    /// Another process uses the folder, the file is damaged or from a newer version, the master key
    /// is missing or does not fit, or the system refuses access to a file.
    pub fn open(folder: &Path, key: &KeySource) -> Result<Self, Error> {
        create_folder(folder)?;
        let lock = folder_lock::acquire(folder)?;
        filesystem::warn_if_network_filesystem(folder);
        let file = folder.join(DATABASE);
        let is_new = !file.exists();
        // Values sealed with a lost key are lost, so a store without its key must not silently get
        // a new one.
        let keys = Keyring::load(folder, key, is_new)?;
        let mut connection = open_file(&file)?;
        // Check the key first: the steps below seal values anew.
        verify_key_check(&connection, &keys, &file)?;
        schema::migrate(&mut connection, &keys, &file)?;
        let store = Self::from_parts(connection, keys, file, lock);
        store.ensure_key_check()?;
        let renew = || {
            let connection = store.connection();
            entry_seal::reseal_entries(&connection, &store.keyring)
                .and_then(|()| store.reseal_claims(&connection))
        };
        if store.is_writable() && renew().is_err() {
            tracing::warn!("entries cannot be sealed with the new master key; keep the line of the old one");
        }
        Ok(store)
    }

    /// Opens a store that no gateway uses, to read and copy it. Nothing is changed: the schema
    /// stays as it is, and what a killed process left in the write-ahead log stays there.
    ///
    /// # Errors
    /// As for [`Store::open`]; also if there is no store.
    pub fn open_unmodified(folder: &Path, key: &KeySource) -> Result<Self, Error> {
        let file = folder.join(DATABASE);
        if !file.exists() {
            let cause = io::Error::from(io::ErrorKind::NotFound);
            return Err(Error::File { verb: "read", path: file, cause });
        }
        let lock = folder_lock::acquire(folder)?;
        let keys = Keyring::load(folder, key, false)?;
        let connection = open_unchanged(&file)?;
        let is_empty = schema::check_version(&connection, &file)? == 0;
        let store = Self::from_parts(connection, keys, file, lock);
        if !is_empty {
            verify_key_check(&store.connection(), &store.keyring, &store.file)?;
        }
        Ok(store)
    }

    fn from_parts(connection: Connection, keys: Keyring, file: PathBuf, lock: ProcessLock) -> Self {
        let writing = WriteHealth::from_connection(&connection);
        Self {
            connection: Mutex::new(connection),
            commit_queue: CommitQueue::default(),
            write_health: writing,
            keyring: Arc::new(keys),
            file,
            _lock: lock,
        }
    }

    /// Copies the whole store into a new file while it is in use. The copy does not contain the
    /// master key.
    ///
    /// # Errors
    /// The new file exists already or cannot be written, or the store cannot be read.
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        backup::vacuum_into(&self.connection(), to)
    }

    /// Returns the keys that seal what the store holds, for values that lie elsewhere.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Returns the state folder.
    pub fn folder(&self) -> &Path {
        self.file.parent().expect("the file has the folder in front")
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no holder of this lock panics")
    }

    fn database_error(&self) -> impl Fn(rusqlite::Error) -> Error {
        |cause| Error::Database { file: self.file.clone(), cause }
    }

    /// Seals the witness when the store is created, so that a key that does not fit is reported at
    /// the next start, and seals it anew when another key has become the current one, so that the
    /// old key can be removed.
    fn ensure_key_check(&self) -> Result<(), Error> {
        let has_witness = verify_key_check(&self.connection(), &self.keyring, &self.file)?;
        let witness = schema::load_key_check(&self.connection()).map_err(self.database_error())?;
        if witness.is_some_and(|sealed| self.keyring.is_current(&sealed)) {
            return Ok(());
        }
        let sealed = self.keyring.seal(&KEY_CHECK, b"tenantd");
        match schema::save_key_check(&self.connection(), &sealed) {
            // The old witness opens as long as its key is kept; the next start tries again.
            Err(error) if has_witness => {
                tracing::warn!(%error, "the store's key check could not be sealed with the new master key; keep the old one");
                Ok(())
            }
            written => written.map_err(self.database_error()),
        }
    }
}

/// Returns whether there is a witness, and fails if the keys do not open it.
fn verify_key_check(connection: &Connection, keys: &Keyring, file: &Path) -> Result<bool, Error> {
    let version = schema::version(connection).map_err(|cause| schema::to_store_error(file, cause))?;
    // `schema::check_version` reports files that are damaged or from a newer version.
    if !(1..=schema::CURRENT_VERSION).contains(&version) {
        return Ok(false);
    }
    let Some(sealed) =
        schema::load_key_check(connection).map_err(|cause| schema::to_store_error(file, cause))?
    else {
        return Ok(false);
    };
    keys.open(&KEY_CHECK, &sealed).map(|_| true).ok_or(Error::Key(keyring::Error::DoesNotFit))
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("file", &self.file).finish_non_exhaustive()
    }
}

fn create_folder(folder: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| Error::File { verb: "made", path: folder.to_owned(), cause })?;
    let open_to_others = fs::metadata(folder).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
    // If the folder cannot be closed (a volume that another user owns), the files in it are closed
    // all the same.
    if open_to_others && fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).is_err() {
        tracing::debug!(folder = %folder.display(), "the state folder is open to other users");
    }
    Ok(())
}

/// Opens the file for writing, or for reading if it exists and cannot be written.
fn open_file(file: &Path) -> Result<Connection, Error> {
    // SQLite would make the file readable for everybody. The files it creates beside it get the
    // same mode.
    let made = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    match (made, file.exists()) {
        (Ok(_), _) => {}
        (Err(_), true) => return open_read_only(file),
        (Err(cause), false) => return Err(Error::File { verb: "made", path: file.to_owned(), cause }),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(file, flags).and_then(|connection| {
        schema::configure(&connection)?;
        Ok(connection)
    });
    opened.map_err(|cause| schema::to_store_error(file, cause))
}

/// Opens an existing file so that neither it nor its write-ahead log changes.
fn open_unchanged(file: &Path) -> Result<Connection, Error> {
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
        return Err(Error::File { verb: "brought up to date", path: log, cause });
    }
    tracing::warn!(file = %file.display(), "the state folder is read-only: nothing new will survive a restart");
    let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags);
    opened.map_err(|cause| schema::to_store_error(file, cause))
}

#[cfg(test)]
mod tests;
