//! OAuth clients that an operator added, and clients that are denied although their self-contained
//! id is genuine.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::key::Keyring;
use super::life::Life;
use super::seal::Place;
use super::{Error, Store};
use crate::base::digest::Digest;

impl Store {
    /// Stores a client and returns whether its id was free. `document` is sealed before it reaches
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub fn add_client(&self, life: &Life, id: &str, document: &[u8]) -> Result<bool, Error> {
        const INSERT: &str = "INSERT INTO clients (tenant, life, id, document) VALUES (?1, ?2, ?3, ?4)
                              ON CONFLICT DO NOTHING";
        let sealed = self.keys.seal_row(&place(life, id), &clear(life), document);
        let (life, id) = (life.clone(), id.to_owned());
        self.commit(move |connection| {
            let parameters = params![life.tenant(), life.id_bytes(), id, sealed];
            Ok(connection.execute(INSERT, parameters)? == 1)
        })
    }

    /// Returns the document of a client.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read, [`Error::Sealed`] if it does not open.
    pub fn client(&self, life: &Life, id: &str) -> Result<Option<Vec<u8>>, Error> {
        const SELECT: &str = "SELECT document FROM clients WHERE tenant = ?1 AND life = ?2 AND id = ?3";
        let read = || {
            let connection = self.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let parameters = params![life.tenant(), life.id_bytes(), id];
            select.query_row(parameters, |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let Some(sealed) = read().map_err(self.failed())? else { return Ok(None) };
        self.keys.open_row(&place(life, id), &clear(life), &sealed).map(Some).ok_or(Error::Sealed)
    }

    /// Returns the ids of a tenant's clients, sorted.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn client_ids(&self, life: &Life) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.connection();
            let mut select =
                connection.prepare("SELECT id FROM clients WHERE tenant = ?1 AND life = ?2 ORDER BY id")?;
            select.query_map(params![life.tenant(), life.id_bytes()], |row| row.get(0))?.collect()
        };
        read().map_err(self.failed())
    }

    /// Deletes a client and returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub fn remove_client(&self, life: &Life, id: &str) -> Result<bool, Error> {
        const DELETE: &str = "DELETE FROM clients WHERE tenant = ?1 AND life = ?2 AND id = ?3";
        let (life, id) = (life.clone(), id.to_owned());
        self.commit(move |connection| {
            Ok(connection.execute(DELETE, params![life.tenant(), life.id_bytes(), id])? == 1)
        })
    }

    /// Denies a client from now on, although its id is genuine.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub fn deny_client(&self, life: &Life, id: &str, now: Timestamp) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO denied_clients (tenant, life, client, denied_at, seal)
                              VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let (client, now) = (Digest::of(id.as_bytes()), now.as_second());
        let seal = seal_of_denied(&self.keys, life, &client, now);
        let life = life.clone();
        self.commit(move |connection| {
            let parameters = params![life.tenant(), life.id_bytes(), client.as_bytes(), now, seal];
            connection.execute(INSERT, parameters).map(drop)
        })
    }

    /// Returns whether a client is denied.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read.
    pub fn is_denied(&self, life: &Life, id: &str) -> Result<bool, Error> {
        const SELECT: &str = "SELECT 1 FROM denied_clients WHERE tenant = ?1 AND life = ?2 AND client = ?3";
        let client = Digest::of(id.as_bytes());
        let read = || {
            let connection = self.connection();
            connection.prepare_cached(SELECT)?.exists(params![
                life.tenant(),
                life.id_bytes(),
                client.as_bytes()
            ])
        };
        read().map_err(self.failed())
    }

    /// Returns the tenants that have a denied client whose row was tampered with, so that it is
    /// unknown which client was meant.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn doubtful_denials(&self) -> Result<Vec<Arc<str>>, Error> {
        let mut doubtful = Vec::new();
        for life in self.lives_of("denied_clients")? {
            match self.denied(&life) {
                Err(Error::Sealed) => doubtful.push(Arc::clone(life.tenant())),
                denied => drop(denied?),
            }
        }
        Ok(doubtful)
    }

    /// Returns the digests of the ids of denied clients; an operator has denied each of them.
    fn denied(&self, life: &Life) -> Result<Vec<Digest>, Error> {
        const SELECT: &str =
            "SELECT client, denied_at, seal FROM denied_clients WHERE tenant = ?1 AND life = ?2";
        let read = || -> rusqlite::Result<Vec<FoundDenied>> {
            let connection = self.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map(params![life.tenant(), life.id_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect()
        };
        let open = |(client, denied_at, seal): FoundDenied| {
            let client = Digest::from_bytes(client);
            let row = client.to_string();
            self.keys
                .open_row(&denied_place(life, &row), &clear_of_denied(life, denied_at), &seal)
                .map(|_| client)
        };
        let rows = read().map_err(self.failed())?;
        rows.into_iter().map(open).collect::<Option<_>>().ok_or(Error::Sealed)
    }

    /// Opens every client and returns how many there are.
    pub(super) fn open_clients(&self) -> Result<usize, Error> {
        let mut opened = 0;
        for life in self.lives_of("clients")? {
            for id in self.client_ids(&life)? {
                self.client(&life, &id)?;
                opened += 1;
            }
        }
        self.lives_of("denied_clients")?.iter().try_for_each(|life| self.denied(life).map(drop))?;
        Ok(opened)
    }
}

/// Digest of the id, time of denial in seconds, seal.
type FoundDenied = ([u8; 32], i64, Vec<u8>);

/// Assigns the clients of an earlier version to a life.
pub(super) fn adopt(transaction: &Transaction<'_>, keys: &Keyring, life: &Life) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT id, document FROM clients WHERE tenant = ?1")?;
    let rows = select.query_map([life.tenant()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    for (id, old) in rows {
        let opened = keys.open(&place(life, &id), &old);
        let sealed = opened.map_or(old, |document| keys.seal_row(&place(life, &id), &clear(life), &document));
        let update = "UPDATE clients SET life = ?3, document = ?4 WHERE tenant = ?1 AND id = ?2";
        transaction.execute(update, params![life.tenant(), id, life.id_bytes(), sealed])?;
    }
    let mut select = transaction.prepare("SELECT client, denied_at FROM denied_clients WHERE tenant = ?1")?;
    let rows = select.query_map([life.tenant()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<([u8; 32], i64)> = rows.collect::<Result<_, _>>()?;
    for (client, denied_at) in rows {
        let seal = seal_of_denied(keys, life, &Digest::from_bytes(client), denied_at);
        let update = "UPDATE denied_clients SET life = ?3, seal = ?4 WHERE tenant = ?1 AND client = ?2";
        transaction.execute(update, params![life.tenant(), client, life.id_bytes(), seal])?;
    }
    Ok(())
}

fn place<'a>(life: &'a Life, id: &'a str) -> Place<'a> {
    Place { purpose: "client", tenant: life.tenant(), row: id }
}

/// The columns that the seal covers but does not encrypt.
fn clear(life: &Life) -> [&[u8]; 1] {
    [life.id_bytes()]
}

fn denied_place<'a>(life: &'a Life, client: &'a str) -> Place<'a> {
    Place { purpose: "denied", tenant: life.tenant(), row: client }
}

fn clear_of_denied(life: &Life, denied_at: i64) -> [Vec<u8>; 2] {
    [life.id_bytes().to_vec(), denied_at.to_be_bytes().to_vec()]
}

fn seal_of_denied(keys: &Keyring, life: &Life, client: &Digest, denied_at: i64) -> Vec<u8> {
    keys.seal_row(&denied_place(life, &client.to_string()), &clear_of_denied(life, denied_at), b"")
}
