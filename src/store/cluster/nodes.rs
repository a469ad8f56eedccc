//! The gateways that serve with one database, which are its nodes. A node is its state folder; it
//! says every few seconds that it is there, and counts as live for 15 seconds.
//!
//! A copy of a state folder has the id of the first, and would pass for it. So a node records the
//! place of its folder too: one that finds its id at another place waits whether that one is heard
//! of, and gives way if it is.

use std::time::Duration;

use super::ClusterStore;
use crate::base::digest::Hasher;
use crate::store::Error;
use crate::store::auth::postgres::{Error as PostgresError, Link, PostgresEngine, Value};

/// How often a node says that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long to wait for a node to be heard of: two heartbeats and a bit.
const HEARING_WAIT: Duration = Duration::from_secs(7);

/// Who a node is.
#[derive(Debug, Clone)]
pub(in crate::store) struct NodeIdentity {
    /// Drawn once for a state folder.
    pub(in crate::store) id: [u8; 16],
    /// For people.
    pub(in crate::store) name: String,
    /// Drawn at each start.
    pub(in crate::store) boot: [u8; 16],
    /// The digest of what tells the folder from its copies. One process runs in a folder, so what
    /// was recorded for the same place is this process or one before it.
    pub(in crate::store) place: [u8; 32],
}

/// What a heartbeat found: whether the node is still who it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatOutcome {
    /// It is heard of.
    Live,
    /// Another process with its id was started meanwhile, from a copy of its state folder.
    Replaced,
}

/// A node as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeRecord {
    /// The id that its state folder keeps.
    pub id: [u8; 16],
    /// Its name, for people.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// How many seconds ago it was heard of.
    pub seen_seconds_ago: i64,
    /// Whether it is live.
    pub is_live: bool,
    /// Whether it has said that it leaves.
    pub has_left: bool,
}

impl NodeIdentity {
    /// Returns the digest of the place of a state folder: the machine since its boot, the device
    /// and the folder on it.
    pub(in crate::store) fn digest_place(machine_boot: &str, device: u64, inode: u64) -> [u8; 32] {
        let mut hasher = Hasher::new();
        hasher.update_field(machine_boot.trim().as_bytes());
        hasher.update_field(&device.to_be_bytes());
        hasher.update_field(&inode.to_be_bytes());
        *hasher.finish().as_bytes()
    }
}

/// Records that a node starts.
///
/// # Errors
/// [`PostgresError::CopiedNode`] if a live node has its id at another place.
pub(super) async fn register(link: &Link, node: &NodeIdentity) -> Result<(), PostgresError> {
    if try_register(link, node, None).await? {
        return Ok(());
    }
    let Some((_, seen_at)) = load_seen(link, node).await? else { return Ok(()) };
    tracing::info!(
        "a gateway with this node's id was here a moment ago; waiting whether it is heard of again"
    );
    tokio::time::sleep(HEARING_WAIT).await;
    if try_register(link, node, Some(&seen_at)).await? {
        return Ok(());
    }
    let name = load_seen(link, node).await?.map_or_else(String::new, |(name, _)| name);
    Err(PostgresError::CopiedNode { shown: link.shown().to_owned(), node: name })
}

/// Records the node unless another one has its id, which was heard of since `seen_at`.
async fn try_register(
    link: &Link,
    node: &NodeIdentity,
    seen_at: Option<&str>,
) -> Result<bool, PostgresError> {
    const REGISTER: &str = "
        INSERT INTO tenantd.nodes AS known (id, name, boot, place, version, started_at, seen_at)
        VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, boot = excluded.boot, place = excluded.place,
            version = excluded.version, started_at = excluded.started_at, seen_at = excluded.seen_at,
            left_at = NULL
        WHERE known.place = $4 OR known.boot = $3 OR NOT tenantd.is_live(known)
            OR known.seen_at = $6::timestamptz
        RETURNING id";
    let values = [
        Value::Bytes(&node.id),
        Value::Text(&node.name),
        Value::Bytes(&node.boot),
        Value::Bytes(&node.place),
        Value::Text(env!("CARGO_PKG_VERSION")),
        Value::MaybeText(seen_at),
    ];
    Ok(!link.query(REGISTER, &values).await?.is_empty())
}

/// Returns the name of the node with this id, and when it was heard of.
async fn load_seen(link: &Link, node: &NodeIdentity) -> Result<Option<(String, String)>, PostgresError> {
    const SELECT: &str = "SELECT name, seen_at::text FROM tenantd.nodes WHERE id = $1";
    let read = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    Ok(link.query_rows(SELECT, &[Value::Bytes(&node.id)], read).await?.into_iter().next())
}

