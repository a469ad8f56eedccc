//! The issuer of a tenant's tokens: its names and its keys. Names come from the configuration only,
//! never from a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::context::AuthContext;
use super::error::Unavailable;
use super::incarnations::TenantIncarnation;
use super::tokens::access_token::{
    self, AccessToken, AccessTokenClaims, IssuedToken, MAX_CLOCK_SKEW, TokenSubject,
};
use super::tokens::signing_keys::{KeyRotation, PublishedKey, SigningKeyCache, SigningKeySet};
use crate::base::random;
use crate::base::secret::Secret;
use crate::spec::{PublicUrl, ResourceSpelling, TenantName};
use crate::store::{GrantId, Incarnation, RevokedSubject};

/// The issuer of one tenant's tokens.
#[derive(Debug)]
pub struct Issuer {
    pub(super) tenant: TenantName,
    /// The tenant's incarnation, which the keys and grants belong to.
    pub(super) incarnation: TenantIncarnation,
    pub(super) url: PublicUrl,
    /// The audience of all its tokens.
    pub(super) resource: Arc<str>,
    /// How long its tokens are valid.
    pub(super) access_token_lifetime: SignedDuration,
    pub(super) context: Arc<AuthContext>,
    pub(super) keys: Arc<SigningKeyCache>,
}

impl Issuer {
    /// Returns the tenant's base URL, below which its endpoints are.
    pub fn public_url(&self) -> &PublicUrl {
        &self.url
    }

    /// Creates the issuer of a tenant. Its keys are loaded when first needed.
    pub(super) fn new(
        tenant: TenantName,
        incarnation: TenantIncarnation,
        url: PublicUrl,
        access_token_lifetime: Duration,
        context: &Arc<AuthContext>,
    ) -> Arc<Self> {
        let resource = url.resource_url(ResourceSpelling::Connector).into();
        Arc::new(Self {
            tenant,
            incarnation,
            url,
            resource,
            access_token_lifetime: SignedDuration::try_from(access_token_lifetime)
                .unwrap_or(access_token::MAX_LIFETIME),
            context: Arc::clone(context),
            keys: Arc::default(),
        })
    }

    /// Returns the incarnation of the tenant that this issuer belongs to.
    pub(super) fn current_incarnation(&self) -> &Incarnation {
        &self.incarnation.current
    }

    /// Does what [`AuthServer::activate`](super::authorization_server::AuthServer::activate) says.
    pub(super) fn activate(&self, entry_id: &Arc<str>) {
        if self.context.store.is_shared() {
            let keys = Arc::downgrade(&self.keys);
            self.context.key_caches.insert(Arc::clone(self.tenant.as_arc()), keys);
        }
        self.context.incarnations.activate(&self.tenant, entry_id, Some(&self.incarnation));
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
    pub(super) async fn load_keys(&self) -> Result<Arc<SigningKeySet>, Unavailable> {
        self.keys.load(&self.context.store, self.current_incarnation(), self.context.now()).await
    }

    /// Creates a new signing key and returns the published keys.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub async fn rotate_keys(&self, how: KeyRotation) -> Result<Vec<PublishedKey>, Unavailable> {
        let (store, now) = (&self.context.store, self.context.now());
        let set = self.keys.rotate(store, self.current_incarnation(), now, how).await?;
        tracing::info!(tenant = self.tenant.as_str(), ?how, "a new signing key was created");
        Ok(set.published_keys(now))
    }

    /// Returns the published keys.
    ///
    /// # Errors
    /// Fails if the store cannot be read, or the first key cannot be stored.
    pub async fn published_keys(&self) -> Result<Vec<PublishedKey>, Unavailable> {
        Ok(self.load_keys().await?.published_keys(self.context.now()))
    }

    /// Issues a token.
    pub(super) async fn issue(
        &self,
        client_id: &str,
        scope: &str,
        bearer: &TokenSubject<'_>,
    ) -> Result<IssuedToken, Unavailable> {
        let keys = self.load_keys().await?;
        let now = self.context.now();
        let mut claims = self.new_claims(client_id, scope, now);
        claims.set_subject(bearer);
        let text = keys.sign(now, |kid| claims.signing_input(kid));
        let id = GrantId::parse(&claims.gid).expect("it was written from an id");
        let issued_at = Timestamp::from_second(claims.iat).expect("it was written from a time");
        Ok(IssuedToken { text: Secret::new(text), jti: claims.jti.into(), id, issued_at })
    }

    fn new_claims(&self, client_id: &str, scope: &str, now: Timestamp) -> AccessTokenClaims {
        let now = now.as_second();
        AccessTokenClaims {
            iss: self.url.as_str().into(),
            aud: (*self.resource).into(),
            sub: client_id.into(),
            client_id: client_id.into(),
            client_name: None,
            scope: scope.into(),
            exp: now + self.access_token_lifetime.as_secs(),
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
    pub(super) async fn verify(&self, token: &[u8]) -> Result<AccessToken, access_token::AccessTokenError> {
        let keys = self.load_keys().await?;
        let mut is_key_known = true;
        let mut parsed = AccessToken::parse(token, |kid, message, signature| {
            is_key_known = keys.contains(kid);
            keys.verify(kid, message, signature)
        });
        if !is_key_known && self.context.store.is_shared() {
            let keys = self.load_newer_keys().await?;
            parsed =
                AccessToken::parse(token, |kid, message, signature| keys.verify(kid, message, signature));
        }
        parsed.filter(|token| self.is_valid_now(token)).ok_or(access_token::AccessTokenError::Invalid)
    }

    /// Loads the tenant's keys again unless that was done a moment ago, since another gateway may have
    /// made the one that a token is signed with.
    async fn load_newer_keys(&self) -> Result<Arc<SigningKeySet>, Unavailable> {
        let context = &self.context;
        let (incarnation, now) = (self.current_incarnation(), context.now());
        self.keys.look_for_newer(&context.store, incarnation, now, context.monotonic()).await?;
        self.load_keys().await
    }

    /// Whether a token with a verified signature is valid at this moment.
    pub(super) fn is_valid_now(&self, token: &AccessToken) -> bool {
        let now = self.context.now();
        let claims = &token.claims;
        let is_ours = *claims.iss == *self.url.as_str() && *claims.aud == *self.resource;
        // A file that wants shorter lifetimes wants that of the tokens that are out, too.
        let expires_at = token.expires_at.min(token.issued_at + self.access_token_lifetime);
        is_ours && now < expires_at && token.issued_at <= now + MAX_CLOCK_SKEW && !self.is_revoked(token)
    }

    fn is_revoked(&self, token: &AccessToken) -> bool {
        let tenant = self.tenant.as_arc();
        if self.context.revocations.is_covered_by_revoke_all(token.issued_at) {
            return true;
        }
        let subjects = [RevokedSubject::Grant(token.grant_id), RevokedSubject::Client(token.client_digest)];
        subjects
            .into_iter()
            .any(|subject| self.context.revocations.is_revoked(tenant, subject, token.issued_at))
    }
}
