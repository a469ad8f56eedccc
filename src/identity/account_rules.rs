//! Which accounts a tenant admits, and whether an earlier login is still valid under the tenant's
//! current file. Pure functions, evaluated at each login, at each renewal and on every call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::Person;
use crate::spec::{DirectorySpec, IdentitySpec};

/// The Entra directory that holds all personal Microsoft accounts.
pub(super) const PERSONAL_ACCOUNTS_DIRECTORY: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// The app registration and directory of a login, as the tenant's file named them at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderApp {
    /// The application (client) id.
    pub app: Arc<str>,
    /// The directory's id, one of its domains, or `organizations` or `common`.
    pub directory: Arc<str>,
}

/// Why an account or an earlier login is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountRejection {
    /// The login was made for another app registration.
    App,
    /// The account is in another directory, or the directory of the login cannot be proven to be
    /// the same.
    Directory,
    /// The account is a guest of the directory.
    Guest,
    /// The account is a personal one.
    Personal,
}

impl AccountRejection {
    /// Whether logging in again, perhaps with another account, resolves it.
    pub fn is_fixed_by_new_login(self) -> bool {
        matches!(self, Self::App | Self::Directory)
    }
}

impl ProviderApp {
    /// Returns the app registration and directory that the tenant's file names now.
    pub fn from_spec(identity: &IdentitySpec) -> Self {
        Self { app: Arc::clone(&identity.client_id), directory: identity.directory.url_segment() }
    }

    /// Returns an upstream that matches no app and no directory, for logins of unknown origin.
    pub fn unknown() -> Self {
        Self { app: "".into(), directory: "".into() }
    }
}

/// Verifies that an earlier login of `person`, made at `upstream`, is valid under this tenant's
/// current login settings.
///
/// # Errors
/// Returns why the login is not admitted: its app or directory is not the tenant's any more, or the
/// tenant does not admit guests or personal accounts.
pub fn check_login(
    identity: &IdentitySpec,
    upstream: &ProviderApp,
    person: &Person,
) -> Result<(), AccountRejection> {
    if upstream.app != identity.client_id {
        return Err(AccountRejection::App);
    }
    match &identity.directory {
        // The token proves the account's directory; the name under which it was addressed proves
        // nothing.
        DirectorySpec::One(id) if is_guid(id) && *id != person.tid => {
            return Err(AccountRejection::Directory);
        }
        // Only Entra can resolve a domain to a directory, so a login counts only if it was made
        // under the same domain.
        DirectorySpec::One(name) if !is_guid(name) && *name != upstream.directory => {
            return Err(AccountRejection::Directory);
        }
        DirectorySpec::One(_) | DirectorySpec::Several { .. } => {}
    }
    check_account(identity, &person.tid, person.guest)
}

/// Verifies that the tenant admits accounts of this kind. For a tenant with a single directory, the
/// caller has verified that the account is in that directory.
pub(super) fn check_account(identity: &IdentitySpec, tid: &str, guest: bool) -> Result<(), AccountRejection> {
    let is_personal = tid == PERSONAL_ACCOUNTS_DIRECTORY;
    let is_listed = match &identity.directory {
        DirectorySpec::One(_) => true,
        DirectorySpec::Several { allowed, .. } => allowed.iter().any(|allowed| **allowed == *tid),
    };
    match () {
        () if !is_listed && !is_personal => Err(AccountRejection::Directory),
        () if is_personal && !identity.allow_personal_accounts => Err(AccountRejection::Personal),
        () if guest && !identity.allow_guests => Err(AccountRejection::Guest),
        () => Ok(()),
    }
}

