//! The traffic of the last 24 hours, hour by hour: of one tenant, and of the whole gateway.
//!
//! An hour takes memory only if there were calls in it, so ten thousand idle tenants take none.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::latency::Latencies;
use super::limit::QuotaStatus;
use crate::base::clock::{SECONDS_PER_HOUR, hour_number};
use crate::store::UsageCounts;
use crate::telemetry::metrics::CallOutcome;

/// How many hours are kept, the current one included.
pub const HOURS: usize = 24;

/// How a call ended, as far as its traffic is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// It was answered, or its caller cancelled it.
    Answered,
    /// It ended with an error: of its arguments, of the backend or of the gateway.
    Failed,
    /// It was turned down: by a limit, or because the caller may not call.
    Refused,
}

impl From<CallOutcome> for CallEnd {
    fn from(outcome: CallOutcome) -> Self {
        match outcome {
            CallOutcome::Ok | CallOutcome::Cancelled => Self::Answered,
            CallOutcome::NotAllowed | CallOutcome::RateLimited | CallOutcome::QuotaExhausted => Self::Refused,
            CallOutcome::BadArguments
            | CallOutcome::BackendError
            | CallOutcome::Busy
            | CallOutcome::Internal => Self::Failed,
        }
    }
}

/// The traffic of one hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HourTraffic {
    /// When the hour began.
    pub starts: Timestamp,
    /// Calls that were let through, those with an error included.
    pub calls: u64,
    /// Calls that ended with an error.
    pub errors: u64,
    /// Calls that were turned down.
    pub refused: u64,
    /// Half of the calls took at most so long; `None` without calls, or if an earlier process had
    /// all of them.
    pub p50_ms: Option<u64>,
    /// 95 % of the calls took at most so long.
    pub p95_ms: Option<u64>,
    /// Bytes of results.
    pub bytes: u64,
}

/// The traffic of the last 24 hours, and what is under way now: `/api/traffic`,
/// `/api/tenants/NAME/traffic`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// Calls under way.
    pub in_flight: usize,
    /// 24 hours, oldest first; the last one is the current hour.
    pub hours: Vec<HourTraffic>,
    /// How much of a tenant's and its tools' quotas is used; empty for the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaStatus>,
}

/// The hours with traffic, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    hours: VecDeque<Hour>,
}

#[derive(Debug, Clone)]
struct Hour {
    /// Hours since 1970.
    number: i64,
    calls: u64,
    errors: u64,
    refused: u64,
    bytes: u64,
    latencies: Latencies,
}

impl Traffic {
    /// Counts a call that ended at `now`.
    pub(super) fn record(&mut self, now: Timestamp, end: CallEnd, elapsed: Duration, bytes: u64) {
        let hour = self.hour_mut(now);
        if end == CallEnd::Refused {
            hour.refused += 1;
            return;
        }
        hour.calls += 1;
        hour.errors += u64::from(end == CallEnd::Failed);
        hour.bytes = hour.bytes.saturating_add(bytes);
        hour.latencies.record(elapsed);
    }

    /// Adds what an earlier process counted in an hour. How long its calls took is not known.
    pub(super) fn restore(&mut self, starts: Timestamp, counts: &UsageCounts) {
        let number = hour_number(starts);
        let place = self.hours.partition_point(|hour| hour.number < number);
        if self.hours.get(place).is_none_or(|hour| hour.number != number) {
            self.hours.insert(place, Hour::new(number));
        }
        let hour = &mut self.hours[place];
        hour.calls += counts.calls;
        hour.errors += counts.errors;
        hour.bytes = hour.bytes.saturating_add(counts.bytes);
    }

    /// Returns the last 24 hours, oldest first; hours without traffic are among them.
    pub(super) fn last_hours(&self, now: Timestamp) -> Vec<HourTraffic> {
        let current = hour_number(now);
        let numbers = (current - HOURS as i64 + 1)..=current;
        numbers.map(|number| self.hour_traffic(number)).collect()
    }

