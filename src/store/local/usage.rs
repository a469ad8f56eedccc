//! What was used of tenants: the ledger, and the counts of quotas.
//!
//! The ledger has a row for each hour and one for each day, tenant, person, client and tool. It is
//! bounded: a tenant has so many rows with detail, and further persons and clients share one row;
//! hours are kept for a month and days for thirteen. Names of tenants are those of that time, and
//! rows of a removed tenant stay: somebody may still have to be billed.

mod copy;

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::tables::LocalTables;
use crate::store::Error;
use crate::store::usage::{
    DAYS_KEPT_SECONDS, HOURS_KEPT_SECONDS, MAX_DETAIL_ROWS_PER_TENANT, MAX_ROWS, OTHERS, StoredQuota,
    UsageBatch, UsageBy, UsageCounts, UsagePer, UsageQuery, UsageRow, UsageSum,
};

const HOUR: i64 = 0;
const DAY: i64 = 1;

impl LocalTables {
    /// Adds to the ledger and replaces counts, in one transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub fn write_usage(&self, batch: Arc<UsageBatch>) -> Result<(), Error> {
        self.database.commit(move |connection| {
            let mut ledger = LedgerWriter::new(connection);
            batch.rows.iter().try_for_each(|row| ledger.add(row))?;
            batch.quotas.iter().try_for_each(|quota| replace_quota(connection, quota))
        })
    }

    /// Returns the counts of all quotas of this month.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn load_quotas(&self, month: i64) -> Result<Vec<StoredQuota>, Error> {
        const SQL: &str = "
            SELECT tenant, scope, day, month, calls_day, calls_month, bytes_day, bytes_month
            FROM quotas WHERE month >= ?1";
        let read = || -> rusqlite::Result<Vec<StoredQuota>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare(SQL)?;
            statement.query_map([month], quota_from_row)?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Returns the sums that a report asks for, by tenant and period.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn query_usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, Error> {
        let read = || -> rusqlite::Result<Vec<UsageSum>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare(&query_sql(query))?;
            let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
            let arguments: [&dyn ToSql; 4] = [&query.from, &query.to, &query.tenant, &limit];
            statement.query_map(&arguments[..], |row| sum_from_row(row, query))?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Deletes what is older than it is kept, and the oldest hours of a ledger that is too long.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub fn prune_usage(&self, now: i64, month: i64) -> Result<(), Error> {
        self.database.commit(move |connection| {
            const OLD: &str =
                "DELETE FROM usage WHERE (period = 0 AND starts < ?1) OR (period = 1 AND starts < ?2)";
            connection.execute(OLD, params![now - HOURS_KEPT_SECONDS, now - DAYS_KEPT_SECONDS])?;
            connection.execute("DELETE FROM quotas WHERE month < ?1", [month])?;
            drop_surplus(connection, MAX_ROWS)
        })
    }
}

/// Drops the oldest hours, and then the oldest days, of a ledger with too many rows.
fn drop_surplus(connection: &Connection, max_rows: i64) -> rusqlite::Result<()> {
    let rows: i64 = connection.query_row("SELECT count(*) FROM usage", [], |row| row.get(0))?;
    let surplus = rows - max_rows;
    if surplus <= 0 {
        return Ok(());
    }
    const BOUNDARY: &str = "SELECT period, starts FROM usage ORDER BY period, starts LIMIT 1 OFFSET ?1";
    let boundary =
        connection.query_row(BOUNDARY, [surplus], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((period, starts)): Option<(i64, i64)> = boundary else { return Ok(()) };
    const SURPLUS: &str = "DELETE FROM usage WHERE period < ?1 OR (period = ?1 AND starts < ?2)";
    connection.execute(SURPLUS, params![period, starts]).map(drop)
}

/// Adds rows to the ledger within one transaction.
struct LedgerWriter<'a> {
    connection: &'a Connection,
    /// The rows with detail of each tenant that was asked for.
    detail_rows: HashMap<String, i64>,
}

