//! Tests against a fake Entra on loopback, which responds correctly or not.

#[expect(dead_code, reason = "the gateway's tests use more of it")]
#[path = "../../tests/gateway/harness/entra.rs"]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::json;
use url::Url;

use fake::{ACCOUNT, APP, DIRECTORY, Endpoint, FakeEntra, Fault};

use super::{
    AppExamination, AuthRequest, Error, GroupMembership, LoginErrorKind, Provider, ProviderLogin,
    ProviderProblem, Providers, Registration,
};
use crate::base::clock::{Clock, ManualClock, SystemClock};
use crate::base::secret::Secret;
use crate::spec::{
    AccessRules, Audience, DirectorySpec, EntraSpec, LoginSpec, Prefix, ProviderSpec, PublicUrl,
};
use crate::telemetry::metrics::Metrics;

const VERIFIER: &str = "verifier-verifier-verifier-verifier-verifier";

/// One tenant and its Entra.
struct LoginFixture {
    entra: FakeEntra,
    provider: Provider,
    metrics: Arc<Metrics>,
}

fn entra_spec() -> EntraSpec {
    EntraSpec {
        client_id: APP.into(),
        client_secrets: vec![Secret::new("secret-1")],
        client_secret_expires: None,
        directory: DirectorySpec::One(DIRECTORY.into()),
        allow_guests: false,
        allow_personal_accounts: false,
    }
}

fn spec() -> LoginSpec {
    with_entra(entra_spec())
}

fn with_entra(entra: EntraSpec) -> LoginSpec {
    LoginSpec {
        provider: ProviderSpec::Entra(Arc::new(entra)),
        rules: AccessRules::default(),
        tools: Default::default(),
        machine_clients: Vec::new(),
        registration: Default::default(),
        access_token_lifetime: crate::spec::MAX_ACCESS_TOKEN_LIFETIME,
    }
}

async fn fixture() -> LoginFixture {
    fixture_with(spec(), SystemClock::shared()).await
}

async fn fixture_with(spec: LoginSpec, clock: Arc<dyn Clock>) -> LoginFixture {
    let entra = FakeEntra::start("secret-1").await;
    let metrics = Arc::new(Metrics::new());
    let authority = Url::parse(&entra.authority()).expect("a URL");
    let shared = Providers::new(authority, clock, Arc::clone(&metrics));
    let url = PublicUrl::new("https://mcp.test", &Prefix::parse("/acme").expect("a prefix"));
    LoginFixture { provider: Provider::new(&shared, &Arc::new(spec), &url), entra, metrics }
}

impl LoginFixture {
    fn authorize_url(&self) -> Url {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, VERIFIER.as_bytes());
        let code_challenge = &URL_SAFE_NO_PAD.encode(digest);
        self.provider.authorize_url(&AuthRequest {
            state: "s t",
            nonce: "n-1",
            code_challenge,
            login_hint: Some("ada"),
        })
    }

    async fn obtain_code(&self) -> String {
        let back = self.entra.visit(self.authorize_url().as_str()).await;
        let back = Url::parse(&back).expect("a URL");
        assert!(back.as_str().starts_with("https://mcp.test/acme/auth/ms-callback?"));
        let pair =
            |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        assert_eq!(pair("state").as_deref(), Some("s t"));
        pair("code").expect("a code")
    }

    async fn log_in(&self) -> Result<ProviderLogin, Error> {
        self.provider.redeem_code(&self.obtain_code().await, &Secret::new(VERIFIER), "n-1").await
    }

    async fn log_in_class(&self) -> &'static str {
        self.log_in().await.err().map_or("in", |error| error.class())
    }
}

