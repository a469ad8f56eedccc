//! A client like ChatGPT at the real token endpoint: its document prefers `private_key_jwt` and
//! also lists `none`, its RSA keys are at a `jwks_uri`; both are fetched over real TLS.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;
use crate::oauth::testkit::{
    REDIRECT, SOURCE, TestAuthServer, TestGateway, TestResponse, VERIFIER, form_request,
};

const KEYS: &str = "https://app.example.com/jwks.json";
/// Other names of the same machine, which would notice any request to them.
const EVIL: &str = "evil.example";
const BELOW_EVIL: &str = "app.example.com.evil.example";
const INVALID: (u16, &str) = (401, "invalid_client");
const UNAVAILABLE: (u16, &str) = (503, "temporarily_unavailable");

static OWN: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));
static STRANGERS: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn modulus() -> &'static [u8] {
    OWN.public_key().modulus().big_endian_without_leading_zero()
}

/// Returns one key under two ids: one restricted to RS256, the other without `alg`.
fn keys() -> Value {
    let e = encode(OWN.public_key().exponent().big_endian_without_leading_zero());
    let n = encode(modulus());
    json!({ "keys": [
        { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rs", "n": n, "e": e },
        { "kty": "RSA", "use": "sig", "kid": "open", "n": n, "e": e },
    ] })
}

fn chatgpt_document(changes: Value) -> Value {
    let mut document = json!({
        "client_id": ID, "client_name": "ChatGPT", "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg": "RS256", "jwks_uri": KEYS,
    });
    merge(&mut document, changes);
    document
}

fn merge(object: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    object.as_object_mut().expect("an object").extend(changes);
}

fn signing_input(alg: &str, kid: &str, claims: &Value) -> String {
    let header = json!({ "alg": alg, "kid": kid, "typ": "JWT" });
    format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
}

fn sign(key: &KeyPair, encoding: &'static dyn RsaEncoding, message: String) -> String {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).expect("signed");
    format!("{message}.{}", encode(signature))
}

fn sign_rs256(claims: &Value) -> String {
    sign(&OWN, &RSA_PKCS1_SHA256, signing_input("RS256", "rs", claims))
}

/// The client's host, and the tenant whose tokens it requests.
struct AssertionFixture {
    host: FakeDocumentHost,
    names: GuardedResolver,
    bed: TestGateway,
    server: TestAuthServer,
}

impl AssertionFixture {
    async fn new(document: Value, keys: String) -> Self {
        let document = ok("application/json", "", &document.to_string());
        let answer = move |path: &str| if path == "/jwks.json" { keys.clone() } else { document.clone() };
        let host = FakeDocumentHost::answering_by_path(answer).await;
        // Loopback stands for the internet.
        let names = GuardedResolver::with_policy(|address| address.is_loopback());
        for name in [HOST, EVIL, BELOW_EVIL] {
            lock_unpoisoned(&names.table).insert(name.to_owned(), vec![host.address]);
        }
        let mut bed = TestGateway::new().await;
        bed.use_documents(host.documents_with_resolver(names.clone()));
        let server = bed.server("acme");
        Self { host, names, bed, server }
    }

    async fn like_chatgpt() -> Self {
        Self::new(chatgpt_document(json!({})), ok("application/json", "", &keys().to_string())).await
    }

    fn claims(&self, changes: Value) -> Value {
        let now = self.bed.now().as_second();
        let mut claims = json!({
            "iss": ID, "sub": ID, "aud": "https://mcp.example.com/acme/token",
            "iat": now, "nbf": now, "exp": now + 300, "jti": crate::base::random::hex::<8>(),
        });
        merge(&mut claims, changes);
        claims
    }

    fn new_assertion(&self) -> String {
        sign_rs256(&self.claims(json!({})))
    }

    async fn code(&self) -> String {
        self.server.issue_code(ID, Some(self.bed.provider_refresh_token().await)).await
    }

    async fn redeem(&self, code: &str, assertion: &str) -> TestResponse {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
            ("client_id", ID),
        ];
        self.send_with_assertion(&pairs, assertion).await
    }

    async fn refresh(&self, token: &str, assertion: &str) -> TestResponse {
        // The assertion names the client.
        self.send_with_assertion(&[("grant_type", "refresh_token"), ("refresh_token", token)], assertion)
            .await
    }

    async fn send_with_assertion(&self, pairs: &[(&str, &str)], assertion: &str) -> TestResponse {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let proof = [("client_assertion_type", kind), ("client_assertion", assertion)];
        self.server.request_token(form_request(&[pairs, &proof].concat())).await
    }
}

