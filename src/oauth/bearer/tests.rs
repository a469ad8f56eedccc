use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::spec::ApiKeySpec;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn check_with(keys: &[(&str, &str, Option<i64>)]) -> BearerCheck {
    let key = |&(label, key, expires): &(&str, &str, Option<i64>)| ApiKeySpec {
        label: label.to_owned(),
        digest: Digest::of(key.as_bytes()),
        expires: expires.map(|second| Timestamp::from_second(second).expect("a moment")),
    };
    let access = AccessSpec { api_keys: keys.iter().map(key).collect(), ..AccessSpec::default() };
    BearerCheck::new(&access, OpenTenants::Private, Arc::default(), &AccessRevocations::default())
}

fn open_check(public: bool, open: OpenTenants) -> BearerCheck {
    BearerCheck::new(
        &AccessSpec { public, ..AccessSpec::default() },
        open,
        Arc::default(),
        &AccessRevocations::default(),
    )
}

fn headers(values: &[&str]) -> HeaderMap {
    let value = |text: &&str| (AUTHORIZATION, HeaderValue::from_str(text).expect("a header value"));
    values.iter().map(value).collect()
}

fn authorize_with(check: &BearerCheck, values: &[&str]) -> Result<String, Denial> {
    let label = |principal: Principal| principal.audit_identity().label.unwrap_or_default().to_owned();
    check.authorize_without_login(&headers(values), Some(HOME), NOW).map(label)
}

#[test]
fn each_key_is_admitted_under_its_label() {
    let check = check_with(&[("old", "key-1", None), ("new", "key-2", None)]);
    assert_eq!(authorize_with(&check, &["Bearer key-1"]).as_deref(), Ok("old"));
    assert_eq!(authorize_with(&check, &["Bearer key-2"]).as_deref(), Ok("new"));
    assert_eq!(authorize_with(&check, &["Bearer key-3"]), Err(Denial::Invalid));
    assert_eq!(authorize_with(&check, &["Bearer key-"]), Err(Denial::Invalid));
    assert_eq!(check.describe(), "api keys (2)");
}

#[test]
fn expired_key_is_refused_from_its_moment_on() {
    let check = check_with(&[("a", "key", Some(100))]);
    let at = |second| {
        check.authorize_without_login(
            &headers(&["Bearer key"]),
            Some(HOME),
            Timestamp::from_second(second).expect("a moment"),
        )
    };
    assert!(at(99).is_ok());
    assert_eq!(at(100), Err(Denial::Invalid));
}

#[test]
fn an_expired_key_does_not_hide_a_valid_one_with_the_same_digest() {
    for order in [[Some(-1), None], [None, Some(-1)]] {
        let check = check_with(&[("a", "key", order[0]), ("b", "key", order[1])]);
        assert!(authorize_with(&check, &["Bearer key"]).is_ok());
    }
}

#[test]
fn the_authorization_header_is_parsed_as_in_the_rfcs() {
    let check = check_with(&[("a", "k.e-y~1+/==", None)]);
    for good in ["Bearer k.e-y~1+/==", "bearer k.e-y~1+/==", "BEARER   k.e-y~1+/==", " Bearer k.e-y~1+/== "] {
        assert_eq!(authorize_with(&check, &[good]).as_deref(), Ok("a"), "{good:?}");
    }
    for missing in ["Basic dXNlcjpwYXNz", "BearerX key", "Digest"] {
        assert_eq!(authorize_with(&check, &[missing]), Err(Denial::Missing), "{missing:?}");
    }
    for malformed in
        ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer =", "Bearer a=b", "", "Be:arer x"]
    {
        assert_eq!(authorize_with(&check, &[malformed]), Err(Denial::Malformed), "{malformed:?}");
    }
    assert_eq!(authorize_with(&check, &[]), Err(Denial::Missing));
    assert_eq!(authorize_with(&check, &["Bearer k.e-y~1+/==", "Bearer k.e-y~1+/=="]), Err(Denial::Malformed));
    let endless = format!("Bearer {}", "a".repeat(MAX_CREDENTIAL_BYTES + 1));
    assert_eq!(authorize_with(&check, &[&endless]), Err(Denial::Malformed));
}

#[test]
fn a_key_is_required_from_loopback_too() {
    let keyed = AccessSpec { public: true, ..access_with_one_key() };
    for settings in [OpenTenants::Private, OpenTenants::Public, OpenTenants::Refused] {
        let check = BearerCheck::new(&keyed, settings, Arc::default(), &AccessRevocations::default());
        assert_eq!(check.authorize_without_login(&HeaderMap::new(), Some(HOME), NOW), Err(Denial::Missing));
    }
}

fn access_with_one_key() -> AccessSpec {
    let key = ApiKeySpec { label: "a".into(), digest: Digest::of(b"key"), expires: None };
    AccessSpec { api_keys: vec![key], ..AccessSpec::default() }
}

#[test]
fn an_open_tenant_answers_private_networks() {
    let check = open_check(false, OpenTenants::Private);
    let from = |peer: &str| check.authorize_without_login(&HeaderMap::new(), peer.parse().ok(), NOW);
    let private = [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.255.1",
        "192.168.0.9",
        "169.254.3.4",
        "::1",
        "fd00::7",
        "fe80::1",
        "::ffff:10.0.0.1",
    ];
    for peer in private {
        assert_eq!(from(peer), Ok(Principal::Anonymous), "{peer}");
    }
    let strangers = [
        "192.0.2.1",
        "100.64.0.1",
        "172.32.0.1",
        "0.0.0.0",
        "2001:db8::1",
        "::ffff:192.0.2.1",
        "::",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ];
    for peer in strangers {
        assert_eq!(from(peer), Err(Denial::NotPrivate), "{peer}");
    }
    let unknown = check.authorize_without_login(&HeaderMap::new(), None, NOW);
    assert_eq!((unknown, check.check_page_access(None)), (Err(Denial::NotPrivate), Err(Denial::NotPrivate)));
    assert_eq!(check.describe(), "open (private networks)");
}

