//! The one-time tokens of a grant, which derive from its key and their number.

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::base::secret::Secret;
use crate::store::{Grant, GrantId};

/// One of a grant's tokens: `c.<grant_id>.0.<proof>` or `rt.<grant_id>.<sequence>.<proof>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GrantToken {
    pub(super) id: GrantId,
    pub(super) sequence: u32,
}

impl GrantToken {
    fn prefix(self) -> &'static str {
        if self.sequence == 0 { "c" } else { "rt" }
    }

    pub(super) fn parse(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.splitn(4, '.');
        let (kind, id, sequence, proof) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let token = Self { id: GrantId::parse(id)?, sequence: sequence.parse().ok()? };
        // Each number has a single spelling.
        (kind == token.prefix() && sequence == token.sequence.to_string()).then_some((token, proof))
    }

    pub(super) fn to_secret(self, family_key: &[u8; 32]) -> Secret {
        let Self { id, sequence } = self;
        Secret::new(format!("{}.{id}.{sequence}.{}", self.prefix(), self.compute_proof(family_key)))
    }

    fn compute_proof(self, family_key: &[u8; 32]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, family_key);
        let tag = hmac::sign(&key, format!("{}.{}", self.prefix(), self.sequence).as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(tag)
    }

    /// Whether the grant has issued this token. Compares the proof in constant time.
    pub(super) fn is_genuine(self, grant: &Grant, proof: &str) -> bool {
        let expected = self.compute_proof(&grant.family_key);
        self.sequence <= grant.last_sequence
            && constant_time::verify_slices_are_equal(expected.as_bytes(), proof.as_bytes()).is_ok()
    }
}
