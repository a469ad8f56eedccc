use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::oauth::testkit::{TestAuthServer, TestGateway, ada};
use crate::oauth::tokens::signing_keys::KeyRotation;

async fn issue_token(server: &TestAuthServer) -> (String, GrantId) {
    let (account, grant) = (ada(), GrantId::random());
    let bearer = TokenSubject::Person { account: &account, grant, client_name: None };
    let issued = server.issuer.issue("client", "mcp:use", &bearer).await.expect("issued");
    (issued.text.expose().to_owned(), grant)
}

fn decode_parts(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| decode_part(part.as_bytes()).expect("base64"));
    [(); 2].map(|()| serde_json::from_slice(&parts.next().expect("a part")).expect("JSON"))
}

#[tokio::test]
async fn a_token_has_the_form_of_rfc_9068() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let (token, grant) = issue_token(&server).await;
    let [header, claims] = decode_parts(&token);
    let jwks: Value = serde_json::from_slice(&server.issuer.jwks().await.expect("keys")).expect("JSON");
    assert_eq!(header, json!({ "typ": "at+jwt", "alg": "ES256", "kid": jwks["keys"][0]["kid"] }));
    let now = bed.now().as_second();
    assert_eq!(claims["iss"], "https://mcp.example.com/acme");
    assert_eq!(claims["aud"], "https://mcp.example.com/acme/mcp");
    assert_eq!(
        (&claims["exp"], &claims["iat"], &claims["nbf"]),
        (&json!(now + 3600), &json!(now), &json!(now))
    );
    assert_eq!(claims["gid"], grant.to_string());
    assert_eq!(claims["roles"], json!(["Analyst"]));
    let names: Vec<_> = claims.as_object().expect("an object").keys().cloned().collect();
    let expected = "iss aud sub client_id scope exp iat nbf jti gid tid oid roles";
    assert_eq!(names.join(" "), expected, "no name, no mail address");
    // Another library accepts the signature with the published key.
    let jwk = serde_json::from_value(jwks["keys"][0].clone()).expect("a JWK");
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_audience(&["https://mcp.example.com/acme/mcp"]);
    rules.set_issuer(&["https://mcp.example.com/acme"]);
    jsonwebtoken::decode::<Value>(&token, &key, &rules).expect("good");
}

/// Clients and the audit know people by it, so no version may compute another one.
#[tokio::test]
async fn the_subject_of_an_account_never_changes() {
    let bed = TestGateway::new().await;
    let (token, _) = issue_token(&bed.server("acme")).await;
    let [_, claims] = decode_parts(&token);
    assert_eq!(claims["sub"], "T4M-yB2hB9D63xEWlFGFy3vb8rbzMLZlUURErd7LEhI");
    assert_eq!(claims["tid"], "72f988bf-86f1-41af-91ab-2d7cd011db47");
    assert_eq!(claims["oid"], "00aa11bb-22cc-33dd-44ee-55ff66007788");
}

#[tokio::test]
async fn a_token_is_valid_for_an_hour_unless_revoked() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let (token, grant) = issue_token(&server).await;
    assert!(server.issuer.verify(token.as_bytes()).await.is_ok());
    server.grants.revoke(grant).await.expect("revoked");
    assert_eq!(server.issuer.verify(token.as_bytes()).await, Err(AccessTokenError::Invalid));
    let (token, _) = issue_token(&server).await;
    bed.clock.advance(Duration::from_secs(3599));
    assert!(server.issuer.verify(token.as_bytes()).await.is_ok());
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(server.issuer.verify(token.as_bytes()).await, Err(AccessTokenError::Invalid));
}

#[tokio::test]
async fn a_token_of_one_tenant_is_invalid_at_another() {
    let bed = TestGateway::new().await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    let client = acme.register_public();
    let code = acme.issue_code(&client, None).await;
    let answer = acme.redeem(&code, &client).await;
    let token = answer.text("access_token");
    // In whichever order the two tenants see it, cached or not.
    assert!(!beta.is_access_token_valid(token).await);
    assert!(acme.is_access_token_valid(token).await);
    assert!(!beta.is_access_token_valid(token).await);
    assert_eq!(
        beta.redeem(&acme.issue_code(&client, None).await, &client).await.error(),
        (401, "invalid_client")
    );
    let refreshed = beta.refresh(answer.text("refresh_token"), &beta.register_public()).await;
    assert_eq!(refreshed.error(), (400, "invalid_grant"));
    assert!(acme.is_access_token_valid(token).await);
}

