//! A machine client that authenticates by JWT assertions (RFC 7523).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The program with its key.
pub(crate) struct Program {
    id: &'static str,
    key: EcdsaKeyPair,
}

impl Program {
    pub(crate) fn new(id: &'static str) -> Self {
        Self { id, key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key") }
    }

    /// Returns its lines in a tenant's file.
    pub(crate) fn lines(&self) -> String {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        let id = self.id;
        format!("  - {{id: {id}, label: {id}, jwks: {{keys: [{{kty: EC, crv: P-256, x: {x}, y: {y}}}]}}}}\n")
    }

    /// Returns an assertion for a tenant, valid for ten minutes.
    pub(crate) fn assertion(&self, issuer: &str, jti: u64) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({
            "iss": self.id, "sub": self.id, "aud": issuer, "jti": jti.to_string(),
            "exp": jiff::Timestamp::now().as_second() + 600,
        });
        let message = format!("{}.{}", part(&json!({ "alg": "ES256" })), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Returns the form of a token request with an assertion.
pub(crate) fn assertion_form(assertion: &str) -> [(&'static str, &str); 3] {
    [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ]
}
