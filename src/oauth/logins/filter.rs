//! Which logins are meant: all of them, or those of a tenant, a person, a client, or one alone.

use std::sync::Arc;

use super::OpenedGrant;
use crate::identity::Account;
use crate::oauth::blocks::PersonRef;
use crate::store::GrantId;

/// Which logins are meant. Fields that are `None` restrict nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginFilter {
    /// The tenant's name.
    pub tenant: Option<Arc<str>>,
    /// Who logged in.
    pub person: Option<PersonName>,
    /// Who logged in, exactly.
    pub account: Option<PersonRef>,
    /// The client's id, or its name in any case.
    pub client: Option<String>,
    /// The id of the only login.
    pub id: Option<GrantId>,
}

/// How an operator names a person: by a user name or verified address, in any case, by the
/// account's id, or by `DIRECTORY/ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonName {
    given: String,
    small: String,
}

impl LoginFilter {
    pub(super) fn matches(&self, opened: &OpenedGrant) -> bool {
        let Self { tenant, person, account, client, id } = self;
        let grant = &opened.grant;
        let is_tenant = |tenant: &Arc<str>| tenant == grant.incarnation.tenant();
        let is_person = |person: &PersonName| opened.account().is_some_and(|account| person.matches(account));
        let is_account =
            |subject: &PersonRef| opened.account().is_some_and(|account| subject.matches(account));
        let is_client = |client: &String| {
            let name = opened.client_name();
            *client == grant.client_id
                || name.is_some_and(|name| name.to_lowercase() == client.to_lowercase())
        };
        tenant.as_ref().is_none_or(is_tenant)
            && person.as_ref().is_none_or(is_person)
            && account.as_ref().is_none_or(is_account)
            && client.as_ref().is_none_or(is_client)
            && id.is_none_or(|id| id == grant.id)
    }
}

impl PersonName {
    /// Takes what an operator wrote, unless it is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self { given: text.to_owned(), small: text.to_lowercase() })
    }

    /// Returns the name as it was given.
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// Returns the name in small letters.
    pub fn in_small_letters(&self) -> &str {
        &self.small
    }

    /// Whether the account has this name or id.
    pub fn matches(&self, account: &Account) -> bool {
        let is = |text: &str| text.to_lowercase() == self.small;
        let names = [account.username.as_deref(), account.verified_email.as_deref()];
        names.into_iter().flatten().any(is)
            || is(&account.subject)
            || is(&format!("{}/{}", account.issuer, account.subject))
    }
}
