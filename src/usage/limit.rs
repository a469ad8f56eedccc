//! The limits of calls and their refusals, in words that a model and its user can act on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// A limit, named as in a tenant's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Calls under way at once.
    ConcurrentCalls,
    /// Calls a minute.
    CallsPerMinute,
    /// Calls a day.
    CallsPerDay,
    /// Calls a month.
    CallsPerMonth,
    /// Bytes of results a day.
    BytesPerDay,
    /// Bytes of results a month.
    BytesPerMonth,
}

impl LimitKind {
    /// Returns the name of the limit's field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrentCalls => "concurrent_calls",
            Self::CallsPerMinute => "calls_per_minute",
            Self::CallsPerDay => "calls_per_day",
            Self::CallsPerMonth => "calls_per_month",
            Self::BytesPerDay => "bytes_per_day",
            Self::BytesPerMonth => "bytes_per_month",
        }
    }

    /// Whether it is used up until a day or month ends.
    pub fn is_quota(self) -> bool {
        !matches!(self, Self::ConcurrentCalls | Self::CallsPerMinute)
    }
}

/// Whose calls a limit counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// Those of all callers of the tenant.
    Tenant,
    /// Those of one tool, by its listed name.
    Tool(Arc<str>),
    /// Those of one caller, by the name that people know.
    Caller(Arc<str>),
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Tool(name) => write!(f, "tool {name}"),
            Self::Caller(name) => write!(f, "caller {name}"),
        }
    }
}

/// Why a call is turned down. `Display` is the text for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitReached {
    /// Whose calls are limited.
    pub scope: LimitScope,
    /// The limit.
    pub kind: LimitKind,
    /// How much it allows.
    pub of: u64,
    /// How long to wait until a call may be admitted again; unknown for calls at once.
    pub wait: Option<Duration>,
    /// When a quota begins again.
    pub resets_at: Option<Timestamp>,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.of;
        match self.kind {
            LimitKind::ConcurrentCalls => {
                write!(f, "{} under way{}, ", count_calls(of), self.where_under_way())?;
                return f
                    .write_str("and no more are allowed at once. Call again when one of them has ended.");
            }
            LimitKind::CallsPerMinute => {
                let calls = if of == 1 { "call" } else { "calls" };
                write!(f, "The limit of {of} {calls} per minute{} is reached. ", self.where_limited())?;
                let seconds = self.wait.unwrap_or_default().as_millis().div_ceil(1_000).max(1);
                return write!(
                    f,
                    "Call again in {seconds} {}.",
                    if seconds == 1 { "second" } else { "seconds" }
                );
            }
            LimitKind::CallsPerDay => write!(f, "The daily limit of {of} calls")?,
            LimitKind::CallsPerMonth => write!(f, "The monthly limit of {of} calls")?,
            LimitKind::BytesPerDay => write!(f, "The daily limit of {} of results", Bytes(of))?,
            LimitKind::BytesPerMonth => write!(f, "The monthly limit of {} of results", Bytes(of))?,
        }
        write!(f, "{} is used up", self.where_limited())?;
        if let Some(resets_at) = self.resets_at {
            write!(f, "; it begins again at {}", Minute(resets_at))?;
        }
        if let Some(wait) = self.wait {
            write!(f, " (in {})", CoarseDuration(wait))?;
        }
        f.write_str(". Calling again before does not help.")
    }
}

impl std::error::Error for LimitReached {}

impl LimitReached {
    fn where_limited(&self) -> String {
        match &self.scope {
            LimitScope::Tenant => " of this server for all its callers together".to_owned(),
            LimitScope::Tool(name) => format!(" of the tool {name} for all its callers together"),
            LimitScope::Caller(_) => " of this server for you".to_owned(),
        }
    }

    fn where_under_way(&self) -> String {
        match &self.scope {
            LimitScope::Tenant => " here".to_owned(),
            LimitScope::Tool(name) => format!(" of the tool {name}"),
            LimitScope::Caller(_) => " for you".to_owned(),
        }
    }
}

fn count_calls(of: u64) -> String {
    if of == 1 { "1 call is".to_owned() } else { format!("{of} calls are") }
}

