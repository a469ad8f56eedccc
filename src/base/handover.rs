//! How one gateway process hands over to the next (`tenantd upgrade`): the messages on the channel
//! between them, and the side of the process that takes over.
//!
//! ```text
//! predecessor                      successor
//!   starts it, Offer         ->    checks itself
//!                            <-    Checked, or Refused
//!   stops accepting, closes the store
//!   Sockets*, Locks, Take    ->    opens the store, binds, reads the tenants
//!                            <-    Ready
//!   Serve                    ->    accepts
//!                            <-    Serving
//!   Done                     ->    tells the service manager
//!   drains and ends
//! ```
//!
//! Until `Serve` was sent, the predecessor decides: whatever goes wrong, it ends the successor and
//! goes on. If the predecessor ends first, its successor is alone and serves.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::descriptor_channel::{DescriptorChannel, ReceiveError, Received};
use super::sync::lock;
use super::{inherited_sockets, process_lock};

/// The variable that tells a process that it is started to take over. It is not one of the
/// settings, so it has another prefix.
pub const VARIABLE: &str = "_TENANTD_PREDECESSOR";
/// How long the service manager's part of a handover may take.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(10);

/// What the process that hands over says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromPredecessor {
    /// What will be handed over.
    Offer {
        /// The version of the program.
        version: String,
        /// The version of the store's schema; `None` without a store.
        schema: Option<i64>,
    },
    /// Listening sockets, with the addresses that settings or tenants ask for.
    Sockets(Vec<SocketAddr>),
    /// The locked files of the folders.
    Locks,
    /// Everything was handed over.
    Take,
    /// Accept connections; there is no way back.
    Serve,
    /// The service manager knows that the successor is the main process now.
    Done,
}

/// What the process that takes over says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromSuccessor {
    /// Its own checks found nothing.
    Checked {
        /// The version of the program.
        version: String,
        /// The version of the store's schema that it writes.
        schema: i64,
    },
    /// It cannot serve.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// It has read the tenants and could accept connections.
    Ready,
    /// It accepts connections.
    Serving,
}

/// The process from which this one takes over, as long as it does not serve yet.
static PREDECESSOR: Mutex<Option<Arc<Predecessor>>> = Mutex::new(None);

/// The process from which this one takes over. All functions that wait block.
#[derive(Debug)]
pub struct Predecessor(DescriptorChannel);

/// What a predecessor offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The version of its program.
    pub version: String,
    /// The version of its store's schema, if it has a store.
    pub schema: Option<i64>,
}

/// Finds out whether this process is started to take over. To be called once, before a thread
/// exists.
///
/// # Errors
/// The system has no descriptors left.
pub fn receive() -> io::Result<()> {
    if std::env::var_os(VARIABLE).is_some()
        && let Some(channel) = DescriptorChannel::from_standard_input()?
    {
        *lock(&PREDECESSOR) = Some(Arc::new(Predecessor(channel)));
    }
    Ok(())
}

/// Returns the process from which this one takes over, if there is one.
pub fn predecessor() -> Option<Arc<Predecessor>> {
    lock(&PREDECESSOR).clone()
}

/// Tells the predecessor, if there is one that still decides, why this process does not take over.
pub fn refuse(reason: &str) {
    if let Some(predecessor) = lock(&PREDECESSOR).take() {
        // If it has ended, nobody asks any more.
        let _gone = predecessor.0.send(&FromSuccessor::Refused { reason: reason.to_owned() }, &[]);
    }
}

impl Predecessor {
    /// Waits for what is offered. `None` if the predecessor has ended, so that there is nothing to
    /// take over.
    ///
    /// # Errors
    /// It says what this version does not know.
    pub fn wait_for_offer(&self) -> Result<Option<Offer>, ReceiveError> {
        match self.next()? {
            Some(Received { message: FromPredecessor::Offer { version, schema }, .. }) => {
                Ok(Some(Offer { version, schema }))
            }
            Some(other) => Err(out_of_turn(&other.message)),
            None => Ok(None),
        }
    }

    /// Says that this process could serve, and takes sockets and locks. Returns whether there was
    /// somebody to take them from.
    ///
    /// # Errors
    /// The predecessor says what this version does not know, or hands over something else than
    /// sockets and files.
    pub fn take(&self, version: &str, schema: i64) -> Result<bool, ReceiveError> {
        // An end of the predecessor shows at the next message.
        let _gone = self.0.send(&FromSuccessor::Checked { version: version.to_owned(), schema }, &[]);
        loop {
            let Some(Received { message, descriptors }) = self.next()? else { return Ok(false) };
            match message {
                FromPredecessor::Sockets(addresses) => {
                    for (address, descriptor) in addresses.into_iter().zip(descriptors) {
                        inherited_sockets::add(address, TcpListener::from(descriptor))?;
                    }
                }
                FromPredecessor::Locks => {
                    descriptors.into_iter().map(File::from).for_each(process_lock::inherit);
                }
                FromPredecessor::Take => return Ok(true),
                other => return Err(out_of_turn(&other)),
            }
        }
    }

    /// Says that this process could accept connections, and waits until it may. It also may if the
    /// predecessor has ended.
    ///
    /// # Errors
    /// The predecessor says what this version does not know.
    pub fn wait_to_serve(&self) -> Result<(), ReceiveError> {
        let _gone = self.0.send(&FromSuccessor::Ready, &[]);
        match self.next()?.map(|received| received.message) {
            None | Some(FromPredecessor::Serve) => Ok(()),
            Some(other) => Err(out_of_turn(&other)),
        }
    }

    /// Says that this process accepts connections, and waits until the service manager knows.
    pub fn finish(&self) {
        *lock(&PREDECESSOR) = None;
        let _gone = self.0.send(&FromSuccessor::Serving, &[]);
        // Whatever comes or does not come: this process serves.
        let _any = self.0.receive::<FromPredecessor>(Some(LAST_WORD_WITHIN));
    }

    /// Returns the next message; `None` if the predecessor has ended.
    fn next(&self) -> Result<Option<Received<FromPredecessor>>, ReceiveError> {
        match self.0.receive(None) {
            Ok(received) => Ok(Some(received)),
            Err(ReceiveError::Closed) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn out_of_turn(message: &FromPredecessor) -> ReceiveError {
    ReceiveError::Io(io::Error::other(format!("{message:?} came out of turn")))
}
