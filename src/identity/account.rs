//! An authenticated account, and whether the access rules admit it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::spec::AccessRules;

/// An account that logged in. `tid` and `oid` identify it permanently; the names are for display
/// and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The directory's id.
    pub tid: Arc<str>,
    /// The account's id in the directory.
    pub oid: Arc<str>,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// `preferred_username`: it can change, and be reassigned to another account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Arc<str>>,
    /// The values of the app roles that are assigned to the account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Arc<str>>,
    /// The account's groups.
    pub groups: GroupMembership,
    /// Whether this is an account of another directory that was invited into this one.
    pub guest: bool,
}

/// The groups of an account, as far as the token lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupMembership {
    /// Object ids; also empty if the app registration does not request the `groups` claim.
    Known(Vec<Arc<str>>),
    /// More groups than fit into a token, so that Entra lists none of them.
    TooMany,
}

impl Person {
    /// Verifies that these rules admit the person.
    ///
    /// # Errors
    /// Returns an error for the person to read if the rules do not name the account, if they name
    /// groups and Entra did not list the account's, or if the account's domain is not an allowed
    /// one.
    pub fn check_rules(&self, rules: &AccessRules) -> Result<(), Error> {
        self.check_listed(rules)?;
        match rules.email_domains.is_empty() || self.has_allowed_domain(rules) {
            true => Ok(()),
            false => Err(Error::another_domain()),
        }
    }

    fn check_listed(&self, rules: &AccessRules) -> Result<(), Error> {
        let share = |asked: &[Arc<str>], had: &[Arc<str>]| asked.iter().any(|one| had.contains(one));
        if rules.names_nobody() || share(&rules.roles, &self.roles) || rules.users.contains(&self.oid) {
            return Ok(());
        }
        match &self.groups {
            GroupMembership::Known(groups) if share(&rules.groups, groups) => Ok(()),
            GroupMembership::TooMany if !rules.groups.is_empty() => Err(Error::groups_missing()),
            _ => Err(Error::not_listed()),
        }
    }

    fn has_allowed_domain(&self, rules: &AccessRules) -> bool {
        let domain =
            self.username.as_deref().and_then(|name| name.rsplit_once('@')).map(|(_, domain)| domain);
        domain.is_some_and(|domain| rules.email_domains.iter().any(|one| one.eq_ignore_ascii_case(domain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Person {
        Person {
            tid: "t".into(),
            oid: "o".into(),
            name: None,
            username: Some("ada@Contoso.com".into()),
            roles: vec!["Analyst".into()],
            groups: GroupMembership::Known(vec!["g1".into()]),
            guest: false,
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

    fn class(person: &Person, rules: &AccessRules) -> &'static str {
        person.check_rules(rules).err().map_or("in", |error| error.class())
    }

    #[test]
    fn one_of_roles_groups_and_users_lets_in_and_domains_narrow() {
        let ada = person();
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
        let nameless = Person { username: None, ..person() };
        assert_eq!(class(&nameless, &rules(&[], &[], &[], &["contoso.com"])), "another_domain");
    }

    #[test]
    fn groups_that_are_not_told_let_nobody_in() {
        let many = Person { groups: GroupMembership::TooMany, ..person() };
        assert_eq!(class(&many, &rules(&[], &["g1"], &[], &[])), "groups_untold");
        assert_eq!(class(&many, &rules(&["Analyst"], &["g1"], &[], &[])), "in");
        assert_eq!(class(&many, &rules(&["Admin"], &[], &[], &[])), "not_named");
    }
}
