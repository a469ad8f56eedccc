//! What people allowed clients to do, from the code to the last refresh token; and whose access tokens are refused
//! before they expire.
//!
//! The one-time tokens of a grant are numbered: 0 is the code, the others are refresh tokens. None of them lies here:
//! they derive from the grant's family key, so that the last one can be issued again. Going from one number to the next is
//! one statement that only one of many askers gets through.

use std::fmt;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::seal::Place;
use super::{Error, Store};
use crate::base::digest::Digest;
use crate::base::{hex, random};

/// Names a grant, everywhere and for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantId([u8; 16]);

impl GrantId {
    /// One that nobody can guess.
    pub fn random() -> Self {
        Self(random::bytes())
    }

    /// Reads 32 hexadecimal digits, small ones.
    pub fn parse(text: &str) -> Option<Self> {
        let is_small = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        hex::decode(text).filter(|_| is_small).map(Self)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantId({self})")
    }
}

/// A grant that begins, its code issued.
#[derive(Debug)]
pub struct Beginning {
    pub id: GrantId,
    pub client_id: String,
    pub now: Timestamp,
    /// Until when the code can be taken.
    pub expires: Timestamp,
    /// What the one-time tokens derive from.
    pub family: [u8; 32],
    /// In the clear; sealed on its way to the disk.
    pub details: Vec<u8>,
}

/// A grant that has not expired.
pub struct Grant {
    pub id: GrantId,
    pub client_id: String,
    /// The number of the one-time token that was issued last.
    pub number: u32,
    pub issued: Timestamp,
    pub ends: Timestamp,
    pub family: [u8; 32],
    pub details: Vec<u8>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("id", &self.id).field("number", &self.number).finish_non_exhaustive()
    }
}

/// From one one-time token to the next.
#[derive(Debug)]
pub struct Step {
    pub id: GrantId,
    /// The number of the token that is used up.
    pub from: u32,
    pub now: Timestamp,
    /// Unless there is another step before.
    pub expires: Timestamp,
    /// In any case.
    pub ends: Timestamp,
    /// What is known from now on, if it changed.
    pub details: Option<Vec<u8>>,
}

/// Whose access tokens are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    Grant(GrantId),
    /// The digest of a client's id.
    Client(Digest),
}

/// Access tokens that are refused although they have not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    pub subject: Subject,
    /// Tokens issued up to this moment are meant.
    pub issued_until: Timestamp,
    /// By then they have all expired.
    pub forget: Timestamp,
}

impl Store {
    /// Keeps a grant whose code is about to be issued.
    pub fn begin_grant(&self, tenant: &str, grant: Beginning) -> Result<(), Error> {
        const INSERT: &str = "
            INSERT INTO grants (tenant, id, client_id, number, issued_at, expires_at, ends_at, family, details)
            VALUES (?1, ?2, ?3, 0, ?4, ?5, ?5, ?6, ?7)";
        let row = grant.id.to_string();
        let family = self.keys.seal(&family_of(tenant, &row), &grant.family);
        let details = self.keys.seal(&details_of(tenant, &row), &grant.details);
        let tenant = tenant.to_owned();
        self.commit(move |connection| {
            let (now, expires) = (grant.now.as_second(), grant.expires.as_second());
            let parameters = params![tenant, grant.id.0, grant.client_id, now, expires, family, details];
            connection.prepare_cached(INSERT)?.execute(parameters).map(drop)
        })
    }

    /// A grant, unless it has expired.
    pub fn grant(&self, tenant: &str, id: GrantId, now: Timestamp) -> Result<Option<Grant>, Error> {
        const SELECT: &str = "
            SELECT client_id, number, issued_at, ends_at, family, details FROM grants
            WHERE tenant = ?1 AND id = ?2 AND expires_at > ?3";
        let read = || {
            let connection = self.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            select.query_row(params![tenant, id.0, now.as_second()], Found::read).optional()
        };
        let Some(found) = read().map_err(self.failed())? else { return Ok(None) };
        let row = id.to_string();
        let family = self.keys.open(&family_of(tenant, &row), &found.family);
        let details = self.keys.open(&details_of(tenant, &row), &found.details);
        let family = family.and_then(|bytes| bytes.try_into().ok());
        let (family, details) = family.zip(details).ok_or(Error::Sealed)?;
        let Found { client_id, number, issued, ends, .. } = found;
        Ok(Some(Grant { id, client_id, number, issued: at(issued), ends: at(ends), family, details }))
    }

    /// Takes the code of a grant: `false` if somebody has, or it has expired. Of many that try, one succeeds.
    pub fn take_code(&self, tenant: &str, step: Step) -> Result<bool, Error> {
        debug_assert_eq!(step.from, 0, "the code is the first of a grant's tokens");
        self.advance(tenant, step)
    }

    /// Replaces the refresh token of a grant: `false` if it was not the last one. Of many that try, one succeeds.
    pub fn rotate_refresh(&self, tenant: &str, step: Step) -> Result<bool, Error> {
        debug_assert_ne!(step.from, 0, "the first of a grant's tokens is its code");
        self.advance(tenant, step)
    }

