//! The keys with which tenants sign access tokens.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::AuthTables;
use crate::store::Error;
use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::signing_key::SigningKey;
use crate::store::keyring::{Keyring, SealContext};

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
        let read = || -> rusqlite::Result<Vec<(String, i64, Vec<u8>)>> {
            let connection = self.database.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map(params![incarnation.tenant(), incarnation.id_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect()
        };
        let open = |(kid, signs_from, sealed): (String, i64, Vec<u8>)| {
            let pkcs8 = self.keyring.open_row(
                &seal_context(incarnation.tenant(), &kid),
                &clear_columns(incarnation, signs_from),
                &sealed,
            )?;
            let signs_from = Timestamp::from_second(signs_from).ok()?;
            Some(SigningKey { kid, signs_from, pkcs8 })
        };
        let rows = read().map_err(self.database.error())?;
        rows.into_iter().map(open).collect::<Option<_>>().ok_or(Error::CannotUnseal)
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
        let (incarnation, row) = (incarnation.clone(), seal_key_row(&self.keyring, incarnation, key));
        self.database.commit(move |connection| {
            let (kid, signs_from, sealed) = row;
            let parameters = params![incarnation.tenant(), incarnation.id_bytes(), kid, signs_from, sealed];
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
        let row = new.map(|key| seal_key_row(&self.keyring, incarnation, key));
        let incarnation = incarnation.clone();
        self.database.commit(move |connection| {
            for kid in gone {
                let delete = "DELETE FROM signing_keys WHERE tenant = ?1 AND life = ?2 AND kid = ?3";
                connection.execute(delete, params![incarnation.tenant(), incarnation.id_bytes(), kid])?;
            }
            if let Some((kid, signs_from, sealed)) = row {
                let parameters =
                    params![incarnation.tenant(), incarnation.id_bytes(), kid, signs_from, sealed];
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

fn seal_key_row(keys: &Keyring, incarnation: &Incarnation, key: &SigningKey) -> (String, i64, Vec<u8>) {
    let signs_from = key.signs_from.as_second();
    let sealed = keys.seal_row(
        &seal_context(incarnation.tenant(), &key.kid),
        &clear_columns(incarnation, signs_from),
        &key.pkcs8,
    );
    (key.kid.clone(), signs_from, sealed)
}

/// Assigns the keys of an earlier version to an incarnation.
pub(in crate::store) fn migrate_legacy(
    transaction: &Transaction<'_>,
    keys: &Keyring,
    incarnation: &Incarnation,
) -> rusqlite::Result<()> {
    let mut select =
        transaction.prepare("SELECT kid, signs_from, pkcs8 FROM signing_keys WHERE tenant = ?1")?;
    let rows = select.query_map([incarnation.tenant()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, i64, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    for (kid, signs_from, legacy_key) in rows {
        let context = seal_context(incarnation.tenant(), &kid);
        let opened = keys.open(&context, &legacy_key);
        let sealed = opened.map_or(legacy_key, |pkcs8| {
            keys.seal_row(&context, &clear_columns(incarnation, signs_from), &pkcs8)
        });
        let update = "UPDATE signing_keys SET life = ?3, pkcs8 = ?4 WHERE tenant = ?1 AND kid = ?2";
        transaction.execute(update, params![incarnation.tenant(), kid, incarnation.id_bytes(), sealed])?;
    }
    Ok(())
}

/// The columns that the seal covers but does not encrypt.
fn clear_columns(incarnation: &Incarnation, signs_from: i64) -> [Vec<u8>; 2] {
    [incarnation.id_bytes().to_vec(), signs_from.to_be_bytes().to_vec()]
}

fn seal_context<'a>(tenant: &'a str, kid: &'a str) -> SealContext<'a> {
    SealContext { purpose: "signing-key", tenant, row: kid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testkit::new_auth_tables;

    #[test]
    fn only_the_first_signing_key_is_inserted() {
        let (_folder, store) = new_auth_tables();
        let key =
            |kid: &str| SigningKey { kid: kid.into(), signs_from: Timestamp::UNIX_EPOCH, pkcs8: vec![7] };
        let (acme, beta) = (Incarnation::new(&"acme".into()), Incarnation::new(&"beta".into()));
        store.insert_first_signing_key(&acme, &key("first")).expect("kept");
        store.insert_first_signing_key(&acme, &key("second")).expect("passed over");
        store.insert_first_signing_key(&beta, &key("second")).expect("kept");
        let kids = |incarnation: &Incarnation| -> Vec<_> {
            store.load_signing_keys(incarnation).expect("read").into_iter().map(|key| key.kid).collect()
        };
        assert_eq!((kids(&acme), kids(&beta)), (vec!["first".to_owned()], vec!["second".to_owned()]));
        let again = Incarnation::new(&"acme".into());
        assert!(kids(&again).is_empty(), "another incarnation has none");
        store.insert_first_signing_key(&again, &key("third")).expect("kept");
        assert_eq!(kids(&again), ["third"]);
    }
}
