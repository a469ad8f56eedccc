//! The auth store in a PostgreSQL database, in the schema `tenantd`. No other module names
//! tokio_postgres.
//!
//! Each function is one statement, so it happens wholly or not at all, needs no session, and works
//! behind a pooler that gives each transaction another connection. A statement whose connection
//! broke is sent again; each statement recognises what it did itself before. What other nodes keep
//! in memory changes together with a generation number, and only by the node that holds the lease.

mod address;
mod blocks;
mod clients;
mod connection_health;
mod connector;
mod copy;
mod error;
mod grants;
mod incarnations;
mod lease;
mod link;
mod revocations;
mod schema;
mod signing_keys;
mod value;

use std::sync::Arc;

pub use self::address::PostgresAddress;
pub(in crate::store) use self::connection_health::ConnectionHealth;
pub use self::error::Error;
pub(in crate::store) use self::lease::NodeIdentity;
pub(in crate::store) use self::lease::{HEARTBEAT, LeaseState};
use self::link::Link;
use super::StoredAuthState;
use crate::store::keyring::Keyring;

/// A PostgreSQL database as an engine of [`AuthStore`](crate::store::AuthStore), which describes
/// the functions. Cheap to clone.
#[derive(Clone)]
pub(in crate::store) struct PostgresEngine {
    link: Arc<Link>,
    keyring: Arc<Keyring>,
    node: Arc<NodeIdentity>,
    /// The fencing number of the lease that this node has held since it opened the database.
    fence: i64,
    database_id: [u8; 16],
}

impl PostgresEngine {
    /// Connects, brings the schema up to date, checks that the master key fits, and takes the
    /// lease.
    ///
    /// # Errors
    /// The database cannot be reached or refuses the user, its schema is newer, it cannot be
    /// written, the key does not fit, or another node holds the lease.
    pub(in crate::store) async fn open(
        address: PostgresAddress,
        keyring: Arc<Keyring>,
        node: NodeIdentity,
    ) -> Result<Self, crate::store::Error> {
        let link = Arc::new(Link::new(address)?);
        schema::migrate(&link).await?;
        let database_id = schema::ensure_marks(&link, &keyring).await?;
        let fence = lease::take(&link, &node).await?;
        Ok(Self { link, keyring, node: Arc::new(node), fence, database_id })
    }

    /// Returns the id of the database, which was drawn when its schema was created.
    pub(in crate::store) fn database_id(&self) -> &[u8; 16] {
        &self.database_id
    }

    /// Returns the name of this node, for people.
    pub(in crate::store) fn node_name(&self) -> &str {
        &self.node.name
    }

    pub(in crate::store) async fn load_state(&self) -> Result<StoredAuthState, super::Error> {
        self.reseal_incarnations().await;
        self.reseal_blocks().await;
        Ok(StoredAuthState {
            incarnations: self.load_incarnations().await?,
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
