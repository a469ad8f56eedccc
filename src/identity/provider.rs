//! The identity provider of one tenant, whichever it is. These are all the functions that `oauth`
//! uses.

use std::sync::Arc;

use jiff::Timestamp;
use url::Url;

use super::account::Account;
use super::brand::Brand;
use super::entra::{EntraConnection, EntraProvider};
use super::error::Error;
use super::examination::AppExamination;
use super::exchange::ProviderProblem;
use super::provider_login::{AuthRequest, LoginRejection, ProviderApp, ProviderLogin};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::spec::{LoginSpec, ProviderSpec, PublicUrl};
use crate::telemetry::metrics::Metrics;

/// The connections to identity providers that all tenants share.
#[derive(Debug)]
pub struct Providers {
    entra: Arc<EntraConnection>,
}

impl Providers {
    /// Creates the connections. Makes no request. `entra_authority` is the scheme and host of all
    /// of Entra's directories, e.g. `https://login.microsoftonline.com`.
    pub fn new(entra_authority: Url, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { entra: EntraConnection::new(entra_authority, clock, metrics) })
    }
}

/// Logs people in for one tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Provider {
    /// Microsoft Entra ID.
    Entra(EntraProvider),
}

/// Returns the words of a tenant's provider, for the texts that people read.
pub fn find_brand(provider: &ProviderSpec) -> &'static Brand {
    match provider {
        ProviderSpec::Entra(_) => &super::entra::BRAND,
    }
}

impl Provider {
    /// Creates the login of one tenant. Makes no request.
    pub fn new(providers: &Providers, login: &Arc<LoginSpec>, public_url: &PublicUrl) -> Self {
        match &login.provider {
            ProviderSpec::Entra(entra) => {
                Self::Entra(EntraProvider::new(&providers.entra, entra, login, public_url))
            }
        }
    }

    /// Returns the words for the texts that people read.
    pub fn brand(&self) -> &'static Brand {
        match self {
            Self::Entra(_) => &super::entra::BRAND,
        }
    }

    /// Returns the URL to send the person's browser to.
    pub fn authorize_url(&self, request: &AuthRequest<'_>) -> Url {
        match self {
            Self::Entra(entra) => entra.authorize_url(request),
        }
    }

    /// Returns the error for a callback with `error` instead of a code.
    pub fn redirect_error(&self, error: &str, description: Option<&str>) -> Error {
        match self {
            Self::Entra(entra) => entra.redirect_error(error, description),
        }
    }

    /// Redeems a code, which is valid once, and returns the login of an account that the tenant's
    /// rules admit.
    ///
    /// # Errors
    /// Fails if the provider refuses the code or does not answer in time, if the id_token is not
    /// valid, or if the tenant does not admit the account. The error is never of
    /// [`LoginErrorKind::Ended`](super::LoginErrorKind::Ended).
    pub async fn redeem_code(
        &self,
        code: &str,
        code_verifier: &Secret,
        nonce: &str,
    ) -> Result<ProviderLogin, Error> {
        match self {
            Self::Entra(entra) => entra.redeem_code(code, code_verifier, nonce).await,
        }
    }

    /// Verifies that the account is still valid and admitted, and returns its current state. If the
    /// login has no new refresh token, the given one stays valid; so it does after every error
    /// except [`LoginErrorKind::Ended`](super::LoginErrorKind::Ended).
    ///
    /// # Errors
    /// Fails with `Ended` if the account must log in again: the provider refused the token, the
    /// rules no longer admit the account, or the token is for another account. Other kinds are
    /// temporary or for the operator.
    pub async fn renew(&self, refresh_token: &Secret, account: &Account) -> Result<ProviderLogin, Error> {
        match self {
            Self::Entra(entra) => entra.renew(refresh_token, account).await,
        }
    }

    /// Verifies that an earlier login of the account is still valid, without asking the provider.
    ///
    /// # Errors
    /// Returns why not: its app or directory is not the tenant's any more, or the tenant does not
    /// admit such accounts.
    pub fn check_login(&self, app: &ProviderApp, account: &Account) -> Result<(), LoginRejection> {
        match self {
            Self::Entra(entra) => entra.check_login(app, account),
        }
    }

    /// Returns what prevents every login, according to the last exchange, and since when.
    pub fn problem(&self) -> Option<(ProviderProblem, Timestamp)> {
        match self {
            Self::Entra(entra) => entra.problem(),
        }
    }

    /// Asks the provider what it tells of the tenant's app without a person. For an operator who
    /// looks for a fault: it takes up to ten seconds for each question.
    pub async fn examine(&self) -> AppExamination {
        match self {
            Self::Entra(entra) => entra.examine().await,
        }
    }
}
