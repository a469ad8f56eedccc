//! The socket in the state folder over which `tenantd upgrade` orders an upgrade, both ends of it.
//! Only root and the gateway's own account may connect. An order is one line of JSON, and so is
//! each reply.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{State, Upgrader};

const SOCKET: &str = "upgrade.sock";
/// The longest order, in bytes: a path and a little.
const MAX_ORDER_BYTES: u64 = 16 << 10;
/// How long an order may take to arrive.
const ORDER_WITHIN: Duration = Duration::from_secs(5);
/// How long a gateway may be silent while it upgrades: longer than all its steps take.
const REPLY_WITHIN: Duration = Duration::from_secs(90);

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// The program to start; by default the file from which the gateway was started.
    binary: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Step(String),
    Upgraded(Upgraded),
    Refused(String),
}

/// An upgrade that succeeded.
#[derive(Debug, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
    /// The process that finishes its calls and ends.
    pub previous: u32,
}

/// Why an upgrade did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(
        "no gateway that uses the state folder {} takes an upgrade ({cause}); give its folder with --state or \
         --config, or start it with: tenantd serve", folder.display()
    )]
    NotRunning { folder: PathBuf, cause: io::Error },
    #[error("the gateway's socket {} cannot be used: {cause}; ask as root or as the gateway's account", path.display())]
    Denied { path: PathBuf, cause: io::Error },
    #[error("the gateway was not upgraded, and the running one goes on: {0}")]
    Refused(String),
    #[error("the gateway broke off ({0}); its log says whether it was upgraded")]
    BrokenOff(io::Error),
}

/// Orders an upgrade of the gateway that uses a state folder, and waits for the outcome. `on_step`
/// hears what was done. Blocks.
///
/// # Errors
/// See [`OrderError`].
pub fn order_upgrade(
    folder: &Path,
    binary: Option<PathBuf>,
    mut on_step: impl FnMut(&str),
) -> Result<Upgraded, OrderError> {
    let path = folder.join(SOCKET);
    let stream = std::os::unix::net::UnixStream::connect(&path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            OrderError::NotRunning { folder: folder.to_owned(), cause }
        }
        _ => OrderError::Denied { path, cause },
    })?;
    let mut line =
        serde_json::to_string(&Order { binary }).map_err(|error| OrderError::BrokenOff(error.into()))?;
    line.push('\n');
    let sent =
        stream.set_read_timeout(Some(REPLY_WITHIN)).and_then(|()| (&stream).write_all(line.as_bytes()));
    sent.map_err(OrderError::BrokenOff)?;
    for line in BufReader::new(stream).lines() {
        let reply = line.and_then(|line| Ok(serde_json::from_str(&line)?)).map_err(OrderError::BrokenOff)?;
        match reply {
            Reply::Step(step) => on_step(&step),
            Reply::Upgraded(upgraded) => return Ok(upgraded),
            Reply::Refused(reason) => return Err(OrderError::Refused(reason)),
        }
    }
    Err(OrderError::BrokenOff(io::ErrorKind::UnexpectedEof.into()))
}

/// The gateway's end of the socket.
pub(super) struct OrderSocket {
    listener: UnixListener,
    /// The file from which this process was started, before anybody replaces it.
    own_binary: io::Result<PathBuf>,
}

impl OrderSocket {
    /// Binds the socket. The state folder is locked by this process, so one that is there already
    /// is that of a process that has ended or hands over.
    pub(super) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, own_binary: std::env::current_exe() })
    }

    /// Takes orders until a successor serves or the gateway is told to end.
    pub(super) async fn serve(
        self,
        upgrader: Arc<Upgrader>,
        state: watch::Sender<State>,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // The process is out of descriptors; orders can wait.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let Some(uid) = find_permitted_uid(&stream) else { continue };
            let own_binary = self.own_binary.as_ref().map(PathBuf::clone).map_err(ToString::to_string);
            let order = TakenOrder {
                upgrader: Arc::clone(&upgrader),
                state: state.clone(),
                stop: stop.clone(),
                uid,
                own_binary,
            };
            upgrader.tasks.spawn_detached("upgrade", order.execute(stream));
        }
    }
}

