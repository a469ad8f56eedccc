//! How many logins ended at all tenants in each of the last 24 hours, and how. They are in memory:
//! after a restart they begin anew.

use std::collections::VecDeque;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::Serialize;

use crate::base::clock::hour_number;
use crate::base::sync::lock;

/// How many hours are kept, the current one included.
const HOURS: i64 = 24;

/// The logins of the last 24 hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DayOfLogins {
    /// People who got in.
    pub succeeded: u64,
    /// Logins that ended otherwise.
    pub failed: u64,
}

/// The hours with logins, oldest first.
#[derive(Debug, Default)]
pub(super) struct LoginCounts(Mutex<VecDeque<(i64, DayOfLogins)>>);

impl LoginCounts {
    /// Counts a login that ended at `now`.
    pub(super) fn record(&self, is_success: bool, now: Timestamp) {
        let number = hour_number(now);
        let mut hours = lock(&self.0);
        // If the clock was set back, the newest hour goes on.
        if hours.back().is_none_or(|(newest, _)| *newest < number) {
            hours.retain(|(hour, _)| *hour > number - HOURS);
            hours.push_back((number, DayOfLogins::default()));
        }
        let (_, counts) = hours.back_mut().expect("there is one by now");
        counts.succeeded += u64::from(is_success);
        counts.failed += u64::from(!is_success);
    }

    /// Returns the sums of the last 24 hours, the current one included.
    pub(super) fn sum(&self, now: Timestamp) -> DayOfLogins {
        let oldest = hour_number(now) - HOURS;
        let hours = lock(&self.0);
        let recent = hours.iter().filter(|(hour, _)| *hour > oldest);
        recent.fold(DayOfLogins::default(), |sum, (_, hour)| DayOfLogins {
            succeeded: sum.succeeded + hour.succeeded,
            failed: sum.failed + hour.failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logins_of_a_day_are_counted_and_older_ones_are_not() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let counts = LoginCounts::default();
        counts.record(true, at("2026-11-25T10:59:59Z"));
        counts.record(true, at("2026-11-25T11:00:00Z"));
        let day = |succeeded, failed| DayOfLogins { succeeded, failed };
        assert_eq!(counts.sum(at("2026-11-26T09:30:00Z")), day(2, 0));
        counts.record(false, at("2026-11-26T10:00:00Z"));
        assert_eq!(counts.sum(at("2026-11-26T10:30:00Z")), day(1, 1));
        assert_eq!(counts.sum(at("2026-11-26T11:00:00Z")), day(0, 1));
        counts.record(true, at("2026-11-27T11:00:00Z"));
        assert_eq!(lock(&counts.0).len(), 1, "old hours are dropped");
    }
}
