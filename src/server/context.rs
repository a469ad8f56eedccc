//! What every connection and request of the edge shares, and the facts of one of each.

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

/// What the edge works with.
#[derive(Clone)]
pub struct Handles {
    pub registry: Registry,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub audit: Audit,
    /// Without certificates the listeners speak plain HTTP/1.1.
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
    /// What a CA that looks at its challenge is answered with.
    pub(super) challenges: Option<Arc<rustls::ServerConfig>>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) limits: Limits,
    pub(super) admission: Admission,
    pub(super) budgets: Budgets,
    pub(super) hosts: GatewayHosts,
    pub(super) allowed_origins: Vec<String>,
    pub(super) open_tenants: OpenTenants,
    /// `Strict-Transport-Security`, on every answer under a certificate that is meant to last.
    pub(super) hsts: Option<HeaderValue>,
    /// When to say that a handshake failed.
    pub(super) no_handshake: Seldom,
}

impl Edge {
    /// Puts the edge together. Nothing is served before [`Edge::serve`].
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

/// What is known about a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Never an IPv4 address in IPv6 clothes.
    pub(super) addr: SocketAddr,
    /// The address the client connected to: a name of ours by definition.
    pub(super) local: IpAddr,
    /// The name asked for in the TLS handshake, lower case.
    pub(super) sni: Option<Box<str>>,
    /// The certificate it was shown is one that nobody vouches for, until there is another.
    pub(super) stopgap: bool,
}

impl Peer {
    /// What a socket knows of its two ends. `None` if it is closed already.
    pub(super) fn of(stream: &TcpStream, addr: SocketAddr) -> Option<Self> {
        let local = stream.local_addr().ok()?.ip().to_canonical();
        Some(Self {
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            local,
            sni: None,
            stopgap: false,
        })
    }

    /// Where the caller is, as far as that decides whom an open tenant answers. Who calls from an address that was called is
    /// this machine, by whatever address of its own: no other can finish a handshake from there.
    pub(super) fn place(&self) -> IpAddr {
        match self.addr.ip() == self.local {
            true => Ipv4Addr::LOCALHOST.into(),
            false => self.addr.ip(),
        }
    }
}

/// What is known about a request before anything of it is read.
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

    /// The request showed a credential that was found good.
    pub(super) fn set_credential(&self) {
        self.has_credential.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }

    /// In whose shares counts what it takes.
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
