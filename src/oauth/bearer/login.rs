//! What a tenant with login asks of its callers: an access token of its own, in force now, by somebody who may call.

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

/// The check of a tenant with login.
#[derive(Debug, Clone)]
pub(super) struct Login {
    grants: Arc<Grants>,
}

/// Somebody who logged in, by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub person: Arc<Person>,
    /// Stable and theirs alone: `sub` of their tokens.
    pub subject: Arc<str>,
    pub client_id: Arc<str>,
    pub grant: GrantId,
}

/// A program that acts for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub client_id: Arc<str>,
    /// What its operator calls it.
    pub label: Arc<str>,
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

    /// Lets in whoever brings a good token. `closed` fires when a later revision asks for something else.
    pub(super) async fn admit(&self, token: &[u8], closed: &CancellationToken) -> Result<Pass, Denial> {
        let token = self.grants.recognise(token).await.map_err(|fault| match fault {
            Fault::Invalid => Denial::Invalid,
            Fault::Unavailable => Denial::Unavailable,
        })?;
        if !token.claims.scope.split(' ').any(|scope| scope == SCOPE) {
            return Err(Denial::Scope);
        }
        let principal = self.principal(&token)?;
        // Taken before the last look: whatever is revoked after that ends the call.
        let grant = self.grants.leave(token.grant, closed);
        let leave = CallersLeave { revoked: CancellationToken::clone(&grant), _grant: Some(grant) };
        if self.grants.is_good(&token) { Ok(Pass { principal, leave }) } else { Err(Denial::Invalid) }
    }

    /// Who stands behind a token, if today's rules let them call.
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

    /// RFC 6750 section 3, RFC 9728 section 5.1. Clients find everything else from here. A 403 that no scope can mend has none, since
    /// clients would ask for tokens without end.
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
    /// Rules for people do not hold for it, but for the roles that its operator gave it.
    pub(super) fn may(&self, rules: &AccessRules) -> bool {
        rules.is_empty() || rules.roles.iter().any(|role| self.roles.contains(role))
    }
}

#[cfg(test)]
mod tests;
