//! The usage that is not in the store yet: of one tenant since the last write, and what waits for
//! the next one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::caller::{CallerKey, UsageCaller};
use super::traffic::CallEnd;
use crate::base::clock::{SECONDS_PER_HOUR, hour_number};
use crate::store::{OTHERS, QuotaPeriod, QuotaUse, StoredQuota, UsageBatch, UsageCounts, UsageRow};

/// How many rows one tenant collects between two writes; further persons and clients share one.
const MAX_TENANT_ROWS: usize = 4_096;
/// How many rows wait while the store cannot be written.
const MAX_BACKLOG_ROWS: usize = 100_000;
/// What all anonymous callers are in the ledger.
const ANONYMOUS: &str = "anonymous";

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedCall {
    pub(super) now: Timestamp,
    pub(super) end: CallEnd,
    pub(super) elapsed: Duration,
    pub(super) bytes: u64,
}

/// What one tenant has collected since the last write.
#[derive(Debug, Default)]
pub(super) struct TenantLedger {
    rows: HashMap<LedgerKey, LedgerEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LedgerKey {
    /// When the hour began, in seconds since 1970.
    starts: i64,
    person: LedgerPerson,
    client: Option<Arc<str>>,
    tool: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LedgerPerson {
    Identified(CallerKey),
    Anonymous,
    Others,
}

#[derive(Debug)]
struct LedgerEntry {
    name: Option<Arc<str>>,
    counts: UsageCounts,
}

impl TenantLedger {
    /// Counts a call.
    pub(super) fn record(&mut self, caller: &UsageCaller, tool: &Arc<str>, call: &EndedCall) {
        let person = match caller.key.is_identified() {
            true => LedgerPerson::Identified(caller.key.clone()),
            false => LedgerPerson::Anonymous,
        };
        let starts = hour_number(call.now) * SECONDS_PER_HOUR;
        let mut key = LedgerKey { starts, person, client: caller.client.clone(), tool: Arc::clone(tool) };
        if self.rows.len() >= MAX_TENANT_ROWS && !self.rows.contains_key(&key) {
            key = LedgerKey { person: LedgerPerson::Others, client: None, ..key };
        }
        let name = || caller.name.clone();
        let entry = self.rows.entry(key);
        let entry = entry.or_insert_with(|| LedgerEntry { name: name(), counts: UsageCounts::default() });
        add(&mut entry.counts, &call.counts());
    }

    /// Takes what was collected.
    fn take(&mut self) -> HashMap<LedgerKey, LedgerEntry> {
        std::mem::take(&mut self.rows)
    }
}

impl EndedCall {
    fn counts(&self) -> UsageCounts {
        UsageCounts {
            calls: 1,
            errors: u64::from(self.end == CallEnd::Failed),
            milliseconds: u64::try_from(self.elapsed.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX),
            bytes: self.bytes,
        }
    }
}

/// The counts of one tenant's quotas that are not stored: whole, or what was used since the last
/// time.
#[derive(Debug, Default)]
pub(super) struct UnsavedCounts {
    pub(super) quotas: Vec<StoredQuota>,
    pub(super) uses: Vec<QuotaUse>,
}

/// What waits for the next write: of all tenants, and what could not be written before.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    rows: HashMap<[String; 4], HashMap<i64, (String, UsageCounts)>>,
    row_count: usize,
    quotas: HashMap<(String, String), StoredQuota>,
    uses: HashMap<(String, String, QuotaPeriod), (u64, u64)>,
}

impl Backlog {
    /// Adds what a tenant has collected.
    pub(super) fn collect(&mut self, tenant: &Arc<str>, ledger: &mut TenantLedger, counts: UnsavedCounts) {
        for (key, entry) in ledger.take() {
            self.add(to_row(tenant, key, entry));
        }
        let UnsavedCounts { quotas, uses } = counts;
        for QuotaUse { tenant, scope, period, calls, bytes } in uses {
            let waiting = self.uses.entry((tenant, scope, period)).or_default();
            *waiting = (waiting.0.saturating_add(calls), waiting.1.saturating_add(bytes));
        }
        self.quotas.extend(quotas.into_iter().map(|it| ((it.tenant.clone(), it.scope.clone()), it)));
    }

