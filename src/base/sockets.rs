//! Listening sockets, and those that are bound before anybody serves them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::inherited_sockets;
use super::sync::lock;

/// Connections that may queue in the kernel.
const BACKLOG: i32 = 1024;

/// Binds one address and listens, or takes the socket on it that was inherited. `[::]` alone
/// accepts IPv4 as well; with `only_v6` it does not. Requires a Tokio runtime.
///
/// # Errors
/// The system's: the port is taken or privileged, or the address is not this machine's.
pub fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    if let Some(inherited) = inherited_sockets::take(address) {
        return TcpListener::from_std(inherited);
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The sockets of one gateway that come and go while it serves. One party binds a socket before it
/// counts on it, another takes and serves it.
#[derive(Debug, Default)]
pub struct SocketPool(Mutex<HashMap<SocketAddr, PooledSocket>>);

#[derive(Debug)]
enum PooledSocket {
    Bound(TcpListener),
    Served,
}

impl SocketPool {
    /// Binds an address, unless that is done already.
    ///
    /// # Errors
    /// Those of [`listen`].
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        let mut sockets = lock(&self.0);
        if let Entry::Vacant(vacant) = sockets.entry(address) {
            vacant.insert(PooledSocket::Bound(listen_alone(address)?));
        }
        Ok(())
    }

    /// Returns the socket of an address, bound now if it was not before.
    ///
    /// # Errors
    /// Those of [`listen`].
    pub fn take(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut sockets = lock(&self.0);
        let taken = match sockets.insert(address, PooledSocket::Served) {
            Some(PooledSocket::Bound(socket)) => Ok(socket),
            Some(PooledSocket::Served) | None => listen_alone(address),
        };
        if taken.is_err() {
            sockets.remove(&address);
        }
        taken
    }

    /// Forgets a socket that is no longer served.
    pub fn release(&self, address: SocketAddr) {
        lock(&self.0).remove(&address);
    }

    /// Closes the sockets that are bound and not served, except those that are wanted.
    pub fn close_unwanted(&self, is_wanted: impl Fn(&SocketAddr) -> bool) {
        let keeps = |address: &SocketAddr, socket: &mut PooledSocket| match socket {
            PooledSocket::Served => true,
            PooledSocket::Bound(_) => is_wanted(address),
        };
        lock(&self.0).retain(keeps);
    }
}

/// An IPv6 address for tenants does not accept IPv4: the same port there may be another tenant's.
fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_bound_once_and_taken() {
        let pool = SocketPool::default();
        let other = listen("127.0.0.1:0".parse().expect("an address"), false).expect("a free port");
        let address = other.local_addr().expect("an address");
        assert!(pool.bind(address).is_err() && pool.take(address).is_err(), "somebody has it");
        drop(other);
        pool.bind(address).expect("it is free");
        pool.bind(address).expect("it is ours");
        let taken = pool.take(address).expect("it is bound");
        pool.close_unwanted(|_| false);
        pool.bind(address).expect("it is served");
        drop(taken);
        pool.release(address);
        pool.bind(address).expect("it is free again");
        pool.close_unwanted(|wanted| *wanted == address);
        assert!(listen(address, false).is_err(), "it is kept");
        pool.close_unwanted(|_| false);
        assert!(listen(address, false).is_ok(), "it is closed");
    }
}
