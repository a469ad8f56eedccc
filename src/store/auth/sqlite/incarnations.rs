//! The incarnations of tenants. An incarnation begins when an entry of the tenants folder takes a
//! name, and ends when another entry takes that name or an operator removes the tenant. Grants,
//! signing keys, clients and revocations belong to one incarnation: they do not exist for any
//! other, and are deleted when their incarnation ends.

use std::collections::HashSet;

use rusqlite::{Connection, Row, params};

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::incarnation::{Incarnation, IncarnationChange, IncarnationId, IncarnationRecord};
use crate::store::auth::sealed::{IncarnationChangeRow, IncarnationRow};
use crate::store::keyring::Keyring;

/// The tables whose rows belong to incarnations.
pub(in crate::store) const OWNED_TABLES: [&str; 5] =
    ["grants", "revoked", "signing_keys", "clients", "denied_clients"];

impl AuthTables {
    /// Returns the incarnation of every tenant that has one. An incarnation whose row was tampered
    /// with counts as none.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn load_incarnations(&self) -> Result<Vec<IncarnationRecord>, Error> {
        let read = || -> rusqlite::Result<Vec<IncarnationRow>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT tenant, id, stem, about FROM lives")?;
            select.query_map([], read_row)?.collect()
        };
        let rows = read().map_err(self.database.error())?;
        Ok(rows.iter().filter_map(|row| row.open(&self.keyring)).collect())
    }

    /// Seals incarnations anew that an older master key sealed, so that its line can be removed. If
    /// they cannot be written now, the next start tries again.
    pub(in crate::store) fn reseal_incarnations(&self) {
        let read = || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT tenant, about FROM lives")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let all = read().unwrap_or_default().into_iter();
        let outdated: HashSet<_> =
            all.filter(|(_, payload)| !self.keyring.is_current(payload)).map(|it| it.0).collect();
        if outdated.is_empty() {
            return;
        }
        let kept = self.load_incarnations().unwrap_or_default().into_iter();
        let changes: Vec<_> = kept
            .filter(|kept| outdated.contains(&**kept.incarnation.tenant()))
            .map(IncarnationChange::Begin)
            .collect();
        if let Err(error) = self.apply_incarnation_changes(&changes) {
            tracing::warn!(%error, "incarnations of tenants cannot be encrypted with the new master key; \
                                    keep the line of the old key");
        }
    }

    /// Writes changes of incarnations and deletes what belonged to those that ended, in one
    /// transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub(in crate::store) fn apply_incarnation_changes(
        &self,
        changes: &[IncarnationChange],
    ) -> Result<(), Error> {
        let seal = |change| IncarnationChangeRow::seal(&self.keyring, change);
        let sealed: Vec<_> = changes.iter().map(seal).collect();
        self.database
            .commit(move |connection| sealed.iter().try_for_each(|change| write_change(connection, change)))
    }

    /// Returns the incarnations to which the rows of a table belong.
    pub(super) fn incarnations_in(&self, table: &'static str) -> Result<Vec<Incarnation>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut select = connection.prepare(&format!("SELECT DISTINCT tenant, life FROM {table}"))?;
            let incarnation = |row: &Row<'_>| {
                Ok(Incarnation { tenant: row.get::<_, String>(0)?.into(), id: IncarnationId(row.get(1)?) })
            };
            select.query_map([], incarnation)?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Opens every incarnation and returns how many there are.
    pub(in crate::store) fn verify_incarnations(&self) -> Result<usize, Error> {
        let count =
            || self.database.connection().query_row("SELECT count(*) FROM lives", [], |row| row.get(0));
        let (all, opened): (i64, _) =
            (count().map_err(self.database.error())?, self.load_incarnations()?.len());
        if usize::try_from(all) == Ok(opened) { Ok(opened) } else { Err(Error::CannotUnseal) }
    }
}

fn write_change(connection: &Connection, change: &IncarnationChangeRow) -> rusqlite::Result<()> {
    const BEGIN: &str = "INSERT INTO lives (tenant, id, stem, about) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT (tenant) DO UPDATE SET id = ?2, stem = ?3, about = ?4";
    let IncarnationChangeRow { tenant, row } = change;
    for table in OWNED_TABLES {
        let delete = format!("DELETE FROM {table} WHERE tenant = ?1 AND life <> ?2");
        connection.prepare_cached(&delete)?.execute(params![tenant, change.id_bytes()])?;
    }
    match row {
        Some(IncarnationRow { incarnation, entry_id, payload }) => {
            let parameters = params![tenant, incarnation.id_bytes(), entry_id, payload];
            connection.prepare_cached(BEGIN)?.execute(parameters).map(drop)
        }
        None => connection.execute("DELETE FROM lives WHERE tenant = ?1", params![tenant]).map(drop),
    }
}

/// Writes an incarnation that begins now and has no holder yet.
pub(in crate::store) fn insert_unheld(
    connection: &Connection,
    keyring: &Keyring,
    incarnation: Incarnation,
) -> rusqlite::Result<()> {
    let record = IncarnationRecord { incarnation, entry_id: None, payload: Vec::new() };
    let change = IncarnationChange::Begin(record);
    write_change(connection, &IncarnationChangeRow::seal(keyring, &change))
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<IncarnationRow> {
    let tenant: String = row.get(0)?;
    let incarnation = Incarnation { tenant: tenant.into(), id: IncarnationId(row.get(1)?) };
    let entry_id: Option<String> = row.get(2)?;
    Ok(IncarnationRow { incarnation, entry_id: entry_id.map(Into::into), payload: row.get(3)? })
}

#[cfg(test)]
mod tests;
