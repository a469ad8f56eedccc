//! Days and months, which quotas and the ledger count by. They are those of UTC.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

/// The day and the month of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    /// Days since 1970.
    pub(super) day: i64,
    /// Months since the year 0.
    pub(super) month: i64,
}

impl Period {
    /// Returns the period of a moment.
    pub(super) fn from_time(now: Timestamp) -> Self {
        let date = Offset::UTC.to_datetime(now).date();
        Self { day: now.as_second().div_euclid(86_400), month: month_number(date) }
    }

    /// Returns when the next day begins.
    pub(super) fn next_day(self) -> Timestamp {
        Timestamp::from_second((self.day + 1) * 86_400).unwrap_or(Timestamp::MAX)
    }

    /// Returns when the next month begins.
    pub(super) fn next_month(self) -> Timestamp {
        let next = self.month + 1;
        let (year, month) = (next.div_euclid(12), next.rem_euclid(12) + 1);
        let date = i16::try_from(year).ok().zip(i8::try_from(month).ok());
        let first = date.and_then(|(year, month)| Date::new(year, month, 1).ok());
        first.and_then(|first| Offset::UTC.to_timestamp(first.into()).ok()).unwrap_or(Timestamp::MAX)
    }
}

fn month_number(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_begin_at_midnight_utc() {
        let period = |text: &str| Period::from_time(text.parse().expect("a time"));
        let last = period("2026-12-31T23:59:59Z");
        let first = period("2027-01-01T00:00:00Z");
        assert_eq!((first.day, first.month), (last.day + 1, last.month + 1));
        assert_eq!(last.next_day().to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(last.next_month().to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(period("2026-02-01T05:00:00Z").next_month().to_string(), "2026-03-01T00:00:00Z");
    }
}
