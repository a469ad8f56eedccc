//! Grants: what people allowed clients to do, from the authorization code to the last refresh
//! token. Also the revocations of access tokens that have not expired.
//!
//! The one-time tokens of a grant are numbered: 0 is the authorization code, the others are refresh
//! tokens. None of them is stored: they are derived from the grant's family key, so that the last
//! one can be issued again. A single statement advances the number, and only one of several
//! concurrent requests succeeds with it. The seal of a row also covers its clear columns, so a row
//! that was tampered with does not open.

mod list;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::grant::{
    CreateGrant, Grant, GrantId, LastToken, Revocation, RotateGrant, StoredRevocations,
};
use crate::store::auth::incarnation::{Incarnation, IncarnationId};
use crate::store::auth::sealed::{GrantRow, RevocationRow, RotationRow};
use crate::store::keyring::Keyring;

impl AuthTables {
    /// Stores a grant before its authorization code is issued.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn create_grant(
        &self,
        incarnation: &Incarnation,
        grant: CreateGrant,
    ) -> Result<(), Error> {
        const INSERT: &str = "
            INSERT INTO grants (tenant, life, id, client_id, number, issued_at, expires_at, ends_at, family, details)
            VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?6, ?7, ?8)";
        let row = GrantRow::seal(&self.keyring, incarnation, grant);
        self.database.commit(move |connection| {
            let GrantRow { incarnation, id, client_id, issued, expires, family_key, payload, .. } = row;
            let (tenant, life) = (incarnation.tenant(), incarnation.id_bytes());
            let parameters = params![tenant, life, id.0, client_id, issued, expires, family_key, payload];
            connection.prepare_cached(INSERT)?.execute(parameters).map(drop)
        })
    }

    /// Returns a grant, unless it has expired.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read, [`Error::CannotUnseal`] if it does not open.
    pub(in crate::store) fn load_grant(
        &self,
        incarnation: &Incarnation,
        id: GrantId,
        now: Timestamp,
    ) -> Result<Option<Grant>, Error> {
        const SELECT: &str = "
            SELECT client_id, number, issued_at, expires_at, ends_at, family, details FROM grants
            WHERE tenant = ?1 AND life = ?2 AND id = ?3 AND expires_at > ?4";
        let read = || {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), id.0, now.as_second()];
            select.query_row(parameters, |row| read_row(row, 0, incarnation.clone(), id)).optional()
        };
        let row = read().map_err(self.database.error())?;
        let open = |row: GrantRow| {
            // Whoever wrote the row learned of it, since a write has no deadline.
            let last_token = LastToken { age: row.last_token_age(now), is_unconfirmed: false };
            row.open(&self.keyring, last_token).ok_or(Error::CannotUnseal)
        };
        row.map(open).transpose()
    }

    /// Redeems the authorization code of a grant. Returns `false` if it was redeemed before or has
    /// expired; of several concurrent attempts one succeeds.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn take_code(
        &self,
        incarnation: &Incarnation,
        rotation: RotateGrant,
    ) -> Result<bool, Error> {
        debug_assert_eq!(rotation.from_sequence, 0, "the code is the first of a grant's tokens");
        self.advance_sequence(incarnation, rotation)
    }

    /// Rotates the refresh token of a grant. Returns `false` if the token was not the last one; of
    /// several concurrent attempts one succeeds.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn rotate_refresh(
        &self,
        incarnation: &Incarnation,
        rotation: RotateGrant,
    ) -> Result<bool, Error> {
        debug_assert_ne!(rotation.from_sequence, 0, "the first of a grant's tokens is its code");
        self.advance_sequence(incarnation, rotation)
    }

    fn advance_sequence(&self, incarnation: &Incarnation, rotation: RotateGrant) -> Result<bool, Error> {
        const UPDATE: &str = "
            UPDATE grants SET number = ?6, issued_at = ?7, expires_at = ?8, ends_at = ?9, details = ?10
            WHERE tenant = ?1 AND life = ?2 AND id = ?3 AND client_id = ?4 AND number = ?5 AND expires_at > ?7";
        let row = RotationRow::seal(&self.keyring, incarnation, rotation);
        self.database.commit(move |connection| {
            let RotationRow { incarnation, id, client_id, from, number, issued, expires, ends, payload } =
                row;
            let (tenant, life) = (incarnation.tenant(), incarnation.id_bytes());
            let parameters =
                params![tenant, life, id.0, client_id, from, number, issued, expires, ends, payload];
            Ok(connection.prepare_cached(UPDATE)?.execute(parameters)? == 1)
        })
    }

    /// Revokes the access tokens of a subject, and deletes its grant if the subject is one.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn revoke(
        &self,
        incarnation: &Incarnation,
        revocation: Revocation,
    ) -> Result<(), Error> {
        self.revoke_all(&[(incarnation.clone(), revocation)])
    }

    /// Does the same for several subjects, in one transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn revoke_all(
        &self,
        revocations: &[(Incarnation, Revocation)],
    ) -> Result<(), Error> {
        let seal = |(incarnation, revocation): &(Incarnation, Revocation)| {
            RevocationRow::seal(&self.keyring, incarnation, revocation)
        };
        let sealed: Vec<_> = revocations.iter().map(seal).collect();
        self.database
            .commit(move |connection| sealed.iter().try_for_each(|row| insert_revocation(connection, row)))
    }

    /// Deletes all grants of a client and returns their ids.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn delete_grants_of_client(
        &self,
        incarnation: &Incarnation,
        client_id: &str,
    ) -> Result<Vec<GrantId>, Error> {
        const DELETE: &str =
            "DELETE FROM grants WHERE tenant = ?1 AND life = ?2 AND client_id = ?3 RETURNING id";
        let (incarnation, client_id) = (incarnation.clone(), client_id.to_owned());
        self.database.commit(move |connection| {
            let mut delete = connection.prepare_cached(DELETE)?;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), client_id];
            let ids = delete.query_map(parameters, |row| row.get(0).map(GrantId))?;
            ids.collect()
        })
    }

    /// Returns the revocations of all tenants.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub(in crate::store) fn load_revocations(&self) -> Result<StoredRevocations, Error> {
        const SELECT: &str = "SELECT tenant, life, subject, issued_until, forget_at, seal FROM revoked";
        let read = || -> rusqlite::Result<Vec<RevocationRow>> {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            select.query_map([], read_revocation)?.collect()
        };
        let rows = read().map_err(self.database.error())?;
        Ok(RevocationRow::open_all(rows, &self.keyring))
    }

    /// Deletes expired grants and revocations, at most `at_most` rows of each, and returns how many
    /// it deleted.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn delete_expired(&self, now: Timestamp, at_most: u32) -> Result<usize, Error> {
        const DELETE: [&str; 2] = [
            "DELETE FROM grants WHERE (tenant, id) IN
                 (SELECT tenant, id FROM grants WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
            "DELETE FROM revoked WHERE (tenant, subject) IN
                 (SELECT tenant, subject FROM revoked WHERE forget_at <= ?1 LIMIT ?2)",
        ];
        self.database.commit(move |connection| {
            let parameters = params![now.as_second(), at_most];
            DELETE.iter().map(|delete| connection.prepare_cached(delete)?.execute(parameters)).sum()
        })
    }

    /// Opens every sealed value of grants and revocations, and returns how many grants there are.
    pub(in crate::store) fn verify_grants(&self) -> Result<usize, Error> {
        let ids = |incarnation: &Incarnation| -> rusqlite::Result<Vec<GrantId>> {
            let connection = self.database.connection();
            let mut select = connection.prepare("SELECT id FROM grants WHERE tenant = ?1 AND life = ?2")?;
            let rows = select.query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| {
                row.get(0).map(GrantId)
            })?;
            rows.collect()
        };
        let mut opened = 0;
        for incarnation in self.incarnations_in("grants")? {
            for id in ids(&incarnation).map_err(self.database.error())? {
                self.load_grant(&incarnation, id, Timestamp::MIN)?;
                opened += 1;
            }
        }
        match self.load_revocations()?.unreadable {
            0 => Ok(opened),
            _ => Err(Error::CannotUnseal),
        }
    }
}

