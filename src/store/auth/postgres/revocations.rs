//! Revocations in PostgreSQL.

use std::sync::Arc;

use tokio_postgres::Row;

use super::PostgresEngine;
use super::grants::read_incarnation;
use super::link::ReadError;
use super::value::Value;
use crate::store::auth::Error;
use crate::store::auth::grant::{Revocation, StoredRevocations};
use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::sealed::RevocationRow;

pub(super) const COLUMNS: &str = "tenant, incarnation, subject, issued_until, forget_at, seal";

impl PostgresEngine {
    pub(in crate::store) async fn revoke(
        &self,
        incarnation: &Incarnation,
        revocation: Revocation,
    ) -> Result<(), Error> {
        self.revoke_all(vec![(incarnation.clone(), revocation)]).await
    }

    pub(in crate::store) async fn revoke_all(
        &self,
        revocations: Vec<(Incarnation, Revocation)>,
    ) -> Result<(), Error> {
        // Of several revocations of one subject, the last counts. The id of a grant has 16 bytes,
        // the digest of a client 32.
        const REVOKE: &str = "
            WITH given AS (
                SELECT DISTINCT ON (tenant, subject) * FROM
                    unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])
                    WITH ORDINALITY AS given_row (tenant, incarnation, subject, issued_until, forget_at, seal, place)
                ORDER BY tenant, subject, place DESC
            ), ended AS (
                DELETE FROM tenantd.grants USING given
                WHERE grants.tenant = given.tenant AND grants.incarnation = given.incarnation
                    AND grants.id = given.subject AND octet_length(given.subject) = 16
            ), written AS (
                INSERT INTO tenantd.revocations (tenant, incarnation, subject, issued_until, forget_at, seal)
                SELECT tenant, incarnation, subject, issued_until, forget_at, seal FROM given
                ON CONFLICT (tenant, subject) DO UPDATE SET incarnation = excluded.incarnation,
                    issued_until = excluded.issued_until, forget_at = excluded.forget_at, seal = excluded.seal
            )
            SELECT tenantd.record_changes('revocation', $1, $3)";
        if revocations.is_empty() {
            return Ok(());
        }
        let seal = |(incarnation, revocation): &(Incarnation, Revocation)| {
            RevocationRow::seal(&self.keyring, incarnation, revocation)
        };
        let rows: Vec<_> = revocations.iter().map(seal).collect();
        let values = [
            Value::Texts(rows.iter().map(|row| &**row.incarnation.tenant()).collect()),
            Value::ByteStrings(rows.iter().map(|row| row.incarnation.id_bytes()).collect()),
            Value::ByteStrings(rows.iter().map(|row| &row.subject[..]).collect()),
            Value::Numbers(rows.iter().map(|row| row.issued_until).collect()),
            Value::Numbers(rows.iter().map(|row| row.forget_at).collect()),
            Value::ByteStrings(rows.iter().map(|row| &row.seal[..]).collect()),
        ];
        Ok(self.link.query(REVOKE, &values).await.map(drop)?)
    }

    /// Returns the revocations of these subjects, each the bytes after its tenant, as far as there
    /// are some.
    pub(in crate::store) async fn load_revocations_of(
        &self,
        subjects: &[(Arc<str>, Vec<u8>)],
    ) -> Result<StoredRevocations, Error> {
        let select = format!(
            "SELECT {COLUMNS} FROM tenantd.revocations
             JOIN unnest($1::text[], $2::bytea[]) AS asked (tenant, subject) USING (tenant, subject)"
        );
        let values = [
            Value::Texts(subjects.iter().map(|(tenant, _)| &**tenant).collect()),
            Value::ByteStrings(subjects.iter().map(|(_, subject)| &subject[..]).collect()),
        ];
        let rows = self.link.query_rows_as_follower(&select, &values, read_row).await?;
        Ok(RevocationRow::open_all(rows, &self.keyring))
    }

    pub(super) async fn load_revocations(&self) -> Result<StoredRevocations, Error> {
        let select = format!("SELECT {COLUMNS} FROM tenantd.revocations");
        let rows = self.link.query_rows(&select, &[], read_row).await?;
        Ok(RevocationRow::open_all(rows, &self.keyring))
    }
}

pub(super) fn read_row(row: &Row) -> Result<RevocationRow, ReadError> {
    Ok(RevocationRow {
        incarnation: read_incarnation(row, 0, 1)?,
        subject: row.try_get(2)?,
        issued_until: row.try_get(3)?,
        forget_at: row.try_get(4)?,
        seal: row.try_get(5)?,
    })
}
