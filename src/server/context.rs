//! State shared by all connections and requests of the edge, and what is known of each one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::net::TcpStream;

use super::budgets::{Budgets, Parties};
use super::limits::Admission;
use super::{reply, tls};
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::seldom::Seldom;
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
pub struct Handles {
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
pub struct Edge {
    pub(super) registry: Registry,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
    pub(super) audit: Audit,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    /// The TLS configuration that answers TLS-ALPN-01 challenges.
    pub(super) challenges: Option<Arc<rustls::ServerConfig>>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) limits: Limits,
    pub(super) admission: Admission,
    pub(super) budgets: Budgets,
    pub(super) hosts: GatewayHosts,
    pub(super) allowed_origins: Vec<String>,
    pub(super) open_tenants: OpenTenants,
    /// `Strict-Transport-Security`, sent on every response except under a placeholder certificate.
    pub(super) hsts: Option<HeaderValue>,
    /// Limits the log line about failed handshakes.
    pub(super) no_handshake: Seldom,
}

impl Edge {
    /// Builds the edge. It serves nothing before [`Edge::serve`].
    pub fn new(settings: &Settings, handles: Handles) -> Arc<Self> {
        let limits = settings.limits.clone();
        Arc::new(Self {
            registry: handles.registry,
            admission: Admission::new(&limits, Arc::clone(&handles.metrics)),
            budgets: Budgets::new(&limits, &handles.metrics),
            metrics: handles.metrics,
            clock: handles.clock,
            tasks: handles.tasks,
            audit: handles.audit,
            tls: handles.certificates.as_ref().map(|certificates| tls::config(certificates.resolver())),
            challenges: handles
                .certificates
                .as_ref()
                .and_then(|certificates| certificates.challenge_config()),
            certificates: handles.certificates,
            limits,
            hosts: settings.gateway_hosts(),
            allowed_origins: settings.allowed_origins.clone(),
            open_tenants: settings.open_tenants,
            hsts: settings.hsts.map(reply::strict_transport_security),
            no_handshake: Seldom::once_in(Duration::from_secs(1)),
        })
    }
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// The client's address; an IPv4-mapped IPv6 address is converted to IPv4.
    pub(super) addr: SocketAddr,
    /// The address that the client connected to, which is always a host name of this gateway.
    pub(super) local: IpAddr,
    /// The server name from SNI, in lower case.
    pub(super) sni: Option<Box<str>>,
    /// The handshake used a placeholder certificate that no CA signed.
    pub(super) stopgap: bool,
}

impl Peer {
    /// Reads both ends of a socket. Returns `None` if it is closed already.
    pub(super) fn of(stream: &TcpStream, addr: SocketAddr) -> Option<Self> {
        let local = stream.local_addr().ok()?.ip().to_canonical();
        Some(Self {
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            local,
            sni: None,
            stopgap: false,
        })
    }

    /// Returns the caller's address for deciding whether an open tenant answers it. A caller whose
    /// address equals the one it connected to is this machine, under whatever address: no other
    /// machine can finish a handshake from there. It is returned as loopback.
    pub(super) fn place(&self) -> IpAddr {
        match self.addr.ip() == self.local {
            true => Ipv4Addr::LOCALHOST.into(),
            false => self.addr.ip(),
        }
    }
}

/// What is known of a request before any of it is read.
#[derive(Debug)]
pub(super) struct Visit<'a> {
    pub(super) peer: &'a Peer,
    pub(super) id: String,
    pub(super) started: Instant,
    has_credential: AtomicBool,
}

impl<'a> Visit<'a> {
    pub(super) fn begin(edge: &Edge, peer: &'a Peer) -> Self {
        let (id, started) = (random::hex::<8>(), edge.clock.monotonic());
        Self { peer, id, started, has_credential: AtomicBool::new(false) }
    }

    /// Records that the request carried a valid credential.
    pub(super) fn set_credential(&self) {
        self.has_credential.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }

    /// Returns the parties against whose shares the request's memory counts.
    pub(super) fn parties(&self, tenant: Option<&Tenant>) -> Parties {
        let tenant = tenant.map(|tenant| &tenant.spec.name);
        Parties::of(self.peer.addr.ip(), tenant).with_credential(self.has_credential())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_at_an_address_of_ours_is_this_machine() {
        let place = |addr: &str, local: &str| {
            let (addr, local) = (addr.parse().expect("an address"), local.parse().expect("an address"));
            Peer { addr: SocketAddr::new(addr, 1), local, sni: None, stopgap: false }.place()
        };
        assert!(place("192.0.2.1", "192.0.2.1").is_loopback());
        assert!(place("2001:db8::1", "2001:db8::1").is_loopback());
        assert_eq!(place("192.0.2.9", "192.0.2.1").to_string(), "192.0.2.9");
    }
}
