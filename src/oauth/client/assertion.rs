//! Client assertions: JWTs with which clients authenticate (RFC 7523 section 3, OpenID Connect Core
//! section 9).

use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

use super::OAuthClient;
use crate::base::digest::{Digest, Hasher};
use crate::oauth::credential_fingerprint::digest_of_key;
use crate::oauth::error::Unavailable;
use crate::oauth::issuer::Issuer;
use crate::oauth::replay::{AssertionSource, ReplayError};

pub(in crate::oauth) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The limit on the keys tried for an assertion that names none.
const MAX_KEYS_TRIED: usize = 8;
/// The longest remaining lifetime of an assertion. It is for immediate use.
const MAX_LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// The allowed difference between clocks.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Why the use of an assertion cannot be remembered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::oauth) enum UseError {
    /// There is no room for another one.
    CacheFull,
    /// The database that all gateways ask cannot be reached.
    Unavailable,
}

/// A parsed assertion, not verified yet.
#[derive(Debug)]
pub(in crate::oauth) struct ClientAssertion<'a> {
    message: &'a str,
    signature: &'a str,
    header: Header,
    claims: AssertionClaims,
}

#[derive(Debug, Deserialize)]
struct AssertionClaims {
    iss: String,
    sub: String,
    aud: AssertionAudience,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    jti: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum AssertionAudience {
    One(String),
    Several(Vec<String>),
}

impl<'a> ClientAssertion<'a> {
    /// Parses an assertion; returns `None` if its form or algorithm is not supported.
    pub(in crate::oauth) fn parse(text: &'a str) -> Option<Self> {
        let (message, signature) = text.rsplit_once('.')?;
        let header = jsonwebtoken::decode_header(text).ok()?;
        let is_supported_algorithm =
            [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256].contains(&header.alg);
        let claims = BASE64_URL_SAFE_NO_PAD.decode(message.rsplit_once('.')?.1).ok()?;
        let claims: AssertionClaims = serde_json::from_slice(&claims).ok()?;
        (is_supported_algorithm && claims.iss == claims.sub).then_some(Self {
            message,
            signature,
            header,
            claims,
        })
    }

    /// Returns the client that the assertion claims to be from.
    pub(in crate::oauth) fn client_id(&self) -> &str {
        &self.claims.sub
    }

    /// Verifies that one of the client's keys signed the assertion, that it is for this tenant,
    /// currently valid, and used for the first time.
    ///
    /// # Errors
    /// [`UseError`] if the assertion would be valid, but its use cannot be remembered now.
    pub(in crate::oauth) async fn verify(
        &self,
        issuer: &Issuer,
        client: &OAuthClient,
        keys: &Value,
        source: IpAddr,
    ) -> Result<bool, UseError> {
        let now = issuer.context.now();
        let is_good = self.is_for_audience(issuer)
            && self.is_within_lifetime(now)
            && self.find_signing_key(keys).is_some();
        if is_good { self.consume_jti(issuer, client, source).await } else { Ok(false) }
    }

    /// Clients name the issuer or the token endpoint; both belong to this tenant alone.
    fn is_for_audience(&self, issuer: &Issuer) -> bool {
        let ours =
            |audience: &str| audience == issuer.url.as_str() || audience == issuer.url.join_path("/token");
        match &self.claims.aud {
            AssertionAudience::One(audience) => ours(audience),
            // Any other audience of the assertion could use it here.
            AssertionAudience::Several(audiences) => {
                audiences.len() <= 2 && !audiences.is_empty() && audiences.iter().all(|one| ours(one))
            }
        }
    }

    fn is_within_lifetime(&self, now: Timestamp) -> bool {
        let now = now.as_duration();
        let (skew, longest) = (MAX_CLOCK_SKEW.as_secs_f64(), MAX_LIFETIME.as_secs_f64());
        let left = self.claims.exp - now.as_secs_f64();
        let begun = self.claims.nbf.is_none_or(|from| from <= now.as_secs_f64() + skew);
        begun && left > -skew && left <= longest + skew
    }

    /// Returns the identifier of the key that signed the assertion, if it is in the set.
    pub(in crate::oauth) fn find_signing_key(&self, keys: &Value) -> Option<Digest> {
        let all = keys.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // An unreadable key does not invalidate the others.
        let read = |key: &'_ Value| Some((digest_of_key(key), Jwk::deserialize(key).ok()?));
        let keys = all.iter().filter_map(read).filter(|(_, key)| self.is_eligible_key(key));
        keys.take(MAX_KEYS_TRIED).find(|(_, key)| self.is_signed_with(key)).map(|(key_id, _)| key_id)
    }

    fn is_eligible_key(&self, key: &Jwk) -> bool {
        let common = &key.common;
        let named = self.header.kid.is_none() || self.header.kid == common.key_id;
        let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let fits = common.key_algorithm.is_none_or(|algorithm| match self.header.alg {
            Algorithm::RS256 => algorithm == KeyAlgorithm::RS256,
            Algorithm::PS256 => algorithm == KeyAlgorithm::PS256,
            _ => algorithm == KeyAlgorithm::ES256,
        });
        named && signs && fits
    }

    fn is_signed_with(&self, key: &Jwk) -> bool {
        // The key types differ: an RSA key never verifies ES256.
        let Ok(key) = DecodingKey::from_jwk(key) else { return false };
        let verified =
            jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key, self.header.alg);
        verified.unwrap_or(false)
    }

    /// Records the `jti` and returns whether it is new for this client at this tenant.
    async fn consume_jti(
        &self,
        issuer: &Issuer,
        client: &OAuthClient,
        source: IpAddr,
    ) -> Result<bool, UseError> {
        let context = &issuer.context;
        let (tenant, is_vouched_for) = (issuer.tenant.as_arc(), client.is_vouched_for());
        let assertion_source = AssertionSource { tenant, client: &client.id, source, is_vouched_for };
        let mut fields = Hasher::new();
        [issuer.tenant.as_str(), &client.id, &self.claims.jti]
            .iter()
            .for_each(|field| fields.update_field(field.as_bytes()));
        let (digest, now) = (fields.finish(), context.now());
        let expires_at = self.replay_expiry(now);
        match context.used_assertions.consume(digest, expires_at, now, assertion_source) {
            Ok(()) => {
                let first = context.store.use_assertion(digest, expires_at).await;
                first.map_err(|error| {
                    let Unavailable = Unavailable::from_store(error);
                    UseError::Unavailable
                })
            }
            Err(ReplayError::AlreadyUsed) => Ok(false),
            Err(ReplayError::CacheFull(bound)) => {
                if let Some(suppressed) = context.used_assertions.check_full_log(context.monotonic()) {
                    tracing::warn!(
                        tenant = issuer.tenant.as_str(),
                        client_id = &*client.id,
                        suppressed,
                        "clients must wait: of the memory for used assertions, {bound}; a client that sends \
                         so many assertions is faulty, and `tenantd clients remove` or the tenant's \
                         machine_clients can block it"
                    );
                }
                Err(UseError::CacheFull)
            }
        }
    }

    /// Returns when the assertion is too old to be accepted. As it is currently valid, that is
    /// soon.
    fn replay_expiry(&self, now: Timestamp) -> Timestamp {
        let left = (self.claims.exp - now.as_duration().as_secs_f64()).ceil();
        // Whole seconds of ten minutes fit; one more, since the clock has fractions of a second.
        now + SignedDuration::from_secs(left as i64 + 1).min(MAX_LIFETIME + MAX_CLOCK_SKEW) + MAX_CLOCK_SKEW
    }
}