#[tokio::test]
async fn only_the_signing_key_makes_a_valid_token() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let (token, _) = issue_token(&server).await;
    let [header, claims] = decode_parts(&token);
    let signature = token.rsplit('.').next().expect("a signature");
    let with = |value: &Value, name: &str, other: Value| {
        let mut value = value.clone();
        value[name] = other;
        value
    };
    let forged = [
        format!("{}.{}.", encode_part(&with(&header, "alg", "none".into())), encode_part(&claims)),
        format!("{}.{}.{signature}", encode_part(&with(&header, "alg", "none".into())), encode_part(&claims)),
        format!(
            "{}.{}.{signature}",
            encode_part(&with(&header, "alg", "HS256".into())),
            encode_part(&claims)
        ),
        format!("{}.{}.{signature}", encode_part(&with(&header, "typ", "JWT".into())), encode_part(&claims)),
        format!(
            "{}.{}.{signature}",
            encode_part(&with(&header, "kid", "other".into())),
            encode_part(&claims)
        ),
        format!(
            "{}.{}.{signature}",
            encode_part(&with(&header, "crit", json!(["exp"]))),
            encode_part(&claims)
        ),
        format!(
            "{}.{}.{signature}",
            encode_part(&header),
            encode_part(&with(&claims, "exp", json!(i64::MAX)))
        ),
        format!("{}.{}.{}", encode_part(&header), encode_part(&claims), "A".repeat(86)),
        format!("{}.{}", encode_part(&header), encode_part(&claims)),
        format!("{token}."),
        format!("{token}.{signature}"),
        String::new(),
        "..".into(),
    ];
    for forged in forged {
        assert_eq!(server.issuer.verify(forged.as_bytes()).await, Err(AccessTokenError::Invalid), "{forged}");
    }
}

#[tokio::test]
async fn a_signed_token_of_other_names_is_refused() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let keys = server.issuer.load_keys().await.expect("keys");
    let (token, _) = issue_token(&server).await;
    let [_, claims] = decode_parts(&token);
    let now = bed.now();
    let sign = |changes: Value| {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        keys.sign(now, |kid| {
            format!(
                "{}.{}",
                encode_part(&JwsHeader { typ: JWT_TYPE, alg: ALGORITHM, kid, crit: None }),
                encode_part(&claims)
            )
        })
    };
    assert!(server.issuer.verify(sign(json!({})).as_bytes()).await.is_ok());
    for header in [json!({ "typ": "JWT" }), json!({ "alg": "RS256" }), json!({ "crit": ["exp"] })] {
        let signed = keys.sign(now, |kid| {
            let mut all = json!({ "typ": JWT_TYPE, "alg": ALGORITHM, "kid": kid });
            all.as_object_mut().expect("an object").extend(header.as_object().expect("an object").clone());
            format!("{}.{}", encode_part(&all), encode_part(&claims))
        });
        assert_eq!(server.issuer.verify(signed.as_bytes()).await, Err(AccessTokenError::Invalid), "{header}");
    }
    for changes in [
        json!({ "iss": "https://mcp.example.com/beta" }),
        json!({ "iss": "https://mcp.example.com/acme/" }),
        json!({ "aud": "https://mcp.example.com/acme" }),
        json!({ "aud": ["https://mcp.example.com/acme/mcp"] }),
        json!({ "gid": "x" }),
        json!({ "nbf": now.as_second() + 120 }),
        json!({ "iat": now.as_second() + 120 }),
    ] {
        let refused = server.issuer.verify(sign(changes.clone()).as_bytes()).await;
        assert_eq!(refused, Err(AccessTokenError::Invalid), "{changes}");
    }
}

#[tokio::test]
async fn a_new_key_is_published_a_day_ahead_and_in_an_emergency_old_tokens_end() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let states = |published: Vec<crate::oauth::tokens::signing_keys::PublishedKey>| {
        published.iter().map(|key| key.state).collect::<Vec<_>>().join(" ")
    };
    let (old, _) = issue_token(&server).await;
    let rotated = server.issuer.rotate_keys(KeyRotation::Gentle).await.expect("rotated");
    assert_eq!(states(rotated), "signing next");
    let again = server.issuer.rotate_keys(KeyRotation::Gentle).await.expect("rotated");
    assert_eq!(states(again), "signing next", "there is one next key");
    assert!(server.issuer.verify(old.as_bytes()).await.is_ok());
    bed.clock.advance(Duration::from_secs(24 * 3600 - 60));
    let (last_of_the_old, _) = issue_token(&server).await;
    bed.clock.advance(Duration::from_secs(60));
    let (new, _) = issue_token(&server).await;
    assert_ne!(decode_parts(&new)[0]["kid"], decode_parts(&last_of_the_old)[0]["kid"]);
    assert!(server.issuer.verify(last_of_the_old.as_bytes()).await.is_ok());
    assert_eq!(states(server.issuer.published_keys().await.expect("keys")), "verifying signing");
    bed.clock.advance(Duration::from_secs(3600 + 120));
    assert_eq!(states(server.issuer.published_keys().await.expect("keys")), "signing");
    let client = server.register_public();
    let code = server.issue_code(&client, None).await;
    let answer = server.redeem(&code, &client).await;
    let held = answer.text("access_token");
    assert!(server.is_access_token_valid(held).await);
    let rotated = server.issuer.rotate_keys(KeyRotation::Emergency).await.expect("rotated");
    assert_eq!(states(rotated), "signing");
    assert!(!server.is_access_token_valid(held).await, "not even one that was recognised before");
}

#[tokio::test]
async fn concurrent_first_uses_create_one_signing_key() {
    let bed = TestGateway::new().await;
    let (one, two) = (bed.server("acme"), bed.server("acme"));
    let (one, two) = tokio::join!(one.issuer.jwks(), two.issuer.jwks());
    let keys: Value = serde_json::from_slice(&one.clone().expect("keys")).expect("JSON");
    assert_eq!((one, keys["keys"].as_array().map(Vec::len)), (two, Some(1)));
}
