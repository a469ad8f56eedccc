//! Dates and times at which something ends.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

/// Returns when something ends: at a time, or with a date, whose last moment in UTC counts.
pub(super) fn parse_end(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| end_of_day(text))
}

fn end_of_day(text: &str) -> Option<Timestamp> {
    let day = text.parse::<Date>().ok()?.tomorrow().ok()?;
    TimeZone::UTC.to_timestamp(day.to_datetime(Time::midnight())).ok()
}
