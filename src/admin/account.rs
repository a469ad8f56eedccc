//! Finds the account (uid) of this machine that owns the other end of a connection.
//!
//! Commands are accepted from this machine only, so both ends are in the kernel's socket tables
//! (`/proc/net/tcp`, proc(5)). Outside Linux the account is unknown.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    /// `None` if the connection is already closed.
    local: Option<SocketAddr>,
}

impl Ends {
    pub(super) fn new(stream: &TcpStream, peer: SocketAddr) -> Self {
        Self { peer, local: stream.local_addr().ok() }
    }

    /// Returns the uid that owns the peer's socket. Reads files, so it blocks.
    pub(super) fn account(self) -> Option<u32> {
        let local = self.local?;
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        tables.iter().find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().find_map(|line| owner(line, self.peer, local))
        })
    }
}

/// Returns the uid of a table line if the line is that of the socket from `from` to `to`.
fn owner(line: &str, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    let is = |field: Option<&str>, end: SocketAddr| field.and_then(address) == Some(canonical(end));
    let is_ours = is(fields.next(), from) && is(fields.next(), to);
    // Skip state, queues, timer and retransmissions.
    is_ours.then(|| fields.nth(4)?.parse().ok())?
}

fn canonical(end: SocketAddr) -> (IpAddr, u16) {
    (end.ip().to_canonical(), end.port())
}

/// Parses `0100007F:1F90`: the address as 32-bit words in native byte order, and the port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_that_of_the_peers_socket_and_not_of_ours() {
        let theirs = "   3: 0100007F:C350 0100007F:26AC 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1";
        let ours = "   4: 0100007F:26AC 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1";
        let (peer, local) = ("127.0.0.1:50000", "127.0.0.1:9900");
        let [peer, local]: [SocketAddr; 2] = [peer, local].map(|end| end.parse().expect("an address"));
        let found = |line| owner(line, peer, local);
        assert_eq!((found(theirs), found(ours)), (Some(1000), None));
        assert_eq!(found("  sl  local_address rem_address   st"), None);
        let mapped = "[::ffff:127.0.0.1]:9900".parse().expect("an address");
        assert_eq!(owner(theirs, peer, mapped), Some(1000));
    }

    #[tokio::test]
    async fn a_real_connection_is_this_accounts() {
        use std::os::unix::fs::MetadataExt;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 does not have `::1`.
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else { continue };
            let client =
                TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
            let (stream, peer) = listener.accept().await.expect("accepted");
            let own = fs::metadata("/proc/self").expect("this process").uid();
            assert_eq!(Ends::new(&stream, peer).account(), Some(own), "{address}");
            drop(client);
        }
    }
}
