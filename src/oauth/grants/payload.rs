//! What a grant keeps, sealed in the store.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::replaced_tokens::ReplacedTokens;
use crate::identity::{Account, ProviderApp};
use crate::oauth::error::Unavailable;
use crate::oauth::pkce;
use crate::store::Grant;

/// The contents of a grant, sealed in the store.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::oauth) struct GrantPayload {
    #[serde(rename = "person")]
    pub(in crate::oauth) account: Account,
    /// The app and directory of the login; grants of older versions have none.
    #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
    pub(super) provider_app: Option<ProviderApp>,
    pub(in crate::oauth) scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) client_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) redirect_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) code_challenge: Option<String>,
    /// The provider's refresh token.
    #[serde(rename = "upstream", default, skip_serializing_if = "Option::is_none")]
    pub(super) provider_refresh_token: Option<String>,
    /// The tokens that were replaced lately.
    #[serde(rename = "replaced", default, skip_serializing_if = "ReplacedTokens::is_empty")]
    pub(super) replaced_tokens: ReplacedTokens,
}

impl GrantPayload {
    pub(super) fn decode(grant: &Grant) -> Result<Self, Unavailable> {
        Self::parse(&grant.payload)
    }

    pub(in crate::oauth) fn parse(payload: &[u8]) -> Result<Self, Unavailable> {
        serde_json::from_slice(payload).map_err(|error| {
            tracing::error!(%error, "a grant in the store cannot be read");
            Unavailable
        })
    }

    /// Whether this is the verifier of the code's challenge.
    pub(super) fn is_verified_by(&self, verifier: Option<&str>) -> bool {
        let challenge = self.code_challenge.as_deref();
        challenge.zip(verifier).is_some_and(|(challenge, verifier)| pkce::verify(challenge, verifier))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("details are plain data")
    }
}

impl fmt::Debug for GrantPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantPayload").field("scope", &self.scope).finish_non_exhaustive()
    }
}
