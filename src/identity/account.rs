//! An authenticated account, and whether the access rules admit it.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::base::digest::Hasher;
use crate::spec::AccessRules;
use crate::telemetry::audit::Actor;

/// An account that logged in. `issuer` and `subject` identify it permanently; the names are for
/// display and logs. It is stored in grants, under the names of the first version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Who keeps the account, as the provider names it: an issuer (OpenID Connect Core section 2),
    /// or a directory's id.
    #[serde(rename = "tid")]
    pub issuer: Arc<str>,
    /// The account's id at the issuer, which is never given to another account.
    #[serde(rename = "oid")]
    pub subject: Arc<str>,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// `preferred_username`: it can change, and be reassigned to another account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Arc<str>>,
    /// The e-mail address, if the provider verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_email: Option<Arc<str>>,
    /// The values of the app roles that are assigned to the account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Arc<str>>,
    /// The account's groups.
    pub groups: GroupMembership,
    /// Whether this is an account of another directory that was invited into this one.
    #[serde(rename = "guest")]
    pub is_guest: bool,
}

/// The groups of an account, as far as the token lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupMembership {
    /// Ids of groups; also empty if the provider is not asked for them.
    Known(Vec<Arc<str>>),
    /// More groups than fit into a token, so that the provider lists none of them.
    TooMany,
}

/// The stable and unique id of an account, from which its issuer and subject cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountId(String);

/// Why the access rules do not admit an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleRejection {
    /// The account is neither listed itself, nor by a role or group.
    NotListed,
    /// The rules list groups, and the provider did not tell the account's.
    GroupsUnknown,
    /// The account's domain is not an allowed one.
    OtherDomain,
}

impl AccountId {
    /// Returns the id as it stands in `sub` of access tokens.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Account {
    /// Returns the account's id.
    pub fn id(&self) -> AccountId {
        let mut fields = Hasher::new();
        [&self.issuer, &self.subject].iter().for_each(|field| fields.update_field(field.as_bytes()));
        AccountId(BASE64_URL_SAFE_NO_PAD.encode(fields.finish().as_bytes()))
    }

    /// Returns the account's names for the audit log.
    pub fn audit_identity(&self) -> Actor<'_> {
        Actor {
            tid: Some(&self.issuer),
            oid: Some(&self.subject),
            user: self.username.as_deref(),
            label: None,
        }
    }

    /// Verifies that these rules admit the account.
    ///
    /// # Errors
    /// Returns why not: the rules do not list the account, they list groups and the account's are
    /// unknown, or its domain is not an allowed one.
    pub fn check_rules(&self, rules: &AccessRules) -> Result<(), RuleRejection> {
        self.check_listed(rules)?;
        match rules.email_domains.is_empty() || self.has_allowed_domain(rules) {
            true => Ok(()),
            false => Err(RuleRejection::OtherDomain),
        }
    }

    fn check_listed(&self, rules: &AccessRules) -> Result<(), RuleRejection> {
        let share = |asked: &[Arc<str>], had: &[Arc<str>]| asked.iter().any(|one| had.contains(one));
        if rules.names_nobody() || share(&rules.roles, &self.roles) || rules.users.contains(&self.subject) {
            return Ok(());
        }
        match &self.groups {
            GroupMembership::Known(groups) if share(&rules.groups, groups) => Ok(()),
            GroupMembership::TooMany if !rules.groups.is_empty() => Err(RuleRejection::GroupsUnknown),
            _ => Err(RuleRejection::NotListed),
        }
    }

    /// The domain is that of the verified address, else of the user name.
    fn has_allowed_domain(&self, rules: &AccessRules) -> bool {
        let address = self.verified_email.as_deref().or(self.username.as_deref());
        let domain = address.and_then(|address| address.rsplit_once('@')).map(|(_, domain)| domain);
        domain.is_some_and(|domain| rules.email_domains.iter().any(|one| one.eq_ignore_ascii_case(domain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            issuer: "t".into(),
            subject: "o".into(),
            name: None,
            username: Some("ada@Contoso.com".into()),
            verified_email: None,
            roles: vec!["Analyst".into()],
            groups: GroupMembership::Known(vec!["g1".into()]),
            is_guest: false,
        }
    }

    fn rules(roles: &[&str], groups: &[&str], users: &[&str], domains: &[&str]) -> AccessRules {
        let list = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect();
        AccessRules {
            roles: list(roles),
            groups: list(groups),
            users: list(users),
            email_domains: list(domains),
        }
    }

    #[test]
    fn roles_groups_or_users_admit_and_domains_restrict() {
        let ada = account();
        for (let_in, rules) in [
            (true, rules(&[], &[], &[], &[])),
            (true, rules(&["Analyst"], &[], &[], &[])),
            (true, rules(&["Admin"], &["g1"], &[], &[])),
            (true, rules(&["Admin"], &["g2"], &["o"], &[])),
            (true, rules(&["Analyst"], &[], &[], &["contoso.com"])),
            (false, rules(&["analyst"], &[], &[], &[])),
            (false, rules(&["Admin"], &["g2"], &["x"], &[])),
            (false, rules(&["Analyst"], &[], &[], &["example.com"])),
            (false, rules(&[], &[], &[], &["oso.com"])),
        ] {
            assert_eq!(ada.check_rules(&rules).is_ok(), let_in, "{rules:?}");
        }
        let nameless = Account { username: None, ..account() };
        let domain = rules(&[], &[], &[], &["contoso.com"]);
        assert_eq!(nameless.check_rules(&domain), Err(RuleRejection::OtherDomain));
    }

    #[test]
    fn a_verified_address_counts_before_the_user_name() {
        let elsewhere = Account { verified_email: Some("ada@example.com".into()), ..account() };
        let domain = |domain| rules(&[], &[], &[], &[domain]);
        assert_eq!(elsewhere.check_rules(&domain("example.com")), Ok(()));
        assert_eq!(elsewhere.check_rules(&domain("contoso.com")), Err(RuleRejection::OtherDomain));
    }

    #[test]
    fn unknown_groups_admit_nobody() {
        let many = Account { groups: GroupMembership::TooMany, ..account() };
        assert_eq!(many.check_rules(&rules(&[], &["g1"], &[], &[])), Err(RuleRejection::GroupsUnknown));
        assert_eq!(many.check_rules(&rules(&["Analyst"], &["g1"], &[], &[])), Ok(()));
        assert_eq!(many.check_rules(&rules(&["Admin"], &[], &[], &[])), Err(RuleRejection::NotListed));
    }
}
