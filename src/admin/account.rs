//! Which account of this machine is at the other end of a connection: the kernel knows whose each socket is.
//!
//! Orders are taken from this machine only, so both ends are in its tables (`/proc/net/tcp`, proc(5)). Elsewhere than on
//! Linux nobody says.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    /// None if it is closed already.
    local: Option<SocketAddr>,
}

impl Ends {
    pub(super) fn of(stream: &TcpStream, peer: SocketAddr) -> Self {
        Self { peer, local: stream.local_addr().ok() }
    }

    /// The account whose the peer's socket is. Reads files, so it blocks.
    pub(super) fn account(self) -> Option<u32> {
        let local = self.local?;
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        tables.iter().find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().find_map(|line| owner(line, self.peer, local))
        })
    }
}

/// The owner of the socket that a line tells, if that is the one from here to there.
fn owner(line: &str, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    let is = |field: Option<&str>, end: SocketAddr| field.and_then(address) == Some(canonical(end));
    let is_ours = is(fields.next(), from) && is(fields.next(), to);
    // State, queues, timer and retransmissions are passed over.
    is_ours.then(|| fields.nth(4)?.parse().ok())?
}

fn canonical(end: SocketAddr) -> (IpAddr, u16) {
    (end.ip().to_canonical(), end.port())
}

/// `0100007F:1F90`: words of the address in the machine's order of bytes, and the port.
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
            // A machine without IPv6 has no such address.
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else { continue };
            let client =
                TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
            let (stream, peer) = listener.accept().await.expect("accepted");
            let own = fs::metadata("/proc/self").expect("this process").uid();
            assert_eq!(Ends::of(&stream, peer).account(), Some(own), "{address}");
            drop(client);
        }
    }
}
