//! OAuth clients that an operator added, and clients that are denied although their self-contained
//! id is genuine.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::AuthTables;
use crate::base::digest::Digest;
use crate::store::Error;
use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::sealed::{ClientRow, RemovedClientRow};
use crate::store::keyring::Keyring;

impl AuthTables {
    /// Stores a client and returns whether its id was free. `document` is sealed before it reaches
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn insert_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
        document: &[u8],
    ) -> Result<bool, Error> {
        const INSERT: &str = "INSERT INTO clients (tenant, life, id, document) VALUES (?1, ?2, ?3, ?4)
                              ON CONFLICT DO NOTHING";
        let row = ClientRow::seal(&self.keyring, incarnation, id, document);
        self.database.commit(move |connection| {
            let ClientRow { incarnation, id, document } = row;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), id, document];
            Ok(connection.execute(INSERT, parameters)? == 1)
        })
    }

    /// Returns the document of a client.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read, [`Error::CannotUnseal`] if it does not open.
    pub(in crate::store) fn load_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        const SELECT: &str = "SELECT document FROM clients WHERE tenant = ?1 AND life = ?2 AND id = ?3";
        let read = || {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), id];
            select.query_row(parameters, |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let Some(document) = read().map_err(self.database.error())? else { return Ok(None) };
        let row = ClientRow { incarnation: incarnation.clone(), id: id.to_owned(), document };
        row.open(&self.keyring).map(Some).ok_or(Error::CannotUnseal)
    }

    /// Returns the ids of a tenant's clients, sorted.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn list_client_ids(&self, incarnation: &Incarnation) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut select =
                connection.prepare("SELECT id FROM clients WHERE tenant = ?1 AND life = ?2 ORDER BY id")?;
            select
                .query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| row.get(0))?
                .collect()
        };
        read().map_err(self.database.error())
    }

    /// Returns the ids and documents of a tenant's clients, sorted by id.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read, [`Error::CannotUnseal`] if one does not open.
    pub(in crate::store) fn load_clients(
        &self,
        incarnation: &Incarnation,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let load = |id: String| Ok(self.load_client(incarnation, &id)?.map(|document| (id, document)));
        self.list_client_ids(incarnation)?.into_iter().filter_map(|id| load(id).transpose()).collect()
    }

    /// Deletes a client and returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn delete_client(&self, incarnation: &Incarnation, id: &str) -> Result<bool, Error> {
        const DELETE: &str = "DELETE FROM clients WHERE tenant = ?1 AND life = ?2 AND id = ?3";
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.database.commit(move |connection| {
            Ok(connection.execute(DELETE, params![incarnation.tenant(), incarnation.id_bytes(), id])? == 1)
        })
    }

    /// Records that an operator removed a client, so that its id, still genuine, is refused.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn mark_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO denied_clients (tenant, life, client, denied_at, seal)
                              VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let client = Digest::of(id.as_bytes());
        let row = RemovedClientRow::seal(&self.keyring, incarnation, client, now.as_second());
        self.database.commit(move |connection| {
            let RemovedClientRow { incarnation, client, removed_at, seal } = row;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), client, removed_at, seal];
            connection.execute(INSERT, parameters).map(drop)
        })
    }

    /// Returns whether an operator removed a client.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read.
    pub(in crate::store) fn is_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<bool, Error> {
        const SELECT: &str = "SELECT 1 FROM denied_clients WHERE tenant = ?1 AND life = ?2 AND client = ?3";
        let client = Digest::of(id.as_bytes());
        let read = || {
            let connection = self.database.connection();
            connection.prepare_cached(SELECT)?.exists(params![
                incarnation.tenant(),
                incarnation.id_bytes(),
                client.as_bytes()
            ])
        };
        read().map_err(self.database.error())
    }

    /// Returns the tenants that have a removed client whose row was tampered with, so that it is
    /// unknown which client was meant.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn tenants_with_unreadable_removals(&self) -> Result<Vec<Arc<str>>, Error> {
        let mut tenants = Vec::new();
        for incarnation in self.incarnations_in("denied_clients")? {
            if !self.are_removals_intact(&incarnation)? {
                tenants.push(Arc::clone(incarnation.tenant()));
            }
        }
        Ok(tenants)
    }

    fn are_removals_intact(&self, incarnation: &Incarnation) -> Result<bool, Error> {
        const SELECT: &str =
            "SELECT client, denied_at, seal FROM denied_clients WHERE tenant = ?1 AND life = ?2";
        let read = || -> rusqlite::Result<Vec<RemovedClientRow>> {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| {
                let incarnation = incarnation.clone();
                let (client, removed_at, seal) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(RemovedClientRow { incarnation, client, removed_at, seal })
            })?;
            rows.collect()
        };
        let rows = read().map_err(self.database.error())?;
        Ok(rows.iter().all(|row| row.is_intact(&self.keyring)))
    }

    /// Opens every client and returns how many there are.
    pub(in crate::store) fn verify_clients(&self) -> Result<usize, Error> {
        let mut opened = 0;
        for incarnation in self.incarnations_in("clients")? {
            for id in self.list_client_ids(&incarnation)? {
                self.load_client(&incarnation, &id)?;
                opened += 1;
            }
        }
        match self.tenants_with_unreadable_removals()?.is_empty() {
            true => Ok(opened),
            false => Err(Error::CannotUnseal),
        }
    }
}

/// Assigns the clients of an earlier version to an incarnation.
pub(in crate::store) fn migrate_legacy(
    transaction: &Transaction<'_>,
    keys: &Keyring,
    incarnation: &Incarnation,
) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT id, document FROM clients WHERE tenant = ?1")?;
    let rows = select.query_map([incarnation.tenant()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    for (id, document) in rows {
        let mut row = ClientRow { incarnation: incarnation.clone(), id, document };
        if let Some(document) = row.open_legacy(keys) {
            row = ClientRow::seal(keys, incarnation, &row.id, &document);
        }
        let update = "UPDATE clients SET life = ?3, document = ?4 WHERE tenant = ?1 AND id = ?2";
        let parameters = params![incarnation.tenant(), row.id, incarnation.id_bytes(), row.document];
        transaction.execute(update, parameters)?;
    }
    let mut select = transaction.prepare("SELECT client, denied_at FROM denied_clients WHERE tenant = ?1")?;
    let rows = select.query_map([incarnation.tenant()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<([u8; 32], i64)> = rows.collect::<Result<_, _>>()?;
    for (client, denied_at) in rows {
        let row = RemovedClientRow::seal(keys, incarnation, Digest::from_bytes(client), denied_at);
        let update = "UPDATE denied_clients SET life = ?3, seal = ?4 WHERE tenant = ?1 AND client = ?2";
        let parameters = params![incarnation.tenant(), client, incarnation.id_bytes(), row.seal];
        transaction.execute(update, parameters)?;
    }
    Ok(())
}
