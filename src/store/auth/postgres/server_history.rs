//! Which server a new connection leads to. One that can only be read is refused, as is a primary that
//! another one has replaced: what it acknowledges would be lost.

use std::sync::Mutex;

use tokio_postgres::Client;

use super::error::Error;
use crate::base::sync::lock_unpoisoned;

/// The last promotion that this process has seen, of a cluster of servers.
#[derive(Debug, Default)]
pub(super) struct ServerHistory {
    newest: Mutex<Option<Promotion>>,
}

/// A promotion begins a new timeline, whose number is higher than all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Promotion {
    /// The id of the cluster.
    system: i64,
    timeline: i64,
}

impl ServerHistory {
    /// Verifies that the server can be written, and that no other one has replaced it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Replaced`], or why the server does not say.
    pub(super) async fn verify(&self, client: &Client, shown: &str) -> Result<(), Error> {
        const IS_READ_ONLY: &str = "SELECT current_setting('transaction_read_only') = 'on'";
        // The name of a file of the log begins with the timeline. Not every service lets its users ask.
        const PROMOTION: &str = "
            SELECT (SELECT system_identifier FROM pg_control_system()),
                ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
            WHERE NOT pg_is_in_recovery()";
        let failed = |cause: tokio_postgres::Error| Error::from_statement(shown, &cause);
        let rows = client.query_typed(IS_READ_ONLY, &[]).await.map_err(failed)?;
        if rows.first().is_some_and(|row| row.get(0)) {
            return Err(Error::ReadOnly { shown: shown.to_owned() });
        }
        let Ok(rows) = client.query_typed(PROMOTION, &[]).await else { return Ok(()) };
        let found = rows.first().map(|row| Promotion { system: row.get(0), timeline: row.get(1) });
        match found.is_none_or(|found| self.observe(found)) {
            true => Ok(()),
            false => Err(Error::Replaced { shown: shown.to_owned() }),
        }
    }

    /// Returns whether the server is the newest primary of its cluster, as far as is known.
    fn observe(&self, found: Promotion) -> bool {
        let mut newest = lock_unpoisoned(&self.newest);
        if newest.is_some_and(|newest| newest.system == found.system && newest.timeline > found.timeline) {
            return false;
        }
        *newest = Some(found);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_was_replaced_is_not_the_newest() {
        let history = ServerHistory::default();
        let observe = |system, timeline| history.observe(Promotion { system, timeline });
        assert!(observe(1, 4) && observe(1, 4) && observe(1, 5));
        assert!(!observe(1, 4));
        assert!(observe(2, 1), "another cluster counts for itself");
    }
}
