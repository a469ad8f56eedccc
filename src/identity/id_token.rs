//! Verification of id_tokens (OpenID Connect Core 1.0 section 3.1.3.7, and Entra's additional
//! rules).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use super::aadsts::ErrorMeaning;
use super::account::{GroupMembership, Person};
use super::account_rules::{self, AccountRejection, PERSONAL_ACCOUNTS_DIRECTORY, is_guid};
use super::error::{Error, ProviderTrace};
use super::jwks::{ProviderKey, ProviderKeys};
use crate::spec::IdentitySpec;

/// The allowed difference between Entra's clock and this machine's.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(120);
/// In bytes. Entra's tokens are below 16 KiB.
const MAX_TOKEN_BYTES: usize = 64 << 10;
/// The placeholder for the account's directory in the metadata of an audience.
const TENANT_ID_PLACEHOLDER: &str = "{tenantid}";

/// The values that a token must match.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdTokenExpectations<'a> {
    pub(super) identity: &'a IdentitySpec,
    /// As published by the directory; `{tenantid}` stands for the account's directory.
    pub(super) issuer: &'a str,
    /// `None` at renewals, for which Entra gets no nonce.
    pub(super) nonce: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Why a token is rejected. The messages quote nothing from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidIdToken {
    #[error("it is not a signed token in Entra's form")]
    Malformed,
    #[error("it is not signed with RS256")]
    Algorithm,
    #[error("its key is not among those that the directory publishes")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its key is for another issuer")]
    KeyIssuer,
    #[error("its issuer is another")]
    Issuer,
    #[error("it was made for another app")]
    Audience,
    #[error("it has expired, or this machine's clock is fast")]
    Expired,
    #[error("it is not valid yet, or this machine's clock is slow")]
    NotYetValid,
    #[error("it was made for another login")]
    Nonce,
    #[error("it is no version 2.0 token")]
    Version,
    #[error("the account is of another directory")]
    Directory,
    #[error("the account is a guest of the directory")]
    Guest,
    #[error("the account is a personal one")]
    Personal,
}

impl From<InvalidIdToken> for Error {
    fn from(fault: InvalidIdToken) -> Self {
        let trace =
            ProviderTrace { detail: Some(format!("the id_token: {fault}")), ..ProviderTrace::default() };
        let meaning = match fault {
            InvalidIdToken::Directory => ErrorMeaning::OTHER_DIRECTORY,
            InvalidIdToken::Guest => ErrorMeaning::GUEST,
            InvalidIdToken::Personal => ErrorMeaning::PERSONAL,
            _ => ErrorMeaning::INVALID_ID_TOKEN,
        };
        Self::from_meaning(&meaning, trace)
    }
}

#[derive(Deserialize)]
struct IdTokenClaims {
    iss: String,
    aud: String,
    exp: i64,
    nbf: Option<i64>,
    iat: i64,
    nonce: Option<String>,
    ver: String,
    tid: String,
    oid: String,
    azp: Option<String>,
    idp: Option<String>,
    acct: Option<i64>,
    name: Option<String>,
    preferred_username: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    groups: Option<Vec<String>>,
    #[serde(default)]
    hasgroups: bool,
    #[serde(rename = "_claim_names")]
    claim_names: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Verifies a token completely: its signature, issuer, audience, dates, nonce, version and kind of
/// account.
pub(super) fn verify(
    token: &str,
    keys: &ProviderKeys,
    expected: &IdTokenExpectations<'_>,
) -> Result<Person, InvalidIdToken> {
    let (claims, key) = verify_signature(token, keys)?;
    let issuer = expected.issuer.replace(TENANT_ID_PLACEHOLDER, &claims.tid);
    ensure(claims.iss == issuer, InvalidIdToken::Issuer)?;
    ensure(key.is_for_issuer(&issuer, &claims.tid), InvalidIdToken::KeyIssuer)?;
    ensure(claims.aud == *expected.identity.client_id, InvalidIdToken::Audience)?;
    ensure(
        claims.azp.as_deref().is_none_or(|azp| azp == &*expected.identity.client_id),
        InvalidIdToken::Audience,
    )?;
    claims.check_times(expected.now)?;
    // A renewed token has no nonce, or the nonce of the first login.
    ensure(expected.nonce.is_none_or(|nonce| claims.nonce.as_deref() == Some(nonce)), InvalidIdToken::Nonce)?;
    ensure(claims.ver == "2.0", InvalidIdToken::Version)?;
    ensure(is_guid(&claims.tid) && is_guid(&claims.oid), InvalidIdToken::Malformed)?;
    // The metadata of a single directory holds the full issuer: `tid` must be the directory in it.
    ensure(issuer.ends_with(&format!("/{}/v2.0", claims.tid)), InvalidIdToken::Directory)?;
    claims.check_account(expected.identity)?;
    Ok(claims.into_person())
}

fn ensure(holds: bool, fault: InvalidIdToken) -> Result<(), InvalidIdToken> {
    if holds { Ok(()) } else { Err(fault) }
}

/// Returns the claims of a token whose signature is valid, and the key that verified it.
fn verify_signature<'k>(
    token: &str,
    keys: &'k ProviderKeys,
) -> Result<(IdTokenClaims, &'k ProviderKey), InvalidIdToken> {
    ensure(token.len() <= MAX_TOKEN_BYTES, InvalidIdToken::Malformed)?;
    let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidIdToken::Malformed)?;
    ensure(header.alg == Algorithm::RS256, InvalidIdToken::Algorithm)?;
    ensure(header.crit.is_none(), InvalidIdToken::Malformed)?;
    let key = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or(InvalidIdToken::UnknownKey)?;
    let verified = jsonwebtoken::decode::<IdTokenClaims>(token, &key.public, &signature_validation());
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

