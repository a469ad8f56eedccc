//! Which entries each node has, and which revision of each is in force there. A node writes what
//! changed, in one statement, and everything after it has read its folder for the first time.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::ClusterStore;
use crate::base::digest::Digest;
use crate::store::Error;
use crate::store::auth::postgres::{ReadError, Value};

/// An entry as one node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// The id of the entry.
    pub entry_id: String,
    /// The tenant's name; the entry's id if the name is not known.
    pub name: String,
    /// The label of its state.
    pub state: String,
    /// When it entered that state, to the second.
    pub since: Timestamp,
    /// The digest of its files.
    pub on_disk: Option<Digest>,
    /// The digest of the revision in force.
    pub in_force: Option<Digest>,
}

/// A node, and what it said of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its id.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// The version of the program.
    pub program: String,
    /// How many seconds ago it was heard of.
    pub seen_seconds_ago: i64,
    /// Whether it is live.
    pub is_live: bool,
    /// Whether it ended in order.
    pub has_left: bool,
    /// Grows with every report of its entries; `None` before the first.
    pub version: Option<i64>,
    /// How many entries it has.
    pub entries: Option<i64>,
}

/// An entry that is not the same on all live nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferentEntry {
    /// The id of the entry.
    pub entry_id: String,
    /// The tenant's name, on one of the nodes.
    pub name: String,
    /// For how many seconds at least, if all nodes have it and that is known.
    pub seconds: Option<i64>,
    /// The live nodes that have it, and the digest of the revision in force there.
    pub nodes: Vec<(NodeId, Option<Digest>)>,
}

/// The id of a node: 16 random bytes of its state folder.
pub type NodeId = [u8; 16];

impl ClusterStore {
    /// Writes all entries of this node, and forgets those that it no longer has, and those of nodes
    /// that are forgotten. One statement.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn replace_entries(&self, entries: &[NodeEntry]) -> Result<(), Error> {
        const REPLACE: &str = "
            WITH given AS (
                SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[])
                    AS given (entry_id, name, state, since, on_disk, in_force)
            ), reported AS (
                INSERT INTO tenantd.node_reports AS old (node, version, entries)
                VALUES ($1, 1, cardinality($2::text[]))
                ON CONFLICT (node) DO UPDATE SET version = old.version + 1, entries = excluded.entries
            ), lost_reports AS (
                DELETE FROM tenantd.node_reports AS lost
                WHERE node <> $1 AND NOT EXISTS (SELECT FROM tenantd.nodes WHERE id = lost.node)
            ), lost_entries AS (
                DELETE FROM tenantd.node_entries AS lost
                WHERE node <> $1 AND NOT EXISTS (SELECT FROM tenantd.nodes WHERE id = lost.node)
            ), gone AS (
                DELETE FROM tenantd.node_entries AS old
                WHERE node = $1 AND NOT EXISTS (SELECT FROM given WHERE given.entry_id = old.entry_id)
            )
            INSERT INTO tenantd.node_entries AS old (node, entry_id, name, state, since, on_disk, in_force)
            SELECT $1, given.* FROM given
            ON CONFLICT (entry_id, node) DO UPDATE
            SET name = excluded.name, state = excluded.state, since = excluded.since,
                on_disk = excluded.on_disk, in_force = excluded.in_force,
                changed_at = CASE WHEN old.in_force IS NOT DISTINCT FROM excluded.in_force
                             THEN old.changed_at ELSE excluded.changed_at END
            WHERE (old.name, old.state, old.since, old.on_disk, old.in_force)
                IS DISTINCT FROM
                (excluded.name, excluded.state, excluded.since, excluded.on_disk, excluded.in_force)";
        let mut values = vec![Value::Bytes(self.node_id())];
        values.extend(columns(entries));
        Ok(self.query(REPLACE, &values).await.map(drop)?)
    }

    /// Writes the entries of this node that changed, forgets those that are gone, and says how many
    /// there are now. One statement.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn update_entries(
        &self,
        changed: &[NodeEntry],
        gone: &[String],
        count: usize,
    ) -> Result<(), Error> {
        const UPDATE: &str = "
            WITH reported AS (
                UPDATE tenantd.node_reports SET version = version + 1, entries = $9 WHERE node = $1
            ), gone AS (
                DELETE FROM tenantd.node_entries WHERE node = $1 AND entry_id = ANY ($8::text[])
            )
            INSERT INTO tenantd.node_entries AS old (node, entry_id, name, state, since, on_disk, in_force)
            SELECT $1, given.*
            FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[]) AS given
            ON CONFLICT (entry_id, node) DO UPDATE
            SET name = excluded.name, state = excluded.state, since = excluded.since,
                on_disk = excluded.on_disk, in_force = excluded.in_force,
                changed_at = CASE WHEN old.in_force IS NOT DISTINCT FROM excluded.in_force
                             THEN old.changed_at ELSE excluded.changed_at END";
        let mut values = vec![Value::Bytes(self.node_id())];
        values.extend(columns(changed));
        values.push(Value::Texts(gone.iter().map(String::as_str).collect()));
        values.push(Value::Number(i64::try_from(count).unwrap_or(i64::MAX)));
        Ok(self.query(UPDATE, &values).await.map(drop)?)
    }

    /// Returns the nodes that have an entry, and how they have it, in order of their ids. Nodes
    /// that are no longer heard of are among them.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn find_entry_on_nodes(&self, entry_id: &str) -> Result<Vec<(NodeId, NodeEntry)>, Error> {
        const SELECT: &str = "
            SELECT node, entry_id, name, state, since, on_disk, in_force
            FROM tenantd.node_entries WHERE entry_id = $1 ORDER BY node";
        Ok(self.query_rows(SELECT, &[Value::Text(entry_id)], read_entry).await?)
    }
}

