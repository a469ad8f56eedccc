//! What a login at a provider is asked for, what it brings, and what is remembered of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::base::secret::Secret;
use crate::spec::ProviderSpec;

/// The parameters of a login's authorization request to the provider.
#[derive(Debug, Clone, Copy)]
pub struct AuthRequest<'a> {
    /// The provider returns it with the code.
    pub state: &'a str,
    /// The provider returns it in the id_token.
    pub nonce: &'a str,
    /// The S256 challenge of the verifier that the code is redeemed with (RFC 7636).
    pub code_challenge: &'a str,
    /// The account that the person most likely wants to use.
    pub login_hint: Option<&'a str>,
}

/// A successful login: the account may use the tenant.
#[derive(Debug, Clone)]
pub struct ProviderLogin {
    /// The account that logged in.
    pub account: Account,
    /// The provider's refresh token, with which the login is renewed. Keep it sealed.
    pub refresh_token: Option<Secret>,
}

/// The app and directory of a login, as the tenant's file named them at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderApp {
    /// The app's (client) id at the provider.
    pub app: Arc<str>,
    /// The name of the directory, or of several: the part of the provider that has the accounts.
    pub directory: Arc<str>,
}

impl ProviderApp {
    /// Returns the app and directory that the tenant's file names now.
    pub fn from_spec(provider: &ProviderSpec) -> Self {
        match provider {
            ProviderSpec::Entra(entra) => {
                Self { app: Arc::clone(&entra.client_id), directory: entra.directory.url_segment() }
            }
        }
    }

    /// Returns an app that is no tenant's, for logins of unknown origin.
    pub fn unknown() -> Self {
        Self { app: "".into(), directory: "".into() }
    }
}

/// Why an earlier login is no longer valid under the tenant's current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRejection {
    /// It was made with another app or directory; a new login, perhaps with another account,
    /// resolves it.
    OtherProviderApp,
    /// The tenant does not admit accounts of this kind.
    NotAdmitted,
}
