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
//! [`AuthStore`] is asynchronous and could be shared by several gateways. [`LocalStore`] belongs to
//! one tenants folder; threads that may block can also ask its tables. The [`Keyring`] seals what
//! both hold, and needs no database. Opening, checking and restoring block.

pub mod auth;
mod auth_place;
mod backup;
mod cluster;
mod database;
mod keyring;
mod local;
mod migration;
mod schema;
mod suspension;
#[cfg(test)]
pub(crate) mod testkit;
mod usage;
mod usage_copy;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

pub use self::auth::postgres::{DatabaseExamination, Error as PostgresError, PostgresAddress};
pub use self::auth::sealed::AuthCounts;
use self::auth::sqlite::AuthTables;
pub use self::auth::{
    AuthStore, BlockId, CreateGrant, Grant, GrantCursor, GrantId, Incarnation, IncarnationChange,
    IncarnationId, IncarnationRecord, ListedGrant, Revocation, RevokedSubject, RotateGrant, SigningKey,
    StoredBlocks, StoredIncarnations, StoredRevocations,
};
pub use self::auth_place::has_logins_elsewhere;
pub use self::backup::{IntegrityReport, check, restore};
pub use self::cluster::{
    AccountClaim, CERTIFICATE_CHANGE, CERTIFICATE_LEASE_SECONDS, Change, ChangeBatch, ChangeCursor,
    ChangeSubscription, ClusterStore, DifferentEntry, EntryOrders, Freshness, HEARTBEAT, HeardChanges,
    HeartbeatOutcome, Joining, LeaseClaim, LeaseHolder, LocalCertificate, MAX_SILENCE, NodeEntry, NodeId,
    NodeReport, Notifications, ORDER_CHANGE, OtherNodes, QuotaSums, Replacement, SharedAccount,
    SharedCertificate, SharedChallenge, SharedChallengeKind, SharedNews, SharedTablesReport, TenantOrder,
    UsageBatchId,
};
use self::database::{Database, filesystem, folder_lock};
pub use self::keyring::{Error as KeyError, KeySource, Keyring, SealContext};
use self::local::entry_seal;
pub use self::local::{
    AcceptedRevision, ContextStore, EntryChange, EntryClaims, LocalStore, LocalTables, REVISIONS_KEPT,
    RevisionInfo, StoredEntry,
};
pub use self::suspension::SuspendedStore;
pub use self::usage::{
    OTHERS, QuotaPeriod, QuotaUse, StoredQuota, UsageBatch, UsageBy, UsageCounts, UsagePer, UsageQuery,
    UsageRow, UsageSum,
};
use crate::base::random;

const DATABASE: &str = "tenantd.db";
const WAL: &str = "tenantd.db-wal";
/// The place of the value that shows whether the master key fits.
const KEY_CHECK: SealContext<'_> = SealContext { purpose: "witness", tenant: "", row: "" };

/// Why the store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the state folder {} is in use by another tenantd, process {pid}; stop that one, or give this one \
         another folder with --state",
        folder.display()
    )]
    InUse { folder: PathBuf, pid: String },
    #[error(
        "{} was written by a newer tenantd (schema {found}; this version supports up to {known}); run that \
         version, or restore a backup of this version with \"tenantd store restore\"",
        file.display()
    )]
    NewerSchema { file: PathBuf, found: i64, known: i64 },
    #[error(
        "{} is damaged ({what}); restore a backup with \"tenantd store restore PATH\". To start with an \
         empty store instead, move the file and its -wal away: pauses, rollbacks and last good revisions are \
         then lost",
        file.display()
    )]
    Damaged { file: PathBuf, what: String },
    #[error(transparent)]
    Key(#[from] keyring::Error),
    #[error("{} cannot be {action}: {cause}", path.display())]
    File { action: &'static str, path: PathBuf, cause: io::Error },
    #[error("{} cannot be used: {cause}", file.display())]
    Database { file: PathBuf, cause: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Postgres(#[from] auth::postgres::Error),
    #[error(
        "the logins of {} are in a PostgreSQL database; start with --store, or copy them back with \"tenantd store \
         copy --to file\"",
        file.display()
    )]
    AuthMoved { file: PathBuf },
    #[error(
        "the logins of {} are in another database than {shown}; give the address of that one, or copy them back \
         from it with \"tenantd store copy --to file\"",
        file.display()
    )]
    OtherDatabase { file: PathBuf, shown: String },
    #[error(
        "{} has logins, signing keys or blocks that the database {shown} does not have, and they would be \
         forgotten; copy them first with \"tenantd store copy --to {shown}\"",
        file.display()
    )]
    AuthNotCopied { file: PathBuf, shown: String },
    #[error("{target} has logins already, and a copy replaces nothing; copy to an empty one")]
    AuthTargetNotEmpty { target: String },
    #[error("not all rows arrived in {target}, and nothing was changed over; try again with an empty one")]
    CopyIncomplete { target: String },
    #[error("a value in the store cannot be decrypted: it was encrypted with another key, or changed")]
    CannotUnseal,
    /// A call of an asynchronous function did not come to its end.
    #[error("the gateway is shutting down")]
    Interrupted,
}

