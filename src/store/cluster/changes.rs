//! What nodes tell each other: that something which others keep in memory has changed. The record of
//! a change is written by the statement that makes the change, by `tenantd.record_change`, and has a
//! number. A node asks for all that came after the number that it has; whoever missed too much
//! loads everything.

use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;

use super::{ClusterStore, OtherNodes};
use crate::store::Error;
use crate::store::auth::postgres::{Error as PostgresError, Link, Listener, ReadError, Value};

/// How many changes are read at once.
const BATCH: i64 = 1000;
/// How many batches may wait for a slow follower, which loads everything if there are more.
const WAITING_BATCHES: usize = 64;

/// A change of something that nodes keep in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What changed.
    pub kind: Box<str>,
    /// The tenant whose it is; empty if it is nobody's.
    pub tenant: Arc<str>,
    /// Which of these it is; empty if there is one only.
    pub key: Vec<u8>,
}

/// What changed since somebody asked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeBatch {
    /// These, in their order; none if nothing did.
    Changes(Arc<[Change]>),
    /// Too much, or what is unknown: everything must be loaded.
    Everything,
}

/// The last change that a node has heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCursor {
    number: i64,
    mark: String,
}

/// What a node hears when it asks.
#[derive(Debug, Clone)]
pub struct HeardChanges {
    /// What changed.
    pub batch: ChangeBatch,
    /// Where to ask from next.
    pub cursor: ChangeCursor,
    /// Whether there is more.
    pub is_partial: bool,
    /// The other nodes.
    pub others: OtherNodes,
}

/// Hands what was heard to the parts of this process.
#[derive(Debug)]
pub(super) struct ChangeFeed {
    /// From where to ask first; not known before the gateway is one of the nodes.
    start: OnceLock<ChangeCursor>,
    sender: broadcast::Sender<ChangeBatch>,
}

/// Yields what changes from now on.
#[derive(Debug)]
pub struct ChangeSubscription(broadcast::Receiver<ChangeBatch>);

/// Notifications of changes, which say only that it is time to ask.
pub struct Notifications(Listener);

impl ChangeCursor {
    /// A cursor that no change has, so that everything is loaded.
    fn unknown() -> Self {
        Self { number: 0, mark: String::new() }
    }
}

impl ChangeBatch {
    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Changes(changes) if changes.is_empty())
    }
}

impl ChangeFeed {
    pub(super) fn new() -> Self {
        Self { start: OnceLock::new(), sender: broadcast::Sender::new(WAITING_BATCHES) }
    }

    /// Sets from where to ask first.
    pub(super) fn begin_at(&self, start: ChangeCursor) {
        // A node joins once.
        let _known = self.start.set(start).is_err();
    }
}

impl ChangeSubscription {
    /// Waits for the next changes.
    pub async fn next(&mut self) -> ChangeBatch {
        match self.0.recv().await {
            Ok(batch) => batch,
            Err(broadcast::error::RecvError::Lagged(_)) => ChangeBatch::Everything,
            // The process ends.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Notifications {
    /// Waits for a notification. Returns `false` if the connection has ended.
    pub async fn next(&self) -> bool {
        self.0.notified().await
    }
}

impl ClusterStore {
    /// Returns the last change before anything was loaded.
    pub fn first_cursor(&self) -> ChangeCursor {
        self.feed.start.get().cloned().unwrap_or_else(ChangeCursor::unknown)
    }

    /// Returns what changed after `cursor`.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database is away.
    pub async fn load_changes(&self, cursor: &ChangeCursor) -> Result<HeardChanges, Error> {
        // The row of the cursor shows that the database still is the one that was heard.
        const SELECT: &str = "
            SELECT number, mark::text, kind, tenant, key,
                (SELECT count(*) FROM tenantd.nodes AS node WHERE id <> $3 AND tenantd.is_live(node)),
                (SELECT count(*) FROM tenantd.nodes AS node
                    WHERE id <> $3 AND left_at IS NULL AND NOT tenantd.is_live(node))
            FROM tenantd.changes WHERE number >= $1 ORDER BY number LIMIT $2";
        let values = [Value::Number(cursor.number), Value::Number(BATCH + 1), Value::Bytes(&self.node.id)];
        let link = self.engine.link();
        let rows = Box::pin(link.query_rows_as_follower(SELECT, &values, read_row)).await?;
        let others = rows.first().map(|(_, _, others)| *others).unwrap_or_default();
        let is_known = rows.first().is_some_and(|(known, _, _)| known == cursor);
        if !is_known {
            let cursor = Box::pin(load_cursor(link)).await?;
            return Ok(HeardChanges { batch: ChangeBatch::Everything, cursor, is_partial: false, others });
        }
        let is_partial = rows.len() > BATCH as usize;
        let cursor = rows.last().map_or_else(|| cursor.clone(), |(last, _, _)| last.clone());
        let changes = rows.into_iter().skip(1).map(|(_, change, _)| change).collect();
        Ok(HeardChanges { batch: ChangeBatch::Changes(changes), cursor, is_partial, others })
    }

    /// Listens for notifications; `None` if none arrive here, as behind a pooler in transaction
    /// mode.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database is away.
    pub async fn listen(&self) -> Result<Option<Notifications>, Error> {
        Ok(Box::pin(self.engine.listen()).await?.map(Notifications))
    }

    /// Returns what yields changes from now on. Subscribe before you load what changes.
    pub fn subscribe(&self) -> ChangeSubscription {
        ChangeSubscription(self.feed.sender.subscribe())
    }

    /// Hands changes to all who subscribed.
    pub fn publish(&self, batch: ChangeBatch) {
        // An error means that nobody has.
        let _unheard = self.feed.sender.send(batch).is_err();
    }
}

/// Returns the latest change.
pub(super) async fn load_cursor(link: &Link) -> Result<ChangeCursor, PostgresError> {
    const SELECT: &str = "SELECT number, mark::text FROM tenantd.changes ORDER BY number DESC LIMIT 1";
    let read =
        |row: &tokio_postgres::Row| Ok(ChangeCursor { number: row.try_get(0)?, mark: row.try_get(1)? });
    let latest = link.query_rows(SELECT, &[], read).await?.into_iter().next();
    // There always is one, unless somebody emptied the table.
    Ok(latest.unwrap_or_else(ChangeCursor::unknown))
}

fn read_row(row: &tokio_postgres::Row) -> Result<(ChangeCursor, Change, OtherNodes), ReadError> {
    let cursor = ChangeCursor { number: row.try_get(0)?, mark: row.try_get(1)? };
    let (kind, tenant): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
    let count = |column| row.try_get(column).map(|count: i64| u32::try_from(count).unwrap_or(u32::MAX));
    let others = OtherNodes { live: count(5)?, silent: count(6)? };
    let change = Change { kind: kind.into(), tenant: tenant.into(), key: row.try_get(4)? };
    Ok((cursor, change, others))
}
