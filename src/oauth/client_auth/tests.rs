use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::client::ClientOrigin;
use super::super::client::assertion::ASSERTION_TYPE;
use super::super::client::registered::ClientAuthMethod;
use super::super::testkit::{MACHINE, MACHINE_SECRET, SOURCE, TestGateway, form_request, with_basic_auth};
use super::parse_basic_header as basic_of;
use super::*;

fn meta() -> RequestMeta<'static> {
    RequestMeta { request_id: "test", now: Timestamp::UNIX_EPOCH, source: SOURCE }
}

#[tokio::test]
async fn a_secret_is_accepted_by_the_registered_method_only() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    for (method, by_basic, by_post) in [
        (ClientAuthMethod::Basic, true, false),
        (ClientAuthMethod::Post, false, true),
        (ClientAuthMethod::Either, true, true),
    ] {
        let client = server.register(method);
        let secret = client.secret.expect("a secret");
        let proven = async |request: http::Request<bytes::Bytes>| {
            let form = ClientForm::parse(&request, meta()).expect("a form");
            form.authenticate(&server.inner).await.is_ok_and(|it| it.is_proven)
        };
        assert_eq!(proven(with_basic_auth(form_request(&[]), &client.id, secret.expose())).await, by_basic);
        let post = form_request(&[("client_id", &client.id), ("client_secret", secret.expose())]);
        assert_eq!(proven(post).await, by_post);
        assert!(!proven(with_basic_auth(form_request(&[]), &client.id, "wrong")).await);
        assert!(!proven(form_request(&[("client_id", &client.id)])).await);
    }
}

/// `curl -u` sends a secret as it is; RFC 6749 section 2.3.1 requires it form-encoded.
#[tokio::test]
async fn a_basic_secret_is_accepted_form_encoded_and_raw() {
    for (written, encoded) in [
        ("plus+slash/eq=pct%41tail~0123456789", "plus%2Bslash%2Feq%3Dpct%2541tail~0123456789"),
        ("raw%ff%fe-bytes-0123456789-0123456789", "raw%25ff%25fe-bytes-0123456789-0123456789"),
    ] {
        let sent = |text: &str| {
            let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{MACHINE}:{text}")));
            HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a value"))])
        };
        let known = Digest::of(written.as_bytes());
        for text in [written, encoded] {
            let (id, proof) = basic_of(&sent(text)).expect("read").expect("there");
            let ClientCredential::Basic { decoded, raw } = proof else { panic!("another proof") };
            assert!(id == MACHINE && (raw == known || decoded == Some(known)), "{text}");
        }
        let (_, proof) = basic_of(&sent("another")).expect("read").expect("there");
        assert!(
            matches!(proof, ClientCredential::Basic { decoded, raw } if raw != known && decoded != Some(known))
        );
    }
}

#[tokio::test]
async fn a_request_uses_one_authentication_method() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let judged = async |request: http::Request<bytes::Bytes>| {
        let form = ClientForm::parse(&request, meta()).expect("a form");
        form.authenticate(&server.inner).await.err().map(|fault| fault.audit_label())
    };
    let good = || with_basic_auth(form_request(&[("client_id", MACHINE)]), MACHINE, MACHINE_SECRET);
    assert_eq!(judged(good()).await, None);
    let both = with_basic_auth(form_request(&[("client_secret", MACHINE_SECRET)]), MACHINE, MACHINE_SECRET);
    assert_eq!(judged(both).await, Some("invalid_request"));
    let other = with_basic_auth(form_request(&[("client_id", "other")]), MACHINE, MACHINE_SECRET);
    assert_eq!(judged(other).await, Some("invalid_request"));
    for text in ["Bearer x", "Basic", "Basic !!!", "Basic bm9jb2xvbg=="] {
        let mut request = form_request(&[("client_id", MACHINE)]);
        request.headers_mut().insert("authorization", text.parse().expect("a value"));
        assert_eq!(judged(request).await, Some("invalid_client"), "{text}");
    }
}

