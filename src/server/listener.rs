//! The public sockets. They are bound first, so that ports are known before anything else is built,
//! and served later.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::Server;
use super::connection::Activity;
use crate::base::accept::Acceptor;
use crate::base::inherited_sockets;

/// Connections that may queue in the kernel.
const BACKLOG: i32 = 1024;

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address from the settings that could not be bound.
    pub address: SocketAddr,
    /// The error of the operating system.
    pub source: io::Error,
}

/// Bound sockets that do not accept connections yet.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds all addresses, or none. For port 0 the system chooses a port, see
    /// `local_addrs`. Requires a Tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound, with the system's error: the port is taken or
    /// privileged, or the address does not belong to this machine.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let bind_one = |&address: &SocketAddr| {
            let shares_port = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
            let only_v6 = address.is_ipv6() && addresses.iter().any(shares_port);
            bind(address, only_v6).map_err(|source| BindError { address, source })
        };
        let bound: Vec<_> = addresses.iter().map(bind_one).collect::<Result<_, _>>()?;
        let (sockets, addresses) = bound.into_iter().unzip();
        Ok(Self { sockets, addresses })
    }

    pub(super) fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }

    /// Returns the bound addresses, in the order of the arguments.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Binds one address, or takes the socket on it that was inherited. `[::]` alone accepts IPv4 as well; beside an IPv4 listener on the same port
/// it must not.
fn bind(address: SocketAddr, only_v6: bool) -> io::Result<(TcpListener, SocketAddr)> {
    if let Some(inherited) = inherited_sockets::take(address) {
        return Ok((TcpListener::from_std(inherited)?, address));
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Builds the task that accepts from a socket and spawns a task for each connection.
pub(super) fn accept_loop<F, C>(
    server: Arc<Server>,
    socket: TcpListener,
    task_name: &'static str,
    serve: C,
) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
where
    F: Future<Output = ()> + Send + 'static,
    C: Fn(Arc<Server>, TcpStream, SocketAddr, Arc<Activity>) -> F + Clone + Send + Sync + 'static,
{
    let socket = Arc::new(socket);
    move || Box::pin(accept(Arc::clone(&server), Arc::clone(&socket), task_name, serve.clone()))
}

/// Accepts connections until the process drains. A connection's permit is returned when it ends.
async fn accept<F, C>(server: Arc<Server>, socket: Arc<TcpListener>, task_name: &'static str, serve: C)
where
    F: Future<Output = ()> + Send + 'static,
    C: Fn(Arc<Server>, TcpStream, SocketAddr, Arc<Activity>) -> F,
{
    let count_failure = || server.metrics.record_refused_connection("accept_error");
    let mut acceptor = Acceptor::new(socket, Arc::clone(&server.clock), count_failure);
    loop {
        let next = async { (server.connection_limiter.acquire().await, acceptor.accept().await) };
        let (permit, (stream, peer)) = tokio::select! {
            biased;
            () = server.tasks.soft().cancelled() => return,
            next = next => next,
        };
        let activity = Arc::new(Activity::default());
        let Some(permit) = server.connection_limiter.admit(permit, peer.ip(), &activity) else { continue };
        // Boxed, since every wrapper around a future reserves space for it again: 12 KiB for a
        // future of 3 KiB.
        let serving = Box::pin(serve(Arc::clone(&server), stream, peer, activity));
        server.tasks.spawn(task_name, async move {
            tokio::select! {
                () = serving => {}
                () = permit.evicted() => {}
            }
        });
    }
}
