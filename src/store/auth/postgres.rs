//! The auth store in a PostgreSQL database, in the schema `tenantd`. No other module names
//! tokio_postgres.
//!
//! Each function is one statement, so it happens wholly or not at all, needs no session, and works
//! behind a pooler that gives each transaction another connection. A statement whose connection
//! broke is sent again; each statement recognises what it did itself before. What other nodes keep
//! in memory changes in one statement with the record of the change, from which they learn of it.

mod address;
mod blocks;
mod clients;
mod connection_health;
mod connector;
mod copy;
mod error;
mod examination;
mod grants;
mod inbox;
mod incarnations;
mod link;
mod listener;
mod revocations;
mod schema;
mod server_history;
mod signing_keys;
mod uncertain_rotations;
mod value;

use std::sync::Arc;

pub use self::address::PostgresAddress;
pub(in crate::store) use self::connection_health::ConnectionHealth;
pub use self::error::Error;
pub use self::examination::DatabaseExamination;
pub(in crate::store) use self::link::{Link, ReadError};
pub(in crate::store) use self::listener::Listener;
use self::uncertain_rotations::UncertainRotations;
pub(in crate::store) use self::value::Value;
use super::StoredAuthState;
use crate::store::keyring::Keyring;

/// A PostgreSQL database as an engine of [`AuthStore`](crate::store::AuthStore), which describes
/// the functions. Cheap to clone.
#[derive(Clone)]
pub(in crate::store) struct PostgresEngine {
    link: Arc<Link>,
    keyring: Arc<Keyring>,
    uncertain_rotations: Arc<UncertainRotations>,
    database_id: [u8; 16],
    /// The id of this node.
    node_id: [u8; 16],
}

impl PostgresEngine {
    /// Connects, brings the schema up to date, and verifies that the master key fits.
    ///
    /// # Errors
    /// The database cannot be reached or refuses the user, its schema is newer, it cannot be
    /// written, or the key does not fit.
    pub(in crate::store) async fn open(
        address: PostgresAddress,
        keyring: Arc<Keyring>,
        node_id: [u8; 16],
    ) -> Result<Self, crate::store::Error> {
        let link = Arc::new(Link::new(address));
        let database_id = prepare(&link, &keyring).await?;
        Ok(Self { link, keyring, uncertain_rotations: Arc::default(), database_id, node_id })
    }

    /// Connects to read: nothing is created or changed.
    ///
    /// # Errors
    /// As for [`PostgresEngine::open`]; also if the schema is missing or older.
    pub(in crate::store) async fn open_unmodified(
        address: PostgresAddress,
        keyring: Arc<Keyring>,
    ) -> Result<Self, crate::store::Error> {
        let link = Arc::new(Link::new(address));
        let shown = || link.shown().to_owned();
        let known = schema::CURRENT_VERSION;
        match schema::examine(&link).await? {
            0 => return Err(Error::NoSchema { shown: shown() }.into()),
            found if found < known => return Err(Error::OlderSchema { shown: shown(), found, known }.into()),
            _ => {}
        }
        let database_id = schema::verify_marks(&link, &keyring).await?;
        Ok(Self { link, keyring, uncertain_rotations: Arc::default(), database_id, node_id: [0; 16] })
    }

    /// Stands for a database that was used before and is away now. Nothing is asked of it until
    /// [`Link::open`].
    pub(in crate::store) fn await_database(
        address: PostgresAddress,
        keyring: Arc<Keyring>,
        node_id: [u8; 16],
        database_id: [u8; 16],
    ) -> Self {
        let link = Arc::new(Link::closed(address));
        Self { link, keyring, uncertain_rotations: Arc::default(), database_id, node_id }
    }

    /// Returns whether the database is in use: it was there at the start, or is since.
    pub(in crate::store) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// Returns the id of the database, which was drawn when its schema was created.
    pub(in crate::store) fn database_id(&self) -> &[u8; 16] {
        &self.database_id
    }

    /// Returns the id of this node.
    pub(in crate::store) fn node_id(&self) -> &[u8; 16] {
        &self.node_id
    }

    /// Returns the connections, for what is not about logins.
    pub(in crate::store) fn link(&self) -> &Link {
        &self.link
    }

    /// Returns the keys that seal what the database holds.
    pub(in crate::store) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(in crate::store) async fn load_state(&self) -> Result<StoredAuthState, super::Error> {
        self.reseal_incarnations().await;
        self.reseal_blocks().await;
        Ok(StoredAuthState {
            incarnations: self.load_incarnations_of(None).await?,
            revocations: self.load_revocations().await?,
            tenants_with_unreadable_removals: self.tenants_with_unreadable_removals().await?,
            blocks: self.load_blocks().await?,
        })
    }

    pub(in crate::store) fn health(&self) -> &Arc<ConnectionHealth> {
        self.link.health()
    }

    pub(in crate::store) fn is_writable(&self) -> bool {
        self.health().is_writable()
    }

    pub(in crate::store) async fn probe_write(&self) -> Result<(), super::Error> {
        schema::probe_write(&self.link).await.map_err(Into::into)
    }
}

/// Brings the schema of a database up to date, and verifies that the master key fits. Returns the id
/// of the database.
async fn prepare(link: &Link, keyring: &Keyring) -> Result<[u8; 16], crate::store::Error> {
    schema::migrate(link).await?;
    schema::ensure_marks(link, keyring).await
}

/// Finds out whether a database that was away can be used, by connections of its own.
pub(in crate::store) struct DatabaseProbe {
    link: Link,
    keyring: Arc<Keyring>,
}

impl DatabaseProbe {
    pub(in crate::store) fn new(address: PostgresAddress, keyring: Arc<Keyring>) -> Self {
        Self { link: Link::new(address), keyring }
    }

    /// Does what [`PostgresEngine::open`] does, and returns the id of the database.
    pub(in crate::store) async fn prepare(&self) -> Result<[u8; 16], crate::store::Error> {
        prepare(&self.link, &self.keyring).await
    }

    pub(in crate::store) fn link(&self) -> &Link {
        &self.link
    }
}
