//! Accepts connections from a listening socket.
//!
//! Errors of a single peer are skipped. When the machine runs out of resources, accepting pauses
//! and resumes by itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::backoff::Backoff;
use super::clock::Clock;
use super::log_limiter::LogLimiter;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// The shortest interval between two log lines about failing to accept.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A listening socket together with its recent failures to accept.
#[derive(Debug)]
pub struct Acceptor<F> {
    socket: Arc<TcpListener>,
    clock: Arc<dyn Clock>,
    on_failure: F,
    /// Failures since a connection was last accepted.
    failures: u32,
    log_limiter: LogLimiter,
}

impl<F: Fn()> Acceptor<F> {
    /// Wraps a listening socket. Nothing is accepted until [`Acceptor::accept`] is called, which
    /// calls `on_failure` for every failure that makes it pause.
    pub fn new(socket: Arc<TcpListener>, clock: Arc<dyn Clock>, on_failure: F) -> Self {
        Self { socket, clock, on_failure, failures: 0, log_limiter: LogLimiter::new(LOG_INTERVAL) }
    }

    /// Waits for the next connection, however long it takes. Cancellation-safe.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
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