    /// Takes all of it.
    pub(super) fn take(&mut self) -> UsageBatch {
        self.row_count = 0;
        let mut rows = Vec::new();
        for ([tenant, person, client, tool], hours) in std::mem::take(&mut self.rows) {
            rows.extend(hours.into_iter().map(|(starts, (name, counts))| UsageRow {
                tenant: tenant.clone(),
                starts,
                person: person.clone(),
                name,
                client: client.clone(),
                tool: tool.clone(),
                counts,
            }));
        }
        let uses =
            std::mem::take(&mut self.uses).into_iter().map(|((tenant, scope, period), (calls, bytes))| {
                QuotaUse { tenant, scope, period, calls, bytes }
            });
        let uses = uses.collect();
        UsageBatch { rows, quotas: std::mem::take(&mut self.quotas).into_values().collect(), uses }
    }

    /// Takes back what could not be written. Counts of quotas that are newer stay.
    pub(super) fn put_back(&mut self, batch: UsageBatch) {
        batch.rows.into_iter().for_each(|row| self.add(row));
        for quota in batch.quotas {
            self.quotas.entry((quota.tenant.clone(), quota.scope.clone())).or_insert(quota);
        }
    }

    fn add(&mut self, row: UsageRow) {
        let UsageRow { tenant, starts, person, name, client, tool, counts } = row;
        let key = [tenant, person, client, tool];
        let is_known = self.rows.get(&key).is_some_and(|hours| hours.contains_key(&starts));
        let (key, name) = match is_known || self.row_count < MAX_BACKLOG_ROWS {
            true => (key, name),
            false => {
                let [tenant, _, _, tool] = key;
                ([tenant, OTHERS.into(), OTHERS.into(), tool], OTHERS.into())
            }
        };
        match self.rows.entry(key).or_default().entry(starts) {
            Entry::Occupied(mut waiting) => add(&mut waiting.get_mut().1, &counts),
            Entry::Vacant(place) => {
                place.insert((name, counts));
                self.row_count += 1;
            }
        }
    }
}

fn to_row(tenant: &Arc<str>, key: LedgerKey, entry: LedgerEntry) -> UsageRow {
    let is_others = key.person == LedgerPerson::Others;
    let person = match key.person {
        LedgerPerson::Identified(key) => key.to_string(),
        LedgerPerson::Anonymous => ANONYMOUS.to_owned(),
        LedgerPerson::Others => OTHERS.to_owned(),
    };
    let client = key.client.map(|client| client.to_string()).unwrap_or_default();
    UsageRow {
        tenant: tenant.to_string(),
        starts: key.starts,
        name: entry.name.filter(|_| !is_others).map_or_else(|| person.clone(), |name| name.to_string()),
        person,
        client: if is_others { OTHERS.to_owned() } else { client },
        tool: key.tool.to_string(),
        counts: entry.counts,
    }
}

fn add(sum: &mut UsageCounts, more: &UsageCounts) {
    sum.calls = sum.calls.saturating_add(more.calls);
    sum.errors = sum.errors.saturating_add(more.errors);
    sum.milliseconds = sum.milliseconds.saturating_add(more.milliseconds);
    sum.bytes = sum.bytes.saturating_add(more.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(end: CallEnd) -> EndedCall {
        let now = "2026-11-26T10:20:00Z".parse().expect("a time");
        EndedCall { now, end, elapsed: Duration::from_millis(7), bytes: 100 }
    }

    fn person(name: &str) -> UsageCaller {
        let key = CallerKey::User(format!("id-of-{name}").into());
        UsageCaller { key, name: Some(name.into()), client: Some("cl".into()) }
    }

    fn collect(backlog: &mut Backlog, ledger: &mut TenantLedger) {
        backlog.collect(&"acme".into(), ledger, UnsavedCounts::default());
    }

    #[test]
    fn calls_of_one_person_in_one_hour_are_one_row() {
        let (mut ledger, mut backlog) = (TenantLedger::default(), Backlog::default());
        let search: Arc<str> = "search".into();
        ledger.record(&person("ann"), &search, &call(CallEnd::Answered));
        ledger.record(&person("ann"), &search, &call(CallEnd::Failed));
        collect(&mut backlog, &mut ledger);
        let batch = backlog.take();
        let starts = "2026-11-26T10:00:00Z".parse::<Timestamp>().expect("a time").as_second();
        let counts = UsageCounts { calls: 2, errors: 1, milliseconds: 14, bytes: 200 };
        let row = UsageRow {
            tenant: "acme".into(),
            starts,
            person: "user:id-of-ann".into(),
            name: "ann".into(),
            client: "cl".into(),
            tool: "search".into(),
            counts,
        };
        assert_eq!(batch.rows, [row]);
        assert!(backlog.take().is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_follows() {
        let (mut ledger, mut backlog) = (TenantLedger::default(), Backlog::default());
        let search: Arc<str> = "search".into();
        ledger.record(&person("ann"), &search, &call(CallEnd::Answered));
        collect(&mut backlog, &mut ledger);
        let failed = backlog.take();
        ledger.record(&person("ann"), &search, &call(CallEnd::Answered));
        collect(&mut backlog, &mut ledger);
        backlog.put_back(failed);
        let batch = backlog.take();
        assert_eq!((batch.rows.len(), batch.rows[0].counts.calls), (1, 2));
    }

    #[test]
    fn more_persons_than_there_are_rows_share_one_and_no_call_is_lost() {
        let (mut ledger, mut backlog) = (TenantLedger::default(), Backlog::default());
        let search: Arc<str> = "search".into();
        for number in 0..MAX_TENANT_ROWS + 50 {
            ledger.record(&person(&number.to_string()), &search, &call(CallEnd::Answered));
        }
        collect(&mut backlog, &mut ledger);
        let rows = backlog.take().rows;
        assert_eq!(rows.len(), MAX_TENANT_ROWS + 1);
        assert_eq!(rows.iter().map(|row| row.counts.calls).sum::<u64>(), MAX_TENANT_ROWS as u64 + 50);
        assert!(rows.iter().any(|row| row.person == OTHERS && row.counts.calls == 50));
    }

    #[test]
    fn anonymous_callers_are_one_person() {
        let (mut ledger, mut backlog) = (TenantLedger::default(), Backlog::default());
        for address in ["192.0.2.1", "192.0.2.2"] {
            let key = CallerKey::from_address(address.parse().expect("an address"));
            let caller = UsageCaller { key, name: None, client: None };
            ledger.record(&caller, &"search".into(), &call(CallEnd::Answered));
        }
        collect(&mut backlog, &mut ledger);
        let rows = backlog.take().rows;
        assert_eq!((rows.len(), &*rows[0].person, &*rows[0].name), (1, ANONYMOUS, ANONYMOUS));
    }

    #[test]
    fn a_backlog_that_is_not_written_is_bounded_and_loses_no_call() {
        let mut backlog = Backlog::default();
        for number in 0..MAX_BACKLOG_ROWS + 50 {
            let person = format!("p{number}");
            backlog.add(UsageRow {
                tenant: "acme".into(),
                starts: 0,
                name: person.clone(),
                person,
                client: String::new(),
                tool: "search".into(),
                counts: UsageCounts { calls: 1, ..UsageCounts::default() },
            });
        }
        let rows = backlog.take().rows;
        assert_eq!(rows.len(), MAX_BACKLOG_ROWS + 1);
        assert!(rows.iter().any(|row| row.person == OTHERS && row.counts.calls == 50));
    }
}
