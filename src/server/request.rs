//! What is known of a connection and of a request before any of it is read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::net::TcpStream;

use super::budgets::Attribution;
use crate::base::random;
use crate::tenants::tenant::Tenant;

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
        Some(Self {
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            local_ip: stream.local_addr().ok()?.ip().to_canonical(),
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
    pub(super) fn new(conn: &'a ConnInfo, started: Instant) -> Self {
        Self { conn, request_id: random::hex::<8>(), started, has_credential: AtomicBool::new(false) }
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
    fn a_caller_at_a_local_address_is_this_machine() {
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
