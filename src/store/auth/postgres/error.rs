//! What failures of PostgreSQL mean to an operator.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::base::dns::LookupError;
use crate::base::error_chain::{causes, format_chain};
use crate::base::tls_client;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`{shown}` is no address of a PostgreSQL database: {what}; write it as postgres://USER@HOST/DATABASE"
    )]
    Address { shown: String, what: String },
    #[error("{what} {} cannot be read: {cause}", path.display())]
    File { what: &'static str, path: PathBuf, cause: String },
    #[error(
        "the certificate of the database cannot be verified: {0}; sslrootcert=FILE in its address names its CA"
    )]
    Tls(tls_client::Error),
    #[error("the host {host} of the database is not found: {cause}")]
    Lookup { host: String, cause: LookupError },
    #[error("the database {shown} cannot be reached: {what}; {help}")]
    Connect {
        shown: String,
        what: String,
        help: &'static str,
        /// The server answered, and will not answer otherwise later.
        is_final: bool,
        /// Nothing came back from there within the deadline of one attempt.
        is_unanswered: bool,
    },
    #[error(
        "the pooler in front of the database {shown} is in statement mode, in which nothing can be done wholly or \
         not at all; set pool_mode = transaction there"
    )]
    StatementPooler { shown: String },
    #[error("no host of the database {shown} can be used: {what}")]
    NoHost {
        shown: String,
        what: String,
        /// No host will answer otherwise later.
        is_final: bool,
    },
    #[error(
        "the server of the database {shown} was the primary until another one was promoted; what it is told would \
         be lost. Rejoin it as a replica, or stop it"
    )]
    Replaced { shown: String },
    #[error("the database {shown} did not answer within {seconds} seconds")]
    TimedOut { shown: String, seconds: u64 },
    #[error("the database {shown} was away a moment ago ({what}); the next attempt follows soon")]
    BackingOff { shown: String, what: String },
    #[error(
        "the database {shown} was away when this gateway started, and is not in use yet; the gateway tries again by \
         itself"
    )]
    NotJoined { shown: String },
    #[error(
        "the database {shown} was written by a newer tenantd (schema {found}, readable from {readable_from} on; \
         this version knows {known}); run that version"
    )]
    NewerSchema { shown: String, found: i64, readable_from: i64, known: i64 },
    #[error(
        "the database {shown} has no tables of tenantd yet; \"tenantd serve\" or \"tenantd store copy\" makes them. \
         If there should be some, correct the name of the database in its address"
    )]
    NoSchema { shown: String },
    #[error(
        "the database {shown} was written by an older tenantd (schema {found}; this version reads {known}); \"tenantd \
         serve\" of this version upgrades it, or use the version that wrote it"
    )]
    OlderSchema { shown: String, found: i64, known: i64 },
    #[error(
        "the database {shown} can only be read: it is a replica, or read-only by its settings; give the address \
         of the primary, or add target_session_attrs=read-write to an address with several hosts"
    )]
    ReadOnly { shown: String },
    #[error(
        "the user of the database {shown} may not do this ({what}); make it the owner of the database, or GRANT \
         CREATE ON DATABASE to it, and the owner of the tables in the schema tenantd"
    )]
    NoRights { shown: String, what: String },
    #[error(
        "the database {shown} does not wait for its disk (synchronous_commit is off), so a login that was \
         acknowledged could be lost; ALTER ROLE … SET synchronous_commit = on"
    )]
    Asynchronous { shown: String },
    #[error(
        "the database {shown} is in use by the gateway {node}, heard of {seconds} seconds ago; logins are copied \
         while no gateway runs. Stop it; one that crashed is out after 15 seconds"
    )]
    InUse { shown: String, node: String, seconds: i64 },
    #[error(
        "this state folder is a copy: the gateway {node} uses the database {shown} with the same node id. Each \
         gateway needs a state folder of its own: start this one with an empty folder (--state), or stop that one"
    )]
    CopiedNode { shown: String, node: String },
    #[error("the connection to the database {shown} broke: {what}")]
    Lost { shown: String, what: String },
    #[error(
        "the database {shown} cannot write, since its disk is full ({what}); free space there, nothing has to be \
         restarted"
    )]
    Full { shown: String, what: String },
    #[error("the database {shown} refuses a statement: {what}")]
    Refused { shown: String, what: String },
}

