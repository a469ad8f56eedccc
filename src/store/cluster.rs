//! What the gateways that share one PostgreSQL database keep together beside logins: who they are,
//! what changed, certificates, operators' orders and counters. A gateway whose store is a file has
//! none of it.

mod acme;
mod certificates;
mod changes;
mod entries;
mod freshness;
mod integrity;
mod joining;
mod nodes;
mod orders;
mod sealed_column;
mod usage;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio_postgres::Row;

pub use self::acme::{AccountClaim, SharedAccount, SharedChallenge, SharedChallengeKind};
pub use self::certificates::{
    CERTIFICATE_CHANGE, CERTIFICATE_LEASE_SECONDS, LeaseClaim, LeaseHolder, LocalCertificate,
    SharedCertificate,
};
use self::changes::ChangeFeed;
pub use self::changes::{Change, ChangeBatch, ChangeCursor, ChangeSubscription, HeardChanges, Notifications};
pub use self::entries::{DifferentEntry, NodeEntry, NodeId, NodeReport};
pub use self::freshness::{Freshness, MAX_SILENCE, OtherNodes};
pub use self::integrity::SharedTablesReport;
pub(in crate::store) use self::integrity::check_shared_tables;
pub use self::joining::Joining;
pub use self::nodes::{HEARTBEAT, HeartbeatOutcome};
pub(in crate::store) use self::nodes::{NodeIdentity, refuse_live_nodes};
pub use self::orders::{EntryOrders, ORDER_CHANGE, Replacement, TenantOrder};
pub(in crate::store) use self::usage::UsageTables;
pub use self::usage::{QuotaSums, SharedNews, UsageBatchId};
use super::auth::postgres::{Error as PostgresError, PostgresEngine, ReadError, Value};
use super::keyring::Keyring;
use super::{BlockId, Store, StoredBlocks, StoredIncarnations, StoredRevocations};
use crate::base::clock::{Clock, SystemClock};

/// The part of a shared database that belongs to the gateways themselves. Cheap to clone.
#[derive(Clone)]
pub struct ClusterStore {
    engine: PostgresEngine,
    node: Arc<NodeIdentity>,
    feed: Arc<ChangeFeed>,
    freshness: Arc<Freshness>,
    /// Why the database could not be joined the last time, after a start without it.
    wait: Arc<ArcSwapOption<String>>,
}

impl Store {
    /// Returns what this gateway shares with others; `None` if its store is a file.
    pub fn cluster(&self) -> Option<ClusterStore> {
        self.cluster.clone()
    }
}

impl ClusterStore {
    /// Joins the nodes that use a database.
    ///
    /// # Errors
    /// The state folder is a copy of one that is in use, or the database cannot be used.
    pub(in crate::store) async fn join(
        engine: PostgresEngine,
        node: NodeIdentity,
    ) -> Result<Self, super::Error> {
        nodes::register(engine.link(), &node).await?;
        // Before anything is loaded: what changes from here on is heard of.
        let cursor = changes::load_cursor(engine.link()).await?;
        let store = Self::await_database(engine, node);
        store.begin_at(cursor);
        Ok(store)
    }

    /// Creates the same for a database that is away, which is joined by [`Joining`].
    pub(in crate::store) fn await_database(engine: PostgresEngine, node: NodeIdentity) -> Self {
        let freshness = Arc::new(Freshness::new(SystemClock.monotonic()));
        Self {
            engine,
            node: Arc::new(node),
            feed: Arc::new(ChangeFeed::new()),
            freshness,
            wait: Arc::default(),
        }
    }

    /// Begins to listen to the others, from this change on.
    fn begin_at(&self, cursor: ChangeCursor) {
        self.feed.begin_at(cursor);
        self.freshness.join(SystemClock.monotonic());
    }

    /// Returns what this gateway waits for since it started without its database; `None` if that is
    /// in use.
    pub fn awaited(&self) -> Option<Arc<String>> {
        let told =
            || self.wait.load_full().unwrap_or_else(|| Arc::new("it was away at the start".to_owned()));
        (!self.engine.is_open()).then(told)
    }

    /// Returns the name of this gateway, for people.
    pub fn node_name(&self) -> &str {
        &self.node.name
    }

    /// Returns the id of this gateway, which its state folder keeps.
    pub fn node_id(&self) -> &[u8; 16] {
        &self.node.id
    }

    /// Returns since when this node may not know what others changed.
    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// Returns the revocations of these subjects of tenants, as far as there are some.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](super::auth::ErrorKind) if they cannot be read.
    pub async fn load_revocations(
        &self,
        subjects: &[(Arc<str>, Vec<u8>)],
    ) -> Result<StoredRevocations, super::auth::Error> {
        Box::pin(self.engine.load_revocations_of(subjects)).await
    }

    /// Returns the blocks with these ids, as far as there are some.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](super::auth::ErrorKind) if they cannot be read.
    pub async fn load_blocks(&self, ids: &[BlockId]) -> Result<StoredBlocks, super::auth::Error> {
        Box::pin(self.engine.load_blocks_of(ids)).await
    }

    /// Returns the incarnations of these tenants, as far as they have one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](super::auth::ErrorKind) if they cannot be read.
    pub async fn load_incarnations(
        &self,
        tenants: &[Arc<str>],
    ) -> Result<StoredIncarnations, super::auth::Error> {
        Box::pin(self.engine.load_incarnations_of(Some(tenants))).await
    }

    /// Sends a statement, and again if its connection breaks.
    async fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, PostgresError> {
        Box::pin(self.engine.link().query(sql, values)).await
    }

    /// Sends a statement that reads, and returns its rows.
    async fn query_rows<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, PostgresError> {
        Box::pin(self.engine.link().query_rows(sql, values, read)).await
    }

    fn keyring(&self) -> &Keyring {
        self.engine.keyring()
    }
}

impl std::fmt::Debug for ClusterStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterStore").field("node", &self.node_name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
