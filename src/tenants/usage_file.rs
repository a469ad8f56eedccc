//! Writes what was used of a tenant beside its files, `acme.usage.json`, if its file says so: the
//! days of this month and the last one, and their sums, for billing.
//!
//! A task of its own looks every minute, and writes only if something changed. A file stays when
//! its tenant is removed. It is never read, and its name triggers no scan.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::status_file;
use crate::base::clock::Clock;
use crate::base::disk;
use crate::base::task::Tasks;
use crate::store::{UsageCounts, UsagePer, UsageQuery, UsageSum};
use crate::usage::Usage;

const INTERVAL: Duration = Duration::from_secs(60);
const SECONDS_PER_DAY: i64 = 86_400;
const MAX_DAYS: usize = 62;
const MAX_BYTES: u64 = 64 << 10;

/// What the task needs.
#[derive(Clone)]
pub(super) struct UsageFileWriter {
    pub(super) folder: Arc<Path>,
    pub(super) registry: Registry,
    pub(super) usage: Arc<Usage>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The content of a file.
#[derive(Debug, Serialize)]
struct UsageFile<'a> {
    tenant: &'a str,
    months: Vec<FileRow>,
    days: Vec<FileRow>,
}

/// The usage of a day or month.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct FileRow {
    /// `2026-11`, or `2026-11-26`.
    period: String,
    calls: u64,
    errors: u64,
    seconds: f64,
    bytes: u64,
}

impl UsageFileWriter {
    /// Starts the task. On shutdown it writes once more.
    pub(super) fn start(self, tasks: &Tasks) {
        let stop = tasks.shutdown_signal().clone();
        let work = move || self.clone().run(stop.clone());
        tasks.spawn("usage files", tasks.supervise("usage files", work));
    }

    async fn run(self, stop: CancellationToken) {
        let mut has_warned = false;
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.write_all(&mut has_warned).await;
        }
        self.write_all(&mut has_warned).await;
    }

    async fn write_all(&self, has_warned: &mut bool) {
        let table = self.registry.load_full();
        for (entry_id, entry) in table.entries.iter() {
            if !entry.tenant.as_ref().is_some_and(|tenant| tenant.spec.usage_file) {
                continue;
            }
            let written = self.write(entry_id, entry.name()).await;
            if let Err(error) = written
                && !std::mem::replace(has_warned, true)
            {
                tracing::warn!(
                    tenant = entry.name(), %error, folder = %self.folder.display(),
                    "usage files cannot be written into the tenants folder; \"tenantd usage\" has the same figures"
                );
            }
        }
    }

    async fn write(&self, entry_id: &Arc<str>, tenant: &str) -> std::io::Result<()> {
        let now = self.clock.now();
        let query = UsageQuery {
            tenant: Some(tenant.to_owned()),
            from: start_of_last_month(now).as_second(),
            to: (now.as_second().div_euclid(SECONDS_PER_DAY) + 1) * SECONDS_PER_DAY,
            by: None,
            per: Some(UsagePer::Day),
            limit: MAX_DAYS,
        };
        let sums = self.usage.report(query).await.map_err(std::io::Error::other)?;
        let text = render(tenant, &sums)?;
        let (folder, name) = (Arc::clone(&self.folder), format!("{entry_id}.usage.json"));
        let write = move || match disk::read_no_follow(&folder.join(&name), MAX_BYTES) {
            Ok(written) if written == text.as_bytes() => Ok(()),
            _ => status_file::replace(&folder, &name, &text),
        };
        tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
    }
}

fn start_of_last_month(now: Timestamp) -> Timestamp {
    let this_month = Offset::UTC.to_datetime(now).date().first_of_month();
    let last_month = this_month.yesterday().unwrap_or(this_month).first_of_month();
    Offset::UTC.to_timestamp(last_month.into()).unwrap_or(now)
}

fn render(tenant: &str, sums: &[UsageSum]) -> serde_json::Result<String> {
    let date = |sum: &UsageSum| {
        let starts = Timestamp::from_second(sum.starts.unwrap_or_default()).unwrap_or_default();
        Offset::UTC.to_datetime(starts).date().to_string()
    };
    let days: Vec<_> = sums.iter().map(|sum| row(date(sum), &sum.counts)).collect();
    let mut months: BTreeMap<String, UsageCounts> = BTreeMap::new();
    for sum in sums {
        let month = months.entry(date(sum)[..7].to_owned()).or_default();
        month.calls += sum.counts.calls;
        month.errors += sum.counts.errors;
        month.milliseconds += sum.counts.milliseconds;
        month.bytes += sum.counts.bytes;
    }
    let months = months.into_iter().map(|(month, counts)| row(month, &counts)).collect();
    Ok(serde_json::to_string_pretty(&UsageFile { tenant, months, days })? + "\n")
}

fn row(period: String, counts: &UsageCounts) -> FileRow {
    FileRow {
        period,
        calls: counts.calls,
        errors: counts.errors,
        seconds: counts.milliseconds as f64 / 1_000.0,
        bytes: counts.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(day: &str, calls: u64) -> UsageSum {
        let starts: Timestamp = format!("{day}T00:00:00Z").parse().expect("a time");
        let counts = UsageCounts { calls, errors: 1, milliseconds: 500, bytes: 10 };
        UsageSum { tenant: "acme".into(), starts: Some(starts.as_second()), who: None, name: None, counts }
    }

    #[test]
    fn a_file_begins_with_last_month() {
        let start = |now: &str| start_of_last_month(now.parse().expect("a time")).to_string();
        assert_eq!(start("2027-01-31T23:00:00Z"), "2026-12-01T00:00:00Z");
        assert_eq!(start("2026-11-01T00:00:00Z"), "2026-10-01T00:00:00Z");
    }

    #[test]
    fn days_add_up_to_months() {
        let sums = [sum("2026-10-31", 1), sum("2026-11-01", 2), sum("2026-11-26", 4)];
        let text = render("acme", &sums).expect("rendered");
        let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let months: Vec<_> = file["months"].as_array().into_iter().flatten().collect();
        assert_eq!((&months[0]["period"], &months[0]["calls"]), (&"2026-10".into(), &1.into()));
        assert_eq!((&months[1]["calls"], &months[1]["seconds"]), (&6.into(), &1.0.into()));
        assert_eq!(file["days"][2]["period"], "2026-11-26");
    }
}
