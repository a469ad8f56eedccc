//! Verification of id_tokens (OpenID Connect Core 1.0 section 3.1.3.7, and Entra's additional
//! rules).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use super::aadsts::Meaning;
use super::admission::{self, Inadmissible, PERSONAL, is_id};
use super::error::{Error, Trace};
use super::keys::{Key, Keys};
use super::person::{Groups, Person};
use crate::spec::IdentitySpec;

/// The allowed difference between Entra's clock and this machine's.
const SKEW: SignedDuration = SignedDuration::from_secs(120);
/// In bytes. Entra's tokens are below 16 KiB.
const LARGEST: usize = 64 << 10;
/// The placeholder for the account's directory in the metadata of an audience.
const ANY_DIRECTORY: &str = "{tenantid}";

/// The values that a token must match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) identity: &'a IdentitySpec,
    /// As published by the directory; `{tenantid}` stands for the account's directory.
    pub(super) issuer: &'a str,
    /// `None` at renewals, for which Entra gets no nonce.
    pub(super) nonce: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Why a token is rejected. The messages quote nothing from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it is not a signed token in Entra's form")]
    Malformed,
    #[error("it is not signed with RS256")]
    Algorithm,
    #[error("its key is not among those that the directory publishes")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its key is for another issuer")]
    KeyOfAnotherIssuer,
    #[error("its issuer is another")]
    Issuer,
    #[error("it was made for another app")]
    Audience,
    #[error("it has expired, or this machine's clock is fast")]
    Expired,
    #[error("it is not valid yet, or this machine's clock is slow")]
    NotYet,
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

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let trace = Trace { detail: Some(format!("the id_token: {fault}")), ..Trace::default() };
        let meaning = match fault {
            Fault::Directory => Meaning::OTHER_DIRECTORY,
            Fault::Guest => Meaning::GUEST,
            Fault::Personal => Meaning::PERSONAL,
            _ => Meaning::DISBELIEVED,
        };
        Self::of(&meaning, trace)
    }
}

#[derive(Deserialize)]
struct Claims {
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
    elsewhere: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Verifies a token completely: its signature, issuer, audience, dates, nonce, version and kind of
/// account.
pub(super) fn judge(token: &str, keys: &Keys, expected: &Expected<'_>) -> Result<Person, Fault> {
    let (claims, key) = signed(token, keys)?;
    let issuer = expected.issuer.replace(ANY_DIRECTORY, &claims.tid);
    demand(claims.iss == issuer, Fault::Issuer)?;
    demand(key.is_for(&issuer, &claims.tid), Fault::KeyOfAnotherIssuer)?;
    demand(claims.aud == *expected.identity.client_id, Fault::Audience)?;
    demand(claims.azp.as_deref().is_none_or(|azp| azp == &*expected.identity.client_id), Fault::Audience)?;
    claims.timely(expected.now)?;
    // A renewed token has no nonce, or the nonce of the first login.
    demand(expected.nonce.is_none_or(|nonce| claims.nonce.as_deref() == Some(nonce)), Fault::Nonce)?;
    demand(claims.ver == "2.0", Fault::Version)?;
    demand(is_id(&claims.tid) && is_id(&claims.oid), Fault::Malformed)?;
    // The metadata of a single directory holds the full issuer: `tid` must be the directory in it.
    demand(issuer.ends_with(&format!("/{}/v2.0", claims.tid)), Fault::Directory)?;
    claims.admitted(expected.identity)?;
    Ok(claims.person())
}

fn demand(holds: bool, fault: Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(fault) }
}

/// Returns the claims of a token whose signature is valid, and the key that verified it.
fn signed<'k>(token: &str, keys: &'k Keys) -> Result<(Claims, &'k Key), Fault> {
    demand(token.len() <= LARGEST, Fault::Malformed)?;
    let header = jsonwebtoken::decode_header(token).map_err(|_| Fault::Malformed)?;
    demand(header.alg == Algorithm::RS256, Fault::Algorithm)?;
    demand(header.crit.is_none(), Fault::Malformed)?;
    let key = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or(Fault::UnknownKey)?;
    let verified = jsonwebtoken::decode::<Claims>(token, &key.public, &signature_only());
    let verified = verified.map_err(|error| match error.kind() {
        jsonwebtoken::errors::ErrorKind::InvalidSignature => Fault::Signature,
        _ => Fault::Malformed,
    })?;
    Ok((verified.claims, key))
}

/// Disables the library's checks of claims; [`judge`] makes them all, against our clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl Key {
    fn is_for(&self, issuer: &str, tid: &str) -> bool {
        self.issuer.as_ref().is_none_or(|own| own.replace(ANY_DIRECTORY, tid) == issuer)
    }
}

impl Claims {
    fn timely(&self, now: Timestamp) -> Result<(), Fault> {
        let moment = |seconds| Timestamp::from_second(seconds).map_err(|_| Fault::Malformed);
        // Saturating: a date beyond the calendar stays on the correct side of the comparison.
        let before = |moment: Timestamp| moment.saturating_sub(SKEW).unwrap_or(Timestamp::MIN);
        let after = |moment: Timestamp| moment.saturating_add(SKEW).unwrap_or(Timestamp::MAX);
        demand(now < after(moment(self.exp)?), Fault::Expired)?;
        demand(before(moment(self.iat)?) <= now, Fault::NotYet)?;
        match self.nbf {
            Some(nbf) => demand(before(moment(nbf)?) <= now, Fault::NotYet),
            None => Ok(()),
        }
    }

    /// Verifies that the tenant admits accounts of this kind.
    fn admitted(&self, identity: &IdentitySpec) -> Result<(), Fault> {
        // For a single directory, the comparison of the issuer has verified the directory already.
        admission::takes(identity, &self.tid, self.is_guest()).map_err(|why| match why {
            // The audience was verified before.
            Inadmissible::App => Fault::Audience,
            Inadmissible::Directory => Fault::Directory,
            Inadmissible::Guest => Fault::Guest,
            Inadmissible::Personal => Fault::Personal,
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
            None => (elsewhere && self.tid != PERSONAL) || marked,
        }
    }

    fn groups(&mut self) -> Groups {
        let overage = self.elsewhere.as_ref().is_some_and(|names| names.contains_key("groups"));
        match self.groups.take() {
            Some(groups) if !overage => Groups::Known(groups.into_iter().map(Arc::from).collect()),
            None if !overage && !self.hasgroups => Groups::Known(Vec::new()),
            _ => Groups::TooMany,
        }
    }

    fn person(mut self) -> Person {
        let (guest, groups) = (self.is_guest(), self.groups());
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
