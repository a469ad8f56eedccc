//! OAuth clients that an operator added, and clients that are denied although their self-contained
//! id is genuine.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::AuthTables;
use crate::base::digest::Digest;
use crate::store::Error;
use crate::store::auth::incarnation::Incarnation;
use crate::store::keyring::{Keyring, SealContext};

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
        let sealed =
            self.keyring.seal_row(&seal_context(incarnation, id), &clear_columns(incarnation), document);
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.database.commit(move |connection| {
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), id, sealed];
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
        let Some(sealed) = read().map_err(self.database.error())? else { return Ok(None) };
        self.keyring
            .open_row(&seal_context(incarnation, id), &clear_columns(incarnation), &sealed)
            .map(Some)
            .ok_or(Error::CannotUnseal)
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
        let (client, now) = (Digest::of(id.as_bytes()), now.as_second());
        let seal = seal_denied(&self.keyring, incarnation, &client, now);
        let incarnation = incarnation.clone();
        self.database.commit(move |connection| {
            let parameters =
                params![incarnation.tenant(), incarnation.id_bytes(), client.as_bytes(), now, seal];
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
            match self.load_denied_clients(&incarnation) {
                Err(Error::CannotUnseal) => tenants.push(Arc::clone(incarnation.tenant())),
                denied => drop(denied?),
            }
        }
        Ok(tenants)
    }

    /// Returns the digests of the ids of the clients that an operator removed.
    fn load_denied_clients(&self, incarnation: &Incarnation) -> Result<Vec<Digest>, Error> {
        const SELECT: &str =
            "SELECT client, denied_at, seal FROM denied_clients WHERE tenant = ?1 AND life = ?2";
        let read = || -> rusqlite::Result<Vec<DeniedRow>> {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect()
        };
        let open = |(client, denied_at, seal): DeniedRow| {
            let client = Digest::from_bytes(client);
            let row = client.to_string();
            self.keyring
                .open_row(
                    &denied_seal_context(incarnation, &row),
                    &denied_clear_columns(incarnation, denied_at),
                    &seal,
                )
                .map(|_| client)
        };
        let rows = read().map_err(self.database.error())?;
        rows.into_iter().map(open).collect::<Option<_>>().ok_or(Error::CannotUnseal)
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
        self.incarnations_in("denied_clients")?
            .iter()
            .try_for_each(|incarnation| self.load_denied_clients(incarnation).map(drop))?;
        Ok(opened)
    }
}

/// Digest of the id, time of denial in seconds, seal.
type DeniedRow = ([u8; 32], i64, Vec<u8>);

/// Assigns the clients of an earlier version to an incarnation.
pub(in crate::store) fn migrate_legacy(
    transaction: &Transaction<'_>,
    keys: &Keyring,
    incarnation: &Incarnation,
) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT id, document FROM clients WHERE tenant = ?1")?;
    let rows = select.query_map([incarnation.tenant()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    for (id, legacy_document) in rows {
        let opened = keys.open(&seal_context(incarnation, &id), &legacy_document);
        let sealed = opened.map_or(legacy_document, |document| {
            keys.seal_row(&seal_context(incarnation, &id), &clear_columns(incarnation), &document)
        });
        let update = "UPDATE clients SET life = ?3, document = ?4 WHERE tenant = ?1 AND id = ?2";
        transaction.execute(update, params![incarnation.tenant(), id, incarnation.id_bytes(), sealed])?;
    }
    let mut select = transaction.prepare("SELECT client, denied_at FROM denied_clients WHERE tenant = ?1")?;
    let rows = select.query_map([incarnation.tenant()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<([u8; 32], i64)> = rows.collect::<Result<_, _>>()?;
    for (client, denied_at) in rows {
        let seal = seal_denied(keys, incarnation, &Digest::from_bytes(client), denied_at);
        let update = "UPDATE denied_clients SET life = ?3, seal = ?4 WHERE tenant = ?1 AND client = ?2";
        transaction.execute(update, params![incarnation.tenant(), client, incarnation.id_bytes(), seal])?;
    }
    Ok(())
}

fn seal_context<'a>(incarnation: &'a Incarnation, id: &'a str) -> SealContext<'a> {
    SealContext { purpose: "client", tenant: incarnation.tenant(), row: id }
}

/// The columns that the seal covers but does not encrypt.
fn clear_columns(incarnation: &Incarnation) -> [&[u8]; 1] {
    [incarnation.id_bytes()]
}

fn denied_seal_context<'a>(incarnation: &'a Incarnation, client: &'a str) -> SealContext<'a> {
    SealContext { purpose: "denied", tenant: incarnation.tenant(), row: client }
}

fn denied_clear_columns(incarnation: &Incarnation, denied_at: i64) -> [Vec<u8>; 2] {
    [incarnation.id_bytes().to_vec(), denied_at.to_be_bytes().to_vec()]
}

fn seal_denied(keys: &Keyring, incarnation: &Incarnation, client: &Digest, denied_at: i64) -> Vec<u8> {
    keys.seal_row(
        &denied_seal_context(incarnation, &client.to_string()),
        &denied_clear_columns(incarnation, denied_at),
        b"",
    )
}