/// Returns the account of the other end, if it may give orders.
fn find_permitted_uid(stream: &UnixStream) -> Option<u32> {
    let uid = stream.peer_cred().ok()?.uid();
    let is_permitted = uid == 0 || uid == geteuid().as_raw();
    if !is_permitted {
        tracing::warn!(
            uid,
            "an order to upgrade was ignored: only root and the gateway's account may give it"
        );
    }
    is_permitted.then_some(uid)
}

struct TakenOrder {
    upgrader: Arc<Upgrader>,
    state: watch::Sender<State>,
    stop: CancellationToken,
    uid: u32,
    own_binary: Result<PathBuf, String>,
}

/// The connection over which an order came. Whoever gave it may have gone; the upgrade goes on.
pub(super) struct Replies(UnixStream);

impl Replies {
    /// Says what was done.
    pub(super) async fn say_step(&mut self, step: String) {
        self.send(&Reply::Step(step)).await;
    }

    async fn send(&mut self, reply: &Reply) {
        if let Ok(mut line) = serde_json::to_string(reply) {
            line.push('\n');
            let sending = self.0.write_all(line.as_bytes());
            let _gone = tokio::time::timeout(ORDER_WITHIN, sending).await;
        }
    }
}

/// Ends the state `UnderWay`, however the upgrade ended.
struct Turn<'a> {
    state: &'a watch::Sender<State>,
    outcome: State,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.state.send_replace(self.outcome);
    }
}

impl TakenOrder {
    async fn execute(self, stream: UnixStream) {
        let mut replies = Replies(stream);
        let order = match tokio::time::timeout(ORDER_WITHIN, read_order(&mut replies.0)).await {
            Ok(Ok(order)) => order,
            Ok(Err(error)) => return replies.send(&Reply::Refused(format!("no order: {error}"))).await,
            Err(_late) => return,
        };
        let Some(mut turn) = self.begin() else {
            let reason = "another upgrade is under way, or the gateway is about to end";
            return replies.send(&Reply::Refused(reason.to_owned())).await;
        };
        let outcome = self.upgrade(order, &mut replies).await;
        self.upgrader.record(self.uid, if outcome.is_ok() { "ok" } else { "failed" });
        let reply = match outcome {
            Ok(pid) => {
                turn.outcome = State::Succeeded;
                tracing::info!(pid, "the upgrade succeeded: another process serves, and this one drains");
                Reply::Upgraded(Upgraded { pid, previous: std::process::id() })
            }
            Err(reason) => Reply::Refused(reason),
        };
        replies.send(&reply).await;
    }

    async fn upgrade(&self, order: Order, replies: &mut Replies) -> Result<u32, String> {
        let binary = match order.binary {
            Some(binary) => binary,
            None => self.own_binary.clone().map_err(|error| {
                format!("the gateway does not know its own file ({error}); name one with --binary")
            })?,
        };
        if !binary.is_absolute() {
            return Err(format!("{} is no absolute path", binary.display()));
        }
        self.upgrader.upgrade(&binary, self.stop.clone(), replies).await
    }

    /// Begins an upgrade, unless one is under way or has succeeded, or the gateway ends.
    fn begin(&self) -> Option<Turn<'_>> {
        let is_free = !self.stop.is_cancelled()
            && self.state.send_if_modified(|state| {
                let is_idle = *state == State::Idle;
                if is_idle {
                    *state = State::UnderWay;
                }
                is_idle
            });
        is_free.then(|| Turn { state: &self.state, outcome: State::Idle })
    }
}

async fn read_order(stream: &mut UnixStream) -> io::Result<Order> {
    let mut line = String::new();
    tokio::io::BufReader::new(stream.take(MAX_ORDER_BYTES)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