#[test]
fn networks_that_the_settings_name_count_as_private() {
    let networks: Vec<IpNet> =
        ["100.64.0.0/10", "2001:db8:7::/48"].map(|net| net.parse().expect("a network")).into();
    let open = AccessSpec::default();
    let check = BearerCheck::new(
        &open,
        OpenTenants::Private,
        networks.as_slice().into(),
        &AccessRevocations::default(),
    );
    let from = |peer: &str| {
        let peer = peer.parse().ok();
        assert_eq!(
            check.check_page_access(peer).is_ok(),
            check.authorize_without_login(&HeaderMap::new(), peer, NOW).is_ok()
        );
        check.authorize_without_login(&HeaderMap::new(), peer, NOW)
    };
    for peer in ["100.64.0.1", "::ffff:100.100.50.50", "2001:db8:7::9", "10.0.0.1", "127.0.0.1"] {
        assert_eq!(from(peer), Ok(Principal::Anonymous), "{peer}");
    }
    for peer in ["100.128.0.1", "2001:db8:8::9", "192.0.2.1"] {
        assert_eq!(from(peer), Err(Denial::NotPrivate), "{peer}");
    }
}

#[test]
fn public_is_said_by_the_tenant_or_by_the_settings() {
    let stranger: Option<IpAddr> = "192.0.2.1".parse().ok();
    for check in [open_check(true, OpenTenants::Private), open_check(false, OpenTenants::Public)] {
        assert_eq!(check.authorize_without_login(&HeaderMap::new(), stranger, NOW), Ok(Principal::Anonymous));
        assert_eq!(check.describe(), "open (public)");
    }
    let shut = open_check(true, OpenTenants::Refused);
    assert_eq!(shut.authorize_without_login(&HeaderMap::new(), Some(HOME), NOW), Err(Denial::Missing));
}

#[test]
fn denials_speak_http() {
    let all = [Denial::Missing, Denial::Malformed, Denial::Invalid, Denial::NotPrivate];
    assert_eq!(all.map(|denial| denial.status().as_u16()), [401, 400, 401, 403]);
    assert_eq!(Denial::Missing.challenge(), Some("Bearer"));
    for denial in all {
        let challenged = denial.status() == StatusCode::UNAUTHORIZED;
        assert!(!challenged || denial.challenge().is_some(), "a 401 always has a challenge");
        assert!(denial.challenge().is_none_or(|text| HeaderValue::from_str(text).is_ok()));
        assert!(denial.message().ends_with('.'));
    }
}

#[test]
fn nothing_prints_a_key() {
    let check = check_with(&[("label", "canary", None)]);
    assert!(!format!("{check:?}").contains("canary"));
}

proptest! {
    #[test]
    fn a_key_of_one_tenant_never_opens_another(
        keys in proptest::collection::hash_set("[A-Za-z0-9._~+/-]{1,40}", 2..8),
        cut in 1..7_usize,
    ) {
        let keys: Vec<String> = keys.into_iter().collect();
        let (ours, theirs) = keys.split_at(cut.min(keys.len() - 1));
        let entries: Vec<_> = ours.iter().map(|key| ("ours", key.as_str(), None)).collect();
        let check = check_with(&entries);
        for key in ours {
            prop_assert_eq!(authorize_with(&check, &[&format!("Bearer {key}")]), Ok("ours".to_owned()));
        }
        for key in theirs {
            prop_assert_eq!(authorize_with(&check, &[&format!("Bearer {key}")]), Err(Denial::Invalid));
        }
    }

    #[test]
    fn no_arbitrary_header_is_admitted(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let value = HeaderValue::from_bytes(&value).ok().map(|value| (AUTHORIZATION, value));
        let outcome = check_with(&[("a", "key-1", None)]).authorize_without_login(&value.into_iter().collect(), Some(HOME), NOW);
        prop_assert!(outcome.is_err());
    }
}

#[test]
fn revoked_access_ends_its_calls_and_no_others() {
    let (revocations, now) = (AccessRevocations::default(), Timestamp::UNIX_EPOCH);
    let key = |label: &str| ApiKeySpec {
        label: label.to_owned(),
        digest: Digest::of(label.as_bytes()),
        expires: None,
    };
    let check = |keys: Vec<ApiKeySpec>, public| {
        BearerCheck::new(
            &AccessSpec { api_keys: keys, public, ..AccessSpec::default() },
            OpenTenants::Private,
            Arc::default(),
            &revocations,
        )
    };
    let holder = |label: &str| Principal::Key { label: label.into() };
    let both = check(vec![key("old"), key("new")], false);
    let one = check(vec![key("new")], false);
    revocations.retain_allowed(&one, now);
    assert!(both.revocation_token(&holder("old")).is_cancelled());
    assert!(!both.revocation_token(&holder("new")).is_cancelled());
    // A later revision also revokes the permissions that earlier ones gave.
    let open = check(vec![], false);
    revocations.retain_allowed(&open, now);
    assert!(
        both.revocation_token(&holder("new")).is_cancelled()
            && one.revocation_token(&holder("new")).is_cancelled()
    );
    // Opening further ends no call; closing does.
    let public = check(vec![], true);
    revocations.retain_allowed(&public, now);
    assert!(!open.revocation_token(&Principal::Anonymous).is_cancelled());
    revocations.retain_allowed(&check(vec![], false), now);
    assert!(public.revocation_token(&Principal::Anonymous).is_cancelled());
    assert!(!open.revocation_token(&Principal::Anonymous).is_cancelled());
}
