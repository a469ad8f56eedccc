//! The ledger and the counts of quotas as rows, to copy them to or from a database.

use rusqlite::params;

use super::{LedgerWriter, quota_from_row, replace_quota};
use crate::store::Error;
use crate::store::local::tables::LocalTables;
use crate::store::usage::{LedgerPart, QuotaPeriod, QuotaUse, StoredQuota, UsageCounts, UsageRow};

impl LocalTables {
    /// Returns the hours and days that the ledger has.
    pub(in crate::store) fn ledger_parts(&self) -> Result<Vec<LedgerPart>, Error> {
        let read = || -> rusqlite::Result<Vec<LedgerPart>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare("SELECT DISTINCT period, starts FROM usage")?;
            let part = |row: &rusqlite::Row<'_>| Ok(LedgerPart { period: row.get(0)?, starts: row.get(1)? });
            statement.query_map([], part)?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Returns the rows of one hour or day.
    pub(in crate::store) fn load_ledger_part(&self, part: LedgerPart) -> Result<Vec<UsageRow>, Error> {
        const SQL: &str = "SELECT tenant, person, name, client, tool, calls, errors, ms, bytes FROM usage
                           WHERE period = ?1 AND starts = ?2";
        let read = || -> rusqlite::Result<Vec<UsageRow>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare(SQL)?;
            let row = |row: &rusqlite::Row<'_>| {
                let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
                Ok(UsageRow {
                    tenant: row.get(0)?,
                    starts: part.starts,
                    person: row.get(1)?,
                    name: row.get(2)?,
                    client: row.get(3)?,
                    tool: row.get(4)?,
                    counts: UsageCounts {
                        calls: count(5)?,
                        errors: count(6)?,
                        milliseconds: count(7)?,
                        bytes: count(8)?,
                    },
                })
            };
            statement.query_map(params![part.period, part.starts], row)?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Returns the counts of all quotas, each for its day and for its month.
    pub(in crate::store) fn export_quotas(&self) -> Result<Vec<QuotaUse>, Error> {
        const SQL: &str = "SELECT tenant, scope, day, month, calls_day, calls_month, bytes_day, bytes_month
                           FROM quotas";
        let read = || -> rusqlite::Result<Vec<StoredQuota>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare(SQL)?;
            statement.query_map([], quota_from_row)?.collect()
        };
        let stored = read().map_err(self.database.error())?;
        Ok(stored.iter().flat_map(StoredQuota::uses).collect())
    }

    /// Deletes the ledger and all counts.
    pub(in crate::store) fn clear_usage(&self) -> Result<(), Error> {
        self.database.commit(|connection| connection.execute_batch("DELETE FROM usage; DELETE FROM quotas"))
    }

    /// Writes the rows of an hour or day that the ledger does not have.
    pub(in crate::store) fn insert_ledger_part(
        &self,
        part: LedgerPart,
        rows: Vec<UsageRow>,
    ) -> Result<(), Error> {
        self.database.commit(move |connection| {
            let writer = LedgerWriter::new(connection);
            rows.iter().try_for_each(|row| {
                writer.insert(part.period, part.starts, row, [&*row.person, &row.name, &row.client])
            })
        })
    }

    /// Writes counts of quotas: of each allowance its latest day and month.
    pub(in crate::store) fn import_quotas(&self, uses: Vec<QuotaUse>) -> Result<(), Error> {
        let stored = StoredQuota::from_uses(uses);
        self.database
            .commit(move |connection| stored.iter().try_for_each(|quota| replace_quota(connection, quota)))
    }
}

impl StoredQuota {
    /// Returns the counts of the day and of the month apart.
    fn uses(&self) -> [QuotaUse; 2] {
        let part = |period, calls, bytes| QuotaUse {
            tenant: self.tenant.clone(),
            scope: self.scope.clone(),
            period,
            calls,
            bytes,
        };
        [
            part(QuotaPeriod::Day(self.day), self.calls_per_day, self.bytes_per_day),
            part(QuotaPeriod::Month(self.month), self.calls_per_month, self.bytes_per_month),
        ]
    }

    /// Puts the latest day and month of each allowance together.
    fn from_uses(mut uses: Vec<QuotaUse>) -> Vec<Self> {
        uses.sort_by(|a, b| (&a.tenant, &a.scope, a.period).cmp(&(&b.tenant, &b.scope, b.period)));
        let mut all: Vec<Self> = Vec::new();
        for QuotaUse { tenant, scope, period, calls, bytes } in uses {
            if all.last().is_none_or(|last| (&last.tenant, &last.scope) != (&tenant, &scope)) {
                all.push(Self {
                    tenant,
                    scope,
                    day: 0,
                    month: 0,
                    calls_per_day: 0,
                    calls_per_month: 0,
                    bytes_per_day: 0,
                    bytes_per_month: 0,
                });
            }
            let last = all.last_mut().expect("one was added");
            match period {
                QuotaPeriod::Day(day) => {
                    (last.day, last.calls_per_day, last.bytes_per_day) = (day, calls, bytes);
                }
                QuotaPeriod::Month(month) => {
                    (last.month, last.calls_per_month, last.bytes_per_month) = (month, calls, bytes);
                }
            }
        }
        all
    }
}
