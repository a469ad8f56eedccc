//! The bearer check of a tenant with login: an access token of this tenant, valid now, of a person
//! or machine that may call.

use std::sync::Arc;

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::{CallersLeave, Denial, Pass, Principal};
use crate::identity::Person;
use crate::oauth::access_token::{Fault, Token};
use crate::oauth::grants::{Grants, Refusal};
use crate::oauth::metadata::SCOPE;
use crate::spec::{AccessRules, LoginSpec, Resource};
use crate::store::GrantId;

/// The bearer check of a tenant with login.
#[derive(Debug, Clone)]
pub(super) struct Login {
    grants: Arc<Grants>,
}

/// A person who logged in, calling with a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The account, as of the last login or renewal.
    pub person: Arc<Person>,
    /// The `sub` of the person's tokens: stable and unique to the person.
    pub subject: Arc<str>,
    /// The OAuth client that calls.
    pub client_id: Arc<str>,
    /// The grant that the token belongs to.
    pub grant: GrantId,
}

/// A program that acts for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The client's id in the tenant's file.
    pub client_id: Arc<str>,
    /// The operator's name for it.
    pub label: Arc<str>,
    /// The roles that the operator gave it, for the access rules of tools.
    pub roles: Vec<Arc<str>>,
}

impl From<Arc<Grants>> for Login {
    fn from(grants: Arc<Grants>) -> Self {
        Self { grants }
    }
}

impl Login {
    pub(super) fn spec(&self) -> &Arc<LoginSpec> {
        self.grants.login()
    }

    /// Admits a caller with a valid token. `closed` fires when a later revision has another login.
    pub(super) async fn admit(&self, token: &[u8], closed: &CancellationToken) -> Result<Pass, Denial> {
        let token = self.grants.recognise(token).await.map_err(|fault| match fault {
            Fault::Invalid => Denial::Invalid,
            Fault::Unavailable => Denial::Unavailable,
        })?;
        if !token.claims.scope.split(' ').any(|scope| scope == SCOPE) {
            return Err(Denial::Scope);
        }
        let principal = self.principal(&token)?;
        // Taken before the last check, so that any later revocation ends the call.
        let grant = self.grants.leave(token.grant, closed);
        let leave = CallersLeave { revoked: CancellationToken::clone(&grant), _grant: Some(grant) };
        if self.grants.is_good(&token) { Ok(Pass { principal, leave }) } else { Err(Denial::Invalid) }
    }

    /// Returns the principal of a token, if the tenant's current rules admit it.
    fn principal(&self, token: &Token) -> Result<Principal, Denial> {
        let client_id = Arc::clone(&token.claims.client_id);
        self.grants.stands(token).map_err(|refusal| match refusal {
            Refusal::NotAllowed => Denial::NotAllowed,
            Refusal::Elsewhere | Refusal::MachineGone => Denial::Invalid,
        })?;
        let Some(holder) = &token.holder else {
            let machine = self.grants.machine(token).ok_or(Denial::Invalid)?;
            let (label, roles) = (Arc::clone(&machine.label), machine.roles.clone());
            return Ok(Principal::Machine(Machine { client_id, label, roles }));
        };
        let (person, subject) = (Arc::clone(&holder.person), Arc::clone(&token.claims.sub));
        Ok(Principal::User(User { person, subject, client_id, grant: token.grant }))
    }

    /// Returns the challenge of RFC 6750 section 3 and RFC 9728 section 5.1, from which clients
    /// discover the login. A 403 that no scope resolves gets none, since clients would request
    /// tokens endlessly.
    pub(super) fn challenge(&self, denial: Denial, asked: Resource) -> Option<HeaderValue> {
        let error = match denial {
            Denial::Missing => "",
            Denial::Malformed => r#", error="invalid_request""#,
            Denial::Invalid => {
                r#", error="invalid_token", error_description="the token is unknown, expired or revoked; log in again""#
            }
            Denial::Scope => {
                r#", error="insufficient_scope", error_description="the token was not issued for calling tools""#
            }
            Denial::NotPrivate | Denial::NotAllowed | Denial::Unavailable => return None,
        };
        let (realm, metadata) = self.grants.realm(asked);
        let text =
            format!(r#"Bearer realm="{realm}", resource_metadata="{metadata}", scope="{SCOPE}"{error}"#);
        Some(HeaderValue::try_from(text).expect("names and URLs are visible ASCII"))
    }

    pub(super) fn describe(&self) -> String {
        match self.grants.login().machine_clients.len() {
            0 => "login with Microsoft".to_owned(),
            machines => format!("login with Microsoft, machine clients ({machines})"),
        }
    }
}

impl Machine {
    /// Whether the rules admit the machine. Of the rules for people, only the roles apply, by those
    /// that the operator gave it.
    pub(super) fn may(&self, rules: &AccessRules) -> bool {
        rules.is_empty() || rules.roles.iter().any(|role| self.roles.contains(role))
    }
}

#[cfg(test)]
mod tests;
