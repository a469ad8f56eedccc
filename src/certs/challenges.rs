//! Responses to ACME challenges while an order is under way: TLS-ALPN-01 (RFC 8737) and HTTP-01
//! (RFC 8555 section 8.3).
//!
//! The TLS side has its own configuration, which serves challenges only; no other configuration
//! serves them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use super::Error;

/// The ALPN protocol with which a CA validates TLS-ALPN-01.
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// The response to an HTTP-01 request for an unknown token. `certs doctor` recognizes the gateway
/// by it.
pub const NO_CHALLENGE_TEXT: &str = "there is no such challenge in progress";

/// The responses. A CA validates from several places and more than once, so each stays until its
/// order is decided.
#[derive(Debug, Default)]
pub(super) struct ChallengeResponses {
    tls: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    http: RwLock<HashMap<String, String>>,
}

impl ChallengeResponses {
    /// Responds to TLS-ALPN-01 for a name until the guard is dropped.
    pub(super) fn add_tls_alpn01(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<ChallengeGuard, Error> {
        let sni = challenge_sni(name);
        self.tls
            .write()
            .expect("no holder of this lock panics")
            .insert(sni.clone(), build_challenge_certificate(name, digest)?);
        Ok(ChallengeGuard { responses: self.clone(), key: ChallengeKey::Sni(sni) })
    }

    /// Responds to HTTP-01 for a token until the guard is dropped.
    pub(super) fn add_http01(self: &Arc<Self>, token: &str, text: &str) -> ChallengeGuard {
        let (token, text) = (token.to_owned(), text.to_owned());
        self.http.write().expect("no holder of this lock panics").insert(token.clone(), text);
        ChallengeGuard { responses: self.clone(), key: ChallengeKey::Token(token) }
    }

    /// Returns the response for a token.
    pub(super) fn http01_response(&self, token: &str) -> Option<String> {
        self.http.read().expect("no holder of this lock panics").get(token).cloned()
    }

    /// Returns the TLS configuration that serves challenge certificates only.
    pub(super) fn tls_config(self: &Arc<Self>) -> Arc<rustls::ServerConfig> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc speaks TLS 1.2 and 1.3");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for ChallengeResponses {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.tls.read().expect("no holder of this lock panics").get(&name).cloned()
    }
}

/// Removes a response when dropped.
#[derive(Debug)]
pub(super) struct ChallengeGuard {
    responses: Arc<ChallengeResponses>,
    key: ChallengeKey,
}

#[derive(Debug)]
enum ChallengeKey {
    Sni(String),
    Token(String),
}

impl Drop for ChallengeGuard {
    fn drop(&mut self) {
        match &self.key {
            ChallengeKey::Sni(sni) => {
                drop(self.responses.tls.write().expect("no holder of this lock panics").remove(sni))
            }
            ChallengeKey::Token(token) => {
                drop(self.responses.http.write().expect("no holder of this lock panics").remove(token))
            }
        }
    }
}

/// Returns the SNI value that a CA sends for an identifier: addresses in reverse notation (RFC 8738
/// section 6).
fn challenge_sni(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let digits: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

/// Builds the challenge certificate. It bypasses rustls' checks, which would refuse its critical
/// extension: only CAs understand that.
fn build_challenge_certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let generation_error =
        |error: rcgen::Error| Error(format!("a challenge's certificate cannot be created: {error}"));
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(generation_error)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(generation_error)?;
    let certificate = params.self_signed(&key).map_err(generation_error)?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = any_supported_type(&der).map_err(|error| Error(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_alpn_challenges_for_addresses_use_their_reverse_names() {
        assert_eq!(challenge_sni("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        assert!(challenge_sni("2001:db8::1").starts_with("1.0.0.0."));
        assert!(challenge_sni("2001:db8::1").ends_with("8.b.d.0.1.0.0.2.ip6.arpa"));
        assert_eq!(challenge_sni("MCP.example.com"), "mcp.example.com");
    }

    #[test]
    fn a_challenge_response_ends_with_its_guard() {
        let challenges = Arc::new(ChallengeResponses::default());
        let answering = challenges.add_http01("token", "token.thumb");
        let tls = challenges.add_tls_alpn01("a.test", &[7; 32]).expect("a certificate");
        assert_eq!(challenges.http01_response("token").as_deref(), Some("token.thumb"));
        drop((answering, tls));
        assert_eq!(challenges.http01_response("token"), None);
        assert!(challenges.tls.read().expect("unpoisoned").is_empty());
    }
}
