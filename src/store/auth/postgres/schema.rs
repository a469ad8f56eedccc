//! The versions of the schema, and the values that exist once in a database.
//!
//! One node upgrades the schema, in one transaction and under a lock. Each version says from which
//! version of the program on it can be read, so that a node of the version before goes on beside
//! one that has upgraded it.

use super::error::Error;
use super::link::Link;
use super::value::Value;
use crate::base::random;
use crate::store::KEY_CHECK;
use crate::store::keyring::{Error as KeyError, Keyring};

/// The SQL that leads to each version, and the oldest version of the program that can use it. A step
/// that was released is never changed.
const MIGRATIONS: &[(&str, i64)] = &[
    (include_str!("../../schema/postgres/1.sql"), 1),
    (include_str!("../../schema/postgres/2.sql"), 2),
    (include_str!("../../schema/postgres/3.sql"), 2),
    (include_str!("../../schema/postgres/4.sql"), 2),
    (include_str!("../../schema/postgres/5.sql"), 2),
    (include_str!("../../schema/postgres/6.sql"), 6),
    (include_str!("../../schema/postgres/7.sql"), 6),
    (include_str!("../../schema/postgres/8.sql"), 6),
];
/// The version that this program writes.
pub(super) const CURRENT_VERSION: i64 = MIGRATIONS.len() as i64;
/// "tntd": the key of the lock for migrations.
const MIGRATION_LOCK: i64 = 0x746e_7464;

/// The version of a schema, and the oldest version of the program that can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    number: i64,
    readable_from: i64,
}

