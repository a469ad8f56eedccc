//! What Entra adds to an id_token: its version, the account's directory and kind, roles and groups.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::aadsts::{GUEST, OTHER_DIRECTORY, PERSONAL};
use super::accounts::{self, AccountRejection, PERSONAL_ACCOUNTS_DIRECTORY, is_guid};
use crate::identity::account::{Account, GroupMembership};
use crate::identity::error::Error;
use crate::identity::meaning::ErrorMeaning;
use crate::identity::oidc::id_token::{self, Expectations, IdTokenClaims, InvalidIdToken};
use crate::identity::oidc::jwks::ProviderKeys;
use crate::spec::EntraSpec;

/// The placeholder for the account's directory in the metadata of an audience.
const TENANT_ID_PLACEHOLDER: &str = "{tenantid}";

/// The values that a token must match.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdTokenExpectations<'a> {
    pub(super) spec: &'a EntraSpec,
    /// As published by the directory; `{tenantid}` stands for the account's directory.
    pub(super) issuer: &'a str,
    /// `None` at renewals, for which Entra gets no nonce.
    pub(super) nonce: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Why a token is rejected. The messages quote nothing from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidEntraToken {
    #[error("it is not a signed token in Entra's form")]
    Malformed,
    #[error("{0}")]
    IdToken(InvalidIdToken),
    #[error("it is not a version 2.0 token")]
    Version,
    #[error("the account is in another directory")]
    Directory,
    #[error("the account is a guest of the directory")]
    Guest,
    #[error("the account is a personal one")]
    Personal,
}

impl From<InvalidIdToken> for InvalidEntraToken {
    fn from(fault: InvalidIdToken) -> Self {
        match fault {
            InvalidIdToken::Malformed => Self::Malformed,
            other => Self::IdToken(other),
        }
    }
}

impl From<AccountRejection> for InvalidEntraToken {
    fn from(rejection: AccountRejection) -> Self {
        match rejection {
            // The audience was verified before.
            AccountRejection::App => Self::IdToken(InvalidIdToken::Audience),
            AccountRejection::Directory => Self::Directory,
            AccountRejection::Guest => Self::Guest,
            AccountRejection::Personal => Self::Personal,
        }
    }
}

impl From<InvalidEntraToken> for Error {
    fn from(fault: InvalidEntraToken) -> Self {
        let meaning = match fault {
            InvalidEntraToken::Directory => OTHER_DIRECTORY,
            InvalidEntraToken::Guest => GUEST,
            InvalidEntraToken::Personal => PERSONAL,
            InvalidEntraToken::Malformed | InvalidEntraToken::IdToken(_) | InvalidEntraToken::Version => {
                ErrorMeaning::INVALID_ID_TOKEN
            }
        };
        Self::invalid_id_token(&meaning, fault)
    }
}

/// The claims that Entra adds.
#[derive(Deserialize)]
struct EntraClaims {
    ver: String,
    tid: String,
    oid: String,
    idp: Option<String>,
    acct: Option<i64>,
    #[serde(default)]
    roles: Vec<String>,
    groups: Option<Vec<String>>,
    #[serde(default)]
    hasgroups: bool,
    #[serde(rename = "_claim_names")]
    claim_names: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Verifies a token completely: as OpenID Connect has it, and its version and kind of account.
pub(super) fn verify(
    token: &str,
    keys: &ProviderKeys,
    expected: &IdTokenExpectations<'_>,
) -> Result<Account, InvalidEntraToken> {
    let IdTokenExpectations { spec, issuer, nonce, now } = *expected;
    let expected = Expectations { client_id: &spec.client_id, nonce, now };
    let to_issuer =
        |template: &str, claims: &EntraClaims| template.replace(TENANT_ID_PLACEHOLDER, &claims.tid);
    let claims = id_token::verify(token, keys, &expected, issuer, to_issuer)?;
    let EntraClaims { ver, tid, oid, .. } = &claims.further;
    ensure(ver == "2.0", InvalidEntraToken::Version)?;
    ensure(is_guid(tid) && is_guid(oid), InvalidEntraToken::Malformed)?;
    // The metadata of a single directory holds the full issuer: `tid` must be the directory in it.
    ensure(claims.iss.ends_with(&format!("/{tid}/v2.0")), InvalidEntraToken::Directory)?;
    let is_guest = is_guest(&claims);
    // For a single directory, the comparison of the issuer has verified the directory already.
    accounts::check_account(spec, tid, is_guest)?;
    Ok(to_account(claims, is_guest))
}

fn ensure(holds: bool, otherwise: InvalidEntraToken) -> Result<(), InvalidEntraToken> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Whether the account is a guest: `acct` decides if present; otherwise an account that another
/// provider authenticated is a guest.
fn is_guest(claims: &IdTokenClaims<EntraClaims>) -> bool {
    let EntraClaims { tid, idp, acct, .. } = &claims.further;
    let elsewhere = idp.as_deref().is_some_and(|idp| {
        idp != claims.iss && idp.trim_end_matches('/') != format!("https://sts.windows.net/{tid}")
    });
    let marked = claims.preferred_username.as_deref().is_some_and(|name| name.contains("#EXT#"));
    match acct {
        Some(kind) => *kind != 0,
        // A personal account is not a guest in its own directory, whatever `idp` it has.
        None => (elsewhere && tid != PERSONAL_ACCOUNTS_DIRECTORY) || marked,
    }
}

fn to_account(claims: IdTokenClaims<EntraClaims>, is_guest: bool) -> Account {
    let IdTokenClaims { name, preferred_username, mut further, .. } = claims;
    let groups = further.take_groups();
    Account {
        issuer: further.tid.into(),
        subject: further.oid.into(),
        name: name.map(Arc::from),
        username: preferred_username.map(Arc::from),
        // Entra verifies the domains of user names, and no addresses.
        verified_email: None,
        roles: further.roles.into_iter().map(Arc::from).collect(),
        groups,
        is_guest,
    }
}

impl EntraClaims {
    fn take_groups(&mut self) -> GroupMembership {
        let overage = self.claim_names.as_ref().is_some_and(|names| names.contains_key("groups"));
        match self.groups.take() {
            Some(groups) if !overage => GroupMembership::Known(groups.into_iter().map(Arc::from).collect()),
            None if !overage && !self.hasgroups => GroupMembership::Known(Vec::new()),
            _ => GroupMembership::TooMany,
        }
    }
}

#[cfg(test)]
mod tests;
