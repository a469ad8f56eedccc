//! The public sockets. They are bound first, so that ports are known before anything else is built,
//! and served later.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::Server;
use super::connection::Activity;
use super::request::ListenerInfo;
use crate::base::accept::Acceptor;
use crate::base::heartbeat::Beats;
use crate::base::sockets;
use crate::spec::ListenAddress;

/// At a drain, connections that wait in the kernel are accepted until none came for this long...
const QUEUE_IS_EMPTY_AFTER: Duration = Duration::from_millis(20);
/// ... but no longer than this.
const LAST_ACCEPTS_WITHIN: Duration = Duration::from_millis(250);

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
    sockets: Vec<(TcpListener, ListenerInfo)>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds all addresses, or none. For port 0 the system chooses a port, see
    /// `local_addrs`. Requires a Tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound, with the system's error: the port is taken or
    /// privileged, or the address does not belong to this machine.
    pub fn bind<A: Copy + Into<ListenAddress>>(addresses: &[A]) -> Result<Self, BindError> {
        let addresses: Vec<ListenAddress> = addresses.iter().copied().map(Into::into).collect();
        let bind_one = |&ListenAddress { address, proxy_protocol }: &ListenAddress| {
            let shares_port =
                |other: &ListenAddress| other.address.is_ipv4() && other.address.port() == address.port();
            // `[::]` alone accepts IPv4 as well; beside an IPv4 listener on the same port it must
            // not.
            let only_v6 = address.is_ipv6() && addresses.iter().any(shares_port);
            let bound = sockets::listen(address, only_v6);
            let bound = bound.and_then(|socket| socket.local_addr().map(|address| (socket, address)));
            let (socket, bound) = bound.map_err(|source| BindError { address, source })?;
            Ok(((socket, ListenerInfo { proxy_protocol, ..ListenerInfo::default() }), bound))
        };
        let bound: Vec<_> = addresses.iter().map(bind_one).collect::<Result<_, _>>()?;
        let (sockets, addresses) = bound.into_iter().unzip();
        Ok(Self { sockets, addresses })
    }

    pub(super) fn into_sockets(self) -> Vec<(TcpListener, ListenerInfo)> {
        self.sockets
    }

    /// Returns the bound addresses, in the order of the arguments.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Builds the task that accepts from a socket and spawns a task for each connection.
pub(super) fn accept_loop<F, C>(
    server: Arc<Server>,
    socket: TcpListener,
    info: Arc<ListenerInfo>,
    task_name: &'static str,
    serve: C,
) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
where
    F: Future<Output = ()> + Send + 'static,
    C: Fn(Arc<Server>, TcpStream, SocketAddr, Arc<ListenerInfo>, Arc<Activity>) -> F
        + Clone
        + Send
        + Sync
        + 'static,
{
    let socket = Arc::new(socket);
    // Kept while a panicked loop waits for its restart: it does not accept then.
    let pulse = server.tasks.heartbeats().register("listener", 0);
    move || {
        Box::pin(accept(
            Arc::clone(&server),
            Arc::clone(&socket),
            Arc::clone(&info),
            pulse.beats(),
            task_name,
            serve.clone(),
        ))
    }
}

/// Accepts connections until the process drains or the listener closes, and at a drain those that
/// were made before. A connection's permit is returned when it ends.
async fn accept<F, C>(
    server: Arc<Server>,
    socket: Arc<TcpListener>,
    info: Arc<ListenerInfo>,
    mut beats: Beats,
    task_name: &'static str,
    serve: C,
) where
    F: Future<Output = ()> + Send + 'static,
    C: Fn(Arc<Server>, TcpStream, SocketAddr, Arc<ListenerInfo>, Arc<Activity>) -> F,
{
    let count_failure = || server.metrics.record_refused_connection("accept_error");
    let gate = server.tasks.accept_gate();
    let mut acceptor = Acceptor::new(socket, gate, Arc::clone(&server.clock), count_failure);
    let start = |permit, (stream, peer): (TcpStream, SocketAddr)| {
        let activity = Arc::new(Activity::default());
        let Some(permit) = server.connection_limiter.admit(permit, peer.ip(), &activity) else { return };
        // Boxed, since every wrapper around a future reserves space for it again: 12 KiB for a
        // future of 3 KiB.
        let serving = Box::pin(serve(Arc::clone(&server), stream, peer, Arc::clone(&info), activity));
        server.tasks.spawn(task_name, async move {
            tokio::select! {
                () = serving => {}
                () = permit.evicted() => {}
            }
        });
    };
    loop {
        let next = async { (server.connection_limiter.acquire().await, acceptor.accept().await) };
        let (permit, accepted) = tokio::select! {
            biased;
            () = server.tasks.shutdown_signal().cancelled() => break,
            () = info.closed.cancelled() => return,
            () = beats.next() => continue,
            next = next => next,
        };
        start(permit, accepted);
    }
    // Connections that wait in the kernel would be reset with the socket, and their clients, or a
    // balancer in front, could not tell whether the request was processed.
    let accept_waiting = async {
        let mut next = async || (server.connection_limiter.acquire().await, acceptor.accept().await);
        while let Ok((permit, accepted)) = tokio::time::timeout(QUEUE_IS_EMPTY_AFTER, next()).await {
            start(permit, accepted);
        }
    };
    let _is_busy = tokio::time::timeout(LAST_ACCEPTS_WITHIN, accept_waiting).await;
}
