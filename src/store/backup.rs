//! Backup and restore of the store. A backup holds everything but the master key, without which its
//! sealed values cannot be read: keep both, in different places.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::database::folder_lock;
use super::migration::legacy;
use super::{DATABASE, Error, KeySource, Store, WAL, schema};
use crate::base::disk;

/// What [`check`] found intact: the schema's version, and how many items of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct IntegrityReport {
    /// The schema version of the file.
    pub schema: i64,
    /// The schema version to which this program upgrades the file when it serves.
    pub known: i64,
    /// Entries of the tenants folder.
    pub entries: usize,
    /// Revisions of all entries.
    pub revisions: usize,
    /// Grants of all tenants.
    pub grants: usize,
    /// Signing keys of all tenants.
    pub signing_keys: usize,
    /// OAuth clients of all tenants.
    pub clients: usize,
    /// Blocks of people.
    pub blocks: usize,
}

/// Checks the store of a state folder that no gateway uses: the whole file, and that every sealed
/// value opens. Changes nothing.
///
/// # Errors
/// As for [`Store::open_unmodified`]; [`Error::Damaged`] if the file is not intact,
/// [`Error::CannotUnseal`] if a value does not open.
pub fn check(folder: &Path, key: &KeySource) -> Result<IntegrityReport, Error> {
    let store = Store::open_unmodified(folder, key)?;
    let (database, local, auth) = (&store.database, store.local.tables(), &store.auth_tables);
    schema::check_integrity(&database.connection(), &database.file, "integrity_check")?;
    let schema = schema::version(&database.connection()).map_err(database.error())?;
    let mut report = IntegrityReport { schema, known: schema::CURRENT_VERSION, ..IntegrityReport::default() };
    // Tables of later versions do not exist yet.
    if schema >= 1 {
        (report.entries, report.revisions) = local.verify_entries()?;
    }
    if (2..schema::INCARNATIONS_VERSION).contains(&schema) {
        [report.grants, report.signing_keys, report.clients] = legacy::verify(database, &store.keyring)?;
    }
    if schema >= schema::INCARNATIONS_VERSION {
        auth.verify_incarnations()?;
        report.grants = auth.verify_grants()?;
        report.signing_keys = auth.verify_signing_keys()?;
        report.clients = auth.verify_clients()?;
    }
    if schema >= schema::BLOCKS_VERSION {
        report.blocks = auth.verify_blocks()?;
    }
    Ok(report)
}

/// Replaces the store of a state folder that no gateway uses with a backup. Returns where the old
/// store is now.
///
/// # Errors
/// [`Error::InUse`] if a process uses the folder, [`Error::Damaged`] or [`Error::NewerSchema`] for
/// a file that is no intact backup of this version or an older one, [`Error::File`] if a file
/// cannot be written or moved.
pub fn restore(folder: &Path, backup: &Path) -> Result<Option<PathBuf>, Error> {
    super::create_folder(folder)?;
    let _lock = folder_lock::acquire(folder)?;
    check_backup(backup)?;
    let file = folder.join(DATABASE);
    let restoring = folder.join("tenantd.db.restoring");
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |cause| Error::File { action, path, cause }
    };
    copy_durably(backup, &restoring).map_err(failed("written", &restoring))?;
    let previous = set_aside(folder, &file).map_err(failed("set aside", &file))?;
    fs::rename(&restoring, &file).and_then(|()| sync_folder(folder)).map_err(failed("replaced", &file))?;
    Ok(previous)
}

/// Copies an open store into a new file, as one consistent snapshot.
pub(super) fn vacuum_into(connection: &Connection, to: &Path) -> Result<(), Error> {
    // `VACUUM INTO` accepts an empty file, and this one is readable for its owner only.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    made.map_err(|cause| Error::File { action: "created", path: to.to_owned(), cause })?;
    let copied = connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    let copied = copied.map_err(|cause| Error::Database { file: to.to_owned(), cause: cause.into() });
    let synced = copied.and_then(|_| {
        let synced = File::open(to).and_then(|file| file.sync_all());
        synced.map_err(|cause| Error::File { action: "written", path: to.to_owned(), cause })
    });
    if synced.is_err() {
        // Half a backup is worse than none.
        let _left = fs::remove_file(to);
    }
    synced
}

/// Refuses a file that is no backup of tenantd, or not intact.
fn check_backup(backup: &Path) -> Result<(), Error> {
    let opened = Connection::open_with_flags(backup, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let to_error = |cause| schema::to_store_error(backup, cause);
    let connection = opened.map_err(to_error)?;
    if !schema::is_ours(&connection).map_err(to_error)? {
        let what = "it is not a store of tenantd".into();
        return Err(Error::Damaged { file: backup.to_owned(), what });
    }
    schema::check_version(&connection, backup)?;
    schema::check_integrity(&connection, backup, "integrity_check")
}

fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, _) = disk::open(from).map_err(disk::Error::into_io)?;
    // Remove what an interrupted restore has left.
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut from, &mut out)?;
    out.sync_all()
}

/// Keeps the old file under another name. The file also stays in its place until the new one is
/// renamed over it, so that at no time the folder is without a store.
fn set_aside(folder: &Path, file: &Path) -> io::Result<Option<PathBuf>> {
    if !file.exists() {
        return Ok(None);
    }
    let previous = unused_backup_name(folder);
    let log = folder.join(WAL);
    if log.exists() && checkpoint_wal(file).is_err() {
        // Damaged files are kept as they are; the log must not be applied to the new file.
        fs::copy(&log, format!("{}-wal", previous.display()))?;
    }
    fs::hard_link(file, &previous).or_else(|_| fs::copy(file, &previous).map(drop))?;
    match fs::remove_file(&log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Some(previous)),
    }
}

/// Checkpoints the write-ahead log into the file.
fn checkpoint_wal(file: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    schema::configure(&connection)?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
}

fn unused_backup_name(folder: &Path) -> PathBuf {
    let name = |number: u32| folder.join(format!("tenantd.db.before-restore-{number}"));
    (1..).map(name).find(|path| !path.exists()).expect("a number is free")
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
