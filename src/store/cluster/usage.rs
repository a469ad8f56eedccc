//! What gateways count together of the use of tenants: the ledger, the counts of quotas, and which
//! of them tells that a quota is nearly used up.
//!
//! Gateways send what they counted since their last batch, and the database adds it up. A batch
//! carries the id of its process and a number, so one that is sent again, because its answer was
//! lost, counts once.

mod columns;
mod tables;

use tokio_postgres::Row;

use self::columns::{QuotaColumns, RowColumns};
pub(in crate::store) use self::tables::UsageTables;
use super::ClusterStore;
use crate::base::digest::{Digest, Hasher};
use crate::store::Error;
use crate::store::auth::postgres::{ReadError, Value};
use crate::store::usage::{
    DAYS_KEPT_SECONDS, HOURS_KEPT_SECONDS, MAX_DETAIL_ROWS_PER_TENANT, MAX_ROWS, OTHERS, QuotaPeriod,
    QuotaUse, UsageBatch, UsageBy, UsageCounts, UsagePer, UsageQuery, UsageRow, UsageSum,
};

/// How long a gateway that is not heard of tells what all see alike.
const TELLING_SECONDS: i64 = 15;

/// Sums that all gateways used, and from where on to read the next ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaSums {
    /// What was used, of the allowances that changed.
    pub uses: Vec<QuotaUse>,
    /// What changes later than this has not been read.
    pub read_up_to: i64,
}

/// The number of a batch, which a process sends until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageBatchId {
    /// Drawn by each process at its start.
    pub writer: [u8; 16],
    /// Grows with each batch.
    pub number: i64,
}

/// News that one gateway tells for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedNews {
    /// What is told; the same text is told once.
    pub key: String,
    /// The second since 1970 from which on it may be told again.
    pub forget_at: i64,
}

impl ClusterStore {
    /// Adds a batch to the ledger and to the counts of quotas; all or nothing, and once however
    /// often it is sent.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database does not acknowledge it; it may have been added all the
    /// same.
    pub async fn add_usage(&self, id: UsageBatchId, batch: &UsageBatch) -> Result<(), Error> {
        self.add_bounded(id, batch, MAX_DETAIL_ROWS_PER_TENANT).await
    }

    async fn add_bounded(&self, id: UsageBatchId, batch: &UsageBatch, most_rows: i64) -> Result<(), Error> {
        const ADD: &str =
            "SELECT tenantd.add_usage($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
            $15, $16, $17, $18, $19, $20, $21)";
        let columns = BatchColumns::new(batch);
        self.query(ADD, &columns.values(&id, most_rows)).await?;
        Ok(())
    }

    /// Returns what all gateways have used from a day and a month on, of the allowances that
    /// changed since an earlier reading; of all, if `changed_from` is 0.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be read.
    pub async fn load_quota_sums(&self, day: i64, month: i64, changed_from: i64) -> Result<QuotaSums, Error> {
        // What was not visible to this statement has a transaction that is not below the snapshot's
        // oldest one.
        const READ: &str = "
            SELECT reading.number, tenant, scope, period, quotas.number, calls, bytes
            FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS number) AS reading
            LEFT JOIN tenantd.quotas ON changed >= $3
                AND ((period = 0 AND quotas.number >= $1) OR (period = 1 AND quotas.number >= $2))";
        let values = [Value::Number(day), Value::Number(month), Value::Number(changed_from)];
        let rows = self.query_rows(READ, &values, read_quota_sum).await?;
        let read_up_to = rows.first().map_or(0, |(number, _)| *number);
        Ok(QuotaSums { uses: rows.into_iter().filter_map(|(_, row)| row).collect(), read_up_to })
    }

    /// Returns the sums that a report asks for, by tenant and period.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be read.
    pub async fn query_usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, Error> {
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let values = [
            Value::Number(query.from),
            Value::Number(query.to),
            Value::MaybeText(query.tenant.as_deref()),
            Value::Number(limit),
        ];
        Ok(self.query_rows(&query_sql(query), &values, |row| read_sum(row, query)).await?)
    }

    /// Deletes usage that is older than it is kept, at this second, day and month, and the oldest
    /// of a ledger that is too long. One gateway at a time does it.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be written; then nothing has changed.
    pub async fn prune_usage(&self, now: i64, month: i64) -> Result<(), Error> {
        const PRUNE: &str = "SELECT tenantd.prune_usage($1, $2, $3, $4, $5, $6)";
        let yesterday = now.div_euclid(86_400) - 1;
        let values = [now - HOURS_KEPT_SECONDS, now - DAYS_KEPT_SECONDS, yesterday, month, now, MAX_ROWS]
            .map(Value::Number);
        self.query(PRUNE, &values).await?;
        Ok(())
    }

    /// Takes it upon this gateway, a process with this id, to tell the news that no other gateway
    /// tells. Returns those.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database does not acknowledge it.
    pub async fn claim_news(&self, teller: [u8; 16], news: &[SharedNews]) -> Result<Vec<String>, Error> {
        // Whoever has claimed it before claims it again, since the answer may have been lost.
        const CLAIM: &str = "
            INSERT INTO tenantd.told AS known (news, teller, forget_at)
            SELECT news, $1, max(forget_at) FROM unnest($2::text[], $3::bigint[]) AS given (news, forget_at)
            GROUP BY news ORDER BY news COLLATE \"C\"
            ON CONFLICT (news) DO UPDATE SET forget_at = excluded.forget_at WHERE known.teller = excluded.teller
            RETURNING news";
        let values = [
            Value::Bytes(&teller),
            Value::Texts(news.iter().map(|it| &*it.key).collect()),
            Value::Numbers(news.iter().map(|it| it.forget_at).collect()),
        ];
        let rows = self.query(CLAIM, &values).await?;
        Ok(self.engine.link().read_rows(&rows, |row| Ok(row.try_get(0)?))?)
    }
}