#[tokio::test]
async fn a_client_with_keys_at_an_address_redeems_and_refreshes_by_assertions() {
    let case = AssertionFixture::like_chatgpt().await;
    let bought = case.redeem(&case.code().await, &case.new_assertion()).await;
    assert_eq!(bought.status, 200, "{bought:?}");
    assert!(case.server.is_access_token_valid(bought.text("access_token")).await);
    // Some clients name the issuer as the audience.
    let issuer = case.claims(json!({ "aud": "https://mcp.example.com/acme" }));
    let refreshed = case.refresh(bought.text("refresh_token"), &sign_rs256(&issuer)).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    assert!(case.server.is_access_token_valid(refreshed.text("access_token")).await);
    assert_eq!(case.host.asked.load(Ordering::SeqCst), 2, "the document once and the keys once");
}

#[tokio::test]
async fn ps256_counts_where_the_key_does_not_say_rs256() {
    let case = AssertionFixture::like_chatgpt().await;
    let ps256 = |kid: &str| sign(&OWN, &RSA_PSS_SHA256, signing_input("PS256", kid, &case.claims(json!({}))));
    let code = case.code().await;
    assert_eq!(case.redeem(&code, &ps256("rs")).await.error(), INVALID);
    assert_eq!(case.redeem(&code, &ps256("open")).await.status, 200);
}

#[tokio::test]
async fn an_assertion_is_consumed_once_and_a_refused_one_is_not() {
    let case = AssertionFixture::like_chatgpt().await;
    let first = case.new_assertion();
    let bought = case.redeem(&case.code().await, &first).await;
    let token = bought.text("refresh_token");
    let code = case.code().await;
    assert_eq!(case.redeem(&code, &first).await.error(), INVALID);
    assert_eq!(case.refresh(token, &first).await.error(), INVALID);
    assert_eq!(case.redeem(&code, &case.new_assertion()).await.status, 200);
    assert_eq!(case.refresh(token, &case.new_assertion()).await.status, 200);
}

#[tokio::test]
async fn an_assertion_that_is_not_the_clients_for_us_and_now_is_refused() {
    let case = AssertionFixture::like_chatgpt().await;
    let (code, now) = (case.code().await, case.bed.now().as_second());
    let with = |changes: Value| sign_rs256(&case.claims(changes));
    let good = || case.claims(json!({}));
    let none = format!("{}.", signing_input("none", "rs", &good()));
    // An implementation that trusts `alg` would use the public key as a shared secret.
    let shared = hmac::Key::new(hmac::HMAC_SHA256, modulus());
    let hs256 = signing_input("HS256", "rs", &good());
    let hs256 = format!("{hs256}.{}", encode(hmac::sign(&shared, hs256.as_bytes())));
    for (what, assertion) in [
        ("for another tenant", with(json!({ "aud": "https://mcp.example.com/beta/token" }))),
        ("for somebody else", with(json!({ "aud": "https://evil.example/token" }))),
        (
            "for us and somebody else",
            with(json!({ "aud": ["https://mcp.example.com/acme", "https://evil.example"] })),
        ),
        ("expired", with(json!({ "exp": now - 61 }))),
        ("good for too long", with(json!({ "exp": now + 3600 }))),
        ("not yet good", with(json!({ "nbf": now + 120 }))),
        ("by another issuer", with(json!({ "iss": "https://evil.example/client.json" }))),
        ("without a jti", with(json!({ "jti": null }))),
        ("by a stranger's key", sign(&STRANGERS, &RSA_PKCS1_SHA256, signing_input("RS256", "rs", &good()))),
        ("by a stranger's PSS", sign(&STRANGERS, &RSA_PSS_SHA256, signing_input("PS256", "open", &good()))),
        (
            "by a key that is not listed",
            sign(&OWN, &RSA_PKCS1_SHA256, signing_input("RS256", "gone", &good())),
        ),
        ("of another algorithm", sign(&OWN, &RSA_PSS_SHA256, signing_input("RS256", "open", &good()))),
        ("of a longer hash", sign(&OWN, &RSA_PKCS1_SHA256, signing_input("RS512", "open", &good()))),
        ("without a signature", format!("{}.", signing_input("RS256", "rs", &good()))),
        ("alg none", none),
        ("HS256 by the public key", hs256),
        ("no JWT", "x".to_owned()),
    ] {
        assert_eq!(case.redeem(&code, &assertion).await.error(), INVALID, "{what}");
    }
    assert_eq!(case.redeem(&code, &case.new_assertion()).await.status, 200, "none of them used the code up");
}

