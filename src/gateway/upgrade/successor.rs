//! The process that takes over, as the running gateway sees it: a child that is told what to do,
//! and that is ended if it does not do so in time.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::base::descriptor_channel::{DescriptorChannel, ReceiveError};
use crate::base::handover::{self, FromPredecessor, FromSuccessor};

/// How long the successor may check itself.
const CHECK_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take until it has read the tenants. New connections wait meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to accept connections once it may.
const SERVING_WITHIN: Duration = Duration::from_secs(5);
/// How long a process that closed its channel gets to end by itself.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The successor of this gateway.
pub(super) struct Successor {
    process: Child,
    pid: u32,
    channel: Arc<DescriptorChannel>,
    /// Ends the upgrade.
    stop: CancellationToken,
}

/// What a successor is that found nothing wrong.
pub(super) struct Checked {
    pub(super) version: String,
    pub(super) schema: i64,
}

impl Successor {
    /// Starts a binary with the arguments and the environment of this process.
    pub(super) fn start(binary: &Path, stop: CancellationToken) -> Result<Self, String> {
        let describe = |error| format!("{} cannot be started: {error}", binary.display());
        let (channel, theirs) = DescriptorChannel::open().map_err(describe)?;
        let started = Command::new(binary)
            .args(std::env::args_os().skip(1))
            .env(handover::VARIABLE, std::process::id().to_string())
            // The watchdog asks for the main process, which the new one becomes.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(theirs))
            .spawn();
        let process = started.map_err(describe)?;
        let pid = process.id().expect("it was not waited for");
        Ok(Self { process, pid, channel: Arc::new(channel), stop })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it check itself.
    pub(super) async fn offer(&mut self, schema: Option<i64>) -> Result<Checked, String> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.give(&FromPredecessor::Offer { version, schema }, &[])?;
        match self.hear(CHECK_WITHIN, "it did not check itself").await? {
            FromSuccessor::Checked { version, schema } => Ok(Checked { version, schema }),
            other => Err(format!("the new gateway said {other:?} before it checked itself")),
        }
    }

    /// Has it take everything that it was given, and accept connections.
    pub(super) async fn serve(&mut self) -> Result<(), String> {
        self.give(&FromPredecessor::Take, &[])?;
        match self.hear(READY_WITHIN, "it did not read the tenants").await? {
            FromSuccessor::Ready => {}
            other => return Err(format!("the new gateway said {other:?} before it was ready")),
        }
        self.give(&FromPredecessor::Serve, &[])?;
        match self.hear(SERVING_WITHIN, "it did not accept connections").await? {
            FromSuccessor::Serving => Ok(()),
            other => Err(format!("the new gateway said {other:?} before it served")),
        }
    }

    /// Says something with descriptors.
    pub(super) fn give(
        &self,
        message: &FromPredecessor,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        // Whoever closed the channel may have said why before.
        let sent = self.channel.send(message, descriptors);
        sent.or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Ok(()),
            _ => Err(format!("the new gateway cannot be told anything: {error}")),
        })
    }

    /// Says something that nobody has to hear.
    pub(super) fn say(&self, message: &FromPredecessor) {
        let _gone = self.channel.send(message, &[]);
    }

    /// Waits for what it says next. An error says why that is nothing to go on with.
    async fn hear(&mut self, within: Duration, failure: &str) -> Result<FromSuccessor, String> {
        let channel = Arc::clone(&self.channel);
        let listening = tokio::task::spawn_blocking(move || channel.receive::<FromSuccessor>(Some(within)));
        let heard = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err("the gateway was told to end".to_owned()),
            heard = listening => heard.map_err(|_| "the gateway ends".to_owned())?,
        };
        match heard {
            Ok(received) => match received.message {
                FromSuccessor::Refused { reason } => Err(reason),
                // It may have come just before the order to end.
                _ if self.stop.is_cancelled() => Err("the gateway was told to end".to_owned()),
                message => Ok(message),
            },
            Err(ReceiveError::Closed) => Err(self.describe_end().await),
            Err(ReceiveError::TimedOut) => {
                Err(format!("{failure} within {} seconds, and was ended", within.as_secs()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn describe_end(&mut self) -> String {
        let ended = tokio::time::timeout(END_WITHIN, self.process.wait()).await;
        let how = match ended {
            Ok(Ok(status)) => format!("it ended ({status})"),
            _ => "it closed the channel to this gateway".to_owned(),
        };
        format!(
            "{how} before it took over; what it said is in the gateway's log. A version without `tenantd upgrade` \
             cannot take over: restart for that one"
        )
    }

    /// Ends the process, and returns `reason`. When this returns, nothing of it is left.
    pub(super) async fn end(mut self, reason: String) -> String {
        // An error means that it has ended.
        let _ended = self.process.start_kill();
        let status: std::io::Result<ExitStatus> = self.process.wait().await;
        tracing::warn!(pid = self.pid, %reason, ?status, "the upgrade failed; this gateway goes on");
        reason
    }

    /// Lets the process go its way. Returns its id.
    pub(super) fn release(self) -> u32 {
        self.pid
    }
}
