//! The grants of one tenant: what people allowed clients to do, from the code to the last refresh
//! token.
//!
//! A grant is a family of one-time tokens, numbered from 0, the code. Each token derives from the
//! family's key and its number (HMAC-SHA-256), so none of them is stored. The latest one can be
//! issued again to a client that did not receive it: within a minute, and only in exchange for its
//! predecessor. An older token that was replaced within that minute is refused, since a network may
//! have delivered it late, and so is a code with its verifier; any other means that one was stolen, so
//! it revokes the grant (OAuth 2.1 section 4.3.1). A forged token has no effect.
//!
//! Several gateways may be asked at once, and a database may go away at any moment. So before a
//! token is called invalid the grant is read again, a token is judged by what was in force when it
//! arrived, and a token that may have reached nobody leaves its predecessor valid until somebody has
//! it.

mod access;
mod code;
mod payload;
mod refresh;
mod replaced_tokens;
mod revocation;
mod token;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::context::AuthContext;
use super::credential_fingerprint::CredentialFingerprints;
use super::error::Unavailable;
use super::issuer::Issuer;
use crate::base::secret::Secret;
use crate::identity::{Account, Provider, ProviderApp};
use crate::spec::{LoginSpec, ResourceSpelling};
use crate::store::{Grant, GrantId};

pub(super) use payload::GrantPayload;
pub(super) use revocation::revocation_at;
use token::GrantToken;

const REFRESH_IDLE_LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The maximum lifetime of a grant: that of Entra's own refresh tokens.
pub(super) const MAX_GRANT_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A completed login, for a client that may have a code now.
#[derive(Debug)]
pub struct NewGrant {
    /// The client that the grant is for.
    pub client_id: String,
    /// The client's name on the consent page.
    pub client_name: Option<String>,
    /// The redirect URI if the request had one; the token request must repeat it (RFC 6749 section
    /// 4.1.3).
    pub redirect_uri: Option<String>,
    /// The S256 challenge (RFC 7636). Without one, the token request must have no verifier.
    pub code_challenge: Option<String>,
    /// The granted scopes, in the client's spelling and order.
    pub scope: String,
    /// The account that logged in.
    pub account: Account,
    /// The provider's refresh token.
    pub provider_refresh_token: Option<Secret>,
}

/// The grants of one tenant.
#[derive(Debug)]
pub struct Grants {
    issuer: Arc<Issuer>,
    context: Arc<AuthContext>,
    login: Arc<LoginSpec>,
    provider: Provider,
    /// The app and directory of new logins.
    provider_app: Arc<ProviderApp>,
    /// The fingerprints of the machine clients' valid secrets and keys.
    credential_fingerprints: CredentialFingerprints,
}

/// A grant with its next refresh token.
#[derive(Debug)]
pub(super) struct RotatedGrant {
    pub(super) id: GrantId,
    pub(super) payload: GrantPayload,
    pub(super) refresh_token: Secret,
}

/// Why a genuine token or grant is not valid under the tenant's current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantRejection {
    /// The login was made with another app or directory; only a new login helps.
    OtherProviderApp,
    /// The account may not call; no other token could change that.
    NotAllowed,
    /// An operator keeps the person out.
    Blocked,
    /// It is unknown whether an operator keeps the person out.
    Unavailable,
    /// It belongs to a machine client, or to one of its secrets or keys, that no longer exists.
    MachineClientRemoved,
}

/// Why a one-time token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantError {
    /// Unknown, expired, used, forged or another client's.
    Invalid,
    /// It was used before, so the grant is revoked.
    Reused,
    /// The account may no longer log in, so the grant is revoked.
    Ended,
    /// An operator keeps the person out.
    Blocked,
    /// The provider or the store is unavailable. Nothing was used up.
    Unavailable,
}

