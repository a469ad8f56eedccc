//! One tenant's side of the login.

use std::sync::Arc;

use url::Url;

use super::{Entra, Error, Person};
use crate::base::secret::Secret;
use crate::spec::{LoginSpec, PublicUrl};

/// Logs people in for one tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Provider {
    entra: Arc<Entra>,
    login: Arc<LoginSpec>,
    public_url: PublicUrl,
}

/// What a login asks Entra for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub state: &'a str,
    /// Comes back inside the id_token.
    pub nonce: &'a str,
    /// S256 of the verifier that [`Provider::redeem`] is given (RFC 7636).
    pub code_challenge: &'a str,
    /// The account that the person most likely means.
    pub login_hint: Option<&'a str>,
}

/// A login that succeeded.
#[derive(Debug, Clone)]
pub struct Login {
    pub person: Person,
    /// Entra's; [`Provider::renew`] takes it. Keep it sealed.
    pub refresh_token: Option<Secret>,
}

impl Provider {
    /// The login of one tenant.
    pub fn new(entra: &Arc<Entra>, login: &Arc<LoginSpec>, public_url: &PublicUrl) -> Self {
        Self { entra: entra.clone(), login: login.clone(), public_url: public_url.clone() }
    }

    /// Where to send the person's browser.
    pub fn authorize_url(&self, _ask: &Ask<'_>) -> Url {
        self.entra.authority().clone()
    }

    /// What it means that Entra sent the person back with `error` instead of a code.
    pub fn refusal(&self, _error: &str, _description: Option<&str>) -> Error {
        Error::down()
    }

    /// Makes a person of a code. A code is good once.
    pub async fn redeem(&self, _code: &str, _code_verifier: &Secret, _nonce: &str) -> Result<Login, Error> {
        let _ = (&self.login, &self.public_url);
        Err(Error::down())
    }

    /// Whether the account is still good, and what it is now. The token given remains usable unless the answer holds another.
    pub async fn renew(&self, _refresh_token: &Secret) -> Result<Login, Error> {
        Err(Error::down())
    }
}