impl Error {
    /// Tells what the failure of a connection means.
    pub(super) fn from_connect(shown: &str, cause: &tokio_postgres::Error) -> Self {
        let (shown, what) = (shown.to_owned(), format_chain(cause));
        let help = match cause.code().map(SqlState::code) {
            Some("28P01" | "28000") => {
                "check its user, the file of its password (store_password_file) and the server's pg_hba.conf"
            }
            Some("3D000") => "create the database with createdb, or correct its name",
            Some("53300") => {
                "the gateway needs ten connections: raise max_connections, or put a pooler in front"
            }
            Some(_) => "it may be starting; the server's log says more",
            None => help_of_network_failure(cause, &what),
        };
        let is_final =
            cause.code().is_some_and(|code| !is_end_of_session(code.code()) && !is_temporary(code.code()))
                || what.contains("certificate")
                || what.contains("does not support TLS");
        let is_unanswered = io_failure(cause) == Some(io::ErrorKind::TimedOut);
        Self::Connect { shown, what, help, is_final, is_unanswered }
    }

    /// Tells why none of several hosts can be used.
    pub(super) fn from_hosts(shown: &str, failures: &[(&String, Self)]) -> Self {
        let told: Vec<String> = failures.iter().map(|(host, error)| format!("{host}: {error}")).collect();
        let is_final = failures.iter().all(|(_, error)| !error.is_passing());
        Self::NoHost { shown: shown.to_owned(), what: told.join("; "), is_final }
    }

    pub(super) fn timed_out(shown: &str, after: Duration) -> Self {
        Self::TimedOut { shown: shown.to_owned(), seconds: after.as_secs().max(1) }
    }

    /// Tells what the failure of a statement means.
    pub(super) fn from_statement(shown: &str, cause: &tokio_postgres::Error) -> Self {
        let (shown, what) = (shown.to_owned(), format_chain(cause));
        match cause.code().map(SqlState::code) {
            _ if what.contains("statement pooling") => Self::StatementPooler { shown },
            Some("25006") => Self::ReadOnly { shown },
            Some("42501") => Self::NoRights { shown, what },
            Some("53100") => Self::Full { shown, what },
            Some(code) if is_end_of_session(code) => Self::Lost { shown, what },
            Some(_) => Self::Refused { shown, what },
            None => Self::Lost { shown, what },
        }
    }

    /// Returns whether another connection may do what this one did not: it broke, or leads to a server
    /// that is no longer the primary.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::ReadOnly { .. })
    }

    /// Returns whether a statement may have happened, or may still happen.
    pub(super) fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::TimedOut { .. })
    }

    /// Returns whether the connection must not be used again: it is broken, hangs, or leads to a
    /// server that is no longer the primary.
    pub(super) fn spoils_connection(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::TimedOut { .. } | Self::ReadOnly { .. })
    }

    /// Returns whether it may go by within seconds, because the server starts or is promoted.
    pub(in crate::store) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { is_final, .. } | Self::NoHost { is_final, .. } => !is_final,
            _ => self.is_outage(),
        }
    }

    /// Returns whether the database is away, or cannot be written, as opposed to having refused
    /// something.
    pub(super) fn is_outage(&self) -> bool {
        self.spoils_connection()
            || matches!(
                self,
                Self::Lookup { .. }
                    | Self::Connect { .. }
                    | Self::NoHost { .. }
                    | Self::Replaced { .. }
                    | Self::BackingOff { .. }
                    | Self::Full { .. }
                    | Self::NotJoined { .. }
            )
    }
}

impl From<Error> for super::super::Error {
    fn from(error: Error) -> Self {
        crate::store::Error::from(error).into()
    }
}

/// A connection that failed (class 08), a server that stops or starts (57P01 to 57P03), a session
/// that was idle for too long (57P05).
fn is_end_of_session(code: &str) -> bool {
    code.starts_with("08") || ["57P01", "57P02", "57P03", "57P05"].contains(&code)
}

/// All connections are taken (53300), some maybe by a process that has ended; or an operator works on
/// the database and lets nobody in (55000).
fn is_temporary(code: &str) -> bool {
    ["53300", "55000"].contains(&code)
}

fn io_failure(cause: &tokio_postgres::Error) -> Option<io::ErrorKind> {
    causes(cause).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

fn help_of_network_failure(cause: &tokio_postgres::Error, what: &str) -> &'static str {
    match io_failure(cause) {
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there: is the server running, at this port?"
        }
        Some(io::ErrorKind::NotFound) => "there is no such socket: is the server running?",
        Some(io::ErrorKind::TimedOut) => "no answer: a firewall may be in between",
        _ if what.contains("certificate") => {
            "name the CA of its certificate with sslrootcert=FILE in the address, and the host as the \
             certificate does"
        }
        _ if what.contains("does not support TLS") => {
            "turn ssl on there, or, on a network that nobody else reads, add sslmode=disable to the address"
        }
        _ if what.contains("password missing") => "give its password in a file, with store_password_file",
        _ => "the server's log may say more",
    }
}
