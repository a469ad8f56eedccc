//! The format of the database file: its settings, the version of its schema, and what its errors
//! mean to an operator.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::Error;

/// "tntd": marks a SQLite file as tenantd's.
pub(super) const APPLICATION_ID: i64 = 0x746e_7464;

const KEY_CHECK_MARK: &str = "witness";

/// The version whose step assigns logins to incarnations. That takes code, because SQL cannot seal.
pub(super) const INCARNATIONS_VERSION: i64 = 3;

/// The version that added the table of claims.
pub(super) const CLAIMS_VERSION: i64 = 4;

/// The version that added the table of blocks.
pub(super) const BLOCKS_VERSION: i64 = 5;

/// The version that this program writes.
pub(super) const CURRENT_VERSION: i64 = 6;

/// Sets how the file is used. Exclusive locking needs no shared memory beside the file, and the
/// folder belongs to one process anyway.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 4194304;",
    )
}

/// Sets the same for a file that is only read: closing it leaves its write-ahead log alone.
pub(super) fn configure_for_reading(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")
}

/// Returns the version of a file, if the file is intact and not from a newer program.
pub(super) fn check_version(connection: &Connection, file: &Path) -> Result<i64, Error> {
    let found = version(connection).map_err(|cause| to_store_error(file, cause))?;
    if found > CURRENT_VERSION {
        return Err(Error::NewerSchema { file: file.to_owned(), found, known: CURRENT_VERSION });
    }
    check_integrity(connection, file, "quick_check")?;
    Ok(found)
}

/// Returns the schema version of a file, 0 for an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Returns whether a file is a store of tenantd.
pub(super) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let found: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok(found == APPLICATION_ID)
}

/// Fails if SQLite finds the file damaged. `check` is `quick_check` or `integrity_check`.
pub(super) fn check_integrity(connection: &Connection, file: &Path, check: &str) -> Result<(), Error> {
    let verdict: String = connection
        .query_row(&format!("PRAGMA {check}(1)"), [], |row| row.get(0))
        .map_err(|cause| to_store_error(file, cause))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        what => {
            Err(Error::Damaged { file: file.to_owned(), what: what.lines().next().unwrap_or(what).into() })
        }
    }
}

/// Converts an error of SQLite into what it means to an operator.
pub(super) fn to_store_error(file: &Path, cause: rusqlite::Error) -> Error {
    match cause.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::Damaged { file: file.to_owned(), what: "it cannot be read as a database".into() }
        }
        _ => Error::Database { file: file.to_owned(), cause: cause.into() },
    }
}

/// Returns the value that shows whether the master key fits.
pub(super) fn load_key_check(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    load_mark(connection, KEY_CHECK_MARK)
}

pub(super) fn save_key_check(connection: &Connection, sealed: &[u8]) -> rusqlite::Result<()> {
    save_mark(connection, KEY_CHECK_MARK, sealed)
}

/// Returns a value that exists once.
pub(super) fn load_mark(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT value FROM marks WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn save_mark(connection: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)";
    connection.execute(insert, rusqlite::params![name, value]).map(drop)
}

pub(super) fn delete_mark(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM marks WHERE name = ?1", [name]).map(drop)
}
