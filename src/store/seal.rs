//! Sealing with AES-256-GCM. Each sealed value is bound to its place: moved to another tenant,
//! purpose or row it does not open.
//!
//! Format: version (1 byte), key id (8), nonce (12), ciphertext and tag.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};

use super::keyring::{KeyId, Keyring};

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
    fn aad<C: AsRef<[u8]>>(&self, clear: &[C]) -> Vec<u8> {
        let place = [self.purpose, self.tenant, self.row].map(str::as_bytes);
        let mut out = vec![FORMAT_VERSION];
        for field in place.into_iter().chain(clear.iter().map(AsRef::as_ref)) {
            out.extend((field.len() as u64).to_be_bytes());
            out.extend(field);
        }
        out
    }
}

impl Keyring {
    /// Seals a value for its place.
    pub(super) fn seal(&self, place: &SealContext<'_>, value: &[u8]) -> Vec<u8> {
        self.seal_row::<&[u8]>(place, &[], value)
    }

    /// Seals a value for its place and for the clear columns beside it: it opens only with exactly
    /// those.
    pub(super) fn seal_row<C: AsRef<[u8]>>(
        &self,
        place: &SealContext<'_>,
        clear: &[C],
        value: &[u8],
    ) -> Vec<u8> {
        let (id, key) = self.current_key(&[place.purpose, place.tenant]);
        let mut body = value.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(place.aad(clear)), &mut body)
            .expect("a value in memory is short enough");
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        out.push(FORMAT_VERSION);
        out.extend(id);
        out.extend(nonce.as_ref());
        out.extend(body);
        out
    }

    /// Returns whether a value was sealed with the key that seals now.
    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.get(1..1 + size_of::<KeyId>()) == Some(&self.current_id()[..])
    }

    /// Opens the value of a place. Returns `None` if it was sealed with a key that is not in the
    /// keyring or for another place, or was changed.
    pub(super) fn open(&self, place: &SealContext<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_row::<&[u8]>(place, &[], sealed)
    }

    /// Opens the value of a place, if the clear columns beside it are those it was sealed with.
    pub(super) fn open_row<C: AsRef<[u8]>>(
        &self,
        place: &SealContext<'_>,
        clear: &[C],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let (head, body) = sealed.split_at_checked(HEADER_LEN)?;
        let (version, head) = head.split_first()?;
        let (id, nonce) = head.split_at(size_of::<KeyId>());
        if *version != FORMAT_VERSION {
            return None;
        }
        let key = self.key_by_id(id.try_into().ok()?, &[place.purpose, place.tenant])?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let length = key.open_in_place(nonce, Aad::from(place.aad(clear)), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::super::KeySource;
    use super::*;
    use crate::base::secret::Secret;

    fn keys(text: &str) -> Keyring {
        let source = KeySource::Variable(Secret::new(text));
        Keyring::load(std::path::Path::new("/nowhere"), &source, true)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_value_opens_in_its_place_only() {
        let keys = keys(&"ab".repeat(32));
        let place = |purpose, tenant, row| SealContext { purpose, tenant, row };
        let sealed = keys.seal(&place("revision", "acme", "1"), b"value");
        assert_eq!(keys.open(&place("revision", "acme", "1"), &sealed).as_deref(), Some(&b"value"[..]));
        for other in [("code", "acme", "1"), ("revision", "beta", "1"), ("revision", "acme", "2")] {
            assert_eq!(keys.open(&place(other.0, other.1, other.2), &sealed), None, "{other:?}");
        }
        let mut changed = sealed.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        assert_eq!(keys.open(&place("revision", "acme", "1"), &changed), None);
        assert_eq!(keys.open(&place("revision", "acme", "1"), &sealed[..5]), None);
        assert!(!sealed.windows(5).any(|window| window == b"value"));
    }

    #[test]
    fn a_row_opens_with_its_other_columns_only() {
        let keys = keys(&"ab".repeat(32));
        let place = SealContext { purpose: "grant", tenant: "acme", row: "1" };
        let sealed = keys.seal_row(&place, &["ab", "c"], b"value");
        assert_eq!(keys.open_row(&place, &["ab", "c"], &sealed).as_deref(), Some(&b"value"[..]));
        for other in [&["ab", "d"][..], &["a", "bc"], &["ab"], &["ab", "c", ""], &[]] {
            assert_eq!(keys.open_row(&place, other, &sealed), None, "{other:?}");
        }
    }

    #[test]
    fn a_replaced_key_still_opens_while_it_is_kept() {
        let (old, new) = ("ab".repeat(32), "cd".repeat(32));
        let place = SealContext { purpose: "revision", tenant: "acme", row: "1" };
        let sealed = keys(&old).seal(&place, b"value");
        assert!(keys(&format!("{new}\n{old}")).open(&place, &sealed).is_some());
        assert!(keys(&new).open(&place, &sealed).is_none());
    }
}
