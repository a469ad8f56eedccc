//! The one HTTP client of the process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::Error;
use super::address::AddressRule;
use crate::base::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// How long a TCP and TLS connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections kept for one origin, and for how long: a per-tenant pool would cost 31 KiB a tenant.
const IDLE_PER_ORIGIN: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections to all backends, pooled by origin. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    http: reqwest::Client,
    rule: AddressRule,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

impl Pool {
    /// `allow` are networks that backends may be in although they are loopback or link-local; `own` are our listeners.
    pub fn new(
        allow: Vec<IpNet>,
        own: Vec<SocketAddr>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let rule = AddressRule::new(allow, own);
        let http = reqwest::Client::builder()
            .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_ORIGIN)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .referer(false)
            // A redirect is ours to judge: the key must not follow one to another host.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(rule.clone()))
            .build()
            .map_err(Error::from)?;
        Ok(Self { http, rule, clock, metrics })
    }

    /// Sends one request. A literal address is judged here, since the resolver never sees it.
    pub(super) async fn send(&self, request: reqwest::Request) -> Result<reqwest::Response, SendError> {
        if !self.permits_literal(request.url()) {
            return Err(SendError { error: Error::AddressRefused, nothing_sent: false });
        }
        self.http.execute(request).await.map_err(SendError::from)
    }

    fn permits_literal(&self, url: &Url) -> bool {
        let ip: IpAddr = match url.host() {
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            Some(Host::Domain(_)) | None => return true,
        };
        self.rule.permits(ip) && !self.rule.is_own(ip, url.port_or_known_default().unwrap_or(0))
    }
}

/// A request that brought no answer.
pub(super) struct SendError {
    pub(super) error: Error,
    /// The connection never stood, so sending again cannot do a thing twice.
    pub(super) nothing_sent: bool,
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let nothing_sent = error.is_connect();
        // The URL may hold what a user asked; the chain says enough without it.
        let error = error.without_url();
        tracing::debug!(error = &error as &dyn std::error::Error, "backend request failed");
        Self { error: error.into(), nothing_sent }
    }
}
