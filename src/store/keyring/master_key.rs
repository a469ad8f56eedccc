//! One master key, and the keys that derive from it (HKDF-SHA256, RFC 5869).

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};

use crate::base::digest::Hasher;
use crate::base::hex;

/// The id of a key, part of every value it sealed.
pub(super) type KeyId = [u8; 8];

/// A master key. It seals nothing itself.
pub(super) struct MasterKey {
    pub(super) id: KeyId,
    root: hkdf::Prk,
}

impl MasterKey {
    /// Parses 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = hex::decode(text)?;
        let root = hkdf::Salt::new(HKDF_SHA256, b"tenantd store 1").extract(&bytes);
        let mut id = KeyId::default();
        expand(&root, &["key id"], &mut id);
        Some(Self { id, root })
    }

    /// Returns the sealing key of a purpose.
    pub(super) fn derive_key(&self, purpose: &[&str]) -> RandomizedNonceKey {
        let bytes = self.derive_bytes(purpose);
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).expect("the key has the algorithm's length")
    }

    /// Returns key material for a purpose.
    pub(super) fn derive_bytes(&self, purpose: &[&str]) -> [u8; 32] {
        let mut bytes = [0; 32];
        expand(&self.root, purpose, &mut bytes);
        bytes
    }
}

/// An output length for HKDF, in bytes.
struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(root: &hkdf::Prk, purpose: &[&str], out: &mut [u8]) {
    let mut fields = Hasher::new();
    purpose.iter().for_each(|field| fields.update_field(field.as_bytes()));
    let info = fields.finish().to_string();
    let info = [info.as_bytes()];
    let material = root.expand(&info, OutputLength(out.len())).expect("so few bytes can be had");
    material.fill(out).expect("the length is the one asked for");
}
