//! A key with which a tenant signs access tokens.

use std::fmt;

use jiff::Timestamp;

/// A signing key of one tenant.
#[derive(Clone)]
pub struct SigningKey {
    /// Its RFC 7638 thumbprint.
    pub kid: String,
    /// From this time on new tokens are signed with it, until a later key takes over.
    pub signs_from: Timestamp,
    /// The private key, in the clear; it is sealed before it reaches the disk.
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
