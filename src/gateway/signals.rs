//! The signals of the operating system: finish (SIGTERM, SIGINT) and reload (SIGHUP).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal listeners, active from construction.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// The request that a signal makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// Drain and exit; the second time, exit at once.
    Shutdown,
    /// Rescan the tenants folder.
    Reload,
}

impl Signals {
    /// Starts listening for signals.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancellation-safe.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Shutdown,
            _ = self.interrupt.recv() => SignalAction::Shutdown,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }
}
