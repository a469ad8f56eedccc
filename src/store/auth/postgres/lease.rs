//! The lease: one gateway at a time serves with a database, since each keeps revocations, blocks and
//! keys in memory. The holder is heard of every few seconds; one that is not for 15 seconds is out.
//! The fencing number grows with each change of the holder, and whatever changes what gateways keep
//! in memory checks it.

use std::time::Duration;

use super::PostgresEngine;
use super::error::Error;
use super::link::Link;
use super::value::Value;

/// How long a holder that is not heard of has the lease, in seconds.
const LEASE_SECONDS: i64 = 15;
/// How often the holder is heard of.
pub(in crate::store) const HEARTBEAT: Duration = Duration::from_secs(3);

/// Who holds the lease: a state folder, in which one process runs at a time.
#[derive(Debug, Clone)]
pub(in crate::store) struct NodeIdentity {
    /// Drawn once for a state folder.
    pub(in crate::store) id: [u8; 16],
    /// For people: the folder and its host.
    pub(in crate::store) name: String,
}

/// Whether a node still holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum LeaseState {
    Held,
    /// Another node has it.
    Lost,
}

/// Takes the lease and returns its fencing number.
///
/// # Errors
/// [`Error::InUse`] while another node holds it.
pub(super) async fn take(link: &Link, node: &NodeIdentity) -> Result<i64, Error> {
    const TAKE: &str = "
        INSERT INTO tenantd.lease AS held (holder, name, fence, until)
        VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3::bigint))
        ON CONFLICT (single) DO UPDATE
        SET holder = $1, name = $2, fence = held.fence + (held.holder <> $1)::int, until = excluded.until
        WHERE held.holder = $1 OR held.until < clock_timestamp()
        RETURNING fence";
    let values = [Value::Bytes(&node.id), Value::Text(&node.name), Value::Number(LEASE_SECONDS)];
    let rows = link.query(TAKE, &values).await?;
    match rows.first() {
        Some(row) => row.try_get(0).map_err(|cause| link.unreadable(&cause)),
        None => Err(describe_holder(link).await?),
    }
}

async fn describe_holder(link: &Link) -> Result<Error, Error> {
    const ASK: &str = "SELECT name, $1 - extract(epoch FROM until - clock_timestamp())::bigint
                       FROM tenantd.lease";
    let rows = link.query(ASK, &[Value::Number(LEASE_SECONDS)]).await?;
    let told = link.read_rows(&rows, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?;
    let (holder, seconds): (String, i64) = told.into_iter().next().unwrap_or_default();
    Ok(Error::InUse { shown: link.shown().to_owned(), holder, seconds })
}

impl PostgresEngine {
    /// Says that this node is still there.
    pub(in crate::store) async fn renew_lease(&self) -> Result<LeaseState, Error> {
        const RENEW: &str = "
            UPDATE tenantd.lease SET until = clock_timestamp() + make_interval(secs => $3::bigint)
            WHERE holder = $1 AND fence = $2 RETURNING fence";
        let values = [Value::Bytes(&self.node.id), Value::Number(self.fence), Value::Number(LEASE_SECONDS)];
        let rows = self.link.query(RENEW, &values).await?;
        Ok(if rows.is_empty() { LeaseState::Lost } else { LeaseState::Held })
    }

    /// Lets another node take the lease at once.
    pub(in crate::store) async fn release_lease(&self) -> Result<(), Error> {
        const RELEASE: &str =
            "UPDATE tenantd.lease SET until = clock_timestamp() WHERE holder = $1 AND fence = $2";
        let values = [Value::Bytes(&self.node.id), Value::Number(self.fence)];
        self.link.query(RELEASE, &values).await.map(drop)
    }
}
