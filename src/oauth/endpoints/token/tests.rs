use http::Method;

use crate::oauth::client::registered::ClientAuthMethod as By;
use crate::oauth::grants::NewGrant;
use crate::oauth::testkit::{
    CHALLENGE, MACHINE, MACHINE_SECRET, REDIRECT, TestGateway, VERIFIER, ada, form_request, with_basic_auth,
};

#[tokio::test]
async fn a_token_response_has_its_five_members_and_is_not_cached() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let answer = server.redeem(&server.issue_code(&client, None).await, &client).await;
    assert_eq!(answer.status, 200);
    let names: Vec<_> = answer.body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names.join(" "), "access_token token_type expires_in scope refresh_token");
    assert_eq!((answer.text("token_type"), answer.text("scope")), ("Bearer", "mcp:use"));
    assert_eq!(answer.body["expires_in"], 3600);
    assert_eq!(
        (&answer.headers["cache-control"], &answer.headers["pragma"]),
        (&"no-store".parse().expect("ok"), &"no-cache".parse().expect("ok"))
    );
    assert!(server.is_access_token_valid(answer.text("access_token")).await);
}

#[tokio::test]
async fn a_code_is_bound_to_its_authorization_request() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let cases: [(&str, &[(&str, &str)]); 6] = [
        (
            "another redirect URI",
            &[("redirect_uri", "https://client.example/other"), ("code_verifier", VERIFIER)],
        ),
        ("no redirect URI", &[("code_verifier", VERIFIER)]),
        ("no verifier", &[("redirect_uri", REDIRECT)]),
        ("another verifier", &[("redirect_uri", REDIRECT), ("code_verifier", &"a".repeat(43))]),
        ("the challenge", &[("redirect_uri", REDIRECT), ("code_verifier", CHALLENGE)]),
        ("a short verifier", &[("redirect_uri", REDIRECT), ("code_verifier", "dBjftJeZ4")]),
    ];
    for (what, pairs) in cases {
        let code = server.issue_code(&client, None).await;
        let mut all = vec![
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("client_id", client.as_str()),
        ];
        all.extend(pairs);
        assert_eq!(server.request_token(form_request(&all)).await.error(), (400, "invalid_grant"), "{what}");
        // The attempt used up the code.
        assert_eq!(server.redeem(&code, &client).await.error(), (400, "invalid_grant"), "{what}");
    }
    let code = server.issue_code(&client, None).await;
    assert_eq!(server.redeem(&code, &server.register_public()).await.error(), (400, "invalid_grant"));
    assert_eq!(server.redeem(&code, &client).await.status, 200, "another client uses nothing up");
}

#[tokio::test]
async fn a_verifier_without_a_challenge_is_refused() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let new = || NewGrant {
        client_id: client.clone(),
        client_name: None,
        redirect_uri: None,
        code_challenge: None,
        scope: "mcp:use".into(),
        account: ada(),
        provider_refresh_token: None,
    };
    let code = server.grants.create(new()).await.expect("begun");
    let all = [("grant_type", "authorization_code"), ("code", code.expose()), ("client_id", &client)];
    assert_eq!(
        server
            .request_token(form_request(&[&all[..], &[("code_verifier", VERIFIER)]].concat()))
            .await
            .error(),
        (400, "invalid_grant")
    );
    let code = server.grants.create(new()).await.expect("begun");
    let all = [("grant_type", "authorization_code"), ("code", code.expose()), ("client_id", &client)];
    assert_eq!(server.request_token(form_request(&all)).await.status, 200);
}

#[tokio::test]
async fn malformed_requests_get_the_errors_of_the_rfc() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let id = ("client_id", client.as_str());
    let code = ("grant_type", "authorization_code");
    for (pairs, expected) in [
        (vec![id], (400, "invalid_request")),
        (vec![("grant_type", "password"), id], (400, "unsupported_grant_type")),
        (vec![code], (400, "invalid_request")),
        (vec![code, id], (400, "invalid_request")),
        (vec![code, code, id], (400, "invalid_request")),
        (vec![code, id, id], (400, "invalid_request")),
        (vec![code, ("code", "x"), id], (400, "invalid_grant")),
        (vec![code, ("code", "x"), ("code", "x"), id], (400, "invalid_request")),
        (vec![("grant_type", "refresh_token"), id], (400, "invalid_request")),
        (vec![code, ("code", "x"), ("client_id", "c1.unknown")], (401, "invalid_client")),
        (
            vec![code, ("code", "x"), id, ("resource", "https://mcp.example.com/beta/mcp")],
            (400, "invalid_target"),
        ),
        (
            vec![code, ("code", "x"), id, ("resource", "https://mcp.example.com/acme/mcp"), ("unknown", "1")],
            (400, "invalid_grant"),
        ),
    ] {
        assert_eq!(server.request_token(form_request(&pairs)).await.error(), expected, "{pairs:?}");
    }
    let mut json = form_request(&[code, id]);
    json.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    assert_eq!(server.request_token(json).await.error(), (400, "invalid_request"));
    let mut get = form_request(&[code, id]);
    *get.method_mut() = Method::GET;
    let refused = server.request_token(get).await;
    assert_eq!((refused.status.as_u16(), refused.headers["allow"].to_str().expect("text")), (405, "POST"));
}

