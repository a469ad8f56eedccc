//! Accepting from a socket: a peer that is gone again is passed over, and a machine that has no room is waited out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::clock::Clock;
use super::seldom::Seldom;
use crate::telemetry::metrics::Metrics;

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// One line in so long a time says that connections cannot be accepted; the metric counts each failure.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A bound socket, and how it went with it.
#[derive(Debug)]
pub struct Acceptor {
    socket: Arc<TcpListener>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Failures since a connection was last accepted.
    failures: u32,
    complaint: Seldom,
}

impl Acceptor {
    /// Nothing is accepted before it is asked for.
    pub fn new(socket: Arc<TcpListener>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { socket, clock, metrics, failures: 0, complaint: Seldom::once_in(SAY_AGAIN_AFTER) }
    }

    /// The next connection, however long it takes. May be dropped and asked again.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => {
                    self.failures = 0;
                    return accepted;
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => tokio::time::sleep(self.meet(&error)).await,
            }
        }
    }

    /// Out of file descriptors or memory: accepting again at once would only spin, and a line each time fill the disk.
    /// Counts a failure, says it if that was not done lately, and returns how long to wait.
    fn meet(&mut self, error: &io::Error) -> Duration {
        self.metrics.connection_refused("accept_error");
        if self.complaint.occasion(self.clock.monotonic()).is_some() {
            tracing::warn!(
                listener = self.socket.local_addr().ok().map(tracing::field::display),
                %error,
                "connections cannot be accepted and wait in the kernel; if too many files are open, lower limits.connections or raise the limit of open files (LimitNOFILE, ulimit -n)"
            );
        }
        let pause = SHORTEST_PAUSE * 2_u32.pow(self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }
}

/// Errors of the one connection that was being accepted; the next one may be fine at once.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