impl<'a> LedgerWriter<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self { connection, detail_rows: HashMap::new() }
    }

    fn add(&mut self, row: &UsageRow) -> rusqlite::Result<()> {
        self.add_to(HOUR, row.starts, row)?;
        self.add_to(DAY, row.starts.div_euclid(86_400) * 86_400, row)
    }

    fn add_to(&mut self, period: i64, starts: i64, row: &UsageRow) -> rusqlite::Result<()> {
        let detailed = [&*row.person, &row.name, &row.client];
        if self.update(period, starts, row, detailed)? {
            return Ok(());
        }
        let others = [OTHERS, OTHERS, OTHERS];
        if row.person == OTHERS {
            return self.insert(period, starts, row, others);
        }
        let rows = self.detail_rows(&row.tenant)?;
        if rows < MAX_DETAIL_ROWS_PER_TENANT {
            self.detail_rows.insert(row.tenant.clone(), rows + 1);
            return self.insert(period, starts, row, detailed);
        }
        match self.update(period, starts, row, others)? {
            true => Ok(()),
            false => self.insert(period, starts, row, others),
        }
    }

    /// Adds to a row. Returns whether there is one.
    fn update(
        &self,
        period: i64,
        starts: i64,
        row: &UsageRow,
        [person, name, client]: [&str; 3],
    ) -> rusqlite::Result<bool> {
        const SQL: &str = "
            UPDATE usage SET name = ?7, calls = calls + ?8, errors = errors + ?9, ms = ms + ?10, bytes = bytes + ?11
            WHERE period = ?1 AND starts = ?2 AND tenant = ?3 AND person = ?4 AND client = ?5 AND tool = ?6";
        let counts = to_integers(&row.counts);
        let arguments = params![
            period, starts, row.tenant, person, client, row.tool, name, counts[0], counts[1], counts[2],
            counts[3]
        ];
        Ok(self.connection.prepare_cached(SQL)?.execute(arguments)? > 0)
    }

    fn insert(
        &self,
        period: i64,
        starts: i64,
        row: &UsageRow,
        [person, name, client]: [&str; 3],
    ) -> rusqlite::Result<()> {
        const SQL: &str = "
            INSERT INTO usage (period, starts, tenant, person, client, tool, name, calls, errors, ms, bytes)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let counts = to_integers(&row.counts);
        let arguments = params![
            period, starts, row.tenant, person, client, row.tool, name, counts[0], counts[1], counts[2],
            counts[3]
        ];
        self.connection.prepare_cached(SQL)?.execute(arguments).map(drop)
    }

    fn detail_rows(&mut self, tenant: &str) -> rusqlite::Result<i64> {
        if let Some(rows) = self.detail_rows.get(tenant) {
            return Ok(*rows);
        }
        const SQL: &str = "SELECT count(*) FROM usage WHERE tenant = ?1 AND person <> ?2";
        let rows = self.connection.query_row(SQL, [tenant, OTHERS], |row| row.get(0))?;
        self.detail_rows.insert(tenant.to_owned(), rows);
        Ok(rows)
    }
}

fn replace_quota(connection: &Connection, quota: &StoredQuota) -> rusqlite::Result<()> {
    const SQL: &str = "
        INSERT OR REPLACE INTO quotas
        (tenant, scope, day, month, calls_day, calls_month, bytes_day, bytes_month)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let arguments = params![
        quota.tenant,
        quota.scope,
        quota.day,
        quota.month,
        to_integer(quota.calls_per_day),
        to_integer(quota.calls_per_month),
        to_integer(quota.bytes_per_day),
        to_integer(quota.bytes_per_month)
    ];
    connection.prepare_cached(SQL)?.execute(arguments).map(drop)
}