#[tokio::test]
async fn a_resource_is_accepted_in_every_spelling_of_this_server() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    for resource in [
        "https://mcp.example.com/acme/mcp",
        "https://mcp.example.com/acme",
        "https://mcp.example.com/acme/mcp/",
    ] {
        let code = server.issue_code(&client, None).await;
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
            ("client_id", client.as_str()),
            ("resource", resource),
        ];
        assert_eq!(server.request_token(form_request(&pairs)).await.status, 200, "{resource}");
    }
}

#[tokio::test]
async fn a_machine_gets_a_token_for_itself_and_no_refresh_token() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let machine = [("grant_type", "client_credentials")];
    let answer = server.request_token(with_basic_auth(form_request(&machine), MACHINE, MACHINE_SECRET)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.get("refresh_token").is_none());
    let token =
        server.grants.verify_access_token(answer.text("access_token").as_bytes()).await.expect("good");
    assert_eq!((&*token.claims.sub, token.claims.gty.as_deref()), (MACHINE, Some("client_credentials")));
    assert!(token.is_client_credentials() && token.resource_owner.is_none());
    // Each of its tokens can be revoked individually.
    let other = server.request_token(with_basic_auth(form_request(&machine), MACHINE, MACHINE_SECRET)).await;
    let revoking =
        with_basic_auth(form_request(&[("token", answer.text("access_token"))]), MACHINE, MACHINE_SECRET);
    assert_eq!(server.request_revocation(revoking).await.status, 200);
    assert!(!server.is_access_token_valid(answer.text("access_token")).await);
    assert!(server.is_access_token_valid(other.text("access_token")).await);
    // Other clients may not, whatever they know.
    let registered = server.register(By::Basic);
    let secret = registered.secret.expect("a secret");
    let refused =
        server.request_token(with_basic_auth(form_request(&machine), &registered.id, secret.expose())).await;
    assert_eq!(refused.error(), (400, "unauthorized_client"));
    // And a machine client cannot redeem a person's code.
    let code = server.issue_code(MACHINE, None).await;
    let pairs = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let refused = server.request_token(with_basic_auth(form_request(&pairs), MACHINE, MACHINE_SECRET)).await;
    assert_eq!(refused.error(), (400, "unauthorized_client"));
}

#[tokio::test]
async fn any_token_of_a_login_revokes_it_and_no_other_clients_does() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    for kind in ["access_token", "refresh_token"] {
        let tokens = server.redeem(&server.issue_code(&client, None).await, &client).await;
        let foreign = server.revoke(tokens.text(kind), &server.register_public()).await;
        assert_eq!(foreign.status, 200);
        assert!(server.is_access_token_valid(tokens.text("access_token")).await);
        assert_eq!(server.revoke(tokens.text(kind), &client).await.status, 200);
        assert!(!server.is_access_token_valid(tokens.text("access_token")).await, "{kind}");
        assert_eq!(server.revoke(tokens.text(kind), &client).await.status, 200, "again");
    }
    assert_eq!(server.revoke("nonsense", &client).await.status, 200);
    assert_eq!(server.revoke("nonsense", "nobody").await.error(), (401, "invalid_client"));
}

#[tokio::test]
async fn introspection_is_for_clients_that_prove_themselves() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let tokens = server.redeem(&server.issue_code(&client, None).await, &client).await;
    let asked = || form_request(&[("token", tokens.text("access_token"))]);
    let told = server.introspect(with_basic_auth(asked(), MACHINE, MACHINE_SECRET)).await;
    assert_eq!((&told.body["active"], &told.body["username"]), (&true.into(), &"ada@contoso.com".into()));
    assert_eq!((told.text("client_id"), told.text("token_type")), (client.as_str(), "Bearer"));
    let public = form_request(&[("token", tokens.text("access_token")), ("client_id", &client)]);
    assert_eq!(server.introspect(public).await.error(), (401, "invalid_client"));
    let other = server.register(By::Either);
    let secret = other.secret.expect("a secret");
    let told = server.introspect(with_basic_auth(asked(), &other.id, secret.expose())).await;
    assert_eq!(told.body, serde_json::json!({ "active": false }), "another client's token");
    server.revoke(tokens.text("refresh_token"), &client).await;
    let told = server.introspect(with_basic_auth(asked(), MACHINE, MACHINE_SECRET)).await;
    assert_eq!(told.body, serde_json::json!({ "active": false }));
}