/// Writes a revocation, and deletes the grant that it is about.
pub(super) fn insert_revocation(connection: &Connection, row: &RevocationRow) -> rusqlite::Result<()> {
    const DELETE: &str = "DELETE FROM grants WHERE tenant = ?1 AND life = ?2 AND id = ?3";
    const INSERT: &str = "
        INSERT INTO revoked (tenant, life, subject, issued_until, forget_at, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (tenant, subject) DO UPDATE SET life = ?2, issued_until = ?4, forget_at = ?5, seal = ?6";
    let (tenant, life) = (row.incarnation.tenant(), row.incarnation.id_bytes());
    if let Some(id) = row.grant_id() {
        connection.prepare_cached(DELETE)?.execute(params![tenant, life, id])?;
    }
    let RevocationRow { subject, issued_until, forget_at, seal, .. } = row;
    let parameters = params![tenant, life, subject, issued_until, forget_at, seal];
    connection.prepare_cached(INSERT)?.execute(parameters).map(drop)
}

/// Assigns the grants and revocations of an earlier version to an incarnation.
pub(in crate::store) fn migrate_legacy(
    transaction: &Transaction<'_>,
    keys: &Keyring,
    incarnation: &Incarnation,
) -> rusqlite::Result<()> {
    const GRANTS: &str = "SELECT id, client_id, number, issued_at, expires_at, ends_at, family, details
                          FROM grants WHERE tenant = ?1";
    const REVOKED: &str = "SELECT tenant, ?2, subject, issued_until, forget_at, x'' FROM revoked
                           WHERE tenant = ?1";
    let mut select = transaction.prepare(GRANTS)?;
    let rows = select.query_map([incarnation.tenant()], |row| {
        read_row(row, 1, incarnation.clone(), GrantId(row.get(0)?))
    })?;
    for mut row in rows.collect::<Result<Vec<_>, _>>()? {
        row.reseal_legacy(keys);
        let update = "UPDATE grants SET life = ?3, family = ?4, details = ?5 WHERE tenant = ?1 AND id = ?2";
        let GrantRow { id, family_key, payload, .. } = row;
        let parameters = params![incarnation.tenant(), id.0, incarnation.id_bytes(), family_key, payload];
        transaction.execute(update, parameters)?;
    }
    let mut select = transaction.prepare(REVOKED)?;
    let rows = select.query_map(params![incarnation.tenant(), incarnation.id_bytes()], read_revocation)?;
    for row in rows.collect::<Result<Vec<_>, _>>()? {
        let Some(row) = row.seal_legacy(keys) else { continue };
        let update = "UPDATE revoked SET life = ?3, seal = ?4 WHERE tenant = ?1 AND subject = ?2";
        let parameters = params![incarnation.tenant(), row.subject, incarnation.id_bytes(), row.seal];
        transaction.execute(update, parameters)?;
    }
    Ok(())
}

/// Reads the columns of a grant from the column `first` on.
pub(super) fn read_row(
    row: &Row<'_>,
    first: usize,
    incarnation: Incarnation,
    id: GrantId,
) -> rusqlite::Result<GrantRow> {
    Ok(GrantRow {
        incarnation,
        id,
        client_id: row.get(first)?,
        number: row.get(first + 1)?,
        issued: row.get(first + 2)?,
        expires: row.get(first + 3)?,
        ends: row.get(first + 4)?,
        family_key: row.get(first + 5)?,
        payload: row.get(first + 6)?,
    })
}

pub(super) fn read_revocation(row: &Row<'_>) -> rusqlite::Result<RevocationRow> {
    let tenant: String = row.get(0)?;
    Ok(RevocationRow {
        incarnation: Incarnation { tenant: tenant.into(), id: IncarnationId(row.get(1)?) },
        subject: row.get(2)?,
        issued_until: row.get(3)?,
        forget_at: row.get(4)?,
        seal: row.get(5)?,
    })
}
