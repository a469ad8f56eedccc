//! Verification of id_tokens (OpenID Connect Core 1.0 section 3.1.3.7).

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::jwks::{ProviderKey, ProviderKeys};

/// The allowed difference between the provider's clock and this machine's.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(120);
/// In bytes. The largest known tokens have less than 16 KiB.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// The values that a token must match.
#[derive(Debug, Clone, Copy)]
pub(in crate::identity) struct Expectations<'a> {
    pub(in crate::identity) client_id: &'a str,
    /// `None` at renewals, which have no nonce.
    pub(in crate::identity) nonce: Option<&'a str>,
    pub(in crate::identity) now: Timestamp,
}

/// Why a token is rejected. The messages quote nothing from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::identity) enum InvalidIdToken {
    #[error("it is not a signed token in the provider's form")]
    Malformed,
    #[error("it is not signed with RS256")]
    Algorithm,
    #[error("its key is not among the keys that the directory publishes")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its key is for another issuer")]
    KeyIssuer,
    #[error("its issuer is another")]
    Issuer,
    #[error("it was issued for another app")]
    Audience,
    #[error("it has expired, or this machine's clock is fast")]
    Expired,
    #[error("it is not valid yet, or this machine's clock is slow")]
    NotYetValid,
    #[error("it was issued for another login")]
    Nonce,
}

/// The claims of any provider's token, with further ones of the provider's.
#[derive(Deserialize)]
pub(in crate::identity) struct IdTokenClaims<F> {
    pub(in crate::identity) iss: String,
    aud: String,
    exp: i64,
    nbf: Option<i64>,
    iat: i64,
    nonce: Option<String>,
    azp: Option<String>,
    pub(in crate::identity) name: Option<String>,
    pub(in crate::identity) preferred_username: Option<String>,
    #[serde(flatten)]
    pub(in crate::identity) further: F,
}

/// Verifies a token's signature, issuer, audience, dates and nonce, and returns its claims.
/// `to_issuer` makes an issuer of a template that the provider publishes.
pub(in crate::identity) fn verify<F: DeserializeOwned>(
    token: &str,
    keys: &ProviderKeys,
    expected: &Expectations<'_>,
    issuer: &str,
    to_issuer: impl Fn(&str, &F) -> String,
) -> Result<IdTokenClaims<F>, InvalidIdToken> {
    let (claims, key) = verify_signature::<F>(token, keys)?;
    let to_issuer = |template: &str| to_issuer(template, &claims.further);
    ensure(claims.iss == to_issuer(issuer), InvalidIdToken::Issuer)?;
    let is_for_issuer = key.issuer.as_deref().is_none_or(|own| to_issuer(own) == claims.iss);
    ensure(is_for_issuer, InvalidIdToken::KeyIssuer)?;
    ensure(claims.aud == expected.client_id, InvalidIdToken::Audience)?;
    ensure(claims.azp.as_deref().is_none_or(|azp| azp == expected.client_id), InvalidIdToken::Audience)?;
    claims.check_times(expected.now)?;
    // A renewed token has no nonce, or the nonce of the first login.
    let is_same_login = expected.nonce.is_none_or(|nonce| claims.nonce.as_deref() == Some(nonce));
    ensure(is_same_login, InvalidIdToken::Nonce)?;
    Ok(claims)
}

fn ensure(holds: bool, otherwise: InvalidIdToken) -> Result<(), InvalidIdToken> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Returns the claims of a token whose signature is valid, and the key that verified it.
fn verify_signature<'k, F: DeserializeOwned>(
    token: &str,
    keys: &'k ProviderKeys,
) -> Result<(IdTokenClaims<F>, &'k ProviderKey), InvalidIdToken> {
    ensure(token.len() <= MAX_TOKEN_BYTES, InvalidIdToken::Malformed)?;
    let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidIdToken::Malformed)?;
    ensure(header.alg == Algorithm::RS256, InvalidIdToken::Algorithm)?;
    ensure(header.crit.is_none(), InvalidIdToken::Malformed)?;
    let key = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or(InvalidIdToken::UnknownKey)?;
    let verified = jsonwebtoken::decode::<IdTokenClaims<F>>(token, &key.public, &signature_validation());
    let verified = verified.map_err(|error| match error.kind() {
        jsonwebtoken::errors::ErrorKind::InvalidSignature => InvalidIdToken::Signature,
        _ => InvalidIdToken::Malformed,
    })?;
    Ok((verified.claims, key))
}

/// Disables the library's checks of claims; [`verify`] makes them all, against our clock.
fn signature_validation() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl<F> IdTokenClaims<F> {
    fn check_times(&self, now: Timestamp) -> Result<(), InvalidIdToken> {
        let to_timestamp = |seconds| Timestamp::from_second(seconds).map_err(|_| InvalidIdToken::Malformed);
        // Saturating: a date beyond the calendar stays on the correct side of the comparison.
        let subtract_skew = |time: Timestamp| time.saturating_sub(MAX_CLOCK_SKEW).unwrap_or(Timestamp::MIN);
        let add_skew = |time: Timestamp| time.saturating_add(MAX_CLOCK_SKEW).unwrap_or(Timestamp::MAX);
        ensure(now < add_skew(to_timestamp(self.exp)?), InvalidIdToken::Expired)?;
        ensure(subtract_skew(to_timestamp(self.iat)?) <= now, InvalidIdToken::NotYetValid)?;
        match self.nbf {
            Some(nbf) => ensure(subtract_skew(to_timestamp(nbf)?) <= now, InvalidIdToken::NotYetValid),
            None => Ok(()),
        }
    }
}