#[tokio::test]
async fn without_an_assertion_it_is_public_where_its_document_lists_none() {
    let case = AssertionFixture::like_chatgpt().await;
    let bought = case.server.redeem(&case.code().await, ID).await;
    assert_eq!(bought.status, 200, "{bought:?}");
    assert_eq!(case.server.refresh(bought.text("refresh_token"), ID).await.status, 200);
    assert_eq!(case.host.asked.load(Ordering::SeqCst), 1, "nobody needed its keys");
    let strict = chatgpt_document(json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] }));
    let case = AssertionFixture::new(strict, ok("application/json", "", &keys().to_string())).await;
    let code = case.code().await;
    assert_eq!(case.server.redeem(&code, ID).await.error(), INVALID);
    assert_eq!(case.redeem(&code, &case.new_assertion()).await.status, 200);
}

#[tokio::test]
async fn keys_that_cannot_be_had_prove_nothing() {
    let json = |body: Value| ok("application/json", "", &body.to_string());
    let refused =
        |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    for (what, answer, expected) in [
        ("gone", refused("404 Not Found"), UNAVAILABLE),
        ("broken", refused("500 Internal Server Error"), UNAVAILABLE),
        ("moved", refused(&format!("302 Found\r\nLocation: {ID}")), UNAVAILABLE),
        ("a page", ok("text/html", "", &keys().to_string()), UNAVAILABLE),
        ("cut short", json(keys()).trim_end_matches('}').to_owned(), UNAVAILABLE),
        ("no set", json(json!({ "rs": keys()["keys"][0] })), UNAVAILABLE),
        ("an empty set", json(json!({ "keys": [] })), INVALID),
    ] {
        let case = AssertionFixture::new(chatgpt_document(json!({})), answer).await;
        let code = case.code().await;
        assert_eq!(case.redeem(&code, &case.new_assertion()).await.error(), expected, "{what}");
        assert_eq!(case.server.redeem(&code, ID).await.status, 200, "{what}: the code is still good");
    }
}

#[tokio::test]
async fn keys_elsewhere_or_nearer_than_the_internet_are_not_fetched() {
    for at in [
        &format!("https://{EVIL}/jwks.json"),
        &format!("https://{BELOW_EVIL}/jwks.json"),
        "https://10.0.0.9/jwks.json",
        "https://localhost/jwks.json",
        "http://app.example.com/jwks.json",
        "https://app.example.com:8443/jwks.json",
    ] {
        let case = AssertionFixture::new(
            chatgpt_document(json!({ "jwks_uri": at })),
            ok("application/json", "", &keys().to_string()),
        )
        .await;
        let code = case.code().await;
        assert_eq!(case.redeem(&code, &case.new_assertion()).await.error(), UNAVAILABLE, "{at}");
        assert_eq!(case.host.asked.load(Ordering::SeqCst), 1, "{at}: only the document was asked for");
    }
    let case = AssertionFixture::like_chatgpt().await;
    let code = case.code().await;
    assert!(case.server.inner.clients.find(ID, SOURCE).await.is_ok());
    // The document's host was public; now its name also has an internal address.
    let both = vec![case.host.address, "10.0.0.9:0".parse().expect("an address")];
    lock_unpoisoned(&case.names.table).insert(HOST.to_owned(), both);
    assert_eq!(case.redeem(&code, &case.new_assertion()).await.error(), UNAVAILABLE);
    assert_eq!(case.host.asked.load(Ordering::SeqCst), 1, "nothing was connected to");
}
