//! The issuer of a tenant's tokens: its names and its keys. Names come from the configuration only,
//! never from a request.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::access_token::{self, Bearer, Claims, Issued, LIFE, SKEW, Token};
use super::error::Unavailable;
use super::keys::{KeySet, Keys, Published, Rotation};
use super::ledger::Ledger;
use super::lives::Lived;
use crate::base::random;
use crate::base::secret::Secret;
use crate::spec::{PublicUrl, Resource, TenantName};
use crate::store::{GrantId, Life, Subject};

/// The issuer of one tenant's tokens.
#[derive(Debug)]
pub struct Issuer {
    pub(super) tenant: TenantName,
    /// The tenant's life, which the keys and grants belong to.
    pub(super) lived: Lived,
    pub(super) url: PublicUrl,
    /// The audience of all its tokens.
    pub(super) resource: Arc<str>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) keys: Keys,
}

impl Issuer {
    /// Creates the issuer of a tenant. Its keys are loaded when first needed.
    pub(super) fn new(tenant: TenantName, lived: Lived, url: PublicUrl, ledger: &Arc<Ledger>) -> Arc<Self> {
        let resource = url.resource(Resource::Connector).into();
        Arc::new(Self { tenant, lived, url, resource, ledger: Arc::clone(ledger), keys: Keys::default() })
    }

    /// Returns the life of the tenant that this issuer belongs to.
    pub(super) fn life(&self) -> &Life {
        &self.lived.life
    }

    /// Prepares the publication of the tenant from the entry `stem`: begins its life, and ends that
    /// of another entry.
    pub fn settle(&self, stem: &Arc<str>) {
        self.ledger.lives.settle(&self.tenant, stem, Some(&self.lived));
    }

    /// Returns the JWK set (RFC 7517): the signing key, the next one, and old ones with tokens that
    /// may still be valid.
    ///
    /// # Errors
    /// Fails if the store cannot be read, or the first key cannot be stored.
    pub async fn jwks(&self) -> Result<Bytes, Unavailable> {
        Ok(self.load_keys().await?.jwks.clone())
    }

    /// Returns the tenant's keys; loads or creates them if necessary.
    pub(super) async fn load_keys(&self) -> Result<Arc<KeySet>, Unavailable> {
        self.keys.load(&self.ledger, self.life()).await
    }

    /// Creates a new signing key and returns the published keys.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub async fn rotate_keys(&self, how: Rotation) -> Result<Vec<Published>, Unavailable> {
        let set = self.keys.rotate(&self.ledger, self.life(), how).await?;
        tracing::info!(tenant = self.tenant.as_str(), ?how, "a new signing key was made");
        Ok(set.published(self.ledger.now()))
    }

    /// Returns the published keys.
    ///
    /// # Errors
    /// Fails if the store cannot be read, or the first key cannot be stored.
    pub async fn published_keys(&self) -> Result<Vec<Published>, Unavailable> {
        Ok(self.load_keys().await?.published(self.ledger.now()))
    }

    /// Issues a token.
    pub(super) async fn issue(
        &self,
        client_id: &str,
        scope: &str,
        bearer: &Bearer<'_>,
    ) -> Result<Issued, Unavailable> {
        let keys = self.load_keys().await?;
        let now = self.ledger.now();
        let mut claims = self.claims(client_id, scope, now);
        claims.set_bearer(bearer);
        let text = keys.sign(now, |kid| claims.signing_input(kid));
        Ok(Issued { text: Secret::new(text), id: claims.jti.into() })
    }

    fn claims(&self, client_id: &str, scope: &str, now: Timestamp) -> Claims {
        let now = now.as_second();
        Claims {
            iss: self.url.as_str().into(),
            aud: (*self.resource).into(),
            sub: client_id.into(),
            client_id: client_id.into(),
            scope: scope.into(),
            exp: now + LIFE.as_secs(),
            iat: now,
            nbf: now,
            jti: random::hex::<16>().into(),
            gid: GrantId::random().to_string().into(),
            gty: None,
            by: None,
            tid: None,
            oid: None,
            roles: Vec::new(),
        }
    }

    /// Returns a token of this tenant if it is valid now, without its person.
    pub(super) async fn verify(&self, token: &[u8]) -> Result<Token, access_token::Fault> {
        let keys = self.load_keys().await?;
        let token = Token::parse(token, |kid, message, signature| keys.verify(kid, message, signature));
        token.filter(|token| self.is_good(token)).ok_or(access_token::Fault::Invalid)
    }

    /// Whether a token with a verified signature is valid at this moment.
    pub(super) fn is_good(&self, token: &Token) -> bool {
        let now = self.ledger.now();
        let claims = &token.claims;
        let is_ours = *claims.iss == *self.url.as_str() && *claims.aud == *self.resource;
        is_ours && now < token.expires && token.issued <= now + SKEW && !self.is_revoked(token)
    }

    fn is_revoked(&self, token: &Token) -> bool {
        let tenant = self.tenant.shared();
        if self.ledger.revocations.include_all(token.issued) {
            return true;
        }
        let subjects = [Subject::Grant(token.grant), Subject::Client(token.client_digest)];
        subjects.into_iter().any(|subject| self.ledger.revocations.include(tenant, subject, token.issued))
    }
}
