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
use crate::base::hex;
use crate::store::Error;
use crate::store::auth::grant::{
    CreateGrant, Grant, GrantId, Revocation, RevokedSubject, RotateGrant, StoredRevocations,
};
use crate::store::auth::incarnation::Incarnation;
use crate::store::keyring::{Keyring, SealContext};

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
        let row = grant.id.to_string();
        let (now, expires) = (grant.now.as_second(), grant.code_expires_at.as_second());
        let clear =
            GrantClearColumns { client_id: &grant.client_id, number: 0, issued: now, expires, ends: expires };
        let family_key = self.keyring.seal_row(
            &family_context(incarnation, &row),
            &family_clear_columns(incarnation, &grant.client_id),
            &grant.family_key,
        );
        let payload = self.keyring.seal_row(
            &payload_context(incarnation, &row),
            &clear.to_columns(incarnation),
            &grant.payload,
        );
        let incarnation = incarnation.clone();
        self.database.commit(move |connection| {
            let CreateGrant { id, client_id, .. } = grant;
            let parameters = params![
                incarnation.tenant(),
                incarnation.id_bytes(),
                id.0,
                client_id,
                now,
                expires,
                family_key,
                payload
            ];
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
            select.query_row(parameters, GrantRow::from_row).optional()
        };
        let Some(grant_row) = read().map_err(self.database.error())? else { return Ok(None) };
        let row = id.to_string();
        let clear = family_clear_columns(incarnation, &grant_row.client_id);
        let family_key =
            self.keyring.open_row(&family_context(incarnation, &row), &clear, &grant_row.family_key);
        let clear = grant_row.clear_columns().to_columns(incarnation);
        let payload = self.keyring.open_row(&payload_context(incarnation, &row), &clear, &grant_row.payload);
        let family_key = family_key.and_then(|bytes| bytes.try_into().ok());
        let (family_key, payload) = family_key.zip(payload).ok_or(Error::CannotUnseal)?;
        let GrantRow { client_id, number, issued, ends, .. } = grant_row;
        Ok(Some(Grant {
            id,
            client_id,
            last_sequence: number,
            issued_at: to_timestamp(issued),
            ends_at: to_timestamp(ends),
            family_key,
            payload,
        }))
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
        let row = rotation.id.to_string();
        let (now, ends) = (rotation.now.as_second(), rotation.ends_at.as_second());
        let (number, expires) =
            (rotation.from_sequence.saturating_add(1), rotation.expires_at.as_second().min(ends));
        let clear = GrantClearColumns { client_id: &rotation.client_id, number, issued: now, expires, ends };
        let payload = self.keyring.seal_row(
            &payload_context(incarnation, &row),
            &clear.to_columns(incarnation),
            &rotation.payload,
        );
        let incarnation = incarnation.clone();
        self.database.commit(move |connection| {
            let RotateGrant { id, from_sequence, client_id, .. } = rotation;
            let (tenant, incarnation) = (incarnation.tenant(), incarnation.id_bytes());
            let parameters = params![
                tenant,
                incarnation,
                id.0,
                client_id,
                from_sequence,
                number,
                now,
                expires,
                ends,
                payload
            ];
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
            let seal = seal_revocation(&self.keyring, incarnation, revocation);
            (incarnation.clone(), *revocation, seal)
        };
        let sealed: Vec<_> = revocations.iter().map(seal).collect();
        self.database.commit(move |connection| {
            sealed.iter().try_for_each(|(incarnation, revocation, seal)| {
                insert_revocation(connection, incarnation, revocation, seal)
            })
        })
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
        const SELECT: &str = "SELECT subject, issued_until, forget_at, seal FROM revoked
                              WHERE tenant = ?1 AND life = ?2";
        let mut all = StoredRevocations::default();
        for incarnation in self.incarnations_in("revoked")? {
            let read = || -> rusqlite::Result<Vec<RevocationRow>> {
                let connection = self.database.connection();
                let mut select = connection.prepare_cached(SELECT)?;
                let rows = select
                    .query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                    })?;
                rows.collect()
            };
            for row in read().map_err(self.database.error())? {
                match self.open_revocation(&incarnation, &row) {
                    Some(revocation) => all.known.push((incarnation.clone(), revocation)),
                    None => all.unreadable += 1,
                }
            }
        }
        Ok(all)
    }

    fn open_revocation(&self, incarnation: &Incarnation, row: &RevocationRow) -> Option<Revocation> {
        let (subject, issued_until, forget_at, seal) = row;
        let revocation = Revocation {
            subject: RevokedSubject::from_bytes(subject)?,
            issued_until: to_timestamp(*issued_until),
            forget_at: to_timestamp(*forget_at),
        };
        let subject_hex = to_hex(subject);
        self.keyring.open_row(
            &revocation_context(incarnation, &subject_hex),
            &revocation_clear_columns(incarnation, &revocation),
            seal,
        )?;
        Some(revocation)
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
fn insert_revocation(
    connection: &Connection,
    incarnation: &Incarnation,
    revocation: &Revocation,
    seal: &[u8],
) -> rusqlite::Result<()> {
    const INSERT: &str = "
        INSERT INTO revoked (tenant, life, subject, issued_until, forget_at, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (tenant, subject) DO UPDATE SET life = ?2, issued_until = ?4, forget_at = ?5, seal = ?6";
    let (tenant, incarnation) = (incarnation.tenant(), incarnation.id_bytes());
    if let RevokedSubject::Grant(id) = revocation.subject {
        const DELETE: &str = "DELETE FROM grants WHERE tenant = ?1 AND life = ?2 AND id = ?3";
        connection.prepare_cached(DELETE)?.execute(params![tenant, incarnation, id.0])?;
    }
    let (until, forget_at) = (revocation.issued_until.as_second(), revocation.forget_at.as_second());
    let parameters = params![tenant, incarnation, revocation.subject.as_bytes(), until, forget_at, seal];
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
    const REVOKED: &str = "SELECT subject, issued_until, forget_at FROM revoked WHERE tenant = ?1";
    let mut select = transaction.prepare(GRANTS)?;
    let rows = select.query_map([incarnation.tenant()], |row| {
        Ok((GrantId(row.get(0)?), GrantRow::from_columns(row, 1)?))
    })?;
    for (id, grant_row) in rows.collect::<Result<Vec<_>, _>>()? {
        let row = id.to_string();
        let family_key = reseal(
            keys,
            &family_context(incarnation, &row),
            &family_clear_columns(incarnation, &grant_row.client_id),
            &grant_row.family_key,
        );
        let payload = reseal(
            keys,
            &payload_context(incarnation, &row),
            &grant_row.clear_columns().to_columns(incarnation),
            &grant_row.payload,
        );
        let update = "UPDATE grants SET life = ?3, family = ?4, details = ?5 WHERE tenant = ?1 AND id = ?2";
        transaction.execute(
            update,
            params![incarnation.tenant(), id.0, incarnation.id_bytes(), family_key, payload],
        )?;
    }
    let mut select = transaction.prepare(REVOKED)?;
    let rows = select.query_map([incarnation.tenant()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (subject, issued_until, forget_at) in rows.collect::<Result<Vec<(Vec<u8>, i64, i64)>, _>>()? {
        let Some(known) = RevokedSubject::from_bytes(&subject) else { continue };
        let revocation = Revocation {
            subject: known,
            issued_until: to_timestamp(issued_until),
            forget_at: to_timestamp(forget_at),
        };
        let seal = seal_revocation(keys, incarnation, &revocation);
        let update = "UPDATE revoked SET life = ?3, seal = ?4 WHERE tenant = ?1 AND subject = ?2";
        transaction.execute(update, params![incarnation.tenant(), subject, incarnation.id_bytes(), seal])?;
    }
    Ok(())
}

/// Seals a value of an earlier version anew so that its seal covers the rest of the row. A value
/// that does not open stays as it is.
fn reseal(keys: &Keyring, place: &SealContext<'_>, clear: &[Vec<u8>], old: &[u8]) -> Vec<u8> {
    let opened = keys.open(place, old);
    opened.map_or_else(|| old.to_vec(), |value| keys.seal_row(place, clear, &value))
}

/// A row of `grants` as stored.
struct GrantRow {
    client_id: String,
    number: u32,
    issued: i64,
    expires: i64,
    ends: i64,
    family_key: Vec<u8>,
    payload: Vec<u8>,
}

/// Subject, issued until, forget at, seal; as stored.
type RevocationRow = (Vec<u8>, i64, i64, Vec<u8>);

/// The columns of a grant that change and are covered by its seal without being encrypted.
struct GrantClearColumns<'a> {
    client_id: &'a str,
    number: u32,
    issued: i64,
    expires: i64,
    ends: i64,
}

impl GrantClearColumns<'_> {
    fn to_columns(&self, incarnation: &Incarnation) -> Vec<Vec<u8>> {
        let Self { client_id, number, issued, expires, ends } = self;
        let numbers =
            [i64::from(*number), *issued, *expires, *ends].map(|number| number.to_be_bytes().to_vec());
        [incarnation.id_bytes().to_vec(), client_id.as_bytes().to_vec()].into_iter().chain(numbers).collect()
    }
}

impl GrantRow {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Self::from_columns(row, 0)
    }

    /// Reads the columns of a row from the column `first` on.
    fn from_columns(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            client_id: row.get(first)?,
            number: row.get(first + 1)?,
            issued: row.get(first + 2)?,
            expires: row.get(first + 3)?,
            ends: row.get(first + 4)?,
            family_key: row.get(first + 5)?,
            payload: row.get(first + 6)?,
        })
    }

    fn clear_columns(&self) -> GrantClearColumns<'_> {
        let Self { number, issued, expires, ends, .. } = *self;
        GrantClearColumns { client_id: &self.client_id, number, issued, expires, ends }
    }
}