/// A number of bytes as people write limits.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// A moment to the minute.
struct Minute(Timestamp);

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Offset::UTC.to_datetime(self.0);
        let (date, hour, minute) = (at.date(), at.hour(), at.minute());
        write!(f, "{date} {hour:02}:{minute:02} UTC")
    }
}

/// A time to wait: days and hours, hours and minutes, or minutes.
struct CoarseDuration(Duration);

impl fmt::Display for CoarseDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.as_secs().div_ceil(60);
        let (days, hours) = (minutes / 1_440, minutes / 60 % 24);
        match (days, hours) {
            (0, 0) => write!(f, "{} min", minutes.max(1)),
            (0, _) => write!(f, "{hours} h {} min", minutes % 60),
            (1, _) => write!(f, "1 day {hours} h"),
            _ => write!(f, "{days} days {hours} h"),
        }
    }
}

/// A quota of which four fifths are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaWarning {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Whose calls are limited.
    pub scope: LimitScope,
    /// The limit.
    pub kind: LimitKind,
    /// How much is used.
    pub used: u64,
    /// How much it allows.
    pub of: u64,
    /// When it begins again.
    pub resets_at: Timestamp,
}

/// How much of a quota is used: in a tenant's status and traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// Whose calls are limited: `tenant` or `tool NAME`.
    pub scope: String,
    /// The limit.
    pub limit: LimitKind,
    /// How much is used.
    pub used: u64,
    /// How much it allows.
    pub of: u64,
    /// When it begins again.
    pub resets_at: Timestamp,
}

impl QuotaStatus {
    /// Whether four fifths or more are used.
    pub fn is_nearly_used_up(&self) -> bool {
        is_nearly(self.used, self.of)
    }
}

/// Whether four fifths or more of a limit are used.
pub(super) fn is_nearly(used: u64, of: u64) -> bool {
    used >= of - of / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(scope: LimitScope, kind: LimitKind, of: u64) -> LimitReached {
        let resets_at = kind.is_quota().then(|| "2026-11-27T00:00:00Z".parse().expect("a time"));
        let wait = Some(Duration::from_secs(3 * 3_600 + 11 * 60 + 30));
        LimitReached { scope, kind, of, wait, resets_at }
    }

    #[test]
    fn a_refusal_says_which_limit_and_when_to_call_again() {
        let me = LimitScope::Caller("ann".into());
        assert_eq!(
            reached(me.clone(), LimitKind::CallsPerDay, 500).to_string(),
            "The daily limit of 500 calls of this server for you is used up; it begins again at 2026-11-27 \
             00:00 UTC (in 3 h 12 min). Calling again before does not help."
        );
        assert_eq!(
            reached(LimitScope::Tool("search".into()), LimitKind::BytesPerMonth, 500 << 20).to_string(),
            "The monthly limit of 500 MiB of results of the tool search for all its callers together is used \
             up; it begins again at 2026-11-27 00:00 UTC (in 3 h 12 min). Calling again before does not help."
        );
        let minute = LimitReached {
            wait: Some(Duration::from_millis(11_200)),
            ..reached(LimitScope::Tenant, LimitKind::CallsPerMinute, 60)
        };
        assert_eq!(
            minute.to_string(),
            "The limit of 60 calls per minute of this server for all its callers together is reached. Call \
             again in 12 seconds."
        );
        assert_eq!(
            reached(me, LimitKind::ConcurrentCalls, 1).to_string(),
            "1 call is under way for you, and no more are allowed at once. Call again when one of them has ended."
        );
    }

    #[test]
    fn four_fifths_are_nearly_all() {
        assert!(!is_nearly(79, 100) && is_nearly(80, 100) && is_nearly(1, 1) && !is_nearly(3, 4));
        assert!(is_nearly(u64::MAX, u64::MAX));
    }

    #[test]
    fn times_are_told_as_people_tell_them() {
        let span = |seconds| CoarseDuration(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            [span(5), span(3_600), span(90_000), span(200_000)],
            ["1 min", "1 h 0 min", "1 day 1 h", "2 days 7 h"]
        );
    }
}
