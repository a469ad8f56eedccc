use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::InvalidEntraToken::IdToken;
use super::*;
use crate::base::secret::Secret;
use crate::spec::{Audience, DirectorySpec};

const TID: &str = "11111111-2222-3333-4444-555555555555";
const OID: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const NOW: i64 = 1_790_000_000;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; KEY.public_modulus_len()];
    KEY.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).expect("signed");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header() -> Value {
    json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" })
}

fn keys_for(issuer: Option<&str>) -> ProviderKeys {
    let n = URL_SAFE_NO_PAD.encode(KEY.public_key().modulus().big_endian_without_leading_zero());
    let e = URL_SAFE_NO_PAD.encode(KEY.public_key().exponent().big_endian_without_leading_zero());
    let key = json!({ "kty": "RSA", "use": "sig", "kid": "k1", "n": n, "e": e, "issuer": issuer });
    ProviderKeys::parse(json!({ "keys": [key] }).to_string().as_bytes()).expect("a key")
}

fn issuer() -> String {
    format!("https://login.test/{TID}/v2.0")
}

fn claims() -> Value {
    json!({
        "iss": issuer(), "aud": "app", "exp": NOW + 3600, "nbf": NOW, "iat": NOW, "nonce": "n-1", "ver": "2.0",
        "tid": TID, "oid": OID, "sub": "pairwise", "name": "Ada", "preferred_username": "ada@contoso.com",
        "roles": ["Analyst"], "groups": ["g1"],
    })
}

fn spec() -> EntraSpec {
    EntraSpec {
        client_id: "app".into(),
        client_secrets: vec![Secret::new("s")],
        client_secret_expires: None,
        directory: DirectorySpec::One(TID.into()),
        allow_guests: false,
        allow_personal_accounts: false,
    }
}

fn verify_for(claims: &Value, spec: &EntraSpec, issuer: &str) -> Result<Account, InvalidEntraToken> {
    let now = Timestamp::from_second(NOW).expect("a time");
    verify(
        &sign(&header(), claims),
        &keys_for(None),
        &IdTokenExpectations { spec, issuer, nonce: Some("n-1"), now },
    )
}

fn verify_claims(claims: &Value) -> Result<Account, InvalidEntraToken> {
    verify_for(claims, &spec(), &issuer())
}

/// Returns the valid claims with some of them replaced.
fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn verification_error(token: &str, keys: &ProviderKeys) -> InvalidEntraToken {
    let now = Timestamp::from_second(NOW).expect("a time");
    let expected = IdTokenExpectations { spec: &spec(), issuer: &issuer(), nonce: None, now };
    verify(token, keys, &expected).expect_err("a fault")
}

#[test]
fn a_good_token_is_an_account() {
    let account = verify_claims(&claims()).expect("an account");
    assert_eq!((&*account.issuer, &*account.subject, account.is_guest), (TID, OID, false));
    assert_eq!(account.roles, ["Analyst".into()]);
    assert_eq!(account.groups, GroupMembership::Known(vec!["g1".into()]));
}

