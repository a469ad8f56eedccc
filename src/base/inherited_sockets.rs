//! Listening sockets that were made before this process: by the service manager (systemd's
//! `.socket` units, `sd_listen_fds(3)`), or by the process that this one succeeds (`handover`).
//!
//! File descriptors belong to the process, and so do these sockets: `main` receives them before
//! any thread exists, because the variables that announce them are removed from the environment.
//! Code that binds an address first looks for an inherited socket on it. The address alone
//! decides; names of descriptors have no meaning here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use listenfd::ListenFd;

use super::sync::lock;

static SOCKETS: Mutex<Vec<Inherited>> = Mutex::new(Vec::new());

/// An inherited socket that was not taken yet.
#[derive(Debug)]
struct Inherited {
    address: SocketAddr,
    socket: TcpListener,
    giver: Giver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giver {
    ServiceManager,
    Predecessor,
}

/// A file descriptor that the service manager handed over, and that is no TCP socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "the service manager handed over a file descriptor that is no TCP socket ({0}); its socket unit may have \
     nothing but `ListenStream=` with an address and a port"
)]
pub struct Error(io::Error);

/// Receives what the service manager hands over to this process; most often that is nothing. To be
/// called once, before a thread exists.
///
/// # Errors
/// [`Error`] for a descriptor that is no TCP socket.
pub fn receive() -> Result<(), Error> {
    let mut handed_over = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed_over.len() {
        let Some(socket) = handed_over.take_tcp_listener(index).map_err(Error)? else { continue };
        let address = socket.local_addr().map_err(Error)?;
        socket.set_nonblocking(true).map_err(Error)?;
        sockets.push(Inherited { address, socket, giver: Giver::ServiceManager });
    }
    lock(&SOCKETS).extend(sockets);
    Ok(())
}

/// Keeps a socket that the process before this one handed over. `address` is the one that the
/// settings ask for, whose port may be 0.
///
/// # Errors
/// The descriptor is not that of a socket.
pub fn add(address: SocketAddr, socket: TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    lock(&SOCKETS).push(Inherited { address, socket, giver: Giver::Predecessor });
    Ok(())
}

/// Closes the sockets that the process before this one handed over and that nobody took: their
/// addresses are no longer in the settings or in tenants' files.
pub fn close_untaken() {
    lock(&SOCKETS).retain(|inherited| inherited.giver == Giver::ServiceManager);
}

/// Takes the inherited socket on exactly this address, if there is one.
pub fn take(address: SocketAddr) -> Option<TcpListener> {
    let mut sockets = lock(&SOCKETS);
    let index = sockets.iter().position(|inherited| inherited.address == address)?;
    // Not swapped: several sockets may have been asked for with port 0, and their order counts.
    Some(sockets.remove(index).socket)
}

/// Returns the addresses of the service manager's sockets that are not among `wanted` and were not
/// taken. Clients that connect to them would wait for ever.
pub fn unwanted(wanted: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
    let sockets = lock(&SOCKETS);
    let theirs = sockets.iter().filter(|inherited| inherited.giver == Giver::ServiceManager);
    theirs.map(|inherited| inherited.address).filter(|&address| !wanted(address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_once_and_by_its_address() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
        lock(&SOCKETS).push(Inherited { address, socket, giver: Giver::ServiceManager });
        assert!(take(other).is_none(), "another address");
        assert_eq!(unwanted(|wanted| wanted == other), [address]);
        assert!(unwanted(|wanted| wanted == address).is_empty());
        assert!(take(address).is_some());
        assert!(take(address).is_none(), "twice");
        assert!(unwanted(|_| false).is_empty());
    }
}
