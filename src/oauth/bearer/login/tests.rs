use http::StatusCode;

use super::*;
use crate::oauth::access_token::Bearer;
use crate::oauth::bed::{Bed, MACHINE, MACHINE_SECRET, Server, ada, basic, form};

fn login(server: &Server) -> Login {
    Login::from(Arc::clone(&server.grants))
}

async fn admit(server: &Server, token: &str) -> Result<Principal, Denial> {
    login(server).admit(token.as_bytes(), &CancellationToken::new()).await.map(|pass| pass.principal)
}

async fn access_token(server: &Server) -> String {
    let client = server.public();
    let code = server.code(&client, None).await;
    server.redeem(&code, &client).await.text("access_token").to_owned()
}

#[tokio::test]
async fn whoever_logged_in_is_known_by_account_and_client() {
    let bed = Bed::new().await;
    let server = bed.server("acme");
    let principal = admit(&server, &access_token(&server).await).await.expect("let in");
    let Principal::User(user) = &principal else { panic!("{principal:?}") };
    assert_eq!(*user.person, ada());
    assert_eq!(principal.who().user, Some("ada@contoso.com"));
    assert!(principal.client_id().is_some_and(|id| id.starts_with("c1.")));
    let other = access_token(&server).await;
    let Ok(Principal::User(again)) = admit(&server, &other).await else { panic!("not let in") };
    assert_eq!(again.subject, user.subject, "one caller, whichever login");
    assert_ne!(again.grant, user.grant);
}

#[tokio::test]
async fn our_own_trouble_never_looks_like_a_bad_token() {
    let bed = Bed::new().await;
    let server = bed.server("acme");
    let (person, grant) = (ada(), GrantId::random());
    let issued = server.issuer.issue("client", "mcp:use", &Bearer::Person { person: &person, grant }).await;
    let token = issued.expect("issued").text;
    assert_eq!(admit(&server, token.expose()).await, Err(Denial::Invalid), "there is no such login");
    server.spoil(grant);
    assert_eq!(admit(&server, token.expose()).await, Err(Denial::Unavailable));
    assert_eq!(Denial::Unavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(login(&server).challenge(Denial::Unavailable, Resource::Connector), None);
}

#[tokio::test]
async fn a_token_for_something_else_and_a_person_who_may_not_are_told_apart() {
    let bed = Bed::new().await;
    let server = bed.server("acme");
    let bearer = Bearer::Machine { roles: &[], mark: "x" };
    let issued = server.issuer.issue(MACHINE, "offline_access", &bearer).await.expect("issued");
    assert_eq!(admit(&server, issued.text.expose()).await, Err(Denial::Scope));
    let challenge = login(&server).challenge(Denial::Scope, Resource::Connector).expect("a challenge");
    let text = challenge.to_str().expect("ASCII");
    assert!(text.contains(r#"scope="mcp:use", error="insufficient_scope""#), "{text}");
    let token = access_token(&server).await;
    let rules = AccessRules { roles: vec!["Boss".into()], ..AccessRules::default() };
    let strict = bed.server_with("acme", rules);
    assert_eq!(admit(&strict, &token).await, Err(Denial::NotAllowed));
    assert_eq!(login(&strict).challenge(Denial::NotAllowed, Resource::Connector), None);
}

#[tokio::test]
async fn a_machine_is_judged_by_the_roles_it_was_given() {
    let bed = Bed::new().await;
    let server = bed.server("acme");
    let request = basic(form(&[("grant_type", "client_credentials")]), MACHINE, MACHINE_SECRET);
    let token = server.token(request).await.text("access_token").to_owned();
    let principal = admit(&server, &token).await.expect("let in");
    assert_eq!(principal.who().label, Some("Teams"));
    let roles = |role: &str| AccessRules { roles: vec![role.into()], ..AccessRules::default() };
    assert!(principal.may(&roles("Agent")) && !principal.may(&roles("Analyst")));
    assert!(principal.may(&AccessRules::default()));
    assert!(!principal.may(&AccessRules { users: vec!["x".into()], ..AccessRules::default() }));
    // A client that the file no longer lists has no valid token.
    let issued = server
        .issuer
        .issue("gone", "mcp:use", &Bearer::Machine { roles: &[], mark: "x" })
        .await
        .expect("issued");
    assert_eq!(admit(&server, issued.text.expose()).await, Err(Denial::Invalid));
}

#[tokio::test]
async fn the_leave_of_a_login_ends_with_its_grant_and_with_its_tenants_rules() {
    let bed = Bed::new().await;
    let server = bed.server("acme");
    let token = access_token(&server).await;
    let closed = CancellationToken::new();
    let admit = async || login(&server).admit(token.as_bytes(), &closed).await.expect("let in");
    let (first, second) = (admit().await, admit().await);
    closed.cancel();
    assert!(first.leave.revoked().is_cancelled() && second.leave.revoked().is_cancelled());
    let closed = CancellationToken::new();
    let pass = login(&server).admit(token.as_bytes(), &closed).await.expect("let in by the new rules");
    assert!(!pass.leave.revoked().is_cancelled());
    let Principal::User(user) = &pass.principal else { panic!("{pass:?}") };
    server.grants.revoke(user.grant).await.expect("revoked");
    assert!(pass.leave.revoked().is_cancelled());
    assert_eq!(login(&server).admit(token.as_bytes(), &closed).await.err(), Some(Denial::Invalid));
}
