//! State shared by all connections and requests of the edge, and what is known of each one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::net::TcpStream;

use super::budgets::{Attribution, MemoryBudgets};
use super::connection_limits::ConnectionLimiter;
use super::{response, tls};
use crate::base::clock::Clock;
use crate::base::log_limiter::LogLimiter;
use crate::base::random;
use crate::base::task::Tasks;
use crate::certs::Certificates;
use crate::routing::GatewayHosts;
use crate::settings::{Limits, OpenTenants, Settings};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::tenants::registry::Registry;
use crate::tenants::tenant::Tenant;

/// What the edge depends on.
#[derive(Clone)]
pub struct ServerDeps {
    /// The tenants' routing table.
    pub registry: Registry,
    /// Counts connections, requests and refusals.
    pub metrics: Arc<Metrics>,
    /// The clock; tests have their own.
    pub clock: Arc<dyn Clock>,
    /// Owns the tasks of listeners and connections, and signals the drain.
    pub tasks: Tasks,
    /// The audit log, for refused calls.
    pub audit: Audit,
    /// Without certificates, the listeners speak plain HTTP/1.1.
    pub certificates: Option<Arc<Certificates>>,
}

/// The public edge of one gateway.
pub struct Server {
    pub(super) registry: Registry,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
    pub(super) audit: Audit,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    /// The TLS configuration that answers TLS-ALPN-01 challenges.
    pub(super) acme_challenge_tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) limits: Limits,
    pub(super) connection_limiter: ConnectionLimiter,
    pub(super) budgets: MemoryBudgets,
    pub(super) hosts: GatewayHosts,
    pub(super) allowed_origins: Vec<String>,
    pub(super) open_tenants: OpenTenants,
    /// `Strict-Transport-Security`, sent on every response except under a placeholder certificate.
    pub(super) hsts: Option<HeaderValue>,
    /// Limits the log line about failed handshakes.
    pub(super) handshake_log_limiter: LogLimiter,
}

impl Server {
    /// Builds the edge. It serves nothing before [`Server::serve`].
    pub fn new(settings: &Settings, handles: ServerDeps) -> Arc<Self> {
        let limits = settings.limits.clone();
        Arc::new(Self {
            registry: handles.registry,
            connection_limiter: ConnectionLimiter::new(&limits, Arc::clone(&handles.metrics)),
            budgets: MemoryBudgets::new(&limits, &handles.metrics),
            metrics: handles.metrics,
            clock: handles.clock,
            tasks: handles.tasks,
            audit: handles.audit,
            tls: handles
                .certificates
                .as_ref()
                .map(|certificates| tls::server_config(certificates.resolver())),
            acme_challenge_tls: handles
                .certificates
                .as_ref()
                .and_then(|certificates| certificates.challenge_config()),
            certificates: handles.certificates,
            limits,
            hosts: settings.gateway_hosts(),
            allowed_origins: settings.allowed_origins.clone(),
            open_tenants: settings.open_tenants,
            hsts: settings.hsts.map(response::strict_transport_security),
            handshake_log_limiter: LogLimiter::new(Duration::from_secs(1)),
        })
    }
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(super) struct ConnInfo {
    /// The client's address; an IPv4-mapped IPv6 address is converted to IPv4.
    pub(super) addr: SocketAddr,
    /// The address that the client connected to, which is always a host name of this gateway.
    pub(super) local_ip: IpAddr,
    /// The server name from SNI, in lower case.
    pub(super) sni: Option<Box<str>>,
    /// The handshake used a placeholder certificate that no CA signed.
    pub(super) has_placeholder_certificate: bool,
}

impl ConnInfo {
    /// Reads both ends of a socket. Returns `None` if it is closed already.
    pub(super) fn from_stream(stream: &TcpStream, addr: SocketAddr) -> Option<Self> {
        let local = stream.local_addr().ok()?.ip().to_canonical();
        Some(Self {
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            local_ip: local,
            sni: None,
            has_placeholder_certificate: false,
        })
    }

    /// Returns the caller's address for deciding whether an open tenant answers it. A caller whose
    /// address equals the one it connected to is this machine, under whatever address: no other
    /// machine can finish a handshake from there. It is returned as loopback.
    pub(super) fn effective_ip(&self) -> IpAddr {
        match self.addr.ip() == self.local_ip {
            true => Ipv4Addr::LOCALHOST.into(),
            false => self.addr.ip(),
        }
    }
}

/// What is known of a request before any of it is read.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    pub(super) conn: &'a ConnInfo,
    pub(super) request_id: String,
    pub(super) started: Instant,
    has_credential: AtomicBool,
}

impl<'a> RequestContext<'a> {
    pub(super) fn new(edge: &Server, peer: &'a ConnInfo) -> Self {
        let (id, started) = (random::hex::<8>(), edge.clock.monotonic());
        Self { conn: peer, request_id: id, started, has_credential: AtomicBool::new(false) }
    }

    /// Records that the request carried a valid credential.
    pub(super) fn set_credential(&self) {
        self.has_credential.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }

    /// Returns the parties against whose shares the request's memory counts.
    pub(super) fn attribution(&self, tenant: Option<&Tenant>) -> Attribution {
        let tenant = tenant.map(|tenant| &tenant.spec.name);
        Attribution::new(self.conn.addr.ip(), tenant).with_credential(self.has_credential())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_at_an_address_of_ours_is_this_machine() {
        let place = |addr: &str, local: &str| {
            let (addr, local) = (addr.parse().expect("an address"), local.parse().expect("an address"));
            ConnInfo {
                addr: SocketAddr::new(addr, 1),
                local_ip: local,
                sni: None,
                has_placeholder_certificate: false,
            }
            .effective_ip()
        };
        assert!(place("192.0.2.1", "192.0.2.1").is_loopback());
        assert!(place("2001:db8::1", "2001:db8::1").is_loopback());
        assert_eq!(place("192.0.2.9", "192.0.2.1").to_string(), "192.0.2.9");
    }
}
