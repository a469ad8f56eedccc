//! What is known of a listener, of a connection, and of a request before its body is read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::budgets::Attribution;
use super::trusted_proxies::{CallerAddress, TrustedProxies};
use crate::base::random;
use crate::tenants::tenant::Tenant;

/// What the connections of one listener have in common. The default is one of the gateway's own.
#[derive(Debug, Default)]
pub(super) struct ListenerInfo {
    /// The address, if it is a listener of tenants. Then only they answer here.
    pub(super) tenants: Option<SocketAddr>,
    /// Whether every connection begins with a PROXY protocol header.
    pub(super) proxy_protocol: bool,
    /// Fires when the listener closes, before the gateway drains.
    pub(super) closed: CancellationToken,
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(super) struct ConnInfo {
    /// The client's address; an IPv4-mapped IPv6 address is converted to IPv4.
    pub(super) addr: SocketAddr,
    /// The client is a trusted proxy: forwarded headers say for whom it asks.
    pub(super) is_trusted_proxy: bool,
    /// The client's address was told by a proxy, which is the peer.
    pub(super) is_relayed: bool,
    /// The listener that the connection came to.
    pub(super) listener: Arc<ListenerInfo>,
    /// The address that the client connected to, which is always a host name of this gateway.
    pub(super) local_ip: IpAddr,
    /// The server name from SNI, in lower case.
    pub(super) sni: Option<Box<str>>,
    /// The handshake used a placeholder certificate that no CA signed.
    pub(super) has_placeholder_certificate: bool,
}

impl ConnInfo {
    /// Reads both ends of a socket. Returns `None` if it is closed already.
    pub(super) fn from_stream(
        stream: &TcpStream,
        addr: SocketAddr,
        listener: Arc<ListenerInfo>,
        proxies: &TrustedProxies,
    ) -> Option<Self> {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Some(Self {
            addr,
            is_trusted_proxy: proxies.contains(addr.ip()),
            is_relayed: false,
            listener,
            local_ip: stream.local_addr().ok()?.ip().to_canonical(),
            sni: None,
            has_placeholder_certificate: false,
        })
    }

    /// Creates the connection of a client that calls directly, over plain HTTP.
    #[cfg(test)]
    pub(super) fn direct(addr: SocketAddr, local_ip: IpAddr) -> Self {
        Self {
            addr,
            is_trusted_proxy: false,
            is_relayed: false,
            listener: Arc::default(),
            local_ip,
            sni: None,
            has_placeholder_certificate: false,
        }
    }

    /// Replaces the peer, a trusted proxy, by the client that it asks for.
    pub(super) fn relayed_for(self, client: SocketAddr, proxies: &TrustedProxies) -> Self {
        let addr = SocketAddr::new(client.ip().to_canonical(), client.port());
        Self { addr, is_trusted_proxy: proxies.contains(addr.ip()), is_relayed: true, ..self }
    }

    /// Returns the client's address for deciding whether an open tenant answers it. A client whose
    /// address equals the one it connected to is this machine, under whatever address: no other
    /// machine can finish a handshake from there. It is returned as loopback.
    pub(super) fn effective_ip(&self) -> IpAddr {
        match self.addr.ip() == self.local_ip && !self.is_relayed {
            true => Ipv4Addr::LOCALHOST.into(),
            false => self.addr.ip(),
        }
    }
}

/// What is known of a request before its body is read.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    pub(super) conn: &'a ConnInfo,
    /// Where the request comes from: the client, or the caller that a trusted proxy names.
    pub(super) caller: CallerAddress,
    pub(super) request_id: String,
    pub(super) started: Instant,
    has_credential: AtomicBool,
}

impl<'a> RequestContext<'a> {
    pub(super) fn new(conn: &'a ConnInfo, caller: CallerAddress, started: Instant) -> Self {
        let has_credential = AtomicBool::new(false);
        Self { conn, caller, request_id: random::hex::<8>(), started, has_credential }
    }

    /// Returns the address that decides whether an open tenant answers; `None` if a proxy does not
    /// say who calls.
    pub(super) fn private_ip(&self) -> Option<IpAddr> {
        if self.conn.is_trusted_proxy { self.caller.known() } else { Some(self.conn.effective_ip()) }
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
        Attribution::new(self.caller.ip(), tenant).with_credential(self.has_credential())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_at_a_local_address_is_this_machine() {
        let place = |addr: &str, local: &str| {
            let (addr, local) = (addr.parse().expect("an address"), local.parse().expect("an address"));
            ConnInfo::direct(SocketAddr::new(addr, 1), local).effective_ip()
        };
        assert!(place("192.0.2.1", "192.0.2.1").is_loopback());
        assert!(place("2001:db8::1", "2001:db8::1").is_loopback());
        assert_eq!(place("192.0.2.9", "192.0.2.1").to_string(), "192.0.2.9");
    }
}
