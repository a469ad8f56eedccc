//! The keys with which tenants sign access tokens.

use rusqlite::{Row, Transaction, params};

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::sealed::SigningKeyRow;
use crate::store::auth::signing_key::SigningKey;
use crate::store::keyring::Keyring;

impl AuthTables {
    /// Returns the keys of a tenant, ordered by when they begin to sign.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read, [`Error::CannotUnseal`] if one does not open.
    pub(in crate::store) fn load_signing_keys(
        &self,
        incarnation: &Incarnation,
    ) -> Result<Vec<SigningKey>, Error> {
        const SELECT: &str = "SELECT kid, signs_from, pkcs8 FROM signing_keys WHERE tenant = ?1 AND life = ?2
             ORDER BY signs_from, kid";
        let read = || -> rusqlite::Result<Vec<SigningKeyRow>> {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| {
                read_row(row, incarnation)
            })?;
            rows.collect()
        };
        let rows = read().map_err(self.database.error())?;
        rows.iter().map(|row| row.open(&self.keyring)).collect::<Option<_>>().ok_or(Error::CannotUnseal)
    }

    /// Stores the first key of a tenant. Changes nothing if the tenant has a key already.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(in crate::store) fn insert_first_signing_key(
        &self,
        incarnation: &Incarnation,
        key: &SigningKey,
    ) -> Result<(), Error> {
        const INSERT: &str = "
            INSERT INTO signing_keys (tenant, life, kid, signs_from, pkcs8) SELECT ?1, ?2, ?3, ?4, ?5
            WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE tenant = ?1 AND life = ?2)";
        let row = SigningKeyRow::seal(&self.keyring, incarnation, key);
        self.database.commit(move |connection| {
            let SigningKeyRow { incarnation, kid, signs_from, pkcs8 } = row;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), kid, signs_from, pkcs8];
            connection.prepare_cached(INSERT)?.execute(parameters).map(drop)
        })
    }

    /// Adds a key to those of a tenant, and deletes the keys with the ids `gone`.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub(in crate::store) fn replace_signing_keys(
        &self,
        incarnation: &Incarnation,
        new: Option<&SigningKey>,
        gone: Vec<String>,
    ) -> Result<(), Error> {
        const INSERT: &str =
            "INSERT INTO signing_keys (tenant, life, kid, signs_from, pkcs8) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = new.map(|key| SigningKeyRow::seal(&self.keyring, incarnation, key));
        let incarnation = incarnation.clone();
        self.database.commit(move |connection| {
            for kid in gone {
                let delete = "DELETE FROM signing_keys WHERE tenant = ?1 AND life = ?2 AND kid = ?3";
                connection.execute(delete, params![incarnation.tenant(), incarnation.id_bytes(), kid])?;
            }
            if let Some(SigningKeyRow { kid, signs_from, pkcs8, .. }) = row {
                let parameters =
                    params![incarnation.tenant(), incarnation.id_bytes(), kid, signs_from, pkcs8];
                connection.execute(INSERT, parameters)?;
            }
            Ok(())
        })
    }

    /// Opens every key and returns how many there are.
    pub(in crate::store) fn verify_signing_keys(&self) -> Result<usize, Error> {
        let incarnations = self.incarnations_in("signing_keys")?;
        incarnations
            .iter()
            .map(|incarnation| self.load_signing_keys(incarnation).map(|keys| keys.len()))
            .sum()
    }
}

/// Assigns the keys of an earlier version to an incarnation.
pub(in crate::store) fn migrate_legacy(
    transaction: &Transaction<'_>,
    keys: &Keyring,
    incarnation: &Incarnation,
) -> rusqlite::Result<()> {
    let mut select =
        transaction.prepare("SELECT kid, signs_from, pkcs8 FROM signing_keys WHERE tenant = ?1")?;
    let rows = select.query_map([incarnation.tenant()], |row| read_row(row, incarnation))?;
    for mut row in rows.collect::<Result<Vec<_>, _>>()? {
        row.reseal_legacy(keys);
        let update = "UPDATE signing_keys SET life = ?3, pkcs8 = ?4 WHERE tenant = ?1 AND kid = ?2";
        let parameters = params![incarnation.tenant(), row.kid, incarnation.id_bytes(), row.pkcs8];
        transaction.execute(update, parameters)?;
    }
    Ok(())
}

fn read_row(row: &Row<'_>, incarnation: &Incarnation) -> rusqlite::Result<SigningKeyRow> {
    let incarnation = incarnation.clone();
    Ok(SigningKeyRow { incarnation, kid: row.get(0)?, signs_from: row.get(1)?, pkcs8: row.get(2)? })
}