impl Error {
    /// Returns whether it may go by within seconds, so that a start should try again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_passing())
    }

    /// Returns whether the state folder is a copy of one that is in use.
    pub fn is_copied_node(&self) -> bool {
        matches!(self, Self::Postgres(PostgresError::CopiedNode { .. }))
    }

    /// Returns whether there is no store yet and none can be written, so that going on without one
    /// forgets nothing.
    pub fn is_uncreatable(&self) -> bool {
        matches!(self, Self::File { action: "created", .. } | Self::Key(keyring::Error::Make { .. }))
    }
}

/// The open store of this process, which owns the state folder until the store and the last clone
/// of a part of it are dropped. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    keyring: Arc<Keyring>,
    local: LocalStore,
    auth_tables: Arc<AuthTables>,
    auth: AuthStore,
    cluster: Option<ClusterStore>,
}

/// Says who has the state folder, if somebody has: [`Error::InUse`].
pub fn is_free(folder: &Path) -> Result<(), Error> {
    folder_lock::acquire(folder).map(drop)
}

/// The version of the schema that this program writes.
pub const SCHEMA: i64 = schema::CURRENT_VERSION;

/// Checks without opening it whether this program could use the store of another process that uses
/// it now, whose schema is `found`.
///
/// # Errors
/// [`Error::NewerSchema`], or [`Error::Key`] if there is no usable master key.
pub fn check_in_use(folder: &Path, key: &KeySource, found: i64) -> Result<(), Error> {
    if found > SCHEMA {
        return Err(Error::NewerSchema { file: folder.join(DATABASE), found, known: SCHEMA });
    }
    Keyring::load(folder, key, false)?;
    Ok(())
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
        let mut connection = database::open_file(&file)?;
        // Check the key first: the steps below seal values anew.
        verify_key_check(&connection, &keys, &file)?;
        migration::migrate_to_current(&mut connection, &keys, &file)?;
        let store = Self::from_parts(Database::new(connection, file, lock), keys);
        store.ensure_key_check()?;
        if store.database.is_writable() && store.reseal_entries().is_err() {
            tracing::warn!(
                "entries cannot be encrypted with the new master key; keep the line of the old \
                            key"
            );
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
            return Err(Error::File { action: "read", path: file, cause });
        }
        let lock = folder_lock::acquire(folder)?;
        let keys = Keyring::load(folder, key, false)?;
        let connection = database::open_unchanged(&file)?;
        let is_empty = schema::check_version(&connection, &file)? == 0;
        let store = Self::from_parts(Database::new(connection, file, lock), keys);
        if !is_empty {
            verify_key_check(&store.database.connection(), &store.keyring, &store.database.file)?;
        }
        Ok(store)
    }

    fn from_parts(database: Database, keys: Keyring) -> Self {
        let (database, keyring) = (Arc::new(database), Arc::new(keys));
        let local = LocalTables::new(Arc::clone(&database), Arc::clone(&keyring));
        let auth_tables = Arc::new(AuthTables::new(Arc::clone(&database), Arc::clone(&keyring)));
        let auth = AuthStore::in_file(Arc::clone(&auth_tables));
        Self { database, keyring, local: LocalStore::new(local), auth_tables, auth, cluster: None }
    }

    /// Returns the keys that seal what the store holds, for values that lie elsewhere.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Returns what belongs to this gateway's tenants folder.
    pub fn local(&self) -> &LocalStore {
        &self.local
    }

    /// Returns what belongs to the logins of tenants.
    pub fn auth(&self) -> &AuthStore {
        &self.auth
    }

    /// Returns the last contexts of tenants' backends, which lie in the state folder.
    pub fn contexts(&self) -> ContextStore {
        ContextStore::new(self.folder(), Arc::clone(&self.keyring))
    }

    /// Returns whether the last write succeeded, in the file and in the database of logins.
    pub fn is_writable(&self) -> bool {
        self.database.is_writable() && self.auth.is_writable()
    }

    /// Calls `on_change` now and whenever the outcome of writing changes: with `true` if the last
    /// write succeeded, in the file and in the database of logins. There is one callback at most.
    pub fn on_writable_change(&self, on_change: impl Fn(bool) + Send + Sync + 'static) {
        let Some(health) = self.auth.health() else { return self.database.on_writable_change(on_change) };
        let on_change = Arc::new(on_change);
        let (on_file_change, other) = (Arc::clone(&on_change), Arc::clone(health));
        self.database.on_writable_change(move |writable| on_file_change(writable && other.is_writable()));
        // A strong reference would keep the file open.
        let file = Arc::downgrade(&self.database);
        let is_file_writable = move || file.upgrade().is_none_or(|file| file.is_writable());
        health.on_change(move |writable| on_change(writable && is_file_writable()));
    }

    /// Copies the whole store into a new file while it is in use. The copy does not contain the
    /// master key. Blocks.
    ///
    /// # Errors
    /// The new file exists already or cannot be written, or the store cannot be read.
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        backup::vacuum_into(&self.database.connection(), to)
    }

    /// Copies the whole store into a new file in the state folder, and returns its path. The caller
    /// moves it away.
    ///
    /// # Errors
    /// As for [`Store::backup`]; [`Error::Interrupted`] if the call did not come to its end.
    pub async fn backup_beside(&self) -> Result<PathBuf, Error> {
        let store = self.clone();
        let copy = move || {
            let path = store.folder().join(format!("backup-{}.db", random::hex::<8>()));
            store.backup(&path)?;
            Ok(path.canonicalize().unwrap_or(path))
        };
        tokio::task::spawn_blocking(copy).await.map_err(|_| Error::Interrupted)?
    }

    fn folder(&self) -> &Path {
        self.database.file.parent().expect("the file has the folder in front")
    }

    /// Seals entries and claims anew that an older master key sealed, so that its line can be
    /// removed.
    fn reseal_entries(&self) -> rusqlite::Result<()> {
        let connection = self.database.connection();
        entry_seal::reseal_entries(&connection, &self.keyring)?;
        self.local.tables().reseal_claims(&connection)
    }

    /// Seals the key check when the store is created, so that a key that does not fit is reported
    /// at the next start, and seals it anew when another key has become the current one, so that
    /// the old key can be removed.
    fn ensure_key_check(&self) -> Result<(), Error> {
        let has_key_check =
            verify_key_check(&self.database.connection(), &self.keyring, &self.database.file)?;
        let key_check = schema::load_key_check(&self.database.connection()).map_err(self.database.error())?;
        if key_check.is_some_and(|sealed| self.keyring.is_current(&sealed)) {
            return Ok(());
        }
        let sealed = self.keyring.seal(&KEY_CHECK, b"tenantd");
        match schema::save_key_check(&self.database.connection(), &sealed) {
            // The old key check opens as long as its key is kept; the next start tries again.
            Err(error) if has_key_check => {
                tracing::warn!(%error, "the store's key check could not be encrypted with the new master \
                                        key; keep the old key");
                Ok(())
            }
            written => written.map_err(self.database.error()),
        }
    }
}

/// Returns whether there is a key check, and fails if the keys do not open it.
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
        f.debug_struct("Store").field("file", &self.database.file).finish_non_exhaustive()
    }
}

fn create_folder(folder: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| Error::File { action: "created", path: folder.to_owned(), cause })?;
    let open_to_others = fs::metadata(folder).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
    // If the folder cannot be closed (a volume that another user owns), the files in it are closed
    // all the same.
    if open_to_others && fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).is_err() {
        tracing::debug!(folder = %folder.display(), "other users can read the state folder");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
