//! `tenantd upgrade`, the side of the running gateway: it starts its successor, hands over, and
//! takes everything back if that one does not serve in time.
//!
//! Until the successor may serve (`Serve`, see `base::handover`), everything that was stopped can
//! go on: connections wait in the kernel, whoever asks the store waits, and the locks of the
//! folders stay in this process as well.

mod orders;
mod successor;
mod supervisor;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::orders::{OrderError, Upgraded, order_upgrade};
use self::orders::{OrderSocket, Replies};
use self::successor::Successor;
use super::{Addresses, service_manager};
use crate::base::accept::AcceptGate;
use crate::base::descriptor_channel::MAX_DESCRIPTORS;
use crate::base::handover::FromPredecessor;
use crate::base::process_lock;
use crate::base::task::Tasks;
use crate::certs::Certificates;
use crate::server::Server;
use crate::settings::Settings;
use crate::store::{self, Store, SuspendedStore};
use crate::telemetry::audit::{Audit, AuditEvent, AuditRecord};
use crate::usage::Usage;

/// How long the connections that wait for a request get to end. What then still waits is served by
/// this process until it has drained.
const QUIET_WITHIN: Duration = Duration::from_secs(2);
/// How long an attempt that is stopped may take to take everything back.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What a gateway stops, hands over and takes back.
pub(super) struct Upgrader {
    pub(super) tasks: Tasks,
    pub(super) server: Arc<Server>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) usage: Arc<Usage>,
    pub(super) audit: Audit,
    pub(super) store: Option<Store>,
    pub(super) state: PathBuf,
    pub(super) sockets: OwnSockets,
}

/// The sockets of the settings: the address that is asked for, whose port may be 0, and the bound
/// one. In the order in which a start binds them.
pub(super) struct OwnSockets(Vec<(SocketAddr, SocketAddr)>);

/// Upgrades that operators order, until the gateway ends.
pub(super) struct Upgrades {
    state: watch::Sender<State>,
    stop: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    UnderWay,
    Succeeded,
}

/// What was stopped for a successor. Goes on when dropped, unless it was handed over.
struct Paused {
    accept_gate: AcceptGate,
    certificates: Arc<Certificates>,
    store: Option<SuspendedStore>,
    is_handed_over: bool,
}

impl OwnSockets {
    pub(super) fn new(settings: &Settings, addresses: &Addresses) -> Self {
        let listen =
            settings.listen.iter().map(|listen| listen.address).zip(addresses.listen.iter().copied());
        let plain = settings.listen_http.iter().copied().zip(addresses.listen_http.iter().copied());
        let admin = settings.admin.into_iter().zip(addresses.admin);
        Self(listen.chain(plain).chain(admin).collect())
    }

    /// Puts sockets into the order of a start, each with the address that is asked for. Those of
    /// tenants follow, which ask for the address that they have.
    fn arrange(&self, sockets: Vec<Arc<TcpListener>>) -> Vec<(SocketAddr, Arc<TcpListener>)> {
        let mut bound: Vec<_> =
            sockets.into_iter().filter_map(|socket| Some((socket.local_addr().ok()?, socket))).collect();
        let mut arranged = Vec::with_capacity(bound.len());
        for &(asked, own) in &self.0 {
            if let Some(index) = bound.iter().position(|(address, _)| *address == own) {
                arranged.push((asked, bound.swap_remove(index).1));
            }
        }
        arranged.extend(bound);
        arranged
    }
}

impl Upgrades {
    /// Returns once a successor serves.
    pub(super) async fn wait_for_successor(&self) {
        let mut state = self.state.subscribe();
        // An error would mean that this is gone, but the caller has it.
        let _gone = state.wait_for(|state| *state == State::Succeeded).await.is_err();
    }

    /// Stops an upgrade that is under way. Returns whether a successor serves.
    pub(super) async fn stop(&self) -> bool {
        self.stop.cancel();
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| *state != State::UnderWay);
        let _late = tokio::time::timeout(STOP_WITHIN, ended).await.is_err();
        *self.state.borrow() == State::Succeeded
    }
}

