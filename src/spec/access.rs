//! Who may call a tenant.

use std::sync::Arc;

use jiff::Timestamp;

use super::LoginSpec;
use crate::base::digest::Digest;

/// Who may call. Without keys and login the tenant is *open*: it answers loopback and private networks only, unless
/// `public`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessSpec {
    /// Static bearer keys, at most a handful.
    pub api_keys: Vec<ApiKeySpec>,
    /// Login with Microsoft.
    pub login: Option<Arc<LoginSpec>>,
    /// An open tenant that answers every address.
    pub public: bool,
    /// Its operator says in its files that it is to be open, whoever else guards the same data.
    pub open_on_purpose: bool,
}

impl AccessSpec {
    /// Whether no credential is asked for.
    pub fn is_open(&self) -> bool {
        self.api_keys.is_empty() && self.login.is_none()
    }
}

/// A static bearer key, kept as its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeySpec {
    /// What logs and audit call the holder.
    pub label: String,
    /// SHA-256 of the key.
    pub digest: Digest,
    /// From this moment on the key is refused.
    pub expires: Option<Timestamp>,
}