impl ClusterStore {
    /// Takes it upon a process with this id to tell what all gateways see alike, for the next
    /// seconds. Returns whether no other one does.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database does not acknowledge it.
    pub async fn hold_telling(&self, teller: [u8; 16]) -> Result<bool, Error> {
        const HOLD: &str = "
            INSERT INTO tenantd.told AS known (news, teller, forget_at)
            VALUES ('all alerts', $1, extract(epoch FROM clock_timestamp())::bigint + $2)
            ON CONFLICT (news) DO UPDATE SET teller = excluded.teller, forget_at = excluded.forget_at
            WHERE known.teller = excluded.teller
                OR known.forget_at < extract(epoch FROM clock_timestamp())::bigint
            RETURNING news";
        let values = [Value::Bytes(&teller), Value::Number(TELLING_SECONDS)];
        Ok(!self.query(HOLD, &values).await?.is_empty())
    }
}

/// A batch as the columns of its statement.
struct BatchColumns<'a> {
    batch: &'a UsageBatch,
    rows: RowColumns<'a>,
    keys: Vec<[Digest; 2]>,
    quotas: QuotaColumns<'a>,
}

impl<'a> BatchColumns<'a> {
    fn new(batch: &'a UsageBatch) -> Self {
        let keys = |row: &UsageRow| {
            [row_key(&row.person, &row.client, &row.tool), row_key(OTHERS, OTHERS, &row.tool)]
        };
        Self {
            batch,
            rows: RowColumns::new(&batch.rows),
            keys: batch.rows.iter().map(keys).collect(),
            quotas: QuotaColumns::new(&batch.uses),
        }
    }

    fn values<'b>(&'b self, id: &'b UsageBatchId, most_rows: i64) -> Vec<Value<'b>> {
        let key =
            |at: usize| Value::ByteStrings(self.keys.iter().map(|row| &row[at].as_bytes()[..]).collect());
        let [tenant, person, client, tool, name] = self.rows.texts();
        let mut values = vec![
            Value::Bytes(&id.writer),
            Value::Number(id.number),
            Value::Number(most_rows),
            tenant,
            Value::Numbers(self.batch.rows.iter().map(|row| row.starts).collect()),
            key(0),
            key(1),
            person,
            client,
            tool,
            name,
        ];
        values.extend(self.rows.counts());
        values.extend(self.quotas.values());
        values
    }
}

fn row_key(person: &str, client: &str, tool: &str) -> Digest {
    let mut hasher = Hasher::new();
    for text in [person, client, tool] {
        hasher.update(&text.len().to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finish()
}

fn read_quota_sum(row: &Row) -> Result<(i64, Option<QuotaUse>), ReadError> {
    let reading = row.try_get(0)?;
    let is_there = row.try_get::<_, Option<&str>>(1)?.is_some();
    Ok((reading, is_there.then(|| read_quota(row, 1)).transpose()?))
}

/// Reads a row's columns from this one on: tenant, scope, period, number, calls and bytes.
fn read_quota(row: &Row, first: usize) -> Result<QuotaUse, ReadError> {
    Ok(QuotaUse {
        tenant: row.try_get(first)?,
        scope: row.try_get(first + 1)?,
        period: QuotaPeriod::from_columns(row.try_get(first + 2)?, row.try_get(first + 3)?),
        calls: row.try_get::<_, i64>(first + 4)?.unsigned_abs(),
        bytes: row.try_get::<_, i64>(first + 5)?.unsigned_abs(),
    })
}

/// Writes the statement of a report. No text of a caller's is in it.
fn query_sql(query: &UsageQuery) -> String {
    let period = i64::from(!query.needs_hours());
    let starts = match query.per {
        Some(UsagePer::Day) => "starts / 86400 * 86400",
        Some(UsagePer::Hour) => "starts",
        None => "NULL::bigint",
    };
    let (who, name) = match query.by {
        Some(UsageBy::Person) => ("person", "max(name)"),
        Some(UsageBy::Tool) => ("tool", "NULL::text"),
        Some(UsageBy::Client) => ("client", "NULL::text"),
        None => ("NULL::text", "NULL::text"),
    };
    format!(
        "SELECT tenant, {starts} AS began, {who} COLLATE \"C\" AS who, {name}, sum(calls)::bigint AS calls,
             sum(errors)::bigint, sum(ms)::bigint, sum(bytes)::bigint
         FROM tenantd.usage
         WHERE period = {period} AND starts >= $1 AND starts < $2 AND ($3::text IS NULL OR tenant = $3)
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 5 DESC, 3 LIMIT $4"
    )
}

fn read_sum(row: &Row, query: &UsageQuery) -> Result<UsageSum, ReadError> {
    let count = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(UsageSum {
        tenant: row.try_get(0)?,
        starts: if query.per.is_some() { row.try_get(1)? } else { None },
        who: row.try_get(2)?,
        name: row.try_get(3)?,
        counts: UsageCounts {
            calls: count(4)?,
            errors: count(5)?,
            milliseconds: count(6)?,
            bytes: count(7)?,
        },
    })
}

#[cfg(test)]
mod tests;
