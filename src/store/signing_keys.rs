//! The keys that tenants sign with.

use std::fmt;

use jiff::Timestamp;
use rusqlite::params;

use super::seal::Place;
use super::{Error, Store};

/// A key of one tenant.
#[derive(Clone)]
pub struct SigningKey {
    /// Its RFC 7638 thumbprint.
    pub kid: String,
    /// From then on new tokens are signed with it, unless a later one signs already.
    pub signs_from: Timestamp,
    /// The private key, in the clear; sealed on its way to the disk.
    pub pkcs8: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The keys of a tenant, the one that signs first in front.
    pub fn signing_keys(&self, tenant: &str) -> Result<Vec<SigningKey>, Error> {
        const SELECT: &str =
            "SELECT kid, signs_from, pkcs8 FROM signing_keys WHERE tenant = ?1 ORDER BY signs_from, kid";
        let read = || -> rusqlite::Result<Vec<(String, i64, Vec<u8>)>> {
            let connection = self.connection();
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map([tenant], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        };
        let open = |(kid, signs_from, sealed): (String, i64, Vec<u8>)| {
            let pkcs8 = self.keys.open(&place(tenant, &kid), &sealed)?;
            let signs_from = Timestamp::from_second(signs_from).ok()?;
            Some(SigningKey { kid, signs_from, pkcs8 })
        };
        let rows = read().map_err(self.failed())?;
        rows.into_iter().map(open).collect::<Option<_>>().ok_or(Error::Sealed)
    }

    /// Keeps the first key of a tenant. Where there is one already, nothing changes.
    pub fn begin_signing(&self, tenant: &str, key: &SigningKey) -> Result<(), Error> {
        const INSERT: &str = "
            INSERT INTO signing_keys (tenant, kid, signs_from, pkcs8) SELECT ?1, ?2, ?3, ?4
            WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE tenant = ?1)";
        let (tenant, row) = (tenant.to_owned(), self.sealed(tenant, key));
        self.commit(move |connection| {
            let (kid, signs_from, sealed) = row;
            connection.prepare_cached(INSERT)?.execute(params![tenant, kid, signs_from, sealed]).map(drop)
        })
    }

    /// Adds a key to those of a tenant, and deletes others.
    pub fn replace_signing_keys(
        &self,
        tenant: &str,
        new: Option<&SigningKey>,
        gone: Vec<String>,
    ) -> Result<(), Error> {
        const INSERT: &str =
            "INSERT INTO signing_keys (tenant, kid, signs_from, pkcs8) VALUES (?1, ?2, ?3, ?4)";
        let row = new.map(|key| self.sealed(tenant, key));
        let tenant = tenant.to_owned();
        self.commit(move |connection| {
            for kid in gone {
                let delete = "DELETE FROM signing_keys WHERE tenant = ?1 AND kid = ?2";
                connection.execute(delete, params![tenant, kid])?;
            }
            if let Some((kid, signs_from, sealed)) = row {
                connection.execute(INSERT, params![tenant, kid, signs_from, sealed])?;
            }
            Ok(())
        })
    }

    fn sealed(&self, tenant: &str, key: &SigningKey) -> (String, i64, Vec<u8>) {
        let sealed = self.keys.seal(&place(tenant, &key.kid), &key.pkcs8);
        (key.kid.clone(), key.signs_from.as_second(), sealed)
    }

    /// Opens every key. Says how many there are.
    pub(super) fn open_signing_keys(&self) -> Result<usize, Error> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let connection = self.connection();
            let mut select = connection.prepare("SELECT DISTINCT tenant FROM signing_keys")?;
            select.query_map([], |row| row.get(0))?.collect()
        };
        let tenants = read().map_err(self.failed())?;
        tenants.iter().map(|tenant| self.signing_keys(tenant).map(|keys| keys.len())).sum()
    }
}

fn place<'a>(tenant: &'a str, kid: &'a str) -> Place<'a> {
    Place { purpose: "signing-key", tenant, row: kid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::store;

    #[test]
    fn the_first_key_is_the_first_that_came() {
        let (_folder, store) = store();
        let key =
            |kid: &str| SigningKey { kid: kid.into(), signs_from: Timestamp::UNIX_EPOCH, pkcs8: vec![7] };
        store.begin_signing("acme", &key("first")).expect("kept");
        store.begin_signing("acme", &key("second")).expect("passed over");
        store.begin_signing("beta", &key("second")).expect("kept");
        let kids = |tenant: &str| -> Vec<_> {
            store.signing_keys(tenant).expect("read").into_iter().map(|key| key.kid).collect()
        };
        assert_eq!((kids("acme"), kids("beta")), (vec!["first".to_owned()], vec!["second".to_owned()]));
    }
}