/// Whether `text` is an id as Entra gives them to directories and accounts: a lower-case GUID,
/// 8-4-4-4-12.
pub(super) fn is_guid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match dashes.contains(&at) {
            true => byte == b'-',
            false => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::secret::Secret;
    use crate::identity::GroupMembership;
    use crate::spec::Audience;

    const HOME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";
    const APP: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";

    fn identity(directory: DirectorySpec) -> IdentitySpec {
        let client_secrets = vec![Secret::new("x")];
        IdentitySpec {
            client_id: APP.into(),
            client_secrets,
            directory,
            allow_guests: false,
            allow_personal_accounts: false,
        }
    }

    fn one(name: &str) -> DirectorySpec {
        DirectorySpec::One(name.into())
    }

    fn several(allowed: &[&str]) -> DirectorySpec {
        let allowed = allowed.iter().map(|id| Arc::from(*id)).collect();
        DirectorySpec::Several { audience: Audience::Common, allowed }
    }

    fn person(tid: &str, guest: bool) -> Person {
        let groups = GroupMembership::Known(Vec::new());
        Person { tid: tid.into(), oid: "o".into(), name: None, username: None, roles: vec![], groups, guest }
    }

    fn check_login_between(
        now: &IdentitySpec,
        then: &IdentitySpec,
        tid: &str,
        guest: bool,
    ) -> Result<(), AccountRejection> {
        check_login(now, &ProviderApp::from_spec(then), &person(tid, guest))
    }

    #[test]
    fn a_login_counts_under_the_app_and_directory_that_it_was_made_for() {
        let home = identity(one(HOME));
        assert_eq!(check_login_between(&home, &home, HOME, false), Ok(()));
        let app = IdentitySpec { client_id: OTHER.into(), ..home.clone() };
        assert_eq!(check_login_between(&app, &home, HOME, false), Err(AccountRejection::App));
        assert_eq!(
            check_login_between(&identity(one(OTHER)), &home, HOME, false),
            Err(AccountRejection::Directory)
        );
        assert_eq!(
            check_login_between(&identity(several(&[OTHER])), &home, HOME, false),
            Err(AccountRejection::Directory)
        );
        assert_eq!(check_login_between(&identity(several(&[OTHER, HOME])), &home, HOME, false), Ok(()));
        assert_eq!(check_login_between(&home, &identity(several(&[HOME, OTHER])), HOME, false), Ok(()));
        assert_eq!(
            check_login_between(&home, &identity(several(&[HOME, OTHER])), OTHER, false),
            Err(AccountRejection::Directory)
        );
    }

    #[test]
    fn another_login_mends_what_is_of_the_login_and_nothing_else() {
        for (fault, mends) in [
            (AccountRejection::App, true),
            (AccountRejection::Directory, true),
            (AccountRejection::Guest, false),
            (AccountRejection::Personal, false),
        ] {
            assert_eq!(fault.is_fixed_by_new_login(), mends, "{fault:?}");
        }
    }

    #[test]
    fn a_domain_is_only_itself() {
        let domain = identity(one("contoso.com"));
        assert_eq!(check_login_between(&domain, &domain, HOME, false), Ok(()));
        assert_eq!(
            check_login_between(&identity(one(HOME)), &domain, HOME, false),
            Ok(()),
            "the id says which it was"
        );
        for then in [one("fabrikam.com"), one(HOME), several(&[HOME])] {
            assert_eq!(
                check_login_between(&domain, &identity(then), HOME, false),
                Err(AccountRejection::Directory)
            );
        }
    }

    #[test]
    fn guests_and_personal_accounts_count_while_they_are_taken() {
        let home = identity(one(HOME));
        let open = IdentitySpec { allow_guests: true, ..home.clone() };
        assert_eq!(check_login_between(&open, &open, HOME, true), Ok(()));
        assert_eq!(check_login_between(&home, &open, HOME, true), Err(AccountRejection::Guest));
        let listed = identity(several(&[HOME]));
        let personal = IdentitySpec { allow_personal_accounts: true, ..listed.clone() };
        assert_eq!(check_login_between(&personal, &personal, PERSONAL_ACCOUNTS_DIRECTORY, false), Ok(()));
        assert_eq!(
            check_login_between(&listed, &personal, PERSONAL_ACCOUNTS_DIRECTORY, false),
            Err(AccountRejection::Personal)
        );
    }

    fn any_identity() -> impl Strategy<Value = IdentitySpec> {
        let directory = prop_oneof![
            prop_oneof![Just(HOME), Just(OTHER), Just("contoso.com"), Just("fabrikam.com")].prop_map(one),
            Just(several(&[HOME])),
            Just(several(&[OTHER])),
            Just(several(&[HOME, OTHER])),
        ];
        (directory, any::<bool>(), any::<bool>(), prop_oneof![Just(APP), Just(OTHER)]).prop_map(
            |(directory, guests, personal, app)| IdentitySpec {
                client_id: app.into(),
                allow_guests: guests,
                allow_personal_accounts: personal,
                ..identity(directory)
            },
        )
    }

    proptest! {
        /// Whatever changes between a login and a call, the call is admitted only if a new login
        /// would be admitted too.
        #[test]
        fn no_call_is_let_in_that_a_new_login_would_not_be(
            then in any_identity(),
            now in any_identity(),
            tid in prop_oneof![Just(HOME), Just(OTHER), Just(PERSONAL_ACCOUNTS_DIRECTORY)],
            guest in any::<bool>(),
        ) {
            if check_login_between(&now, &then, tid, guest).is_ok() {
                prop_assert!(then.client_id == now.client_id);
                prop_assert!(check_account(&now, tid, guest).is_ok());
                if let DirectorySpec::One(name) = &now.directory {
                    let is_the_same = **name == *tid || now.directory.url_segment() == then.directory.url_segment();
                    prop_assert!(is_the_same, "{name} {tid}");
                }
            }
        }

        /// A login stays valid as long as the settings do not change.
        #[test]
        fn what_stays_as_it_is_shuts_nobody_out(
            identity in any_identity(),
            tid in prop_oneof![Just(HOME), Just(OTHER), Just(PERSONAL_ACCOUNTS_DIRECTORY)],
            guest in any::<bool>(),
        ) {
            let vouched = match &identity.directory {
                DirectorySpec::One(name) if is_guid(name) => **name == *tid,
                _ => true,
            };
            if vouched && check_account(&identity, tid, guest).is_ok() {
                prop_assert_eq!(check_login_between(&identity, &identity, tid, guest), Ok(()));
            }
        }
    }
}