/// A client with a key pair.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    fn keys(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        json!({ "keys": [{ "kty": "oct", "k": "AA" }, { "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1" }] })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn program() -> OAuthClient {
    OAuthClient {
        id: "client".into(),
        name: None,
        origin: ClientOrigin::Machine,
        redirect_uris: Vec::new(),
        authentication: super::super::client::ClientAuthMethods::default(),
    }
}

fn claims(now: Timestamp, changes: Value) -> Value {
    let mut claims = json!({
        "iss": "client", "sub": "client", "aud": "https://mcp.example.com/acme/token",
        "exp": now.as_second() + 300, "jti": crate::base::random::hex::<8>(),
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn an_assertion_needs_our_audience_valid_dates_and_a_new_jti() {
    let bed = TestGateway::new().await;
    let (server, beta) = (bed.server("acme"), bed.server("beta"));
    let signer = Signer::new();
    let header = json!({ "alg": "ES256", "kid": "k1" });
    let now = bed.now();
    let is_good = async |text: &str| match ClientAssertion::parse(text) {
        Some(it) => it.verify(&server.issuer, &program(), &signer.keys(), SOURCE).await == Ok(true),
        None => false,
    };
    let sign = |changes: Value| signer.sign(&header, &claims(now, changes));
    let good = sign(json!({}));
    assert!(is_good(&good).await);
    assert!(!is_good(&good).await, "a second time");
    assert!(is_good(&sign(json!({ "aud": "https://mcp.example.com/acme" }))).await);
    assert!(
        is_good(&sign(
            json!({ "aud": ["https://mcp.example.com/acme", "https://mcp.example.com/acme/token"] })
        ))
        .await
    );
    let second = now.as_second();
    for changes in [
        json!({ "aud": "https://mcp.example.com/beta/token" }),
        json!({ "aud": ["https://mcp.example.com/acme", "https://evil.example"] }),
        json!({ "aud": [] }),
        json!({ "exp": second - 61 }),
        json!({ "exp": second + 661 }),
        json!({ "nbf": second + 61 }),
        json!({ "sub": "other" }),
        json!({ "jti": null }),
    ] {
        assert!(!is_good(&sign(changes.clone())).await, "{changes}");
    }
    for header in [
        json!({ "alg": "none" }),
        json!({ "alg": "HS256", "kid": "k1" }),
        json!({ "alg": "RS256", "kid": "k1" }),
        json!({ "alg": "ES256", "kid": "k2" }),
    ] {
        assert!(!is_good(&signer.sign(&header, &claims(now, json!({})))).await, "{header}");
    }
    assert!(
        is_good(&signer.sign(&json!({ "alg": "ES256" }), &claims(now, json!({})))).await,
        "no key is named"
    );
    assert!(!is_good(&Signer::new().sign(&header, &claims(now, json!({})))).await, "another's key");
    // It is never accepted at another tenant, even if it was not used yet.
    let fresh = sign(json!({}));
    let fresh = ClientAssertion::parse(&fresh).expect("read");
    assert_eq!(fresh.verify(&beta.issuer, &program(), &signer.keys(), SOURCE).await, Ok(false));
    bed.clock.advance(Duration::from_secs(400));
    assert_eq!(fresh.verify(&server.issuer, &program(), &signer.keys(), SOURCE).await, Ok(false), "expired");
}

#[tokio::test]
async fn an_assertion_needs_its_type() {
    let signer = Signer::new();
    let text = signer.sign(&json!({ "alg": "ES256" }), &claims(Timestamp::UNIX_EPOCH, json!({})));
    let read = |kind: &str| {
        let request = form_request(&[("client_assertion", &text), ("client_assertion_type", kind)]);
        let parameters = Parameters::from_form(request.headers(), request.body()).expect("a form");
        extract_credential(request.headers(), &parameters).map(|(id, _)| id)
    };
    assert_eq!(read(ASSERTION_TYPE), Ok("client".to_owned()));
    assert!(matches!(read("jwt"), Err(ClientAuthError::Malformed(_))));
}