#[test]
fn each_claim_must_be_what_it_must_be() {
    for (changes, fault) in [
        (json!({ "iss": format!("https://sts.windows.net/{TID}/") }), IdToken(InvalidIdToken::Issuer)),
        (json!({ "iss": format!("{}/", issuer()) }), IdToken(InvalidIdToken::Issuer)),
        (json!({ "aud": "other" }), IdToken(InvalidIdToken::Audience)),
        (json!({ "aud": ["app"] }), InvalidEntraToken::Malformed),
        (json!({ "azp": "other" }), IdToken(InvalidIdToken::Audience)),
        (json!({ "exp": NOW - 120 }), IdToken(InvalidIdToken::Expired)),
        (json!({ "iat": NOW + 121 }), IdToken(InvalidIdToken::NotYetValid)),
        (json!({ "nbf": NOW + 121 }), IdToken(InvalidIdToken::NotYetValid)),
        (json!({ "exp": "soon" }), InvalidEntraToken::Malformed),
        (json!({ "exp": i64::MAX }), InvalidEntraToken::Malformed),
        (json!({ "nonce": "n-2" }), IdToken(InvalidIdToken::Nonce)),
        (json!({ "nonce": null }), IdToken(InvalidIdToken::Nonce)),
        (json!({ "ver": "1.0" }), InvalidEntraToken::Version),
        (json!({ "tid": "other" }), InvalidEntraToken::Malformed),
        (json!({ "tid": OID }), InvalidEntraToken::Directory),
        (json!({ "oid": "" }), InvalidEntraToken::Malformed),
        (json!({ "acct": 1 }), InvalidEntraToken::Guest),
        (json!({ "idp": "live.com" }), InvalidEntraToken::Guest),
        (json!({ "preferred_username": "ada_live.com#EXT#@contoso.com" }), InvalidEntraToken::Guest),
    ] {
        assert_eq!(verify_claims(&claims_with(changes.clone())).expect_err("a fault"), fault, "{changes}");
    }
    for changes in [
        json!({ "exp": NOW - 119 }),
        json!({ "iat": NOW + 120, "nbf": NOW + 120 }),
        json!({ "azp": "app" }),
        json!({ "idp": format!("https://sts.windows.net/{TID}/") }),
        json!({ "idp": "https://sts.windows.net/x/", "acct": 0 }),
    ] {
        assert!(verify_claims(&claims_with(changes.clone())).is_ok(), "{changes}");
    }
}

#[test]
fn a_missing_claim_is_never_forgiven() {
    for name in ["iss", "aud", "exp", "iat", "nonce", "ver", "tid", "oid"] {
        let mut claims = claims();
        claims.as_object_mut().expect("an object").remove(name);
        assert!(verify_claims(&claims).is_err(), "{name}");
    }
}

#[test]
fn a_signature_is_ours_to_check() {
    let keys = keys_for(None);
    let good = sign(&header(), &claims());
    let none = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims()));
    assert_eq!(verification_error(&none, &keys), InvalidEntraToken::Malformed);
    let with_header = |header: Value| sign(&header, &claims());
    assert_eq!(
        verification_error(&with_header(json!({"alg": "HS256", "kid": "k1"})), &keys),
        IdToken(InvalidIdToken::Algorithm)
    );
    assert_eq!(
        verification_error(&with_header(json!({"alg": "PS256", "kid": "k1"})), &keys),
        IdToken(InvalidIdToken::Algorithm)
    );
    assert_eq!(
        verification_error(&with_header(json!({"alg": "RS256", "kid": "k2"})), &keys),
        IdToken(InvalidIdToken::UnknownKey)
    );
    assert_eq!(
        verification_error(&with_header(json!({"alg": "RS256"})), &keys),
        IdToken(InvalidIdToken::UnknownKey)
    );
    let critical = json!({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": false});
    assert_eq!(verification_error(&with_header(critical), &keys), InvalidEntraToken::Malformed);
    let (message, _) = good.rsplit_once('.').expect("three parts");
    assert_eq!(verification_error(&format!("{message}."), &keys), IdToken(InvalidIdToken::Signature));
    assert_eq!(verification_error("", &keys), InvalidEntraToken::Malformed);
    assert_eq!(verification_error(&"a".repeat(1 << 20), &keys), InvalidEntraToken::Malformed);
    // A key that the directory publishes for other issuers.
    let foreign = keys_for(Some("https://login.test/other/v2.0"));
    assert_eq!(verification_error(&good, &foreign), IdToken(InvalidIdToken::KeyIssuer));
    let any = keys_for(Some("https://login.test/{tenantid}/v2.0"));
    assert!(
        verify(
            &good,
            &any,
            &IdTokenExpectations {
                spec: &spec(),
                issuer: &issuer(),
                nonce: None,
                now: Timestamp::from_second(NOW).expect("a time")
            }
        )
        .is_ok()
    );
}

#[test]
fn the_keys_own_hmac_is_no_signature() {
    let message = format!("{}.{}", part(&json!({"alg": "HS256", "kid": "k1"})), part(&claims()));
    let public = KEY.public_key().as_der().expect("DER");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_ref());
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
    assert_eq!(verification_error(&token, &keys_for(None)), IdToken(InvalidIdToken::Algorithm));
}

