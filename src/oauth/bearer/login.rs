//! The bearer check of a tenant with login: an access token of this tenant, valid now, of a person
//! or machine that may call.

use std::sync::Arc;

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::{AdmittedCaller, CallRevocation, Denial, Principal};
use crate::identity::{self, Account, Brand};
use crate::oauth::grants::{GrantRejection, Grants};
use crate::oauth::scope::MCP_SCOPE;
use crate::oauth::tokens::access_token::{AccessToken, AccessTokenError};
use crate::spec::{AccessRules, LoginSpec, ResourceSpelling};
use crate::store::GrantId;

/// The bearer check of a tenant with login.
#[derive(Debug, Clone)]
pub(super) struct LoginCheck {
    grants: Arc<Grants>,
}

/// A person who logged in, calling with a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPrincipal {
    /// The account, as of the last login or renewal.
    pub account: Arc<Account>,
    /// The `sub` of the person's tokens: stable and unique to the person.
    pub subject: Arc<str>,
    /// The OAuth client that calls.
    pub client_id: Arc<str>,
    /// The name that the client registered, if it has one.
    pub client_name: Option<Arc<str>>,
    /// The grant that the token belongs to.
    pub grant: GrantId,
}

/// A program that acts for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachinePrincipal {
    /// The client's id in the tenant's file.
    pub client_id: Arc<str>,
    /// The operator's name for it.
    pub label: Arc<str>,
    /// The roles that the operator gave it, for the access rules of tools.
    pub roles: Vec<Arc<str>>,
}

impl From<Arc<Grants>> for LoginCheck {
    fn from(grants: Arc<Grants>) -> Self {
        Self { grants }
    }
}

impl LoginCheck {
    pub(super) fn login_spec(&self) -> &Arc<LoginSpec> {
        self.grants.login_spec()
    }

    /// Returns the words of the provider.
    pub(super) fn brand(&self) -> &'static Brand {
        identity::find_brand(&self.login_spec().provider)
    }

    /// Admits a caller with a valid token. `revoked_with_login` fires when a later revision has
    /// another login.
    pub(super) async fn authorize(
        &self,
        token: &[u8],
        revoked_with_login: &CancellationToken,
    ) -> Result<AdmittedCaller, Denial> {
        let token = self.grants.verify_access_token(token).await.map_err(|fault| match fault {
            AccessTokenError::Invalid => Denial::Invalid,
            AccessTokenError::Unavailable => Denial::Unavailable,
        })?;
        if !token.claims.scope.split(' ').any(|scope| scope == MCP_SCOPE) {
            return Err(Denial::InsufficientScope);
        }
        // Taken before what can be revoked is checked, so that any later revocation or block ends
        // the call.
        let grant_revocation = self.grants.revocation_token(&token, revoked_with_login);
        let revocation = CallRevocation {
            revoked: grant_revocation.token().clone(),
            grant_revocation: Some(grant_revocation),
        };
        let principal = self.authorize_principal(&token)?;
        if !self.grants.is_valid_now(&token) {
            return Err(Denial::Invalid);
        }
        self.grants.record_use(&token);
        Ok(AdmittedCaller { principal, revocation })
    }

    /// Returns the principal of a token, if the tenant's current rules admit it.
    fn authorize_principal(&self, token: &AccessToken) -> Result<Principal, Denial> {
        let client_id = Arc::clone(&token.claims.client_id);
        self.grants.check_current_rules(token).map_err(|refusal| match refusal {
            GrantRejection::NotAllowed => Denial::NotAllowed,
            GrantRejection::Blocked => Denial::Blocked,
            GrantRejection::Unavailable => Denial::Unavailable,
            GrantRejection::OtherProviderApp | GrantRejection::MachineClientRemoved => Denial::Invalid,
        })?;
        let Some(holder) = &token.resource_owner else {
            let machine = self.grants.find_machine_client(token).ok_or(Denial::Invalid)?;
            let (label, roles) = (Arc::clone(&machine.label), machine.roles.clone());
            return Ok(Principal::Machine(MachinePrincipal { client_id, label, roles }));
        };
        Ok(Principal::User(UserPrincipal {
            account: Arc::clone(&holder.account),
            subject: Arc::clone(&token.claims.sub),
            client_id,
            client_name: token.claims.client_name.clone(),
            grant: token.grant_id,
        }))
    }

    /// Returns the challenge of RFC 6750 section 3 and RFC 9728 section 5.1, from which clients
    /// discover the login. A 403 that no scope resolves gets none, since clients would request
    /// tokens endlessly.
    pub(super) fn challenge(&self, denial: Denial, spelling: ResourceSpelling) -> Option<HeaderValue> {
        let error = match denial {
            Denial::Missing => "",
            Denial::Malformed => r#", error="invalid_request""#,
            Denial::Invalid => {
                r#", error="invalid_token", error_description="the token is unknown, expired or revoked; log in again""#
            }
            Denial::InsufficientScope => {
                r#", error="insufficient_scope", error_description="the token was not issued for calling tools""#
            }
            Denial::NotPrivate
            | Denial::NetworkNotAllowed
            | Denial::NotAllowed
            | Denial::Blocked
            | Denial::Unavailable => return None,
        };
        let (realm, metadata) = self.grants.challenge_params(spelling);
        let text =
            format!(r#"Bearer realm="{realm}", resource_metadata="{metadata}", scope="{MCP_SCOPE}"{error}"#);
        Some(HeaderValue::try_from(text).expect("names and URLs are visible ASCII"))
    }

    pub(super) fn describe(&self) -> String {
        let name = self.brand().name;
        match self.grants.login_spec().machine_clients.len() {
            0 => format!("login with {name}"),
            machines => format!("login with {name}, machine clients ({machines})"),
        }
    }
}

impl MachinePrincipal {
    /// Whether the rules admit the machine. Of the rules for people, only the roles apply, by those
    /// that the operator gave it.
    pub(super) fn satisfies(&self, rules: &AccessRules) -> bool {
        rules.is_empty() || rules.roles.iter().any(|role| self.roles.contains(role))
    }
}

#[cfg(test)]
mod tests;
