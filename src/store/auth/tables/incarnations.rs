//! The lives of tenants. A life begins when an entry of the tenants folder takes a name, and ends
//! when another entry takes that name or an operator removes the tenant. Grants, signing keys,
//! clients and revocations belong to one life: they do not exist for any other, and are deleted
//! when their life ends.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::incarnation::{Incarnation, IncarnationChange, IncarnationId, IncarnationRecord};
use crate::store::keyring::{Keyring, SealContext};

/// The tables whose rows belong to lives.
pub(in crate::store) const OWNED_TABLES: [&str; 5] =
    ["grants", "revoked", "signing_keys", "clients", "denied_clients"];

impl AuthTables {
    /// Returns the life of every tenant that has one. A life whose row was tampered with counts as
    /// none.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn load_incarnations(&self) -> Result<Vec<IncarnationRecord>, Error> {
        let read = || -> rusqlite::Result<Vec<IncarnationRow>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT tenant, id, stem, about FROM lives")?;
            let rows =
                select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            rows.collect()
        };
        let open = |(tenant, id, stem, about): IncarnationRow| {
            let opened =
                self.keyring.open_row(&seal_context(&tenant), &clear_columns(&id, stem.as_deref()), &about);
            if opened.is_none() {
                tracing::error!(
                    tenant,
                    "the store's record of the owner of this name was changed, or encrypted with another \
                     key: its logins are no longer valid"
                );
            }
            let life = Incarnation { tenant: tenant.into(), id: IncarnationId(id) };
            opened.map(|about| IncarnationRecord {
                incarnation: life,
                entry_id: stem.map(Into::into),
                payload: about,
            })
        };
        Ok(read().map_err(self.database.error())?.into_iter().filter_map(open).collect())
    }

    /// Seals lives anew that an older master key sealed, so that its line can be removed. If they
    /// cannot be written now, the next start tries again.
    pub(in crate::store) fn reseal_incarnations(&self) {
        let read = || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT tenant, about FROM lives")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let all = read().unwrap_or_default().into_iter();
        let old: HashSet<_> =
            all.filter(|(_, about)| !self.keyring.is_current(about)).map(|it| it.0).collect();
        if old.is_empty() {
            return;
        }
        let kept = self.load_incarnations().unwrap_or_default().into_iter();
        let turns: Vec<_> = kept
            .filter(|kept| old.contains(&**kept.incarnation.tenant()))
            .map(IncarnationChange::Begin)
            .collect();
        if let Err(error) = self.apply_incarnation_changes(&turns) {
            tracing::warn!(%error, "incarnations of tenants cannot be encrypted with the new master key; \
                                    keep the line of the old key");
        }
    }

    /// Writes changes of lives and deletes what belonged to those that ended, in one transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub(in crate::store) fn apply_incarnation_changes(
        &self,
        turns: &[IncarnationChange],
    ) -> Result<(), Error> {
        let sealed: Vec<_> = turns.iter().map(|turn| SealedChange::seal(turn, &self.keyring)).collect();
        self.database.commit(move |connection| sealed.iter().try_for_each(|turn| turn.write(connection)))
    }

    /// Returns the lives to which the rows of a table belong.
    pub(super) fn incarnations_in(&self, table: &'static str) -> Result<Vec<Incarnation>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut select = connection.prepare(&format!("SELECT DISTINCT tenant, life FROM {table}"))?;
            let life = |row: &Row<'_>| {
                Ok(Incarnation { tenant: row.get::<_, String>(0)?.into(), id: IncarnationId(row.get(1)?) })
            };
            select.query_map([], life)?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Opens every life and returns how many there are.
    pub(in crate::store) fn verify_incarnations(&self) -> Result<usize, Error> {
        let count =
            || self.database.connection().query_row("SELECT count(*) FROM lives", [], |row| row.get(0));
        let (all, opened): (i64, _) =
            (count().map_err(self.database.error())?, self.load_incarnations()?.len());
        if usize::try_from(all) == Ok(opened) { Ok(opened) } else { Err(Error::CannotUnseal) }
    }
}

/// Tenant, id, stem, about; as stored.
type IncarnationRow = (String, [u8; 16], Option<String>, Vec<u8>);

/// Id, stem, about; ready to be written.
type SealedIncarnationRow = ([u8; 16], Option<Arc<str>>, Vec<u8>);

/// A turn, sealed and ready to be written.
struct SealedChange {
    tenant: Arc<str>,
    /// `None` if the life ends.
    row: Option<SealedIncarnationRow>,
}

impl SealedChange {
    fn seal(turn: &IncarnationChange, keys: &Keyring) -> Self {
        let row = match turn {
            IncarnationChange::Begin(IncarnationRecord {
                incarnation: life,
                entry_id: stem,
                payload: about,
            }) => {
                let clear = clear_columns(&life.id.0, stem.as_deref());
                Some((life.id.0, stem.clone(), keys.seal_row(&seal_context(&life.tenant), &clear, about)))
            }
            IncarnationChange::End(_) => None,
        };
        Self { tenant: Arc::clone(turn.tenant()), row }
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        const BEGIN: &str = "INSERT INTO lives (tenant, id, stem, about) VALUES (?1, ?2, ?3, ?4)
                             ON CONFLICT (tenant) DO UPDATE SET id = ?2, stem = ?3, about = ?4";
        let Self { tenant, row } = self;
        for table in OWNED_TABLES {
            let lives_on = row.as_ref().map_or(&[][..], |(id, ..)| &id[..]);
            let delete = format!("DELETE FROM {table} WHERE tenant = ?1 AND life <> ?2");
            connection.prepare_cached(&delete)?.execute(params![tenant, lives_on])?;
        }
        match row {
            Some((id, stem, about)) => {
                connection.prepare_cached(BEGIN)?.execute(params![tenant, id, stem, about]).map(drop)
            }
            None => connection.execute("DELETE FROM lives WHERE tenant = ?1", params![tenant]).map(drop),
        }
    }
}

/// Writes a life that begins now and has no holder yet.
pub(in crate::store) fn insert_unheld(
    connection: &Connection,
    keys: &Keyring,
    life: Incarnation,
) -> rusqlite::Result<()> {
    let record = IncarnationRecord { incarnation: life, entry_id: None, payload: Vec::new() };
    SealedChange::seal(&IncarnationChange::Begin(record), keys).write(connection)
}

fn seal_context(tenant: &str) -> SealContext<'_> {
    SealContext { purpose: "life", tenant, row: "" }
}

/// The columns that the seal covers but does not encrypt.
fn clear_columns(id: &[u8; 16], stem: Option<&str>) -> [Vec<u8>; 2] {
    let stem = stem.map_or(Vec::new(), |stem| [b"=", stem.as_bytes()].concat());
    [id.to_vec(), stem]
}

#[cfg(test)]
mod tests;
