//! A verified authorization request (RFC 6749 section 4.1.1). It is not stored: until the login is
//! finished, it travels sealed in the consent form and in the login's cookie.

use serde::{Deserialize, Serialize};

use super::authorization_response::AuthorizationResponse;

/// A verified authorization request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuthorizationRequest {
    pub(super) client_id: String,
    pub(super) client_name: Option<String>,
    pub(super) redirect_uri: String,
    /// Whether the request had the parameter; if so, the token request must repeat it.
    pub(super) redirect_uri_given: bool,
    /// Whether the operator or this program vouches for the client.
    #[serde(default)]
    pub(super) is_vouched_for: bool,
    pub(super) state: Option<String>,
    pub(super) code_challenge: Option<String>,
    pub(super) scope: String,
    pub(super) login_hint: Option<String>,
}

impl AuthorizationRequest {
    /// Returns the authorization response to this request.
    pub(super) fn response<'a>(&'a self, issuer: &'a str) -> AuthorizationResponse<'a> {
        AuthorizationResponse { redirect_uri: &self.redirect_uri, state: self.state.as_deref(), issuer }
    }
}