#[test]
fn only_accounts_of_listed_directories_are_admitted() {
    let template = "https://login.test/{tenantid}/v2.0";
    let several = |allowed: &str, personal| EntraSpec {
        directory: DirectorySpec::Several { audience: Audience::Common, allowed: vec![allowed.into()] },
        allow_personal_accounts: personal,
        ..spec()
    };
    let personal = claims_with(
        json!({ "tid": PERSONAL_ACCOUNTS_DIRECTORY, "iss": format!("https://login.test/{PERSONAL_ACCOUNTS_DIRECTORY}/v2.0"), "idp": "live.com" }),
    );
    assert!(verify_for(&claims(), &several(TID, false), template).is_ok());
    assert_eq!(
        verify_for(&claims(), &several(PERSONAL_ACCOUNTS_DIRECTORY, false), template),
        Err(InvalidEntraToken::Directory)
    );
    assert_eq!(verify_for(&personal, &several(TID, false), template), Err(InvalidEntraToken::Personal));
    assert!(verify_for(&personal, &several(TID, true), template).is_ok());
    // The issuer must name the same directory as the token.
    let mixed = claims_with(json!({ "tid": PERSONAL_ACCOUNTS_DIRECTORY }));
    assert_eq!(verify_for(&mixed, &several(TID, true), template), Err(IdToken(InvalidIdToken::Issuer)));
}

#[test]
fn guests_are_taken_where_they_are_let_in() {
    let guests = EntraSpec { allow_guests: true, ..spec() };
    let account = verify_for(&claims_with(json!({ "acct": 1 })), &guests, &issuer()).expect("let in");
    assert!(account.is_guest);
}

#[test]
fn groups_that_did_not_fit_are_not_taken_for_none() {
    for changes in [
        json!({ "groups": null, "_claim_names": { "groups": "src1" } }),
        json!({ "groups": ["g1"], "_claim_names": { "groups": "src1" } }),
        json!({ "groups": null, "hasgroups": true }),
    ] {
        assert_eq!(
            verify_claims(&claims_with(changes)).expect("an account").groups,
            GroupMembership::TooMany
        );
    }
    assert_eq!(
        verify_claims(&claims_with(json!({ "groups": null }))).expect("an account").groups,
        GroupMembership::Known(vec![])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_sent_is_refused_without_a_panic(text in "[A-Za-z0-9_.{}\":-]{0,200}") {
        prop_assert!(verify_text(&text).is_err());
    }

    /// A valid token becomes invalid if any of its bytes changes.
    #[test]
    fn no_byte_of_a_token_can_be_changed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
        static GOOD: LazyLock<String> = LazyLock::new(|| sign(&header(), &claims()));
        let at = at.index(GOOD.len());
        prop_assume!(GOOD.as_bytes()[at] != to.as_bytes()[0]);
        let mut token = GOOD.clone();
        token.replace_range(at..=at, &to);
        prop_assert!(verify_text(&token).is_err());
    }

    /// Each claim has a single valid value; dates are valid within the skew only.
    #[test]
    fn a_claim_of_any_other_value_is_refused(
        name in prop::sample::select(vec!["iss", "aud", "nonce", "ver", "tid", "azp"]),
        value in prop_oneof![any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(json!([])), Just(json!({}))],
    ) {
        prop_assume!(claims()[name] != value && !(name == "azp" && value == "app"));
        let refused = verify_claims(&claims_with(json!({ name: value }))).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn times_count_by_the_skew(iat in -400i64..400, nbf in -400i64..400, exp in -400i64..400) {
        let claims = claims_with(json!({ "iat": NOW + iat, "nbf": NOW + nbf, "exp": NOW + exp }));
        let good = iat <= 120 && nbf <= 120 && exp > -120;
        prop_assert_eq!(verify_claims(&claims).is_ok(), good);
    }
}

fn verify_text(token: &str) -> Result<Account, InvalidEntraToken> {
    let now = Timestamp::from_second(NOW).expect("a time");
    let expected = IdTokenExpectations { spec: &spec(), issuer: &issuer(), nonce: Some("n-1"), now };
    verify(token, &keys_for(None), &expected)
}
