//! Grants in PostgreSQL.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;

use super::PostgresEngine;
use super::value::Value;
use crate::store::auth::grant::{
    CreateGrant, Grant, GrantCursor, GrantId, LastToken, ListedGrant, RotateGrant,
};
use crate::store::auth::incarnation::{Incarnation, IncarnationId};
use crate::store::auth::sealed::{GrantRow, RotationRow};
use crate::store::auth::{Error, postgres};

pub(super) const COLUMNS: &str =
    "tenant, incarnation, id, client_id, number, issued_at, expires_at, ends_at, family_key, payload";

impl PostgresEngine {
    pub(in crate::store) async fn create_grant(
        &self,
        incarnation: &Incarnation,
        grant: CreateGrant,
    ) -> Result<(), Error> {
        let insert = format!(
            "INSERT INTO tenantd.grants ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (tenant, id) DO NOTHING"
        );
        let row = GrantRow::seal(&self.keyring, incarnation, grant);
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Bytes(&row.id.0),
            Value::Text(&row.client_id),
            Value::Number(row.number.into()),
            Value::Number(row.issued),
            Value::Number(row.expires),
            Value::Number(row.ends),
            Value::Bytes(&row.family_key),
            Value::Bytes(&row.payload),
        ];
        Ok(self.link.query(&insert, &values).await.map(drop)?)
    }

    pub(in crate::store) async fn load_grant(
        &self,
        incarnation: &Incarnation,
        id: GrantId,
        now: Timestamp,
    ) -> Result<Option<Grant>, Error> {
        let select = format!(
            "SELECT {COLUMNS},
                 (extract(epoch FROM clock_timestamp() -
                     CASE WHEN rotated_number = number THEN rotated_at ELSE to_timestamp(issued_at) END
                 ) * 1e6)::bigint,
                 coalesce(rotated_number = number AND unconfirmed, false)
             FROM tenantd.grants WHERE tenant = $1 AND incarnation = $2 AND id = $3 AND expires_at > $4"
        );
        self.settle_rotation(id).await?;
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Bytes(&id.0),
            Value::Number(now.as_second()),
        ];
        let read = |row: &Row| Ok((read_row(row)?, read_last_token(row)?));
        let rows = self.link.query_rows(&select, &values, read).await?;
        let open = |(row, last_token): (GrantRow, LastToken)| {
            row.open(&self.keyring, last_token).ok_or(crate::store::Error::CannotUnseal)
        };
        Ok(rows.into_iter().next().map(open).transpose()?)
    }

    pub(in crate::store) async fn list_grants(
        &self,
        tenant: Option<std::sync::Arc<str>>,
        after: Option<GrantCursor>,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<ListedGrant>, Error> {
        let select = format!(
            "SELECT {COLUMNS} FROM tenantd.grants
             WHERE (tenant, id) > ($1, $2) AND ($3::text IS NULL OR tenant = $3) AND expires_at > $4
                 AND number > 0
             ORDER BY tenant, id LIMIT $5"
        );
        // Of one tenant, only the id says where the list goes on.
        let after_id = after.as_ref().map_or(&[][..], |after| &after.id.0);
        let after_tenant = tenant.as_deref().or(after.as_ref().map(|after| &*after.tenant)).unwrap_or("");
        let values = [
            Value::Text(after_tenant),
            Value::Bytes(after_id),
            Value::MaybeText(tenant.as_deref()),
            Value::Number(now.as_second()),
            Value::Number(at_most.into()),
        ];
        let rows = self.link.query_rows(&select, &values, read_row).await?;
        Ok(rows.into_iter().map(|row| row.open_listed(&self.keyring)).collect())
    }

    pub(in crate::store) async fn count_grants(
        &self,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<(Incarnation, usize)>, Error> {
        const SELECT: &str = "
            SELECT tenant, incarnation, count(*) FROM
                (SELECT tenant, incarnation FROM tenantd.grants WHERE expires_at > $1 AND number > 0 LIMIT $2)
                AS counted
            GROUP BY tenant, incarnation";
        let values = [Value::Number(now.as_second()), Value::Number(at_most.into())];
        let read = |row: &Row| {
            let count: i64 = row.try_get(2)?;
            Ok((read_incarnation(row, 0, 1)?, usize::try_from(count).unwrap_or(usize::MAX)))
        };
        Ok(self.link.query_rows(SELECT, &values, read).await?)
    }

    pub(in crate::store) async fn take_code(
        &self,
        incarnation: &Incarnation,
        rotation: RotateGrant,
    ) -> Result<bool, Error> {
        debug_assert_eq!(rotation.from_sequence, 0, "the code is the first of a grant's tokens");
        self.advance_sequence(incarnation, rotation).await
    }

    pub(in crate::store) async fn rotate_refresh(
        &self,
        incarnation: &Incarnation,
        rotation: RotateGrant,
    ) -> Result<bool, Error> {
        debug_assert_ne!(rotation.from_sequence, 0, "the first of a grant's tokens is its code");
        self.advance_sequence(incarnation, rotation).await
    }

    async fn advance_sequence(
        &self,
        incarnation: &Incarnation,
        rotation: RotateGrant,
    ) -> Result<bool, Error> {
        // Whether the client hears of a code's first token is known once it is confirmed.
        const UPDATE: &str = "
            UPDATE tenantd.grants SET number = $6, issued_at = $7, expires_at = $8, ends_at = $9, payload = $10,
                rotated_number = $6, rotated_at = clock_timestamp(), unconfirmed = $6 = 1
            WHERE tenant = $1 AND incarnation = $2 AND id = $3 AND client_id = $4 AND number = $5
                AND expires_at > $7
            RETURNING id";
        // A sealed payload has a nonce, so it shows who wrote it.
        const IS_OURS: &str = "SELECT id FROM tenantd.grants WHERE tenant = $1 AND id = $2 AND payload = $3";
        let row = RotationRow::seal(&self.keyring, incarnation, rotation);
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Bytes(&row.id.0),
            Value::Text(&row.client_id),
            Value::Number(row.from.into()),
            Value::Number(row.number.into()),
            Value::Number(row.issued),
            Value::Number(row.expires),
            Value::Number(row.ends),
            Value::Bytes(&row.payload),
        ];
        let sent = self.link.query(UPDATE, &values).await;
        if sent.as_ref().is_ok_and(|rows| !rows.is_empty()) {
            return Ok(true);
        }
        let values = [Value::Text(incarnation.tenant()), Value::Bytes(&row.id.0), Value::Bytes(&row.payload)];
        match sent {
            // The statement may have been sent twice, and have done its work the first time.
            Ok(_) => Ok(!self.link.query(IS_OURS, &values).await?.is_empty()),
            Err(error) if error.leaves_doubt() => {
                if self.link.recheck(IS_OURS, &values).await.is_ok_and(|rows| !rows.is_empty()) {
                    return Ok(true);
                }
                // A code's first token is unconfirmed anyway.
                if row.from > 0 {
                    self.uncertain_rotations.insert(incarnation, row.id, &row.payload);
                }
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(in crate::store) async fn confirm_last_token(
        &self,
        incarnation: &Incarnation,
        id: GrantId,
        sequence: u32,
    ) -> Result<bool, Error> {
        const CONFIRM: &str = "
            UPDATE tenantd.grants SET unconfirmed = false, rotated_at = clock_timestamp()
            WHERE tenant = $1 AND incarnation = $2 AND id = $3
                AND number = $4 AND rotated_number = $4 AND unconfirmed
            RETURNING id";
        let values = [
            Value::Text(incarnation.tenant()),
            Value::Bytes(incarnation.id_bytes()),
            Value::Bytes(&id.0),
            Value::Number(sequence.into()),
        ];
        // Once: the second time it would take its own work for another's.
        Ok(!self.link.query_once(CONFIRM, &values).await?.is_empty())
    }

    pub(in crate::store) async fn delete_grants_of_client(
        &self,
        incarnation: &Incarnation,
        client_id: &str,
    ) -> Result<Vec<GrantId>, Error> {
        const DELETE: &str = "DELETE FROM tenantd.grants
                              WHERE tenant = $1 AND incarnation = $2 AND client_id = $3 RETURNING id";
        let values =
            [Value::Text(incarnation.tenant()), Value::Bytes(incarnation.id_bytes()), Value::Text(client_id)];
        // Once: the second time it would no longer know which they were.
        let rows = self.link.query_once(DELETE, &values).await?;
        Ok(self.link.read_rows(&rows, |row| read_id(row, 0).map(GrantId))?)
    }

    pub(in crate::store) async fn delete_expired(
        &self,
        now: Timestamp,
        at_most: u32,
    ) -> Result<usize, Error> {
        const DELETE: [&str; 3] = [
            "DELETE FROM tenantd.grants WHERE (tenant, id) IN
                 (SELECT tenant, id FROM tenantd.grants WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)
             RETURNING 1",
            "DELETE FROM tenantd.revocations WHERE (tenant, subject) IN
                 (SELECT tenant, subject FROM tenantd.revocations WHERE forget_at <= $1 LIMIT $2)
             RETURNING 1",
            "DELETE FROM tenantd.used_assertions WHERE digest IN
                 (SELECT digest FROM tenantd.used_assertions WHERE expires_at <= $1 LIMIT $2)
             RETURNING 1",
        ];
        let values = [Value::Number(now.as_second()), Value::Number(at_most.into())];
        let mut deleted = 0;
        for delete in DELETE {
            deleted += self.link.query(delete, &values).await?.len();
        }
        Ok(deleted)
    }
}

pub(super) fn read_row(row: &Row) -> Result<GrantRow, postgres::link::ReadError> {
    let number: i64 = row.try_get(4)?;
    Ok(GrantRow {
        incarnation: read_incarnation(row, 0, 1)?,
        id: GrantId(read_id(row, 2)?),
        client_id: row.try_get(3)?,
        number: u32::try_from(number).unwrap_or(u32::MAX),
        issued: row.try_get(5)?,
        expires: row.try_get(6)?,
        ends: row.try_get(7)?,
        family_key: row.try_get(8)?,
        payload: row.try_get(9)?,
    })
}

/// Reads the two columns after those of a row.
fn read_last_token(row: &Row) -> Result<LastToken, postgres::link::ReadError> {
    Ok(LastToken { age: SignedDuration::from_micros(row.try_get(10)?), is_unconfirmed: row.try_get(11)? })
}

/// Reads an incarnation from the columns of the tenant and of the id.
pub(super) fn read_incarnation(
    row: &Row,
    tenant: usize,
    id: usize,
) -> Result<Incarnation, postgres::link::ReadError> {
    let tenant: &str = row.try_get(tenant)?;
    Ok(Incarnation { tenant: tenant.into(), id: IncarnationId(read_id(row, id)?) })
}

/// Reads a column of 16 bytes.
pub(super) fn read_id(row: &Row, column: usize) -> Result<[u8; 16], postgres::link::ReadError> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into()?)
}