fn quota_from_row(row: &Row<'_>) -> rusqlite::Result<StoredQuota> {
    let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(StoredQuota {
        tenant: row.get(0)?,
        scope: row.get(1)?,
        day: row.get(2)?,
        month: row.get(3)?,
        calls_per_day: count(4)?,
        calls_per_month: count(5)?,
        bytes_per_day: count(6)?,
        bytes_per_month: count(7)?,
    })
}

/// Writes the statement of a report. No text of a caller's is in it.
fn query_sql(query: &UsageQuery) -> String {
    let period = if query.needs_hours() { HOUR } else { DAY };
    let starts = match query.per {
        Some(UsagePer::Day) => "starts / 86400 * 86400",
        Some(UsagePer::Hour) => "starts",
        None => "NULL",
    };
    let (who, name) = match query.by {
        Some(UsageBy::Person) => ("person", "max(name)"),
        Some(UsageBy::Tool) => ("tool", "NULL"),
        Some(UsageBy::Client) => ("client", "NULL"),
        None => ("NULL", "NULL"),
    };
    format!(
        "SELECT tenant, {starts} AS began, {who} AS who, {name}, sum(calls), sum(errors), sum(ms), sum(bytes)
         FROM usage
         WHERE period = {period} AND starts >= ?1 AND starts < ?2 AND (?3 IS NULL OR tenant = ?3)
         GROUP BY tenant, began, who ORDER BY tenant, began, sum(calls) DESC, who LIMIT ?4"
    )
}

fn sum_from_row(row: &Row<'_>, query: &UsageQuery) -> rusqlite::Result<UsageSum> {
    let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(UsageSum {
        tenant: row.get(0)?,
        starts: if query.per.is_some() { row.get(1)? } else { None },
        who: row.get(2)?,
        name: row.get(3)?,
        counts: UsageCounts {
            calls: count(4)?,
            errors: count(5)?,
            milliseconds: count(6)?,
            bytes: count(7)?,
        },
    })
}

fn to_integers(counts: &UsageCounts) -> [i64; 4] {
    [counts.calls, counts.errors, counts.milliseconds, counts.bytes].map(to_integer)
}

fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{KeySource, Store};

    const DAY_SECONDS: i64 = 86_400;
    const NOON: i64 = 20_000 * DAY_SECONDS + 12 * 3_600;

    fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(folder.path(), &KeySource::State).expect("opened")
    }

    fn row(tenant: &str, starts: i64, person: &str, calls: u64) -> UsageRow {
        UsageRow {
            tenant: tenant.into(),
            starts,
            person: person.into(),
            name: person.to_uppercase(),
            client: "c".into(),
            tool: "search".into(),
            counts: UsageCounts { calls, errors: 1, milliseconds: 20, bytes: 300 },
        }
    }

    fn write(store: &Store, rows: Vec<UsageRow>) {
        store
            .local()
            .tables()
            .write_usage(Arc::new(UsageBatch { rows, ..UsageBatch::default() }))
            .expect("written");
    }

    fn query(store: &Store, query: UsageQuery) -> Vec<(Option<i64>, Option<String>, u64)> {
        let query = UsageQuery { to: 100_000 * DAY_SECONDS, limit: 100, ..query };
        let sums = store.local().tables().query_usage(&query).expect("read");
        sums.into_iter().map(|sum| (sum.starts, sum.who, sum.counts.calls)).collect()
    }

    #[test]
    fn hours_and_days_add_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        write(&store, vec![row("a", NOON, "ann", 1), row("a", NOON + 3_600, "ann", 2)]);
        write(&store, vec![row("a", NOON, "ben", 4), row("a", NOON, "ann", 8), row("b", NOON, "ann", 16)]);
        let of_a = || UsageQuery { tenant: Some("a".into()), ..UsageQuery::default() };
        let per = |per| UsageQuery { per: Some(per), ..of_a() };
        assert_eq!(
            query(&store, per(UsagePer::Hour)),
            [(Some(NOON), None, 13), (Some(NOON + 3_600), None, 2)]
        );
        assert_eq!(query(&store, per(UsagePer::Day)), [(Some(NOON - 12 * 3_600), None, 15)]);
        let by = UsageQuery { by: Some(UsageBy::Person), ..of_a() };
        assert_eq!(query(&store, by), [(None, Some("ann".into()), 11), (None, Some("ben".into()), 4)]);
        assert_eq!(query(&store, UsageQuery::default()).len(), 2, "both tenants");
        drop(store);
        assert_eq!(query(&open(&folder), of_a()), [(None, None, 15)], "it outlives the process");
    }

    #[test]
    fn a_full_ledger_drops_detail_and_no_calls() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        // Each person has a row of the hour and one of the day.
        let persons = MAX_DETAIL_ROWS_PER_TENANT / 2 + 10;
        write(&store, (0..persons).map(|number| row("a", NOON, &format!("p{number}"), 1)).collect());
        write(&store, vec![row("b", NOON, "ann", 1)]);
        let by = UsageQuery { by: Some(UsageBy::Person), ..UsageQuery::default() };
        let sums = query(&store, UsageQuery { tenant: Some("a".into()), ..by });
        assert_eq!(sums[0], (None, Some(OTHERS.into()), 10), "those without a row of their own");
        assert_eq!(query(&store, UsageQuery::default())[0].2, persons.unsigned_abs(), "all calls are there");
        let of_b = UsageQuery { tenant: Some("b".into()), ..by };
        assert_eq!(query(&store, of_b), [(None, Some("ann".into()), 1)], "another tenant has its own bound");
    }

    #[test]
    fn old_hours_go_before_old_days() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        write(&store, vec![row("a", NOON, "ann", 1), row("a", NOON + 40 * DAY_SECONDS, "ann", 2)]);
        let now = NOON + 41 * DAY_SECONDS;
        store.local().tables().prune_usage(now, 0).expect("pruned");
        let per = |per| query(&store, UsageQuery { per: Some(per), ..UsageQuery::default() }).len();
        assert_eq!((per(UsagePer::Hour), per(UsagePer::Day)), (1, 2));
        store.local().tables().prune_usage(now + 400 * DAY_SECONDS, 0).expect("pruned");
        assert_eq!((per(UsagePer::Hour), per(UsagePer::Day)), (0, 0));
    }

    #[test]
    fn counts_are_replaced_and_forgotten_with_their_month() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let quota = |month, calls| StoredQuota {
            tenant: "a".into(),
            scope: "tenant".into(),
            day: 1,
            month,
            calls_per_day: calls,
            calls_per_month: calls,
            bytes_per_day: 0,
            bytes_per_month: 0,
        };
        for calls in [1, 2] {
            let batch = UsageBatch { quotas: vec![quota(5, calls)], ..UsageBatch::default() };
            store.local().tables().write_usage(Arc::new(batch)).expect("written");
        }
        let load = |month| store.local().tables().load_quotas(month).expect("read");
        assert_eq!(load(5), [quota(5, 2)]);
        assert_eq!(load(6), []);
        store.local().tables().prune_usage(NOON, 6).expect("pruned");
        assert_eq!(load(5), []);
    }

    #[test]
    fn a_ledger_that_is_too_long_drops_its_oldest_hours_and_then_its_oldest_days() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        // Four hours on two days: six rows.
        let starts = [0, 1, 24, 25].map(|hour| NOON + hour * 3_600);
        write(&store, starts.map(|starts| row("a", starts, "ann", 1)).to_vec());
        let rows_left = |max_rows| {
            let tables = store.local().tables();
            tables.database.commit(move |connection| drop_surplus(connection, max_rows)).expect("dropped");
            let per = |per| query(&store, UsageQuery { per: Some(per), ..UsageQuery::default() }).len();
            (per(UsagePer::Hour), per(UsagePer::Day))
        };
        assert_eq!(rows_left(6), (4, 2));
        assert_eq!(rows_left(4), (2, 2));
        assert_eq!(rows_left(1), (0, 1));
    }
}