    fn advance(&self, tenant: &str, step: Step) -> Result<bool, Error> {
        const UPDATE: &str = "
            UPDATE grants SET number = number + 1, issued_at = ?4, expires_at = min(?5, ?6), ends_at = ?6,
                              details = coalesce(?7, details)
            WHERE tenant = ?1 AND id = ?2 AND number = ?3 AND expires_at > ?4";
        let place = step.id.to_string();
        let details = step.details.map(|details| self.keys.seal(&details_of(tenant, &place), &details));
        let tenant = tenant.to_owned();
        self.commit(move |connection| {
            let (now, expires, ends) =
                (step.now.as_second(), step.expires.as_second(), step.ends.as_second());
            let parameters = params![tenant, step.id.0, step.from, now, expires, ends, details];
            Ok(connection.prepare_cached(UPDATE)?.execute(parameters)? == 1)
        })
    }

    /// Ends what a subject was allowed: grants are deleted, access tokens refused.
    pub fn revoke(&self, tenant: &str, revoked: Revoked) -> Result<(), Error> {
        const INSERT: &str = "
            INSERT INTO revoked (tenant, subject, issued_until, forget_at) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (tenant, subject) DO UPDATE SET issued_until = ?3, forget_at = ?4";
        let tenant = tenant.to_owned();
        self.commit(move |connection| {
            if let Subject::Grant(id) = revoked.subject {
                const DELETE: &str = "DELETE FROM grants WHERE tenant = ?1 AND id = ?2";
                connection.prepare_cached(DELETE)?.execute(params![tenant, id.0])?;
            }
            let (until, forget) = (revoked.issued_until.as_second(), revoked.forget.as_second());
            let parameters = params![tenant, revoked.subject.bytes(), until, forget];
            connection.prepare_cached(INSERT)?.execute(parameters).map(drop)
        })
    }

    /// Deletes all grants of a client. Says which they were.
    pub fn end_grants_of(&self, tenant: &str, client_id: &str) -> Result<Vec<GrantId>, Error> {
        const DELETE: &str = "DELETE FROM grants WHERE tenant = ?1 AND client_id = ?2 RETURNING id";
        let (tenant, client_id) = (tenant.to_owned(), client_id.to_owned());
        self.commit(move |connection| {
            let mut delete = connection.prepare_cached(DELETE)?;
            let ids = delete.query_map([tenant, client_id], |row| row.get(0).map(GrantId))?;
            ids.collect()
        })
    }

    /// Whose access tokens are refused, for each tenant by name.
    pub fn revoked(&self) -> Result<Vec<(String, Revoked)>, Error> {
        const SELECT: &str = "SELECT tenant, subject, issued_until, forget_at FROM revoked";
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.connection();
            let mut select = connection.prepare(SELECT)?;
            let rows = select.query_map([], |row| {
                let subject = Subject::of(&row.get::<_, Vec<u8>>(1)?);
                let (issued_until, forget) = (at(row.get(2)?), at(row.get(3)?));
                let revoked = subject.map(|subject| Revoked { subject, issued_until, forget });
                Ok(Some(row.get(0)?).zip(revoked))
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        read().map_err(self.failed())
    }

    /// Deletes what has expired, at most so many rows of each kind. Says how many there were.
    pub fn delete_expired(&self, now: Timestamp, at_most: u32) -> Result<usize, Error> {
        const DELETE: [&str; 2] = [
            "DELETE FROM grants WHERE (tenant, id) IN
                 (SELECT tenant, id FROM grants WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
            "DELETE FROM revoked WHERE (tenant, subject) IN
                 (SELECT tenant, subject FROM revoked WHERE forget_at <= ?1 LIMIT ?2)",
        ];
        self.commit(move |connection| {
            let parameters = params![now.as_second(), at_most];
            DELETE.iter().map(|delete| connection.prepare_cached(delete)?.execute(parameters)).sum()
        })
    }

    /// Opens all that is sealed in grants. Says how many there are.
    pub(super) fn open_grants(&self) -> Result<usize, Error> {
        let read = || -> rusqlite::Result<Vec<(String, GrantId)>> {
            let connection = self.connection();
            let mut select = connection.prepare("SELECT tenant, id FROM grants")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, GrantId(row.get(1)?))))?;
            rows.collect()
        };
        let all = read().map_err(self.failed())?;
        for (tenant, id) in &all {
            self.grant(tenant, *id, Timestamp::MIN)?;
        }
        Ok(all.len())
    }
}

/// A row as it lies there.
struct Found {
    client_id: String,
    number: u32,
    issued: i64,
    ends: i64,
    family: Vec<u8>,
    details: Vec<u8>,
}

impl Found {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            client_id: row.get(0)?,
            number: row.get(1)?,
            issued: row.get(2)?,
            ends: row.get(3)?,
            family: row.get(4)?,
            details: row.get(5)?,
        })
    }
}

impl Subject {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Grant(id) => &id.0,
            Self::Client(digest) => digest.as_bytes(),
        }
    }

    /// The two differ in length.
    fn of(bytes: &[u8]) -> Option<Self> {
        let client = || bytes.try_into().ok().map(|bytes| Self::Client(Digest::from_bytes(bytes)));
        bytes.try_into().ok().map(|id| Self::Grant(GrantId(id))).or_else(client)
    }
}

/// A moment from its seconds since 1970; one beyond the calendar is its end.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn family_of<'a>(tenant: &'a str, row: &'a str) -> Place<'a> {
    Place { purpose: "family", tenant, row }
}

fn details_of<'a>(tenant: &'a str, row: &'a str) -> Place<'a> {
    Place { purpose: "grant", tenant, row }
}

#[cfg(test)]
mod tests;
