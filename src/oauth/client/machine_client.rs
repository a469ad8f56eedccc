//! Clients in the tenant's file: programs without a user (RFC 6749 section 4.4).

use std::sync::Arc;

use super::{ClientAuthMethods, ClientKeys, ClientOrigin, OAuthClient};
use crate::spec::LoginSpec;

/// Returns the machine client with this id.
pub(super) fn find(login: &LoginSpec, id: &str) -> Option<OAuthClient> {
    let spec = login.find_machine_client(id)?;
    // The JSON was validated when the file was loaded.
    let keys = spec.jwks.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let secrets: Vec<_> = spec.secret.into_iter().collect();
    Some(OAuthClient {
        id: Arc::clone(&spec.id),
        name: Some(Arc::clone(&spec.label)),
        origin: ClientOrigin::Machine,
        redirect_uris: Vec::new(),
        authentication: ClientAuthMethods {
            none: false,
            basic: !secrets.is_empty(),
            post: !secrets.is_empty(),
            secrets,
            keys: keys.map(|set| ClientKeys::Inline(Arc::new(set))),
        },
    })
}
