//! Syslog in datagrams: over UDP (RFC 5426), or to a socket of this machine.
//!
//! Nobody acknowledges a datagram. The kernel says when the receiver's port is closed or its socket
//! is gone; what a network loses is lost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};
use tokio::time::timeout;

use super::super::config::{HostPort, SyslogAddress, SyslogConfig};
use super::super::syslog_message::SyslogHeader;
use super::{CONNECT_TIMEOUT, Delivery, SEND_TIMEOUT, SendFailure};
use crate::base::dns::DnsResolver;

/// The error of a datagram that is too long.
const EMSGSIZE: i32 = 90;
/// After how many datagrams a receiver's buffer gets time to empty.
const BURST: usize = 32;
const BURST_PAUSE: Duration = Duration::from_millis(2);
/// After how many batches a name is looked up again.
const BATCHES_PER_SOCKET: u32 = 1000;

pub(in crate::telemetry::audit::sinks) struct DatagramChannel {
    address: SyslogAddress,
    header: SyslogHeader,
    socket: Option<DatagramSocket>,
    batches: u32,
}

enum DatagramSocket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl DatagramChannel {
    pub(super) fn new(config: &SyslogConfig) -> Self {
        let address = config.address.clone();
        Self { address, header: SyslogHeader::new(config), socket: None, batches: 0 }
    }

    pub(super) async fn send(&mut self, lines: &[Vec<u8>]) -> Result<Delivery, SendFailure> {
        let socket = match self.socket.take() {
            Some(socket) if self.batches < BATCHES_PER_SOCKET => socket,
            _ => {
                self.batches = 0;
                timeout(CONNECT_TIMEOUT, open(&self.address)).await??
            }
        };
        self.batches += 1;
        let mut delivery = Delivery { is_confirmed: true, oversized: 0 };
        for (index, line) in lines.iter().enumerate() {
            if index % BURST == BURST - 1 {
                tokio::time::sleep(BURST_PAUSE).await;
            }
            match timeout(SEND_TIMEOUT, socket.send(&self.header.format(line))).await? {
                Err(error) if error.raw_os_error() == Some(EMSGSIZE) => delivery.oversized += 1,
                sent => drop(sent?),
            }
        }
        self.socket = Some(socket);
        Ok(delivery)
    }
}

impl DatagramSocket {
    async fn send(&self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.send(message).await,
            Self::Unix(socket) => socket.send(message).await,
        }
    }
}

async fn open(address: &SyslogAddress) -> Result<DatagramSocket, SendFailure> {
    match address {
        SyslogAddress::Unix(path) => Ok(DatagramSocket::Unix(open_unix(path)?)),
        SyslogAddress::Udp(receiver) | SyslogAddress::Tcp(receiver) | SyslogAddress::Tls { receiver, .. } => {
            Ok(DatagramSocket::Udp(open_udp(receiver).await?))
        }
    }
}

fn open_unix(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

async fn open_udp(receiver: &HostPort) -> Result<UdpSocket, SendFailure> {
    let addresses = DnsResolver::global().lookup(&receiver.host).await?;
    let ip = *addresses.first().ok_or_else(|| SendFailure::new("its name has no address"))?;
    let own: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(own, 0)).await?;
    socket.connect(SocketAddr::new(ip, receiver.port)).await?;
    Ok(socket)
}
