//! The public sockets: bound first, so that ports are known before anything else is built, served later.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::connection;
use super::context::Edge;

/// Connections that may wait in the kernel.
const BACKLOG: i32 = 1024;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// One line in so long a time says that connections cannot be accepted; the metric counts each failure.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Bound sockets that nobody accepts from yet.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds every address, or none. Port 0 is replaced by the port the system chose. Needs a Tokio runtime.
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

    /// The addresses bound, in the order asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// `[::]` alone takes IPv4 in as well; beside an IPv4 listener on the same port it must not.
fn bind(address: SocketAddr, only_v6: bool) -> io::Result<(TcpListener, SocketAddr)> {
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

impl Edge {
    /// Starts accepting on every socket, until the soft signal of the edge's tasks. Connections then finish what they do;
    /// `Tasks::drain` sets their deadline.
    pub fn serve(self: &Arc<Self>, listeners: Listeners) {
        for socket in listeners.sockets {
            let edge = Arc::clone(self);
            self.tasks.spawn("listener", async move { accept_all(&edge, socket).await });
        }
    }
}

async fn accept_all(edge: &Arc<Edge>, socket: TcpListener) {
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = edge.tasks.soft().cancelled() => return,
            accepted = async { (edge.admission.permit().await, socket.accept().await) } => accepted,
        };
        match accepted {
            (permit, Ok((stream, peer))) => {
                trouble.is_over();
                if let Some(place) = edge.admission.admit(permit, peer.ip()) {
                    edge.tasks.spawn("connection", connection::serve(Arc::clone(edge), stream, peer, place));
                }
            }
            (_, Err(error)) if is_the_peers(&error) => {}
            (_, Err(error)) => {
                tokio::select! {
                    () = tokio::time::sleep(trouble.meet(edge, &error)) => {}
                    () = edge.tasks.soft().cancelled() => return,
                }
            }
        }
    }
}

/// Errors of the one connection that was being accepted; the next one may be fine at once.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Out of file descriptors or memory: accepting again at once would only spin, and a line each time fill the disk.
#[derive(Default)]
struct Trouble {
    /// Failures since a connection was last accepted.
    failures: u32,
    said: Option<Instant>,
}

impl Trouble {
    /// Counts a failure, says it if that was not done lately, and returns how long to wait.
    fn meet(&mut self, edge: &Edge, error: &io::Error) -> Duration {
        edge.metrics.connection_refused("accept_error");
        let now = edge.clock.monotonic();
        if self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN_AFTER) {
            self.said = Some(now);
            tracing::warn!(
                %error,
                "connections cannot be accepted and wait in the kernel; if too many files are open, lower limits.connections or raise the limit of open files (LimitNOFILE, ulimit -n)"
            );
        }
        let pause = SHORTEST_PAUSE * 2_u32.pow(self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }

    fn is_over(&mut self) {
        self.failures = 0;
    }
}

/// Small answers leave at once.
pub(super) fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}
