//! Clients that an operator entered, and those that are refused although their id says that they registered.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::seal::Place;
use super::{Error, Store};
use crate::base::digest::Digest;

impl Store {
    /// Keeps a client; `false` if there is one with this id. `document` is sealed on its way to the disk.
    pub fn add_client(&self, tenant: &str, id: &str, document: &[u8]) -> Result<bool, Error> {
        const INSERT: &str =
            "INSERT INTO clients (tenant, id, document) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        let sealed = self.keys.seal(&place(tenant, id), document);
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.commit(move |connection| Ok(connection.execute(INSERT, params![tenant, id, sealed])? == 1))
    }

    /// What is known of a client.
    pub fn client(&self, tenant: &str, id: &str) -> Result<Option<Vec<u8>>, Error> {
        const SELECT: &str = "SELECT document FROM clients WHERE tenant = ?1 AND id = ?2";
        let read = || {
            let connection = self.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            select.query_row([tenant, id], |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let Some(sealed) = read().map_err(self.failed())? else { return Ok(None) };
        self.keys.open(&place(tenant, id), &sealed).map(Some).ok_or(Error::Sealed)
    }

    /// The ids of a tenant's clients, in order.
    pub fn client_ids(&self, tenant: &str) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.connection();
            let mut select = connection.prepare("SELECT id FROM clients WHERE tenant = ?1 ORDER BY id")?;
            select.query_map([tenant], |row| row.get(0))?.collect()
        };
        read().map_err(self.failed())
    }

    /// Deletes a client; `false` if there is none.
    pub fn remove_client(&self, tenant: &str, id: &str) -> Result<bool, Error> {
        const DELETE: &str = "DELETE FROM clients WHERE tenant = ?1 AND id = ?2";
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.commit(move |connection| Ok(connection.execute(DELETE, [tenant, id])? == 1))
    }

    /// Refuses a client from now on, although its id is genuine.
    pub fn deny_client(&self, tenant: &str, id: &str, now: Timestamp) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO denied_clients (tenant, client, denied_at) VALUES (?1, ?2, ?3)
                              ON CONFLICT DO NOTHING";
        let (tenant, client) = (tenant.to_owned(), Digest::of(id.as_bytes()));
        self.commit(move |connection| {
            connection.execute(INSERT, params![tenant, client.as_bytes(), now.as_second()]).map(drop)
        })
    }

    /// Whether a client is refused.
    pub fn is_denied(&self, tenant: &str, id: &str) -> Result<bool, Error> {
        const SELECT: &str = "SELECT 1 FROM denied_clients WHERE tenant = ?1 AND client = ?2";
        let client = Digest::of(id.as_bytes());
        let read = || {
            let connection = self.connection();
            connection.prepare_cached(SELECT)?.exists(params![tenant, client.as_bytes()])
        };
        read().map_err(self.failed())
    }

    /// Opens every client. Says how many there are.
    pub(super) fn open_clients(&self) -> Result<usize, Error> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let connection = self.connection();
            let mut select = connection.prepare("SELECT tenant, id FROM clients")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let all = read().map_err(self.failed())?;
        all.iter().try_for_each(|(tenant, id)| self.client(tenant, id).map(drop))?;
        Ok(all.len())
    }
}

fn place<'a>(tenant: &'a str, id: &'a str) -> Place<'a> {
    Place { purpose: "client", tenant, row: id }
}
