//! The one HTTP client of the process: connections pooled by origin, with a bound on idle ones.
//!
//! Proxies of the environment are not used: a backend is where its URL says. Nothing is decompressed, so that a small
//! answer cannot become a large one.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls_platform_verifier::Verifier;
use tokio::sync::watch;

use super::Error;
use super::connector::Connector;
use super::guard::AddressGuard;
use crate::base::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// Popular servers close idle connections after five seconds (uvicorn, Node); whoever keeps one longer loses requests
/// that cross the closing on the wire.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_PER_ORIGIN: usize = 64;
const MAX_HEADERS_BYTES: usize = 64 << 10;
/// An HTTP/2 connection that answers no ping for so long is dead.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// The one HTTP client of the process: connections pooled by origin, forbidden addresses refused when connecting.
/// Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    http: legacy::Client<Connector, Full<Bytes>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: watch::Sender<u64>,
}

impl Pool {
    /// `allow` are networks that backends may be in although they are loopback or link-local; `own` are our listeners,
    /// as bound (port 0 matches nothing).
    pub fn new(
        allow: Vec<IpNet>,
        own: Vec<SocketAddr>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        Ok(Self::over(Connector::new(AddressGuard::new(allow, own), tls()), clock, metrics))
    }

    pub(super) fn over(connector: Connector, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_ORIGIN)
            .http1_max_buf_size(MAX_HEADERS_BYTES)
            .http2_max_header_list_size(MAX_HEADERS_BYTES as u32)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_PATIENCE)
            .build(connector);
        Self(Arc::new(Shared { http, clock, metrics, health: watch::Sender::new(0) }))
    }

    /// Changes whenever any tenant's backend falls into trouble or comes out of it: time to look at
    /// [`super::Client::trouble`] again.
    pub fn health(&self) -> watch::Receiver<u64> {
        self.0.health.subscribe()
    }

    pub(super) fn health_changed(&self) {
        self.0.health.send_modify(|count| *count += 1);
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Sends one request. The error's source chain says whether anything was sent.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        self.0.http.request(request).await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// Trusts what the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` included).
fn tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("aws-lc speaks TLS 1.2 and 1.3");
    match Verifier::new(provider) {
        Ok(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "this machine trusts no certificate authority, so no https backend can be reached; \
                 install its CA certificates (Debian: ca-certificates) or set SSL_CERT_FILE"
            );
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    }
}
