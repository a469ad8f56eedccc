//! Grants, sealed.

use jiff::{SignedDuration, Timestamp};

use super::to_timestamp;
use crate::store::auth::grant::{CreateGrant, Grant, GrantId, LastToken, ListedGrant, RotateGrant};
use crate::store::auth::incarnation::Incarnation;
use crate::store::keyring::{Keyring, SealContext};

/// A grant as it is stored. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct GrantRow {
    pub(in crate::store) incarnation: Incarnation,
    pub(in crate::store) id: GrantId,
    pub(in crate::store) client_id: String,
    /// The number of the one-time token that was issued last; 0 is the code.
    pub(in crate::store) number: u32,
    pub(in crate::store) issued: i64,
    pub(in crate::store) expires: i64,
    pub(in crate::store) ends: i64,
    pub(in crate::store) family_key: Vec<u8>,
    pub(in crate::store) payload: Vec<u8>,
}

/// A rotation, ready to be written. Times are seconds since 1970.
#[derive(Debug, Clone)]
pub(in crate::store) struct RotationRow {
    pub(in crate::store) incarnation: Incarnation,
    pub(in crate::store) id: GrantId,
    pub(in crate::store) client_id: String,
    /// The number of the token that is used up, and of the next one.
    pub(in crate::store) from: u32,
    pub(in crate::store) number: u32,
    pub(in crate::store) issued: i64,
    pub(in crate::store) expires: i64,
    pub(in crate::store) ends: i64,
    pub(in crate::store) payload: Vec<u8>,
}

impl GrantRow {
    pub(in crate::store) fn seal(keyring: &Keyring, incarnation: &Incarnation, grant: CreateGrant) -> Self {
        let CreateGrant { id, client_id, now, code_expires_at, family_key, payload } = grant;
        let expires = code_expires_at.as_second();
        let mut row = Self {
            incarnation: incarnation.clone(),
            id,
            client_id,
            number: 0,
            issued: now.as_second(),
            expires,
            ends: expires,
            family_key: Vec::new(),
            payload: Vec::new(),
        };
        row.seal_secrets(keyring, &family_key, &payload);
        row
    }

    /// Returns whether its sealed values open.
    pub(in crate::store) fn is_intact(&self, keyring: &Keyring) -> bool {
        self.open_family_key(keyring).is_some() && self.open_payload(keyring).is_some()
    }

    pub(in crate::store) fn open(self, keyring: &Keyring, last_token: LastToken) -> Option<Grant> {
        let family_key = self.open_family_key(keyring)?.try_into().ok()?;
        let payload = self.open_payload(keyring)?;
        let Self { id, client_id, number, ends, .. } = self;
        Some(Grant {
            id,
            client_id,
            last_sequence: number,
            last_token,
            ends_at: to_timestamp(ends),
            family_key,
            payload,
        })
    }

    /// Returns how long before `now` the last token was issued.
    pub(in crate::store) fn last_token_age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(to_timestamp(self.issued))
    }

    pub(in crate::store) fn open_listed(self, keyring: &Keyring) -> ListedGrant {
        let payload = self.open_payload(keyring);
        let Self { incarnation, id, client_id, issued, expires, ends, .. } = self;
        let [issued_at, expires_at, ends_at] = [issued, expires, ends].map(to_timestamp);
        ListedGrant { incarnation, id, client_id, issued_at, expires_at, ends_at, payload }
    }

    /// Seals the secrets of a row of an earlier version anew, so that their seals cover the rest of
    /// the row. What does not open stays as it is.
    pub(in crate::store) fn reseal_legacy(&mut self, keyring: &Keyring) {
        let row = self.id.to_string();
        let opened = keyring.open(&family_context(&self.incarnation, &row), &self.family_key);
        if let Some(family_key) = opened {
            self.seal_family_key(keyring, &family_key);
        }
        if let Some(payload) = keyring.open(&payload_context(&self.incarnation, &row), &self.payload) {
            self.seal_payload(keyring, &payload);
        }
    }

    fn seal_secrets(&mut self, keyring: &Keyring, family_key: &[u8], payload: &[u8]) {
        self.seal_family_key(keyring, family_key);
        self.seal_payload(keyring, payload);
    }

    fn seal_family_key(&mut self, keyring: &Keyring, family_key: &[u8]) {
        let Self { incarnation, client_id, .. } = self;
        let (row, clear) = (self.id.to_string(), family_clear_columns(incarnation, client_id));
        self.family_key = keyring.seal_row(&family_context(incarnation, &row), &clear, family_key);
    }

    fn seal_payload(&mut self, keyring: &Keyring, payload: &[u8]) {
        let (row, clear) = (self.id.to_string(), self.payload_clear_columns());
        self.payload = keyring.seal_row(&payload_context(&self.incarnation, &row), &clear, payload);
    }

    fn open_family_key(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        let Self { incarnation, client_id, .. } = self;
        let (row, clear) = (self.id.to_string(), family_clear_columns(incarnation, client_id));
        keyring.open_row(&family_context(incarnation, &row), &clear, &self.family_key)
    }

    fn open_payload(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        let (row, clear) = (self.id.to_string(), self.payload_clear_columns());
        keyring.open_row(&payload_context(&self.incarnation, &row), &clear, &self.payload)
    }

    fn payload_clear_columns(&self) -> Vec<Vec<u8>> {
        let Self { incarnation, client_id, number, issued, expires, ends, .. } = self;
        payload_clear_columns(incarnation, client_id, [i64::from(*number), *issued, *expires, *ends])
    }
}

impl RotationRow {
    pub(in crate::store) fn seal(
        keyring: &Keyring,
        incarnation: &Incarnation,
        rotation: RotateGrant,
    ) -> Self {
        let RotateGrant { id, from_sequence, client_id, now, expires_at, ends_at, payload } = rotation;
        let (issued, ends) = (now.as_second(), ends_at.as_second());
        let (number, expires) = (from_sequence.saturating_add(1), expires_at.as_second().min(ends));
        let row = id.to_string();
        let clear =
            payload_clear_columns(incarnation, &client_id, [i64::from(number), issued, expires, ends]);
        let payload = keyring.seal_row(&payload_context(incarnation, &row), &clear, &payload);
        let incarnation = incarnation.clone();
        Self { incarnation, id, client_id, from: from_sequence, number, issued, expires, ends, payload }
    }
}

/// The columns that change, in the order in which the seal covers them: the incarnation, the
/// client, and the numbers.
fn payload_clear_columns(incarnation: &Incarnation, client_id: &str, numbers: [i64; 4]) -> Vec<Vec<u8>> {
    let numbers = numbers.map(|number| number.to_be_bytes().to_vec());
    family_clear_columns(incarnation, client_id).into_iter().chain(numbers).collect()
}

fn family_clear_columns(incarnation: &Incarnation, client_id: &str) -> Vec<Vec<u8>> {
    vec![incarnation.id_bytes().to_vec(), client_id.as_bytes().to_vec()]
}

fn family_context<'a>(incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: "family", tenant: incarnation.tenant(), row }
}

fn payload_context<'a>(incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: "grant", tenant: incarnation.tenant(), row }
}
