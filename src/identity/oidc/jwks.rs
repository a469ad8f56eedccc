//! The signing keys that a provider publishes (RFC 7517).

use jsonwebtoken::DecodingKey;
use serde::Deserialize;

/// The limit on the keys read from one set. No provider has nearly as many.
const MAX_KEYS: usize = 64;

/// The RSA keys with which id_tokens may be signed.
#[derive(Debug, Default)]
pub(in crate::identity) struct ProviderKeys(Vec<ProviderKey>);

#[derive(Debug)]
pub(in crate::identity) struct ProviderKey {
    kid: Box<str>,
    /// The issuer that the provider restricts the key to, or a template of it.
    pub(in crate::identity) issuer: Option<Box<str>>,
    pub(in crate::identity) public: DecodingKey,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RsaJwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    n: String,
    e: String,
    issuer: Option<String>,
}

impl ProviderKeys {
    /// Parses a JWK set. Skips keys of other kinds, as RFC 7517 section 5 requires; returns `None`
    /// if no key is left.
    pub(in crate::identity) fn parse(json: &[u8]) -> Option<Self> {
        let published: JwkSet = serde_json::from_slice(json).ok()?;
        let keys: Vec<ProviderKey> =
            published.keys.into_iter().take(MAX_KEYS).filter_map(ProviderKey::parse).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    pub(in crate::identity) fn find(&self, kid: &str) -> Option<&ProviderKey> {
        self.0.iter().find(|key| *key.kid == *kid)
    }
}

impl ProviderKey {
    fn parse(value: serde_json::Value) -> Option<Self> {
        let jwk: RsaJwk = serde_json::from_value(value).ok()?;
        let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
        let rs256 = jwk.alg.as_deref().is_none_or(|alg| alg == "RS256");
        let public = DecodingKey::from_rsa_components(&jwk.n, &jwk.e).ok()?;
        (jwk.kty == "RSA" && signs && rs256).then(|| Self {
            kid: jwk.kid.into(),
            issuer: jwk.issuer.map(Into::into),
            public,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_are_skipped() {
        let set = br#"{"keys": [
            {"kty": "RSA", "kid": "a", "use": "sig", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "kid": "b", "use": "enc", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "kid": "c", "alg": "PS256", "n": "AQAB", "e": "AQAB"},
            {"kty": "EC", "kid": "d", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            7
        ]}"#;
        let keys = ProviderKeys::parse(set).expect("one key");
        let found = |kid| keys.find(kid).is_some();
        assert_eq!([found("a"), found("b"), found("c"), found("d")], [true, false, false, false]);
        assert!(ProviderKeys::parse(br#"{"keys": []}"#).is_none());
        assert!(ProviderKeys::parse(b"<html>").is_none());
    }
}