impl Upgrader {
    /// Takes orders from now on, over a socket in the state folder. Without that folder there are
    /// none.
    pub(super) fn listen(self) -> Upgrades {
        let (state, stop) = (watch::Sender::new(State::Idle), CancellationToken::new());
        let upgrades = Upgrades { state: state.clone(), stop: stop.clone() };
        if self.store.is_none() {
            return upgrades;
        }
        match OrderSocket::bind(&self.state) {
            Ok(socket) => {
                let tasks = self.tasks.clone();
                tasks.spawn_detached("upgrades", socket.serve(Arc::new(self), state, stop));
            }
            Err(error) => {
                tracing::warn!(folder = %self.state.display(), %error, "`tenantd upgrade` cannot reach this gateway");
            }
        }
        upgrades
    }

    /// Starts a binary and hands over to it. Says in `replies` what was done. An error says why
    /// this gateway goes on.
    async fn upgrade(
        &self,
        binary: &Path,
        stop: CancellationToken,
        replies: &mut Replies,
    ) -> Result<u32, String> {
        if let Some(obstacle) = supervisor::find_obstacle() {
            return Err(obstacle);
        }
        let mut successor = Successor::start(binary, stop)?;
        tracing::info!(binary = %binary.display(), pid = successor.pid(), "an upgrade: the new gateway is started");
        let schema = self.store.as_ref().map(|_| store::SCHEMA);
        let checked = match successor.offer(schema).await {
            Ok(checked) => checked,
            Err(reason) => return Err(successor.end(reason).await),
        };
        replies.say_step(format!("{} (version {}) checked itself", binary.display(), checked.version)).await;
        let mut paused = match self.pause(checked.schema).await {
            Ok(paused) => paused,
            Err(reason) => return Err(successor.end(reason).await),
        };
        if let Err(reason) = self.hand_over(&mut successor).await {
            // First the end of the new one, which may have the store open.
            let reason = successor.end(reason).await;
            paused.take_back().await;
            return Err(reason);
        }
        paused.hand_over().await;
        service_manager::hand_over(successor.pid());
        successor.say(&FromPredecessor::Done);
        Ok(successor.release())
    }

    /// Has connections wait, ends those that do nothing, writes what is to be written and closes
    /// the store.
    async fn pause(&self, schema: i64) -> Result<Paused, String> {
        self.tasks.accept_gate().close();
        let mut paused = Paused {
            accept_gate: self.tasks.accept_gate().clone(),
            certificates: Arc::clone(&self.certificates),
            store: None,
            is_handed_over: false,
        };
        // A request on a connection that goes on might need the store.
        self.server.close_connections();
        self.server.wait_until_busy_only(QUIET_WITHIN).await;
        self.usage.flush().await;
        self.certificates.pause();
        if let Some(store) = &self.store {
            let suspended = store.suspend(schema).await;
            paused.store =
                Some(suspended.map_err(|error| format!("the store cannot be handed over: {error}"))?);
        }
        Ok(paused)
    }

    async fn hand_over(&self, successor: &mut Successor) -> Result<(), String> {
        let sockets = self.sockets.arrange(self.tasks.accept_gate().sockets());
        for some in sockets.chunks(MAX_DESCRIPTORS) {
            let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
            let addresses = some.iter().map(|(address, _)| *address).collect();
            successor.give(&FromPredecessor::Sockets(addresses), &descriptors)?;
        }
        let locks = process_lock::held();
        let files: Vec<BorrowedFd<'_>> = locks.iter().map(|file| file.as_fd()).collect();
        successor.give(&FromPredecessor::Locks, &files)?;
        successor.serve().await
    }

    fn record(&self, uid: u32, outcome: &str) {
        let order = AuditRecord {
            order: Some("upgrade"),
            uid: Some(uid),
            ..AuditRecord::new(AuditEvent::Order, "", outcome)
        };
        self.audit.record(&order);
    }
}

impl Paused {
    /// Goes on as before, after the successor has ended.
    async fn take_back(mut self) {
        if let Some(store) = self.store.take()
            && let Err(error) = store.resume().await
        {
            tracing::error!(%error, "the store could not be opened again: restart the gateway");
        }
        process_lock::write_pids_again();
    }

    /// Leaves everything to the successor.
    async fn hand_over(&mut self) {
        self.is_handed_over = true;
        if let Some(store) = self.store.take() {
            store.hand_over().await;
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if !self.is_handed_over {
            self.certificates.resume();
            self.accept_gate.open();
        }
    }
}