fn bytes(digest: &Option<Digest>) -> Option<&[u8]> {
    digest.as_ref().map(|digest| digest.as_bytes().as_slice())
}

impl ClusterStore {
    /// Returns all nodes that were heard of lately, with what they said of their entries, sorted by
    /// name.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn load_node_reports(&self) -> Result<Vec<NodeReport>, Error> {
        const SELECT: &str = "
            SELECT id, name, known.version, extract(epoch FROM clock_timestamp() - seen_at)::bigint,
                tenantd.is_live(known), left_at IS NOT NULL, report.version, report.entries
            FROM tenantd.nodes AS known LEFT JOIN tenantd.node_reports AS report ON report.node = id
            ORDER BY name, id";
        let read = |row: &Row| -> Result<NodeReport, ReadError> {
            Ok(NodeReport {
                node: read_node(row.try_get(0)?)?,
                name: row.try_get(1)?,
                program: row.try_get(2)?,
                seen_seconds_ago: row.try_get(3)?,
                is_live: row.try_get(4)?,
                has_left: row.try_get(5)?,
                version: row.try_get(6)?,
                entries: row.try_get(7)?,
            })
        };
        Ok(self.query_rows(SELECT, &[], read).await?)
    }

    /// Returns the entries that are not the same on all live nodes that have read their folder, at
    /// most `limit`: another revision is in force, or a node does not have the entry.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn find_different_entries(&self, limit: i64) -> Result<Vec<DifferentEntry>, Error> {
        const SELECT: &str = "
            WITH live AS (
                SELECT id FROM tenantd.nodes AS known JOIN tenantd.node_reports AS report ON report.node = id
                WHERE tenantd.is_live(known)
            )
            SELECT entry_id, min(name),
                CASE WHEN count(*) = (SELECT count(*) FROM live)
                    THEN extract(epoch FROM clock_timestamp() - max(changed_at))::bigint END,
                array_agg(node ORDER BY node), array_agg(in_force ORDER BY node)
            FROM tenantd.node_entries JOIN live ON id = node
            GROUP BY entry_id
            HAVING count(*) < (SELECT count(*) FROM live) OR count(DISTINCT coalesce(in_force, '')) > 1
            ORDER BY entry_id LIMIT $1";
        let read = |row: &Row| -> Result<DifferentEntry, ReadError> {
            let (nodes, digests): (Vec<Vec<u8>>, Vec<Option<Vec<u8>>>) = (row.try_get(3)?, row.try_get(4)?);
            let nodes = nodes.into_iter().zip(digests);
            let nodes = nodes.map(|(node, digest)| Ok((read_node(node)?, to_digest(digest)?)));
            Ok(DifferentEntry {
                entry_id: row.try_get(0)?,
                name: row.try_get(1)?,
                seconds: row.try_get(2)?,
                nodes: nodes.collect::<Result<_, ReadError>>()?,
            })
        };
        Ok(self.query_rows(SELECT, &[Value::Number(limit)], read).await?)
    }
}

/// Returns entries column by column.
fn columns(entries: &[NodeEntry]) -> [Value<'_>; 6] {
    [
        Value::Texts(entries.iter().map(|entry| entry.entry_id.as_str()).collect()),
        Value::Texts(entries.iter().map(|entry| entry.name.as_str()).collect()),
        Value::Texts(entries.iter().map(|entry| entry.state.as_str()).collect()),
        Value::Numbers(entries.iter().map(|entry| entry.since.as_second()).collect()),
        Value::MaybeByteStrings(entries.iter().map(|entry| bytes(&entry.on_disk)).collect()),
        Value::MaybeByteStrings(entries.iter().map(|entry| bytes(&entry.in_force)).collect()),
    ]
}

fn read_entry(row: &Row) -> Result<(NodeId, NodeEntry), ReadError> {
    let entry = NodeEntry {
        entry_id: row.try_get(1)?,
        name: row.try_get(2)?,
        state: row.try_get(3)?,
        since: Timestamp::from_second(row.try_get(4)?)?,
        on_disk: to_digest(row.try_get(5)?)?,
        in_force: to_digest(row.try_get(6)?)?,
    };
    Ok((read_node(row.try_get(0)?)?, entry))
}

fn read_node(bytes: Vec<u8>) -> Result<NodeId, ReadError> {
    bytes.try_into().map_err(|_| "a node's id does not have 16 bytes".into())
}

fn to_digest(bytes: Option<Vec<u8>>) -> Result<Option<Digest>, ReadError> {
    let digest = |bytes: Vec<u8>| bytes.try_into().map(Digest::from_bytes);
    bytes.map(digest).transpose().map_err(|_| "a digest does not have 32 bytes".into())
}