/// Fails if a node is live. One that fell silent gets the time to be heard of, since the database may
/// have been away until now. What is known of this state folder is of a process that has ended.
///
/// # Errors
/// [`PostgresError::InUse`] names it.
pub(in crate::store) async fn refuse_live_nodes(engine: &PostgresEngine) -> Result<(), PostgresError> {
    let load_others = async || {
        let nodes = load_nodes(engine.link()).await?.into_iter();
        Ok::<_, PostgresError>(nodes.filter(|node| node.id != *engine.node_id()).collect::<Vec<_>>())
    };
    let mut others = load_others().await?;
    if others.iter().all(|node| !node.is_live) && others.iter().any(|node| !node.has_left) {
        tracing::info!("a gateway ended without a word; waiting whether it is heard of again");
        tokio::time::sleep(HEARING_WAIT).await;
        others = load_others().await?;
    }
    match others.into_iter().find(|node| node.is_live) {
        None => Ok(()),
        Some(node) => Err(PostgresError::InUse {
            shown: engine.link().shown().to_owned(),
            node: node.name,
            seconds: node.seen_seconds_ago,
        }),
    }
}

async fn load_nodes(link: &Link) -> Result<Vec<NodeRecord>, PostgresError> {
    const SELECT: &str = "
        SELECT id, name, version, extract(epoch FROM clock_timestamp() - seen_at)::bigint, tenantd.is_live(node),
            left_at IS NOT NULL
        FROM tenantd.nodes AS node ORDER BY name, id";
    let read = |row: &tokio_postgres::Row| {
        let id: &[u8] = row.try_get(0)?;
        Ok(NodeRecord {
            id: id.try_into()?,
            name: row.try_get(1)?,
            version: row.try_get(2)?,
            seen_seconds_ago: row.try_get(3)?,
            is_live: row.try_get(4)?,
            has_left: row.try_get(5)?,
        })
    };
    link.query_rows(SELECT, &[], read).await
}

impl ClusterStore {
    /// Says that this node is there.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database is away.
    pub async fn send_heartbeat(&self) -> Result<HeartbeatOutcome, Error> {
        // The row is gone if this node was away for a day.
        const SAY: &str = "
            INSERT INTO tenantd.nodes AS known (id, name, boot, place, version, started_at, seen_at)
            VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
            ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, left_at = NULL
            WHERE known.place = $4 OR known.boot = $3
            RETURNING id";
        let values = [
            Value::Bytes(&self.node.id),
            Value::Text(&self.node.name),
            Value::Bytes(&self.node.boot),
            Value::Bytes(&self.node.place),
            Value::Text(env!("CARGO_PKG_VERSION")),
        ];
        let rows = self.query(SAY, &values).await?;
        Ok(if rows.is_empty() { HeartbeatOutcome::Replaced } else { HeartbeatOutcome::Live })
    }

    /// Says that this node goes, so that nobody waits for it.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database is away.
    pub async fn leave(&self) -> Result<(), Error> {
        const LEAVE: &str =
            "UPDATE tenantd.nodes SET left_at = clock_timestamp() WHERE id = $1 AND place = $2";
        let values = [Value::Bytes(&self.node.id), Value::Bytes(&self.node.place)];
        Ok(self.query(LEAVE, &values).await.map(drop)?)
    }

    /// Returns all nodes, those that were heard of within the last day too, sorted by name.
    #[cfg(test)]
    pub(super) async fn load_nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        Ok(Box::pin(load_nodes(self.engine.link())).await?)
    }

    /// Forgets nodes that left an hour ago or vanished a day ago, changes that are an hour old, and
    /// certificates that no node wanted for 30 days. Of the live nodes, one does it.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database is away.
    pub async fn remove_old_records(&self) -> Result<(), Error> {
        const REMOVE: &str = "
            WITH here AS (
                SELECT 1 WHERE $1 =
                    (SELECT id FROM tenantd.nodes AS node WHERE tenantd.is_live(node) ORDER BY id LIMIT 1)
            ), nodes AS (
                DELETE FROM tenantd.nodes USING here
                WHERE left_at < clock_timestamp() - interval '1 hour'
                    OR seen_at < clock_timestamp() - interval '1 day'
            ), certificates AS (
                DELETE FROM tenantd.certificates USING here
                WHERE wanted_at < clock_timestamp() - interval '30 days' AND until < clock_timestamp()
            )
            DELETE FROM tenantd.changes USING here
            WHERE recorded_at < clock_timestamp() - interval '1 hour'
                AND number < (SELECT max(number) FROM tenantd.changes)";
        Ok(self.query(REMOVE, &[Value::Bytes(&self.node.id)]).await.map(drop)?)
    }
}