    /// Whether there was no call in the last 24 hours.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.hours.back().is_none_or(|newest| newest.number <= hour_number(now) - HOURS as i64)
    }

    fn hour_traffic(&self, number: i64) -> HourTraffic {
        let starts = Timestamp::from_second(number * SECONDS_PER_HOUR).unwrap_or_default();
        let found = self.hours.iter().find(|hour| hour.number == number);
        found.map_or(HourTraffic { starts, ..HourTraffic::default() }, |hour| HourTraffic {
            starts,
            calls: hour.calls,
            errors: hour.errors,
            refused: hour.refused,
            p50_ms: hour.latencies.percentile(50),
            p95_ms: hour.latencies.percentile(95),
            bytes: hour.bytes,
        })
    }

    /// Returns the hour of `now`. If the clock was set back, the newest hour goes on.
    fn hour_mut(&mut self, now: Timestamp) -> &mut Hour {
        let number = hour_number(now);
        let is_newer = self.hours.back().is_none_or(|newest| newest.number < number);
        if is_newer {
            self.hours.retain(|hour| hour.number > number - HOURS as i64);
            self.hours.push_back(Hour::new(number));
        }
        self.hours.back_mut().expect("there is one by now")
    }
}

impl Hour {
    fn new(number: i64) -> Self {
        Self { number, calls: 0, errors: 0, refused: 0, bytes: 0, latencies: Latencies::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn each_hour_counts_its_own_calls() {
        let mut traffic = Traffic::default();
        traffic.record(at("2026-11-26T10:59:59Z"), CallEnd::Answered, TENTH, 10);
        traffic.record(at("2026-11-26T11:00:00Z"), CallEnd::Failed, TENTH, 5);
        traffic.record(at("2026-11-26T11:30:00Z"), CallEnd::Refused, TENTH, 0);
        let hours = traffic.last_hours(at("2026-11-26T11:45:00Z"));
        assert_eq!(hours.len(), HOURS);
        let figures = |hour: &HourTraffic| (hour.calls, hour.errors, hour.refused, hour.bytes);
        assert_eq!(figures(&hours[23]), (1, 1, 1, 5));
        assert_eq!(figures(&hours[22]), (1, 0, 0, 10));
        assert_eq!(figures(&hours[21]), (0, 0, 0, 0));
        assert_eq!(hours[22].starts, at("2026-11-26T10:00:00Z"));
        assert_eq!((hours[21].p50_ms, hours[22].p50_ms), (None, Some(100)));
    }

    #[test]
    fn what_is_older_than_a_day_is_dropped() {
        let mut traffic = Traffic::default();
        traffic.record(at("2026-11-25T10:00:00Z"), CallEnd::Answered, TENTH, 1);
        traffic.record(at("2026-11-26T09:59:59Z"), CallEnd::Answered, TENTH, 1);
        assert_eq!(traffic.hours.len(), 2);
        assert_eq!(traffic.last_hours(at("2026-11-26T09:59:59Z"))[0].calls, 1);
        traffic.record(at("2026-11-26T10:00:00Z"), CallEnd::Answered, TENTH, 1);
        assert_eq!(traffic.hours.len(), 2, "the first is gone");
    }

    #[test]
    fn hours_of_an_earlier_process_are_among_them() {
        let mut traffic = Traffic::default();
        let counts = UsageCounts { calls: 5, errors: 1, milliseconds: 0, bytes: 7 };
        for hour in ["2026-11-26T09:00:00Z", "2026-11-26T07:00:00Z", "2026-11-26T09:00:00Z"] {
            traffic.restore(at(hour), &counts);
        }
        traffic.record(at("2026-11-26T09:10:00Z"), CallEnd::Answered, TENTH, 1);
        let hours = traffic.last_hours(at("2026-11-26T09:20:00Z"));
        assert_eq!([hours[21].calls, hours[22].calls, hours[23].calls], [5, 0, 11]);
        assert_eq!((hours[21].p50_ms, hours[23].p50_ms), (None, Some(100)));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_call() {
        let mut traffic = Traffic::default();
        traffic.record(at("2026-11-26T10:00:00Z"), CallEnd::Answered, TENTH, 1);
        traffic.record(at("2026-11-26T09:00:00Z"), CallEnd::Answered, TENTH, 1);
        assert_eq!(traffic.last_hours(at("2026-11-26T10:00:00Z"))[23].calls, 2);
    }
}
