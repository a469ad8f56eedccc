//! Revocations, sealed. They hide nothing; the seal is there so that nobody can change them.

use super::to_timestamp;
use crate::base::hex;
use crate::store::auth::grant::{Revocation, RevokedSubject, StoredRevocations};
use crate::store::auth::incarnation::Incarnation;
use crate::store::keyring::{Keyring, SealContext};

/// A revocation as it is stored. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct RevocationRow {
    pub(in crate::store) incarnation: Incarnation,
    pub(in crate::store) subject: Vec<u8>,
    pub(in crate::store) issued_until: i64,
    pub(in crate::store) forget_at: i64,
    pub(in crate::store) seal: Vec<u8>,
}

impl RevocationRow {
    pub(in crate::store) fn seal(
        keyring: &Keyring,
        incarnation: &Incarnation,
        revocation: &Revocation,
    ) -> Self {
        let mut row = Self {
            incarnation: incarnation.clone(),
            subject: revocation.subject.as_bytes().to_vec(),
            issued_until: revocation.issued_until.as_second(),
            forget_at: revocation.forget_at.as_second(),
            seal: Vec::new(),
        };
        let subject = row.subject_hex();
        row.seal = keyring.seal_row(&seal_context(incarnation, &subject), &row.clear_columns(), b"");
        row
    }

    pub(in crate::store) fn open(&self, keyring: &Keyring) -> Option<Revocation> {
        let revocation = self.read()?;
        let subject = self.subject_hex();
        let context = seal_context(&self.incarnation, &subject);
        keyring.open_row(&context, &self.clear_columns(), &self.seal)?;
        Some(revocation)
    }

    /// Seals a row of an earlier version, which had no seal. `None` if its subject is none.
    pub(in crate::store) fn seal_legacy(self, keyring: &Keyring) -> Option<Self> {
        let revocation = self.read()?;
        Some(Self::seal(keyring, &self.incarnation, &revocation))
    }

    /// Opens all rows, and counts those that do not open.
    pub(in crate::store) fn open_all(rows: Vec<Self>, keyring: &Keyring) -> StoredRevocations {
        let mut all = StoredRevocations::default();
        for row in rows {
            match row.open(keyring) {
                Some(revocation) => all.known.push((row.incarnation, revocation)),
                None => all.unreadable += 1,
            }
        }
        all
    }

    /// Returns the id of the grant that it is about, if it is about one.
    pub(in crate::store) fn grant_id(&self) -> Option<&[u8]> {
        matches!(RevokedSubject::from_bytes(&self.subject)?, RevokedSubject::Grant(_))
            .then_some(&self.subject[..])
    }

    fn read(&self) -> Option<Revocation> {
        Some(Revocation {
            subject: RevokedSubject::from_bytes(&self.subject)?,
            issued_until: to_timestamp(self.issued_until),
            forget_at: to_timestamp(self.forget_at),
        })
    }

    fn clear_columns(&self) -> [Vec<u8>; 3] {
        let times = [self.issued_until, self.forget_at].map(|time| time.to_be_bytes().to_vec());
        let [issued_until, forget_at] = times;
        [self.incarnation.id_bytes().to_vec(), issued_until, forget_at]
    }

    fn subject_hex(&self) -> String {
        let mut text = String::with_capacity(2 * self.subject.len());
        hex::write(&mut text, &self.subject).expect("writing to a String cannot fail");
        text
    }
}

fn seal_context<'a>(incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: "revoked", tenant: incarnation.tenant(), row }
}
