//! Accepts connections from a listening socket.
//!
//! Errors of a single peer are skipped. When the machine runs out of resources, accepting pauses
//! and resumes by itself.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::clock::Clock;
use super::log_limiter::LogLimiter;
use super::sync::lock;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// The shortest interval between two log lines about failing to accept.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Whether the sockets of a process accept connections. While the gate is closed, new connections
/// wait in the kernel. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AcceptGate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    is_closed: watch::Sender<bool>,
    sockets: Mutex<Vec<Weak<TcpListener>>>,
}

impl AcceptGate {
    /// Has connections wait in the kernel.
    pub fn close(&self) {
        self.0.is_closed.send_replace(true);
    }

    /// Has connections accepted, as from the start.
    pub fn open(&self) {
        self.0.is_closed.send_replace(false);
    }

    /// Returns the sockets that accept through this gate, in the order in which they began to.
    pub fn sockets(&self) -> Vec<Arc<TcpListener>> {
        lock(&self.0.sockets).iter().filter_map(Weak::upgrade).collect()
    }

    fn register(&self, socket: &Arc<TcpListener>) {
        let mut sockets = lock(&self.0.sockets);
        sockets.retain(|other| other.strong_count() > 0);
        // An accept loop that is restarted after a panic brings its socket again.
        if !sockets.iter().any(|other| other.as_ptr() == Arc::as_ptr(socket)) {
            sockets.push(Arc::downgrade(socket));
        }
    }

    /// Returns once the gate is in this state.
    async fn wait_until(&self, is_closed: bool) {
        let mut state = self.0.is_closed.subscribe();
        // An error would mean that the gate is gone, but the caller has it.
        let _gone = state.wait_for(|now| *now == is_closed).await.is_err();
    }
}

/// A listening socket together with its recent failures to accept.
#[derive(Debug)]
pub struct Acceptor<F> {
    socket: Arc<TcpListener>,
    gate: AcceptGate,
    clock: Arc<dyn Clock>,
    on_failure: F,
    /// Failures since a connection was last accepted.
    failures: u32,
    log_limiter: LogLimiter,
}

impl<F: Fn()> Acceptor<F> {
    /// Wraps a listening socket. Nothing is accepted until [`Acceptor::accept`] is called, which
    /// calls `on_failure` for every failure that makes it pause.
    pub fn new(socket: Arc<TcpListener>, gate: &AcceptGate, clock: Arc<dyn Clock>, on_failure: F) -> Self {
        gate.register(&socket);
        let (gate, log_limiter) = (gate.clone(), LogLimiter::new(LOG_INTERVAL));
        Self { socket, gate, clock, on_failure, failures: 0, log_limiter }
    }

    /// Waits for the next connection, however long it takes. Cancellation-safe.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            self.gate.wait_until(false).await;
            let accepted = tokio::select! {
                biased;
                () = self.gate.wait_until(true) => continue,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    self.failures = 0;
                    return accepted;
                }
                Err(error) if is_peer_error(&error) => {}
                Err(error) => tokio::time::sleep(self.record_failure(&error)).await,
            }
        }
    }

    /// Counts a failure, logs it unless that was done recently, and returns how long to pause.
    ///
    /// The process is out of file descriptors or memory. Accepting again at once would only spin,
    /// and logging every failure would fill the disk.
    fn record_failure(&mut self, error: &io::Error) -> Duration {
        (self.on_failure)();
        if self.log_limiter.check(self.clock.monotonic()).is_some() {
            tracing::warn!(
                listener = self.socket.local_addr().ok().map(tracing::field::display),
                %error,
                "connections cannot be accepted and wait in the kernel; if too many files are open, lower limits.connections or raise the limit of open files (LimitNOFILE, ulimit -n)"
            );
        }
        let pause = BACKOFF.pause_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// Whether the error concerns only the connection being accepted, so that the next one may succeed.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[tokio::test]
    async fn connections_wait_while_the_gate_is_closed() {
        let socket = Arc::new(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        let address = socket.local_addr().expect("bound");
        let gate = AcceptGate::default();
        let mut acceptor = Acceptor::new(Arc::clone(&socket), &gate, SystemClock::shared(), || {});
        gate.close();
        let client = TcpStream::connect(address).await.expect("the kernel takes it");
        {
            let mut accepting = std::pin::pin!(acceptor.accept());
            assert!(futures_util::poll!(accepting.as_mut()).is_pending(), "it waits");
            tokio::task::yield_now().await;
            assert!(futures_util::poll!(accepting.as_mut()).is_pending(), "it still waits");
        }
        gate.open();
        let (_, peer) = acceptor.accept().await;
        assert_eq!(Some(peer), client.local_addr().ok());
        let all = gate.sockets();
        assert_eq!(all.len(), 1);
        drop((all, acceptor, socket));
        assert!(gate.sockets().is_empty(), "a socket that is closed is forgotten");
    }
}
