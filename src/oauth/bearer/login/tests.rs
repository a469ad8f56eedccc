use http::StatusCode;

use super::*;
use crate::oauth::blocks::{Block, PersonRef};
use crate::oauth::testkit::{
    MACHINE, MACHINE_SECRET, TestAuthServer, TestGateway, ada, form_request, with_basic_auth,
};
use crate::oauth::tokens::access_token::TokenSubject;

fn login_check(server: &TestAuthServer) -> LoginCheck {
    LoginCheck::from(Arc::clone(&server.grants))
}

async fn authorize(server: &TestAuthServer, token: &str) -> Result<Principal, Denial> {
    login_check(server)
        .authorize(token.as_bytes(), &CancellationToken::new())
        .await
        .map(|pass| pass.principal)
}

async fn issue_access_token(server: &TestAuthServer) -> String {
    let client = server.register_public();
    let code = server.issue_code(&client, None).await;
    server.redeem(&code, &client).await.text("access_token").to_owned()
}

#[tokio::test]
async fn a_user_has_the_account_and_client_of_the_login() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let principal = authorize(&server, &issue_access_token(&server).await).await.expect("let in");
    let Principal::User(user) = &principal else { panic!("{principal:?}") };
    assert_eq!(*user.account, ada());
    assert_eq!(principal.audit_identity().user, Some("ada@contoso.com"));
    assert!(principal.client_id().is_some_and(|id| id.starts_with("c1.")));
    let other = issue_access_token(&server).await;
    let Ok(Principal::User(again)) = authorize(&server, &other).await else { panic!("not let in") };
    assert_eq!(again.subject, user.subject, "one caller, whichever login");
    assert_ne!(again.grant, user.grant);
}

#[tokio::test]
async fn a_block_is_met_by_each_call_whatever_became_of_the_login() {
    let bed = TestGateway::new().await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    let (token, elsewhere) = (issue_access_token(&acme).await, issue_access_token(&beta).await);
    assert!(authorize(&acme, &token).await.is_ok());
    // As after a restart of which the login was not ended.
    let id = acme.inner.context.blocks.insert(Block {
        tenant: Some("acme".into()),
        subject: PersonRef::Name { user: "ada@contoso.com".into() },
        reason: None,
        since: bed.now(),
        until: None,
    });
    assert_eq!(authorize(&acme, &token).await, Err(Denial::Blocked));
    assert_eq!(Denial::Blocked.status(), StatusCode::FORBIDDEN);
    assert_eq!(login_check(&acme).challenge(Denial::Blocked, ResourceSpelling::Connector), None);
    assert!(authorize(&beta, &elsewhere).await.is_ok());
    acme.inner.context.blocks.remove(id);
    assert!(authorize(&acme, &token).await.is_ok());
}

#[tokio::test]
async fn our_own_trouble_never_looks_like_a_bad_token() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let (account, grant) = (ada(), GrantId::random());
    let issued = server
        .issuer
        .issue("client", "mcp:use", &TokenSubject::Person { account: &account, grant, client_name: None })
        .await;
    let token = issued.expect("issued").text;
    assert_eq!(authorize(&server, token.expose()).await, Err(Denial::Invalid), "there is no such login");
    server.corrupt_grant(grant);
    assert_eq!(authorize(&server, token.expose()).await, Err(Denial::Unavailable));
    assert_eq!(Denial::Unavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(login_check(&server).challenge(Denial::Unavailable, ResourceSpelling::Connector), None);
}

#[tokio::test]
async fn a_missing_scope_and_a_forbidden_account_are_different_denials() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let bearer = TokenSubject::Machine { roles: &[], fingerprint: "x" };
    let issued = server.issuer.issue(MACHINE, "offline_access", &bearer).await.expect("issued");
    assert_eq!(authorize(&server, issued.text.expose()).await, Err(Denial::InsufficientScope));
    let challenge = login_check(&server)
        .challenge(Denial::InsufficientScope, ResourceSpelling::Connector)
        .expect("a challenge");
    let text = challenge.to_str().expect("ASCII");
    assert!(text.contains(r#"scope="mcp:use", error="insufficient_scope""#), "{text}");
    let token = issue_access_token(&server).await;
    let rules = AccessRules { roles: vec!["Boss".into()], ..AccessRules::default() };
    let strict = bed.server_with_rules("acme", rules);
    assert_eq!(authorize(&strict, &token).await, Err(Denial::NotAllowed));
    assert_eq!(login_check(&strict).challenge(Denial::NotAllowed, ResourceSpelling::Connector), None);
}

#[tokio::test]
async fn a_machine_satisfies_rules_by_its_roles() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let request =
        with_basic_auth(form_request(&[("grant_type", "client_credentials")]), MACHINE, MACHINE_SECRET);
    let token = server.request_token(request).await.text("access_token").to_owned();
    let principal = authorize(&server, &token).await.expect("let in");
    assert_eq!(principal.audit_identity().label, Some("Teams"));
    let roles = |role: &str| AccessRules { roles: vec![role.into()], ..AccessRules::default() };
    assert!(principal.satisfies(&roles("Agent")) && !principal.satisfies(&roles("Analyst")));
    assert!(principal.satisfies(&AccessRules::default()));
    assert!(!principal.satisfies(&AccessRules { users: vec!["x".into()], ..AccessRules::default() }));
    // A client that the file no longer lists has no valid token.
    let issued = server
        .issuer
        .issue("gone", "mcp:use", &TokenSubject::Machine { roles: &[], fingerprint: "x" })
        .await
        .expect("issued");
    assert_eq!(authorize(&server, issued.text.expose()).await, Err(Denial::Invalid));
}

#[tokio::test]
async fn a_call_is_revoked_with_its_grant_and_with_the_login_of_its_tenant() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let token = issue_access_token(&server).await;
    let closed = CancellationToken::new();
    let admit = async || login_check(&server).authorize(token.as_bytes(), &closed).await.expect("let in");
    let (first, second) = (admit().await, admit().await);
    closed.cancel();
    assert!(first.revocation.revoked().is_cancelled() && second.revocation.revoked().is_cancelled());
    let closed = CancellationToken::new();
    let pass =
        login_check(&server).authorize(token.as_bytes(), &closed).await.expect("let in by the new rules");
    assert!(!pass.revocation.revoked().is_cancelled());
    let Principal::User(user) = &pass.principal else { panic!("{pass:?}") };
    server.grants.revoke(user.grant).await.expect("revoked");
    assert!(pass.revocation.revoked().is_cancelled());
    assert_eq!(login_check(&server).authorize(token.as_bytes(), &closed).await.err(), Some(Denial::Invalid));
}