/// Upgrades the schema to this program's version, and creates it in an empty database.
///
/// # Errors
/// The schema is newer, the database can only be read or loses what it acknowledged, or the user
/// lacks rights.
pub(super) async fn migrate(link: &Link) -> Result<(), Error> {
    let found = examine(link).await?;
    if found >= CURRENT_VERSION {
        return Ok(());
    }
    let mut client = link.connection().await?;
    let failed = |cause: tokio_postgres::Error| Error::from_statement(link.shown(), &cause);
    let transaction = client.transaction().await.map_err(failed)?;
    let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    transaction.batch_execute(&lock).await.map_err(failed)?;
    let setup = "CREATE SCHEMA IF NOT EXISTS tenantd;
                 CREATE TABLE IF NOT EXISTS tenantd.schema_version (
                     single boolean PRIMARY KEY DEFAULT true CHECK (single),
                     number bigint NOT NULL,
                     readable_from bigint NOT NULL
                 )";
    transaction.batch_execute(setup).await.map_err(failed)?;
    // Another node may have been here while this one waited for the lock.
    let rows = transaction.query_typed("SELECT number FROM tenantd.schema_version", &[]).await;
    let rows = rows.map_err(failed)?;
    let found: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
    for ((step, readable_from), number) in MIGRATIONS.iter().zip(1..).filter(|(_, number)| *number > found) {
        transaction.batch_execute(step).await.map_err(failed)?;
        let mark = format!(
            "INSERT INTO tenantd.schema_version (number, readable_from) VALUES ({number}, {readable_from})
             ON CONFLICT (single) DO UPDATE SET number = {number}, readable_from = {readable_from}"
        );
        transaction.batch_execute(&mark).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// Returns the version of the schema, and 0 if there is none. Changes nothing.
///
/// # Errors
/// As for [`migrate`].
pub(super) async fn examine(link: &Link) -> Result<i64, Error> {
    refuse_unsuitable_server(link).await?;
    if !is_there(link).await? {
        return Ok(0);
    }
    let found = version(link).await?.number;
    refuse_missing_rights(link).await?;
    Ok(found)
}

/// Draws the id of the database and seals the key check, where there is none yet. Returns the id.
///
/// # Errors
/// [`KeyError::DoesNotFit`] if the database is sealed with another master key.
pub(super) async fn ensure_marks(link: &Link, keyring: &Keyring) -> Result<[u8; 16], crate::store::Error> {
    const INSERT: &str = "INSERT INTO tenantd.marks (name, value) VALUES ('witness', $1), ('database', $2)
                          ON CONFLICT (name) DO NOTHING";
    const RESEAL: &str = "UPDATE tenantd.marks SET value = $1 WHERE name = 'witness'";
    let (sealed, id) = (keyring.seal(&KEY_CHECK, b"tenantd"), random::bytes::<16>());
    link.query(INSERT, &[Value::Bytes(&sealed), Value::Bytes(&id)]).await?;
    let found = load_mark(link, "witness").await?.unwrap_or_default();
    if keyring.open(&KEY_CHECK, &found).is_none() {
        return Err(KeyError::DoesNotFit.into());
    }
    if !keyring.is_current(&found) {
        link.query(RESEAL, &[Value::Bytes(&sealed)]).await?;
    }
    load_database_id(link).await
}

/// Verifies that the key check opens. Returns the id of the database. Changes nothing.
///
/// # Errors
/// As for [`ensure_marks`].
pub(super) async fn verify_marks(link: &Link, keyring: &Keyring) -> Result<[u8; 16], crate::store::Error> {
    let found = load_mark(link, "witness").await?.unwrap_or_default();
    if keyring.open(&KEY_CHECK, &found).is_none() {
        return Err(KeyError::DoesNotFit.into());
    }
    load_database_id(link).await
}

async fn load_database_id(link: &Link) -> Result<[u8; 16], crate::store::Error> {
    let id = load_mark(link, "database").await?.and_then(|id| id.try_into().ok());
    Ok(id.ok_or_else(|| Error::Refused { shown: link.shown().to_owned(), what: "it has no id".into() })?)
}

/// Writes a value that nothing reads, to find out whether the database can be written.
pub(super) async fn probe_write(link: &Link) -> Result<(), Error> {
    const MARK: &str = "INSERT INTO tenantd.marks (name, value) VALUES ('tried', $1)
                        ON CONFLICT (name) DO UPDATE SET value = $1";
    link.query(MARK, &[Value::Bytes(&random::bytes::<8>())]).await.map(drop)
}

async fn load_mark(link: &Link, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let rows = link.query("SELECT value FROM tenantd.marks WHERE name = $1", &[Value::Text(name)]).await?;
    rows.first().map(|row| row.try_get(0)).transpose().map_err(|cause| link.unreadable(&cause))
}

/// Refuses a replica, and a server that acknowledges what is not on its disk.
async fn refuse_unsuitable_server(link: &Link) -> Result<(), Error> {
    const ASK: &str =
        "SELECT current_setting('transaction_read_only'), current_setting('synchronous_commit')";
    let rows = link.query(ASK, &[]).await?;
    let shown = || link.shown().to_owned();
    let setting = |column| rows.first().and_then(|row| row.try_get::<_, String>(column).ok());
    match (setting(0).as_deref(), setting(1).as_deref()) {
        (Some("on"), _) => Err(Error::ReadOnly { shown: shown() }),
        (_, Some("off")) => Err(Error::Asynchronous { shown: shown() }),
        _ => Ok(()),
    }
}

/// Refuses a user who may not read and write all tables: what it writes there later would be lost.
async fn refuse_missing_rights(link: &Link) -> Result<(), Error> {
    const ASK: &str = "
        SELECT string_agg(quote_ident(relname), ', ' ORDER BY relname) FROM pg_class
        WHERE relnamespace = 'tenantd'::regnamespace AND relkind = 'r' AND NOT (
            has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
            AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')
        )";
    let rows = link.query_rows(ASK, &[], |row| Ok(row.try_get::<_, Option<String>>(0)?)).await?;
    let Some(tables) = rows.into_iter().next().flatten() else { return Ok(()) };
    let what = format!("it may not read and write {tables}");
    Err(Error::NoRights { shown: link.shown().to_owned(), what })
}

async fn is_there(link: &Link) -> Result<bool, Error> {
    let ask = "SELECT to_regclass('tenantd.schema_version') IS NOT NULL";
    let rows = link.query(ask, &[]).await?;
    rows.first().map_or(Ok(false), |row| row.try_get(0)).map_err(|cause| link.unreadable(&cause))
}

/// Returns the version of a schema that this program can use.
async fn version(link: &Link) -> Result<Version, Error> {
    const SELECT: &str = "SELECT number, readable_from FROM tenantd.schema_version";
    let read =
        |row: &tokio_postgres::Row| Ok(Version { number: row.try_get(0)?, readable_from: row.try_get(1)? });
    let Some(found) = link.query_rows(SELECT, &[], read).await?.into_iter().next() else {
        return Ok(Version { number: 0, readable_from: 0 });
    };
    match found.readable_from > CURRENT_VERSION {
        false => Ok(found),
        true => Err(Error::NewerSchema {
            shown: link.shown().to_owned(),
            found: found.number,
            readable_from: found.readable_from,
            known: CURRENT_VERSION,
        }),
    }
}