impl From<Unavailable> for GrantError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Grants {
    /// Creates the grants of a tenant.
    pub fn new(issuer: Arc<Issuer>, login: Arc<LoginSpec>, provider: Provider) -> Self {
        let provider_app = Arc::new(ProviderApp::from_spec(&login.provider));
        let credential_fingerprints =
            CredentialFingerprints::from_login(issuer.current_incarnation(), &login);
        let context = Arc::clone(&issuer.context);
        Self { issuer, context, login, provider, provider_app, credential_fingerprints }
    }

    /// Returns the tenant's login settings.
    pub(super) fn login_spec(&self) -> &Arc<LoginSpec> {
        &self.login
    }

    /// Returns the realm of challenges, and the URL of the resource metadata.
    pub(super) fn challenge_params(&self, asked: ResourceSpelling) -> (&str, String) {
        (self.issuer.tenant.as_str(), self.issuer.url.resource_metadata_url(asked))
    }

    pub(super) async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Unavailable> {
        let (incarnation, now) = (self.issuer.current_incarnation(), self.context.now());
        if self.context.revocations.is_grant_ended(incarnation.tenant(), id) {
            return Ok(None);
        }
        self.context.store.load_grant(incarnation, id, now).await.map_err(Unavailable::from_store)
    }

    /// Returns the grant that a one-time token of this client belongs to, and the token's number.
    async fn verify_grant_token(
        &self,
        token: &str,
        client_id: &str,
    ) -> Result<(GrantToken, Grant), GrantError> {
        let (grant_token, proof) = GrantToken::parse(token).ok_or(GrantError::Invalid)?;
        let grant = self.find_grant(grant_token.id).await?.ok_or(GrantError::Invalid)?;
        if grant_token.is_genuine(&grant, proof) && grant.client_id == client_id {
            Ok((grant_token, grant))
        } else {
            Err(GrantError::Invalid)
        }
    }

    /// Returns the grant and the client of a genuine refresh token, whatever its number.
    pub(super) async fn find_refresh_token_client(
        &self,
        token: &str,
    ) -> Result<Option<(GrantId, String)>, Unavailable> {
        let Some((grant_token, proof)) = GrantToken::parse(token) else { return Ok(None) };
        let grant = self.find_grant(grant_token.id).await?;
        let grant = grant.filter(|grant| grant_token.is_genuine(grant, proof));
        Ok(grant.map(|grant| (grant.id, grant.client_id)))
    }

    /// Returns why a token that was used before is refused, and revokes its grant if that proves
    /// that somebody else has it.
    async fn refuse_used_token(
        &self,
        grant: &Grant,
        arrived_at: Timestamp,
    ) -> Result<GrantError, GrantError> {
        if self.is_reuse_in_doubt(grant, arrived_at) {
            return Ok(GrantError::Unavailable);
        }
        self.revoke(grant.id).await?;
        Ok(GrantError::Reused)
    }

    /// Whether a token was used while this request with it waited, perhaps by the same client at another
    /// gateway, or may have been used while the database was away.
    fn is_reuse_in_doubt(&self, grant: &Grant, arrived_at: Timestamp) -> bool {
        let was_overtaken = grant.last_token.age < self.context.now().duration_since(arrived_at);
        was_overtaken || self.context.store.was_away_lately()
    }
}

impl GrantRejection {
    /// Returns the fault for the client that presents a code.
    fn into_grant_error(self) -> GrantError {
        match self {
            Self::NotAllowed => GrantError::Ended,
            Self::Blocked => GrantError::Blocked,
            Self::Unavailable => GrantError::Unavailable,
            Self::OtherProviderApp | Self::MachineClientRemoved => GrantError::Invalid,
        }
    }
}

impl RotatedGrant {
    fn new(grant: &Grant, sequence: u32, payload: GrantPayload) -> Self {
        let refresh_token = GrantToken { id: grant.id, sequence }.to_secret(&grant.family_key);
        Self { id: grant.id, payload, refresh_token }
    }
}

#[cfg(test)]
mod tests;