/// Converts seconds since 1970; a value beyond the calendar becomes its end.
fn to_timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn family_context<'a>(incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: "family", tenant: incarnation.tenant(), row }
}

fn payload_context<'a>(incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: "grant", tenant: incarnation.tenant(), row }
}

fn revocation_context<'a>(incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: "revoked", tenant: incarnation.tenant(), row }
}

fn family_clear_columns(incarnation: &Incarnation, client_id: &str) -> Vec<Vec<u8>> {
    vec![incarnation.id_bytes().to_vec(), client_id.as_bytes().to_vec()]
}

fn revocation_clear_columns(incarnation: &Incarnation, revocation: &Revocation) -> [Vec<u8>; 3] {
    let encode_timestamp = |timestamp: Timestamp| timestamp.as_second().to_be_bytes().to_vec();
    [
        incarnation.id_bytes().to_vec(),
        encode_timestamp(revocation.issued_until),
        encode_timestamp(revocation.forget_at),
    ]
}

fn seal_revocation(keys: &Keyring, incarnation: &Incarnation, revocation: &Revocation) -> Vec<u8> {
    let row = to_hex(revocation.subject.as_bytes());
    keys.seal_row(
        &revocation_context(incarnation, &row),
        &revocation_clear_columns(incarnation, revocation),
        b"",
    )
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    hex::write(&mut text, bytes).expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests;