#[tokio::test]
async fn a_login_asks_for_what_entra_takes_and_nothing_else() {
    let stage = fixture().await;
    let url = stage.authorize_url();
    assert_eq!(url.path(), format!("/{DIRECTORY}/oauth2/v2.0/authorize"));
    let pairs: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    for (name, value) in [
        ("client_id", APP),
        ("response_type", "code"),
        ("response_mode", "query"),
        ("redirect_uri", "https://mcp.test/acme/auth/ms-callback"),
        ("scope", "openid profile offline_access"),
        ("nonce", "n-1"),
        ("code_challenge_method", "S256"),
        ("prompt", "select_account"),
        ("login_hint", "ada"),
    ] {
        assert_eq!(pairs[name], value, "{name}");
    }
    assert!(!pairs.contains_key("resource"));
    stage.log_in().await.expect("logged in");
    let form = &stage.entra.forms()[0];
    let mut names: Vec<&str> = form.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected =
        ["client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri", "scope"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn an_app_is_examined_without_a_person() {
    let stage = fixture_with(
        with_entra(EntraSpec {
            client_secrets: vec![Secret::new("secret-1"), Secret::new("secret-2")],
            ..entra_spec()
        }),
        SystemClock::shared(),
    )
    .await;
    stage.entra.redirect_uris(&["https://mcp.test/acme/auth/ms-callback"]);
    stage.entra.clock_offset(600);
    let found = stage.provider.examine().await;
    assert!(found.directory.is_ok());
    let classes = |found: &AppExamination| -> Vec<&'static str> {
        found.secrets.iter().map(|tried| tried.as_ref().err().map_or("right", Error::class)).collect()
    };
    assert_eq!(classes(&found), ["right", "secret_wrong"]);
    assert_eq!(found.redirect_uri, Registration::Registered);
    assert!(found.clock.expect("a date").difference() >= Duration::from_secs(590));
    stage.entra.redirect_uris(&["https://mcp.test/other"]);
    stage.entra.fault(Endpoint::Token, Fault::Refusal("invalid_client", 7_000_222));
    let found = stage.provider.examine().await;
    assert_eq!(classes(&found), ["secret_expired"; 2]);
    assert_eq!(found.redirect_uri, Registration::Missing);
    stage.entra.fault(Endpoint::Authorize, Fault::Answer(200, "<html>Sign in</html>"));
    assert!(matches!(stage.provider.examine().await.redirect_uri, Registration::Unknown(_)));
    stage.entra.fault(Endpoint::Token, Fault::Refusal("unauthorized_client", 700_016));
    let found = stage.provider.examine().await;
    assert_eq!(classes(&found), ["app_unknown"; 2]);
    assert!(matches!(found.redirect_uri, Registration::Unknown(_)), "an unknown app has none");
}

#[tokio::test]
async fn an_examination_names_an_unknown_directory() {
    let login =
        with_entra(EntraSpec { directory: DirectorySpec::One("nowhere.example".into()), ..entra_spec() });
    let stage = fixture_with(login, SystemClock::shared()).await;
    let found = stage.provider.examine().await;
    assert_eq!(found.directory.err().map(|error| error.class()), Some("directory_unknown"));
    assert_eq!(stage.entra.count(Endpoint::Token), 0, "the secret went to a directory that is not known");
}

#[tokio::test]
async fn a_person_logs_in_and_is_renewed() {
    let stage = fixture().await;
    stage.entra.account(json!({ "roles": ["Analyst"], "groups": ["g1"] }));
    let login = stage.log_in().await.expect("logged in");
    assert_eq!((&*login.account.issuer, &*login.account.subject), (DIRECTORY, ACCOUNT));
    assert_eq!(login.account.groups, GroupMembership::Known(vec!["g1".into()]));
    let token = login.refresh_token.expect("a token");
    stage.entra.account(json!({ "roles": ["Admin"] }));
    let renewed = stage.provider.renew(&token, &login.account).await.expect("still good");
    assert_eq!(renewed.account.roles, ["Admin".into()]);
    assert!(renewed.refresh_token.is_some_and(|newer| newer != token));
    // Everything was fetched once for all exchanges.
    assert_eq!((stage.entra.count(Endpoint::Discovery), stage.entra.count(Endpoint::Keys)), (1, 1));
    let text = stage.metrics.encode();
    assert!(text.contains(r#"tenantd_identity_call_duration_seconds_count{outcome="ok"} 2"#), "{text}");
}

#[tokio::test]
async fn a_code_is_good_once_and_with_its_verifier() {
    let stage = fixture().await;
    let code = stage.obtain_code().await;
    let wrong = stage.provider.redeem_code(&code, &Secret::new("wrong"), "n-1").await.expect_err("refused");
    assert_eq!((wrong.kind(), wrong.class()), (LoginErrorKind::Refused, "over"));
    let code = stage.obtain_code().await;
    let verifier = Secret::new(VERIFIER);
    stage.provider.redeem_code(&code, &verifier, "n-1").await.expect("once");
    let twice = stage.provider.redeem_code(&code, &verifier, "n-1").await.expect_err("twice");
    assert_eq!(twice.oauth_error(), "access_denied");
    assert_eq!(twice.to_string(), "over AADSTS54005 correlation id 0b-2 trace id 0a-1");
    let other = stage
        .provider
        .redeem_code(&stage.obtain_code().await, &verifier, "n-2")
        .await
        .expect_err("another login's");
    assert_eq!(other.class(), "disbelieved");
    assert_eq!(stage.provider.problem(), None);
}

#[tokio::test]
async fn forged_tokens_make_nobody() {
    let stage = fixture().await;
    type Forge = fn(&mut serde_json::Value, &mut serde_json::Value);
    let forges: [(&str, Forge); 8] = [
        ("disbelieved", |_, claims| claims["aud"] = "other".into()),
        ("other_directory", |_, claims| claims["tid"] = ACCOUNT.into()),
        ("disbelieved", |_, claims| claims["iss"] = format!("https://sts.windows.net/{DIRECTORY}/").into()),
        ("disbelieved", |header, _| header["alg"] = "none".into()),
        ("disbelieved", |header, _| header["alg"] = "HS256".into()),
        ("disbelieved", |_, claims| claims["exp"] = 1.into()),
        ("guest", |_, claims| claims["acct"] = 1.into()),
        ("in", |_, _| {}),
    ];
    for (class, forge) in forges {
        stage.entra.forge(forge);
        assert_eq!(stage.log_in_class().await, class);
    }
}

#[tokio::test]
async fn accounts_of_other_directories_are_refused() {
    let elsewhere = "11111111-1111-1111-1111-111111111111";
    let several = |audience, allowed: &str| {
        let directory = DirectorySpec::Several { audience, allowed: vec![allowed.into()] };
        with_entra(EntraSpec { directory, ..entra_spec() })
    };
    let stage = fixture_with(several(Audience::Organizations, DIRECTORY), SystemClock::shared()).await;
    assert_eq!(stage.authorize_url().path(), "/organizations/oauth2/v2.0/authorize");
    assert_eq!(stage.log_in_class().await, "in");
    stage.entra.account(json!({ "tid": elsewhere }));
    assert_eq!(stage.log_in_class().await, "other_directory");
    stage.entra.account(json!({ "tid": super::entra::PERSONAL_ACCOUNTS_DIRECTORY }));
    assert_eq!(stage.log_in_class().await, "personal");
}

#[tokio::test]
async fn a_domain_stands_for_its_directory() {
    let named = |name: &str| {
        let directory = DirectorySpec::One(name.into());
        with_entra(EntraSpec { directory, ..entra_spec() })
    };
    let stage = fixture_with(named("contoso.com"), SystemClock::shared()).await;
    assert_eq!(stage.log_in_class().await, "in");
    let stage = fixture_with(named("nowhere.example"), SystemClock::shared()).await;
    assert_eq!(stage.log_in_class().await, "directory_unknown");
    assert_eq!(
        stage.provider.problem().map(|(problem, _)| problem),
        Some(ProviderProblem::Misconfigured("directory_unknown"))
    );
}

#[tokio::test]
async fn rules_are_judged_at_logins_and_renewals() {
    let rules =
        AccessRules { roles: vec!["Analyst".into()], groups: vec!["g1".into()], ..AccessRules::default() };
    let stage = fixture_with(LoginSpec { rules, ..spec() }, SystemClock::shared()).await;
    assert_eq!(stage.log_in_class().await, "not_named");
    stage.entra.account(json!({ "_claim_names": { "groups": "src1" } }));
    assert_eq!(stage.log_in_class().await, "groups_untold");
    stage.entra.account(json!({ "roles": ["Analyst"] }));
    let login = stage.log_in().await.expect("logged in");
    stage.entra.account(json!({}));
    let token = login.refresh_token.expect("a token");
    let error = stage.provider.renew(&token, &login.account).await.expect_err("no more");
    assert_eq!(
        (error.kind(), error.class(), error.oauth_error()),
        (LoginErrorKind::Ended, "not_named", "invalid_grant")
    );
}

#[tokio::test]
async fn a_renewal_is_of_the_same_account() {
    let stage = fixture().await;
    let login = stage.log_in().await.expect("logged in");
    stage.entra.account(json!({ "oid": DIRECTORY }));
    let token = login.refresh_token.expect("a token");
    let error = stage.provider.renew(&token, &login.account).await.expect_err("another");
    assert_eq!((error.kind(), error.class()), (LoginErrorKind::Ended, "another_account"));
}

#[tokio::test]
async fn the_next_secret_counts_when_the_current_one_does_not() {
    let mut both = entra_spec();
    both.client_secrets.push(Secret::new("secret-2"));
    let stage = fixture_with(with_entra(both), SystemClock::shared()).await;
    stage.entra.secrets(&["secret-2"]);
    assert_eq!(stage.log_in_class().await, "in");
    assert_eq!(stage.entra.count(Endpoint::Token), 2);
    stage.entra.secrets(&["secret-3"]);
    assert_eq!(stage.log_in_class().await, "secret_wrong");
    assert_eq!(
        stage.provider.problem().map(|(problem, _)| problem),
        Some(ProviderProblem::Misconfigured("secret_wrong"))
    );
    stage.entra.secrets(&["secret-1"]);
    assert_eq!(stage.log_in_class().await, "in");
    assert_eq!(stage.provider.problem(), None);
}

#[tokio::test]
async fn what_entra_says_reaches_people_and_clients() {
    let stage = fixture().await;
    for (error, code, kind, class) in [
        ("invalid_grant", 65_001, LoginErrorKind::Refused, "consent_missing"),
        ("invalid_grant", 50_105, LoginErrorKind::Refused, "not_assigned"),
        ("invalid_grant", 53_003, LoginErrorKind::Refused, "conditional_access"),
        ("invalid_client", 7_000_222, LoginErrorKind::Misconfigured, "secret_expired"),
        ("temporarily_unavailable", 90_033, LoginErrorKind::Down, "down"),
    ] {
        stage.entra.fault(Endpoint::Token, Fault::Refusal(error, code));
        let error = stage.log_in().await.expect_err("refused");
        assert_eq!((error.kind(), error.class()), (kind, class));
        assert!(!error.page().sentence.contains('{') && !error.page().advice.contains('{'));
        assert_eq!(error.trace().correlation_id.as_deref(), (code != 0).then_some("0b-2"));
    }
    stage.entra.fault(Endpoint::Authorize, Fault::Refusal("access_denied", 65_004));
    let back = Url::parse(&stage.entra.visit(stage.authorize_url().as_str()).await).expect("a URL");
    let pair =
        |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let error = pair("error").expect("an error");
    let error = stage.provider.redirect_error(&error, pair("error_description").as_deref());
    assert_eq!((error.class(), error.oauth_error()), ("declined", "access_denied"));
}

#[tokio::test]
async fn an_outage_uses_nothing_up() {
    let stage = fixture().await;
    let login = stage.log_in().await.expect("logged in");
    let token = login.refresh_token.expect("a token");
    for fault in [
        Fault::Answer(503, "down"),
        Fault::Answer(429, "{}"),
        Fault::Answer(200, "<html>"),
        Fault::Answer(302, ""),
        Fault::Refusal("temporarily_unavailable", 90_033),
    ] {
        stage.entra.fault(Endpoint::Token, fault.clone());
        let error = stage.provider.renew(&token, &login.account).await.expect_err("down");
        assert_eq!(error.kind(), LoginErrorKind::Down, "{fault:?}");
        assert_eq!(stage.provider.problem().map(|(problem, _)| problem), Some(ProviderProblem::Down));
    }
    stage.entra.fault(Endpoint::Token, None);
    stage.provider.renew(&token, &login.account).await.expect("as before");
    assert_eq!(stage.provider.problem(), None);
    stage.entra.revoke_sessions();
    let error = stage.provider.renew(&token, &login.account).await.expect_err("revoked");
    assert_eq!((error.kind(), error.class()), (LoginErrorKind::Ended, "over"));
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let stage = fixture().await;
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| " ".repeat(2 << 20));
    stage.entra.fault(Endpoint::Keys, Fault::Answer(200, &LONG));
    let error = stage.log_in().await.expect_err("too large");
    assert_eq!(
        (error.kind(), error.trace().detail.as_deref()),
        (LoginErrorKind::Down, Some("its answer is too large"))
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_waited_for_ten_seconds_at_most() {
    let stage = fixture().await;
    stage.entra.fault(Endpoint::Token, Fault::Silence);
    let code = stage.obtain_code().await;
    let error =
        stage.provider.redeem_code(&code, &Secret::new(VERIFIER), "n-1").await.expect_err("no answer");
    assert_eq!((error.kind(), error.oauth_error()), (LoginErrorKind::Down, "temporarily_unavailable"));
}

#[tokio::test]
async fn keys_that_roll_are_looked_up_once_a_minute_at_most() {
    let clock = Arc::new(ManualClock::at(Timestamp::now()));
    let stage = fixture_with(spec(), clock.clone()).await;
    assert_eq!(stage.log_in_class().await, "in");
    clock.advance(Duration::from_secs(60));
    stage.entra.roll_keys();
    assert_eq!(stage.log_in_class().await, "in");
    assert_eq!(stage.entra.count(Endpoint::Keys), 2);
    // The keys rotated again within the minute: unknown keys cannot make the gateway fetch all the
    // time.
    stage.entra.roll_keys();
    for _ in 0..3 {
        assert_eq!(stage.log_in_class().await, "disbelieved");
    }
    assert_eq!(stage.entra.count(Endpoint::Keys), 2);
    clock.advance(Duration::from_secs(60));
    assert_eq!(stage.log_in_class().await, "in");
}

#[tokio::test]
async fn what_was_seen_last_counts_while_nothing_newer_can_be_had() {
    let clock = Arc::new(ManualClock::at(Timestamp::now()));
    let stage = fixture_with(spec(), clock.clone()).await;
    stage.entra.fault(Endpoint::Discovery, Fault::Answer(503, ""));
    assert_eq!(stage.log_in_class().await, "down");
    // The code was not used up.
    assert_eq!(stage.entra.count(Endpoint::Token), 0);
    stage.entra.fault(Endpoint::Discovery, None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(stage.log_in_class().await, "in");
    // The metadata is fetched again a day later, and an outage is harmless then. (The fake uses the
    // machine's clock.)
    stage.entra.forge(|_, claims| {
        for name in ["iat", "nbf", "exp"] {
            claims[name] = (claims[name].as_i64().expect("a time") + 90_000).into();
        }
    });
    clock.advance(Duration::from_secs(90_000));
    stage.entra.fault(Endpoint::Keys, Fault::Answer(500, ""));
    let looks = stage.entra.count(Endpoint::Keys);
    assert_eq!(stage.log_in_class().await, "in");
    assert_eq!(stage.log_in_class().await, "in");
    assert_eq!(stage.entra.count(Endpoint::Keys), looks + 1);
    stage.entra.fault(Endpoint::Keys, None);
    clock.advance(Duration::from_secs(60));
    assert_eq!(stage.log_in_class().await, "in");
    assert_eq!(stage.entra.count(Endpoint::Keys), looks + 2);
}

#[tokio::test]
async fn many_logins_at_once_look_once() {
    let stage = fixture().await;
    let logins = futures_util::future::join_all((0..20).map(|_| stage.log_in_class())).await;
    assert!(logins.iter().all(|class| *class == "in"), "{logins:?}");
    assert_eq!((stage.entra.count(Endpoint::Discovery), stage.entra.count(Endpoint::Keys)), (1, 1));
}
