//! The lives of tenants. A life begins when an entry of the tenants folder takes a name, and ends
//! when another entry takes that name or an operator removes the tenant. Grants, signing keys,
//! clients and revocations belong to one life: they do not exist for any other, and are deleted
//! when their life ends.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, Row, Transaction, params};

use super::incarnation::{Incarnation, IncarnationId};
use super::keyring::{Keyring, SealContext};
use super::{Error, Store};

/// The tables whose rows belong to lives.
const OWNED_TABLES: [&str; 5] = ["grants", "revoked", "signing_keys", "clients", "denied_clients"];

/// A life as it is stored.
#[derive(Debug, Clone)]
pub struct IncarnationRecord {
    /// The tenant and the id of the life.
    pub incarnation: Incarnation,
    /// The entry that holds the name; none yet if an earlier version stored what belongs to the
    /// life.
    pub entry_id: Option<Arc<str>>,
    /// Data of the caller, in the clear; it is sealed before it reaches the disk.
    pub payload: Vec<u8>,
}

/// A change to the life of a tenant.
#[derive(Debug, Clone)]
pub enum IncarnationChange {
    /// This life begins, or stays; everything that belongs to another life of the tenant is
    /// deleted.
    Begin(IncarnationRecord),
    /// The tenant has no life any more: everything stored for its logins is deleted.
    End(Arc<str>),
}

impl IncarnationChange {
    /// Returns the tenant whose life changes.
    pub fn tenant(&self) -> &Arc<str> {
        match self {
            Self::Begin(kept) => &kept.incarnation.tenant,
            Self::End(tenant) => tenant,
        }
    }
}

impl Store {
    /// Returns the life of every tenant that has one. A life whose row was tampered with counts as
    /// none.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn load_incarnations(&self) -> Result<Vec<IncarnationRecord>, Error> {
        let read = || -> rusqlite::Result<Vec<IncarnationRow>> {
            let connection = self.connection();
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
                    "what the store says of whose this name is was changed, or sealed with another key: logins made under it are unknown"
                );
            }
            let life = Incarnation { tenant: tenant.into(), id: IncarnationId(id) };
            opened.map(|about| IncarnationRecord {
                incarnation: life,
                entry_id: stem.map(Into::into),
                payload: about,
            })
        };
        Ok(read().map_err(self.database_error())?.into_iter().filter_map(open).collect())
    }

    /// Seals lives anew that an older master key sealed, so that its line can be removed. If they
    /// cannot be written now, the next start tries again.
    pub fn reseal_incarnations(&self) {
        let read = || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
            let connection = self.connection();
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
            tracing::warn!(%error, "lives of tenants cannot be sealed with the new master key; keep the line of the old one");
        }
    }

    /// Writes changes of lives and deletes what belonged to those that ended, in one transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub fn apply_incarnation_changes(&self, turns: &[IncarnationChange]) -> Result<(), Error> {
        let sealed: Vec<_> = turns.iter().map(|turn| SealedChange::seal(turn, &self.keyring)).collect();
        self.commit(move |connection| sealed.iter().try_for_each(|turn| turn.write(connection)))
    }

    /// Returns the lives to which the rows of a table belong.
    pub(super) fn incarnations_in(&self, table: &'static str) -> Result<Vec<Incarnation>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.connection();
            let mut select = connection.prepare(&format!("SELECT DISTINCT tenant, life FROM {table}"))?;
            let life = |row: &Row<'_>| {
                Ok(Incarnation { tenant: row.get::<_, String>(0)?.into(), id: IncarnationId(row.get(1)?) })
            };
            select.query_map([], life)?.collect()
        };
        read().map_err(self.database_error())
    }

    /// Opens every life and returns how many there are.
    pub(super) fn verify_incarnations(&self) -> Result<usize, Error> {
        let count = || self.connection().query_row("SELECT count(*) FROM lives", [], |row| row.get(0));
        let (all, opened): (i64, _) =
            (count().map_err(self.database_error())?, self.load_incarnations()?.len());
        if usize::try_from(all) == Ok(opened) { Ok(opened) } else { Err(Error::CannotUnseal) }
    }

    /// Opens the grants, signing keys and clients of a schema without lives, and returns how many
    /// of each there are.
    pub(super) fn verify_legacy(&self) -> Result<[usize; 3], Error> {
        const ALL: [(&str, &str); 3] = [
            ("SELECT tenant, lower(hex(id)), details FROM grants", "grant"),
            ("SELECT tenant, kid, pkcs8 FROM signing_keys", "signing-key"),
            ("SELECT tenant, id, document FROM clients", "client"),
        ];
        let mut counts = [0; 3];
        for ((select, purpose), count) in ALL.iter().zip(&mut counts) {
            let read = || -> rusqlite::Result<Vec<(String, String, Vec<u8>)>> {
                let connection = self.connection();
                let mut select = connection.prepare(select)?;
                let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                rows.collect()
            };
            let rows = read().map_err(self.database_error())?;
            let opens = |(tenant, row, sealed): &(String, String, Vec<u8>)| {
                self.keyring.open(&SealContext { purpose, tenant, row }, sealed).is_some()
            };
            if !rows.iter().all(opens) {
                return Err(Error::CannotUnseal);
            }
            *count = rows.len();
        }
        Ok(counts)
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

/// Assigns everything that an earlier version stored to lives that begin now and have no holder
/// yet, and seals it so that seals cover whole rows. Part of the step to schema version 3. A value
/// that does not open stays as it is, and opens nowhere.
pub(super) fn migrate_legacy(transaction: &Transaction<'_>, keys: &Keyring) -> rusqlite::Result<()> {
    let all = OWNED_TABLES.map(|table| format!("SELECT tenant FROM {table}")).join(" UNION ");
    let tenants: Vec<String> =
        transaction.prepare(&all)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for tenant in tenants {
        let life = Incarnation::new(&tenant.into());
        super::grants::migrate_legacy(transaction, keys, &life)?;
        super::signing_keys::migrate_legacy(transaction, keys, &life)?;
        super::clients::migrate_legacy(transaction, keys, &life)?;
        let kept = IncarnationRecord { incarnation: life, entry_id: None, payload: Vec::new() };
        SealedChange::seal(&IncarnationChange::Begin(kept), keys).write(transaction)?;
    }
    Ok(())
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
