//! The ledger and the counts of quotas as rows, to copy them from or to a file while no gateway
//! uses the database.

use tokio_postgres::Row;

use super::columns::{QuotaColumns, RowColumns};
use super::{read_quota, row_key};
use crate::store::Error;
use crate::store::auth::postgres::{PostgresEngine, Value};
use crate::store::usage::{LedgerPart, OTHERS, QuotaUse, UsageCounts, UsageRow};

/// The tables of usage in a database.
pub(in crate::store) struct UsageTables<'a> {
    engine: &'a PostgresEngine,
}

impl<'a> UsageTables<'a> {
    pub(in crate::store) fn new(engine: &'a PostgresEngine) -> Self {
        Self { engine }
    }

    async fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Error> {
        Box::pin(self.engine.link().query(sql, values)).await?;
        Ok(())
    }

    /// Deletes the ledger and all counts.
    pub(in crate::store) async fn clear(&self) -> Result<(), Error> {
        for table in ["usage", "usage_sizes", "quotas"] {
            self.execute(&format!("DELETE FROM tenantd.{table}"), &[]).await?;
        }
        Ok(())
    }

    /// Writes rows of an hour or day. Those that are there already stay, since an answer may have
    /// been lost.
    pub(in crate::store) async fn insert(&self, part: LedgerPart, rows: &[UsageRow]) -> Result<(), Error> {
        const SQL: &str = "
            INSERT INTO tenantd.usage
                (period, starts, tenant, row_key, person, client, tool, name, calls, errors, ms, bytes)
            SELECT $1, $2, * FROM unnest($3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
            ON CONFLICT DO NOTHING";
        let keys: Vec<_> = rows.iter().map(|row| row_key(&row.person, &row.client, &row.tool)).collect();
        let columns = RowColumns::new(rows);
        let [tenant, person, client, tool, name] = columns.texts();
        let key = Value::ByteStrings(keys.iter().map(|key| &key.as_bytes()[..]).collect());
        let mut values = vec![Value::Number(part.period), Value::Number(part.starts), tenant, key];
        values.extend([person, client, tool, name]);
        values.extend(columns.counts());
        self.execute(SQL, &values).await
    }

    /// Writes counts of quotas.
    pub(in crate::store) async fn insert_quotas(&self, uses: &[QuotaUse]) -> Result<(), Error> {
        const SQL: &str = "
            INSERT INTO tenantd.quotas (tenant, scope, period, number, calls, bytes, changed)
            SELECT *, pg_current_xact_id()::text::bigint
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
            ON CONFLICT DO NOTHING";
        self.execute(SQL, &QuotaColumns::new(uses).values()).await
    }

    /// Counts the rows of each tenant that name a person or a client.
    pub(in crate::store) async fn count_details(&self) -> Result<(), Error> {
        const SQL: &str = "
            INSERT INTO tenantd.usage_sizes (tenant, detail_rows)
            SELECT tenant, count(*) FROM tenantd.usage WHERE person <> $1 GROUP BY tenant
            ON CONFLICT (tenant) DO UPDATE SET detail_rows = excluded.detail_rows";
        self.execute(SQL, &[Value::Text(OTHERS)]).await
    }

    /// Returns the hours and days that the ledger has.
    pub(in crate::store) async fn parts(&self) -> Result<Vec<LedgerPart>, Error> {
        let sql = "SELECT DISTINCT period::bigint, starts FROM tenantd.usage";
        let read = |row: &Row| Ok(LedgerPart { period: row.try_get(0)?, starts: row.try_get(1)? });
        Ok(Box::pin(self.engine.link().query_rows(sql, &[], read)).await?)
    }

    /// Returns the rows of one hour or day.
    pub(in crate::store) async fn load(&self, part: LedgerPart) -> Result<Vec<UsageRow>, Error> {
        const SQL: &str = "SELECT tenant, person, name, client, tool, calls, errors, ms, bytes
                           FROM tenantd.usage WHERE period = $1::bigint AND starts = $2";
        let read = |row: &Row| {
            let count = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(UsageRow {
                tenant: row.try_get(0)?,
                starts: part.starts,
                person: row.try_get(1)?,
                name: row.try_get(2)?,
                client: row.try_get(3)?,
                tool: row.try_get(4)?,
                counts: UsageCounts {
                    calls: count(5)?,
                    errors: count(6)?,
                    milliseconds: count(7)?,
                    bytes: count(8)?,
                },
            })
        };
        let values = [Value::Number(part.period), Value::Number(part.starts)];
        Ok(Box::pin(self.engine.link().query_rows(SQL, &values, read)).await?)
    }

    /// Returns the counts of all quotas.
    pub(in crate::store) async fn load_quotas(&self) -> Result<Vec<QuotaUse>, Error> {
        let sql = "SELECT tenant, scope, period, number, calls, bytes FROM tenantd.quotas";
        Ok(Box::pin(self.engine.link().query_rows(sql, &[], |row| read_quota(row, 0))).await?)
    }
}
