//! The format of sealed values (AES-256-GCM). Each is bound to its place: moved to another tenant,
//! purpose or row it does not open.
//!
//! Format: version (1 byte), key id (8), nonce (12), ciphertext and tag.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use super::master_key::KeyId;

const FORMAT_VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + size_of::<KeyId>() + NONCE_LEN;

/// The place that a sealed value is bound to.
#[derive(Debug, Clone, Copy)]
pub struct SealContext<'a> {
    /// What the value is for; each purpose of each tenant has its own key.
    pub purpose: &'a str,
    /// The tenant or entry that the value belongs to; empty if none.
    pub tenant: &'a str,
    /// The row within the purpose; empty if there is one for each tenant only.
    pub row: &'a str,
}

impl SealContext<'_> {
    /// Returns the associated data. Each field has its length in front, so that no two places, with
    /// whatever clear columns, have the same.
    pub(super) fn aad<C: AsRef<[u8]>>(&self, clear: &[C]) -> Vec<u8> {
        let context = [self.purpose, self.tenant, self.row].map(str::as_bytes);
        let mut out = vec![FORMAT_VERSION];
        for field in context.into_iter().chain(clear.iter().map(AsRef::as_ref)) {
            out.extend((field.len() as u64).to_be_bytes());
            out.extend(field);
        }
        out
    }
}

/// A sealed value, taken apart.
pub(super) struct SealedValue<'a> {
    /// The key that sealed it.
    pub(super) key_id: KeyId,
    nonce: &'a [u8],
    /// The ciphertext and its tag.
    body: &'a [u8],
}

impl<'a> SealedValue<'a> {
    /// Returns `None` if the bytes are too few, or of a version that is not known.
    pub(super) fn parse(sealed: &'a [u8]) -> Option<Self> {
        let (head, body) = sealed.split_at_checked(HEADER_LEN)?;
        let (version, head) = head.split_first()?;
        let (id, nonce) = head.split_at(size_of::<KeyId>());
        let key_id = id.try_into().ok()?;
        (*version == FORMAT_VERSION).then_some(Self { key_id, nonce, body })
    }

    /// Opens the value. Returns `None` if the key or the associated data are others than it was
    /// sealed with, or it was changed.
    pub(super) fn open(&self, key: &RandomizedNonceKey, aad: &[u8]) -> Option<Vec<u8>> {
        let nonce = Nonce::try_assume_unique_for_key(self.nonce).ok()?;
        let mut body = self.body.to_vec();
        let length = key.open_in_place(nonce, Aad::from(aad), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

/// Seals a value with the key of this id.
pub(super) fn seal(id: KeyId, key: &RandomizedNonceKey, aad: &[u8], value: &[u8]) -> Vec<u8> {
    let mut body = value.to_vec();
    let nonce =
        key.seal_in_place_append_tag(Aad::from(aad), &mut body).expect("a value in memory is short enough");
    let mut out = Vec::with_capacity(HEADER_LEN + body.len());
    out.push(FORMAT_VERSION);
    out.extend(id);
    out.extend(nonce.as_ref());
    out.extend(body);
    out
}

/// Returns the id of the key that sealed a value.
pub(super) fn key_id(sealed: &[u8]) -> Option<&[u8]> {
    sealed.get(1..1 + size_of::<KeyId>())
}
