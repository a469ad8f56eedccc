//! Which of Entra's accounts a tenant admits, and whether an earlier login is still valid under the
//! tenant's current file. Pure functions, evaluated at each login, at each renewal and on every
//! call.

use crate::identity::account::Account;
use crate::identity::provider_login::{LoginRejection, ProviderApp};
use crate::spec::{DirectorySpec, EntraSpec};

/// The Entra directory that holds all personal Microsoft accounts.
pub(in crate::identity) const PERSONAL_ACCOUNTS_DIRECTORY: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// Why an account or an earlier login is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccountRejection {
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

/// A new login, perhaps with another account, resolves the first two.
impl From<AccountRejection> for LoginRejection {
    fn from(rejection: AccountRejection) -> Self {
        match rejection {
            AccountRejection::App | AccountRejection::Directory => Self::OtherProviderApp,
            AccountRejection::Guest | AccountRejection::Personal => Self::NotAdmitted,
        }
    }
}

/// Verifies that an earlier login of `account`, made at `provider_app`, is valid under this
/// tenant's current login settings.
///
/// # Errors
/// Returns why the login is not admitted: its app or directory is not the tenant's any more, or the
/// tenant does not admit guests or personal accounts.
pub(super) fn check_login(
    spec: &EntraSpec,
    provider_app: &ProviderApp,
    account: &Account,
) -> Result<(), AccountRejection> {
    if provider_app.app != spec.client_id {
        return Err(AccountRejection::App);
    }
    match &spec.directory {
        // The token proves the account's directory; the name under which it was addressed proves
        // nothing.
        DirectorySpec::One(id) if is_guid(id) && *id != account.issuer => {
            return Err(AccountRejection::Directory);
        }
        // Only Entra can resolve a domain to a directory, so a login counts only if it was made
        // under the same domain.
        DirectorySpec::One(name) if !is_guid(name) && *name != provider_app.directory => {
            return Err(AccountRejection::Directory);
        }
        DirectorySpec::One(_) | DirectorySpec::Several { .. } => {}
    }
    check_account(spec, &account.issuer, account.is_guest)
}

/// Verifies that the tenant admits accounts of this kind. For a tenant with a single directory, the
/// caller has verified that the account is in that directory.
pub(super) fn check_account(spec: &EntraSpec, tid: &str, is_guest: bool) -> Result<(), AccountRejection> {
    let is_personal = tid == PERSONAL_ACCOUNTS_DIRECTORY;
    let is_listed = match &spec.directory {
        DirectorySpec::One(_) => true,
        DirectorySpec::Several { allowed, .. } => allowed.iter().any(|allowed| **allowed == *tid),
    };
    match () {
        () if !is_listed && !is_personal => Err(AccountRejection::Directory),
        () if is_personal && !spec.allow_personal_accounts => Err(AccountRejection::Personal),
        () if is_guest && !spec.allow_guests => Err(AccountRejection::Guest),
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
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::base::secret::Secret;
    use crate::identity::GroupMembership;
    use crate::spec::{Audience, ProviderSpec};

    const HOME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";
    const APP: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";

    fn identity(directory: DirectorySpec) -> EntraSpec {
        let client_secrets = vec![Secret::new("x")];
        EntraSpec {
            client_id: APP.into(),
            client_secrets,
            client_secret_expires: None,
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

    fn account(tid: &str, is_guest: bool) -> Account {
        Account {
            issuer: tid.into(),
            subject: "o".into(),
            name: None,
            username: None,
            verified_email: None,
            roles: vec![],
            groups: GroupMembership::Known(Vec::new()),
            is_guest,
        }
    }

    fn provider_app(spec: &EntraSpec) -> ProviderApp {
        ProviderApp::from_spec(&ProviderSpec::Entra(Arc::new(spec.clone())))
    }

    fn check_login_between(
        now: &EntraSpec,
        then: &EntraSpec,
        tid: &str,
        guest: bool,
    ) -> Result<(), AccountRejection> {
        check_login(now, &provider_app(then), &account(tid, guest))
    }

    #[test]
    fn a_login_counts_under_the_app_and_directory_that_it_was_made_for() {
        let home = identity(one(HOME));
        assert_eq!(check_login_between(&home, &home, HOME, false), Ok(()));
        let app = EntraSpec { client_id: OTHER.into(), ..home.clone() };
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
            assert_eq!(LoginRejection::from(fault) == LoginRejection::OtherProviderApp, mends, "{fault:?}");
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
        let open = EntraSpec { allow_guests: true, ..home.clone() };
        assert_eq!(check_login_between(&open, &open, HOME, true), Ok(()));
        assert_eq!(check_login_between(&home, &open, HOME, true), Err(AccountRejection::Guest));
        let listed = identity(several(&[HOME]));
        let personal = EntraSpec { allow_personal_accounts: true, ..listed.clone() };
        assert_eq!(check_login_between(&personal, &personal, PERSONAL_ACCOUNTS_DIRECTORY, false), Ok(()));
        assert_eq!(
            check_login_between(&listed, &personal, PERSONAL_ACCOUNTS_DIRECTORY, false),
            Err(AccountRejection::Personal)
        );
    }

    fn any_identity() -> impl Strategy<Value = EntraSpec> {
        let directory = prop_oneof![
            prop_oneof![Just(HOME), Just(OTHER), Just("contoso.com"), Just("fabrikam.com")].prop_map(one),
            Just(several(&[HOME])),
            Just(several(&[OTHER])),
            Just(several(&[HOME, OTHER])),
        ];
        (directory, any::<bool>(), any::<bool>(), prop_oneof![Just(APP), Just(OTHER)]).prop_map(
            |(directory, guests, personal, app)| EntraSpec {
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
