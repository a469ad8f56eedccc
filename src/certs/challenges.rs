//! Responses to ACME challenges while an order is under way: TLS-ALPN-01 (RFC 8737) and HTTP-01
//! (RFC 8555 section 8.3).
//!
//! The TLS side has its own configuration, which serves challenges only; no other configuration
//! serves them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Error;
use super::challenge_certificate::{build_challenge_certificate, challenge_sni};
use super::shared_challenges::SharedChallenges;

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
    /// The responses of other gateways; `None` if this one shares no certificates.
    shared: Option<SharedChallenges>,
}

/// Serves TLS-ALPN-01: the TLS configuration, and where its certificates come from.
#[derive(Debug, Clone)]
pub struct ChallengeServer {
    config: Arc<rustls::ServerConfig>,
    responses: Arc<ChallengeResponses>,
}

impl ChallengeServer {
    pub(super) fn new(responses: &Arc<ChallengeResponses>) -> Self {
        Self { config: responses.tls_config(), responses: Arc::clone(responses) }
    }

    /// Returns the configuration for a connection that offers [`ACME_TLS_ALPN`] and asks for this
    /// server name. Another gateway may have the response, and is asked first.
    pub async fn config_for(&self, server_name: Option<&str>) -> Arc<rustls::ServerConfig> {
        if let Some((shared, name)) = self.responses.shared.as_ref().zip(server_name)
            && !self.responses.has_tls_alpn01(name)
        {
            shared.refresh_for(name).await;
        }
        Arc::clone(&self.config)
    }
}

impl ChallengeResponses {
    /// Creates the responses of a gateway that others help to answer, or of one alone.
    pub(super) fn new(shared: Option<SharedChallenges>) -> Self {
        Self { shared, ..Self::default() }
    }

    /// Sets the names that responses of other gateways are looked for.
    pub(super) fn set_names<'n>(&self, names: impl Iterator<Item = &'n String>) {
        if let Some(shared) = &self.shared {
            shared.set_names(names);
        }
    }

    fn has_tls_alpn01(&self, server_name: &str) -> bool {
        let own = self.tls.read().expect("no holder of this lock panics");
        own.contains_key(&server_name.to_ascii_lowercase())
    }

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

    /// Returns the response for a token. Another gateway may have it, if the host is one of ours.
    pub(super) async fn http01_response(&self, host: Option<&str>, token: &str) -> Option<String> {
        let own = self.http.read().expect("no holder of this lock panics").get(token).cloned();
        let Some(shared) = self.shared.as_ref().filter(|_| own.is_none()) else { return own };
        shared.refresh_for(host?).await;
        shared.http01_response(token)
    }

    /// Returns the TLS configuration that serves challenge certificates only.
    fn tls_config(self: &Arc<Self>) -> Arc<rustls::ServerConfig> {
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
        let own = self.tls.read().expect("no holder of this lock panics").get(&name).cloned();
        own.or_else(|| self.shared.as_ref()?.tls_alpn01_certificate(&name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_challenge_response_ends_with_its_guard() {
        let challenges = Arc::new(ChallengeResponses::default());
        let answering = challenges.add_http01("token", "token.thumb");
        let tls = challenges.add_tls_alpn01("a.test", &[7; 32]).expect("a certificate");
        assert_eq!(challenges.http01_response(None, "token").await.as_deref(), Some("token.thumb"));
        drop((answering, tls));
        assert_eq!(challenges.http01_response(None, "token").await, None);
        assert!(challenges.tls.read().expect("unpoisoned").is_empty());
    }
}