impl ProviderKey {
    fn is_for_issuer(&self, issuer: &str, tid: &str) -> bool {
        self.issuer.as_ref().is_none_or(|own| own.replace(TENANT_ID_PLACEHOLDER, tid) == issuer)
    }
}

impl IdTokenClaims {
    fn check_times(&self, now: Timestamp) -> Result<(), InvalidIdToken> {
        let moment = |seconds| Timestamp::from_second(seconds).map_err(|_| InvalidIdToken::Malformed);
        // Saturating: a date beyond the calendar stays on the correct side of the comparison.
        let before = |moment: Timestamp| moment.saturating_sub(MAX_CLOCK_SKEW).unwrap_or(Timestamp::MIN);
        let after = |moment: Timestamp| moment.saturating_add(MAX_CLOCK_SKEW).unwrap_or(Timestamp::MAX);
        ensure(now < after(moment(self.exp)?), InvalidIdToken::Expired)?;
        ensure(before(moment(self.iat)?) <= now, InvalidIdToken::NotYetValid)?;
        match self.nbf {
            Some(nbf) => ensure(before(moment(nbf)?) <= now, InvalidIdToken::NotYetValid),
            None => Ok(()),
        }
    }

    /// Verifies that the tenant admits accounts of this kind.
    fn check_account(&self, identity: &IdentitySpec) -> Result<(), InvalidIdToken> {
        // For a single directory, the comparison of the issuer has verified the directory already.
        account_rules::check_account(identity, &self.tid, self.is_guest()).map_err(|why| match why {
            // The audience was verified before.
            AccountRejection::App => InvalidIdToken::Audience,
            AccountRejection::Directory => InvalidIdToken::Directory,
            AccountRejection::Guest => InvalidIdToken::Guest,
            AccountRejection::Personal => InvalidIdToken::Personal,
        })
    }

    /// Whether the account is a guest: `acct` decides if present; otherwise an account that another
    /// provider authenticated is a guest.
    fn is_guest(&self) -> bool {
        let elsewhere = self.idp.as_deref().is_some_and(|idp| {
            idp != self.iss && idp.trim_end_matches('/') != format!("https://sts.windows.net/{}", self.tid)
        });
        let marked = self.preferred_username.as_deref().is_some_and(|name| name.contains("#EXT#"));
        match self.acct {
            Some(kind) => kind != 0,
            // A personal account is not a guest in its own directory, whatever `idp` it has.
            None => (elsewhere && self.tid != PERSONAL_ACCOUNTS_DIRECTORY) || marked,
        }
    }

    fn take_groups(&mut self) -> GroupMembership {
        let overage = self.claim_names.as_ref().is_some_and(|names| names.contains_key("groups"));
        match self.groups.take() {
            Some(groups) if !overage => GroupMembership::Known(groups.into_iter().map(Arc::from).collect()),
            None if !overage && !self.hasgroups => GroupMembership::Known(Vec::new()),
            _ => GroupMembership::TooMany,
        }
    }

    fn into_person(mut self) -> Person {
        let (guest, groups) = (self.is_guest(), self.take_groups());
        Person {
            tid: self.tid.into(),
            oid: self.oid.into(),
            name: self.name.map(Arc::from),
            username: self.preferred_username.map(Arc::from),
            roles: self.roles.into_iter().map(Arc::from).collect(),
            groups,
            guest,
        }
    }
}

#[cfg(test)]
mod tests;
