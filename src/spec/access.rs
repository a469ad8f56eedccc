//! Who may call a tenant.

use std::sync::Arc;

use jiff::Timestamp;

use super::{AllowFrom, LoginSpec};
use crate::base::digest::Digest;

/// The callers that a tenant accepts. Without keys and login the tenant is *open*: it answers
/// callers on loopback and private networks only, unless it is `public`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessSpec {
    /// Static bearer keys, at most a handful.
    pub api_keys: Vec<ApiKeySpec>,
    /// The login with Microsoft.
    pub login: Option<Arc<LoginSpec>>,
    /// Whether an open tenant answers callers from every address.
    pub public: bool,
    /// Whether the operator's files say that the tenant is to be open, even if another one guards
    /// the same data.
    pub open_on_purpose: bool,
    /// The networks from which the tenant answers at all.
    pub allow_from: AllowFrom,
}

impl AccessSpec {
    /// Returns whether the tenant asks for no credential.
    pub fn is_open(&self) -> bool {
        self.api_keys.is_empty() && self.login.is_none()
    }
}

/// A static bearer key, stored as its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeySpec {
    /// The name of the holder in logs and the audit.
    pub label: String,
    /// SHA-256 of the key.
    pub digest: Digest,
    /// From this time on the key is refused.
    pub expires: Option<Timestamp>,
}
