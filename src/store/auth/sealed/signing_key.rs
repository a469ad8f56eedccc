//! Signing keys, sealed.

use jiff::Timestamp;

use crate::store::auth::incarnation::Incarnation;
use crate::store::auth::signing_key::SigningKey;
use crate::store::keyring::{Keyring, SealContext};

/// A signing key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct SigningKeyRow {
    pub(in crate::store) incarnation: Incarnation,
    pub(in crate::store) kid: String,
    /// In seconds since 1970.
    pub(in crate::store) signs_from: i64,
    pub(in crate::store) pkcs8: Vec<u8>,
}

impl SigningKeyRow {
    pub(in crate::store) fn seal(keyring: &Keyring, incarnation: &Incarnation, key: &SigningKey) -> Self {
        let signs_from = key.signs_from.as_second();
        let context = seal_context(incarnation.tenant(), &key.kid);
        let pkcs8 = keyring.seal_row(&context, &clear_columns(incarnation, signs_from), &key.pkcs8);
        Self { incarnation: incarnation.clone(), kid: key.kid.clone(), signs_from, pkcs8 }
    }

    pub(in crate::store) fn open(&self, keyring: &Keyring) -> Option<SigningKey> {
        let Self { incarnation, kid, signs_from, pkcs8 } = self;
        let context = seal_context(incarnation.tenant(), kid);
        let pkcs8 = keyring.open_row(&context, &clear_columns(incarnation, *signs_from), pkcs8)?;
        let signs_from = Timestamp::from_second(*signs_from).ok()?;
        Some(SigningKey { kid: kid.clone(), signs_from, pkcs8 })
    }

    /// Seals the key of an earlier version anew, so that its seal covers the rest of the row. A key
    /// that does not open stays as it is.
    pub(in crate::store) fn reseal_legacy(&mut self, keyring: &Keyring) {
        let context = seal_context(self.incarnation.tenant(), &self.kid);
        if let Some(pkcs8) = keyring.open(&context, &self.pkcs8) {
            self.pkcs8 =
                keyring.seal_row(&context, &clear_columns(&self.incarnation, self.signs_from), &pkcs8);
        }
    }
}

/// The columns that the seal covers but does not encrypt.
fn clear_columns(incarnation: &Incarnation, signs_from: i64) -> [Vec<u8>; 2] {
    [incarnation.id_bytes().to_vec(), signs_from.to_be_bytes().to_vec()]
}

fn seal_context<'a>(tenant: &'a str, kid: &'a str) -> SealContext<'a> {
    SealContext { purpose: "signing-key", tenant, row: kid }
}
