//! How much tenants are used: the traffic of the last 24 hours, and the usage ledger.

use http::{Response, StatusCode};
use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::Admin;
use super::call::Call;
use super::response::{self, no_tenant, problem};
use crate::base::body::Body;
use crate::store::{UsageBy, UsagePer, UsageQuery, UsageSum};

/// The most rows of one report.
const MAX_ROWS: usize = 50_000;

/// Answers `/api/traffic`.
pub(super) fn traffic(admin: &Admin) -> Response<Body> {
    response::json(StatusCode::OK, &admin.usage.traffic())
}

/// Answers `/api/tenants/NAME/traffic`.
pub(super) fn tenant_traffic(admin: &Admin, tenant: &str) -> Response<Body> {
    match admin.registry.load().find_entry(tenant) {
        Some(entry) => {
            let live = entry.tenant.as_ref().map(|tenant| tenant.usage.traffic());
            let report = live.unwrap_or_else(|| admin.usage.tenant_traffic(entry.name()));
            response::json(StatusCode::OK, &report)
        }
        None => no_tenant(),
    }
}

/// Answers `/api/usage`.
pub(super) async fn report(call: Call<'_>) -> Response<Body> {
    if call.admin.store.is_none() {
        let detail = "there is no usage ledger, because the gateway has no state folder";
        return problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    }
    let query = match read_query(&call, call.admin.clock.now()) {
        Ok(query) => query,
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, &wrong),
    };
    match call.admin.usage.report(query.clone()).await {
        Ok(sums) => response::json(StatusCode::OK, &to_json(&query, sums)),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// Reads what a report is about: without a time, the current month.
fn read_query(call: &Call<'_>, now: Timestamp) -> Result<UsageQuery, String> {
    let from = call.parameter("from").map(|text| read_time(&text, Bound::From)).transpose()?;
    let to = call.parameter("to").map(|text| read_time(&text, Bound::To)).transpose()?;
    let by = read_choice(call, "by", &UsageBy::ALL, UsageBy::as_str)?;
    let per = read_choice(call, "per", &UsagePer::ALL, UsagePer::as_str)?;
    let today = Offset::UTC.to_datetime(now).date();
    let from = from.unwrap_or_else(|| start_of_day(today.first_of_month()));
    let to = to.unwrap_or_else(|| start_of_day(today.saturating_add(1.day())));
    Ok(UsageQuery {
        tenant: call.parameter("tenant").filter(|name| !name.is_empty()),
        from: from.as_second(),
        to: to.as_second(),
        by,
        per,
        limit: MAX_ROWS + 1,
    })
}

/// Reads a parameter that has one of a few values, if it is given.
fn read_choice<T: Copy>(
    call: &Call<'_>,
    parameter: &str,
    choices: &[T],
    name: fn(T) -> &'static str,
) -> Result<Option<T>, String> {
    let Some(given) = call.parameter(parameter).filter(|given| !given.is_empty()) else { return Ok(None) };
    match choices.iter().find(|choice| name(**choice) == given) {
        Some(choice) => Ok(Some(*choice)),
        None => {
            let names: Vec<_> = choices.iter().map(|choice| name(*choice)).collect();
            Err(format!("{parameter} is {}, not {given:?}", names.join(" or ")))
        }
    }
}

/// Which end of the time a text gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    From,
    /// A day that is given is among the days of the report.
    To,
}

/// Reads `2026-11-26`, or a time like `2026-11-26T10:00:00Z`, which counts from the hour.
fn read_time(text: &str, bound: Bound) -> Result<Timestamp, String> {
    if let Ok(date) = text.parse::<Date>()
        && !text.contains('T')
    {
        let days = if bound == Bound::To { 1 } else { 0 };
        return Ok(start_of_day(date.saturating_add(days.days())));
    }
    text.parse::<Timestamp>().map_err(|_| {
        format!("{text:?} is not a time; write a day like 2026-11-26, or a time like 2026-11-26T10:00:00Z")
    })
}

fn start_of_day(date: Date) -> Timestamp {
    Offset::UTC.to_timestamp(date.into()).unwrap_or(Timestamp::MAX)
}

fn to_json(query: &UsageQuery, mut sums: Vec<UsageSum>) -> Value {
    let is_complete = sums.len() <= MAX_ROWS;
    sums.truncate(MAX_ROWS);
    let rows: Vec<Value> = sums.iter().map(|sum| row_to_json(query, sum)).collect();
    json!({
        "from": to_time(query.from),
        "to": to_time(query.to),
        "complete": is_complete,
        "rows": rows,
    })
}

fn row_to_json(query: &UsageQuery, sum: &UsageSum) -> Value {
    let counts = &sum.counts;
    let mut row = json!({
        "tenant": sum.tenant,
        "calls": counts.calls,
        "errors": counts.errors,
        "seconds": counts.milliseconds as f64 / 1_000.0,
        "bytes": counts.bytes,
    });
    if let Some(starts) = sum.starts {
        row["starts"] = json!(to_time(starts));
    }
    match query.by {
        Some(UsageBy::Person) => {
            row["person"] = json!(sum.name);
            row["person_id"] = json!(sum.who);
        }
        Some(UsageBy::Tool) => row["tool"] = json!(sum.who),
        Some(UsageBy::Client) => row["client"] = json!(sum.who),
        None => {}
    }
    row
}

fn to_time(second: i64) -> String {
    Timestamp::from_second(second).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::UsageCounts;

    #[test]
    fn a_last_day_is_among_the_days() {
        let read = |text, bound| read_time(text, bound).map(|time| time.to_string());
        assert_eq!(read("2026-11-30", Bound::From).as_deref(), Ok("2026-11-30T00:00:00Z"));
        assert_eq!(read("2026-11-30", Bound::To).as_deref(), Ok("2026-12-01T00:00:00Z"));
        assert_eq!(read("2026-11-30T10:00:00+01:00", Bound::To).as_deref(), Ok("2026-11-30T09:00:00Z"));
        assert!(read("yesterday", Bound::From).is_err_and(|why| why.contains("2026-11-26")));
    }

    #[test]
    fn a_report_that_was_cut_says_so() {
        let sum = UsageSum {
            tenant: "acme".to_owned(),
            starts: None,
            who: None,
            name: None,
            counts: UsageCounts::default(),
        };
        let report = |rows| to_json(&UsageQuery::default(), vec![sum.clone(); rows]);
        assert_eq!(report(MAX_ROWS)["complete"], true);
        let cut = report(MAX_ROWS + 1);
        assert_eq!((&cut["complete"], cut["rows"].as_array().map(Vec::len)), (&false.into(), Some(MAX_ROWS)));
    }
}
