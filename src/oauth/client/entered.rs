//! Clients that an operator entered with `tenantd clients add`, for applications that insist on a client id.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Authentication, Client, Origin, RedirectUri};
use crate::base::digest::Digest;

/// What the store keeps of such a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entered {
    pub name: String,
    pub redirect_uris: Vec<String>,
    /// SHA-256 of its secret in hexadecimal digits; none: a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_sha256: Option<String>,
    pub entered_at: Timestamp,
}

impl Entered {
    /// Reads what the store kept.
    pub fn read(document: &[u8]) -> Option<Self> {
        serde_json::from_slice(document).ok()
    }

    /// What the store is to keep.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data can be written")
    }

    pub(super) fn client(&self, id: &str) -> Client {
        let secrets: Vec<_> = self.secret_sha256.iter().filter_map(|text| Digest::parse_hex(text)).collect();
        let has_secret = self.secret_sha256.is_some();
        Client {
            id: id.into(),
            name: Some(Arc::from(self.name.as_str())),
            origin: Origin::Operator,
            redirect_uris: self.redirect_uris.iter().filter_map(|uri| RedirectUri::parse(uri).ok()).collect(),
            authentication: Authentication {
                none: !has_secret,
                basic: has_secret,
                post: has_secret,
                secrets,
                keys: None,
            },
        }
    }
}
