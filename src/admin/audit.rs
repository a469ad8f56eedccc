//! The audit, read by operators: newest lines first, with filters.

use std::io;

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};

use super::Admin;
use super::call::Call;
use super::response::{self, Refusal, problem};
use crate::base::body::Body;
use crate::telemetry::audit::{AuditCursor, AuditFilter, AuditPage};

/// How many lines an answer has if the request does not say.
const DEFAULT_LINES: usize = 100;

/// Why the audit is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditUnreadable {
    #[error("this gateway writes no audit (`audit: off`, or a state folder that is missing or read-only)")]
    Off,
    #[error("the audit cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

impl Refusal for AuditUnreadable {
    fn status(&self) -> StatusCode {
        match self {
            Self::Off => StatusCode::CONFLICT,
            Self::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Answers `/api/audit`.
pub(super) async fn list(call: Call<'_>) -> Response<Body> {
    match parse_filter(|name| call.parameter(name), call.admin.clock.now()) {
        Ok(filter) => response::from_result(read(call.admin, filter).await),
        Err(detail) => problem(StatusCode::BAD_REQUEST, &detail),
    }
}

/// Reads the lines that fit.
///
/// # Errors
/// There is no audit, or its files cannot be read.
pub(super) async fn read(admin: &Admin, filter: AuditFilter) -> Result<AuditPage, AuditUnreadable> {
    let file = admin.audit.file().map(ToOwned::to_owned).ok_or(AuditUnreadable::Off)?;
    let page = tokio::task::spawn_blocking(move || filter.read(&file)).await;
    Ok(page.map_err(|_| AuditUnreadable::ShuttingDown)??)
}

/// Parses which lines are wanted. `parameter` returns a parameter of the request.
///
/// # Errors
/// What is wrong, in words for people.
pub(super) fn parse_filter(
    parameter: impl Fn(&str) -> Option<String>,
    now: Timestamp,
) -> Result<AuditFilter, String> {
    let text = |name: &str| parameter(name).filter(|text| !text.is_empty());
    let time = |name: &str| {
        match text(name) {
        None => Ok(None),
        Some(given) => parse_time(&given, now).map(Some).ok_or_else(|| {
            format!(
                "`{name}` is {given:?}: write a time (2026-11-25T09:00:00Z), a date, or how long ago (30m, 6h, 7d)"
            )
        }),
    }
    };
    let limit = match text("limit") {
        None => DEFAULT_LINES,
        Some(given) => given.parse().map_err(|_| format!("`limit` is {given:?}: write a number"))?,
    };
    let before = match text("before") {
        None => None,
        Some(given) => Some(AuditCursor::parse(&given).ok_or("`before` is no cursor of this API")?),
    };
    Ok(AuditFilter {
        tenant: text("tenant"),
        person: text("person"),
        client: text("client"),
        tool: text("tool"),
        outcome: text("outcome"),
        event: text("event"),
        since: time("since")?,
        until: time("until")?,
        before,
        limit,
        max_bytes: None,
    })
}

/// Parses a time, a date, or how long ago something was.
fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(at) = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()) {
        return Some(at);
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let ago = number.parse::<u32>().ok().map(|number| i64::from(number) * seconds)?;
    now.checked_sub(SignedDuration::from_secs(ago)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_dates_or_ages() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().expect("a time");
        let read = |text: &str| parse_time(text, now).map(|at| at.to_string());
        assert_eq!(read("2026-11-25T09:00:00Z").as_deref(), Some("2026-11-25T09:00:00Z"));
        assert_eq!(read("2026-11-25").as_deref(), Some("2026-11-25T00:00:00Z"));
        assert_eq!(read("30m").as_deref(), Some("2026-11-25T11:30:00Z"));
        assert_eq!(read("7d").as_deref(), Some("2026-11-18T12:00:00Z"));
        for bad in ["", "m", "1y", "-1h", "yesterday", "é", "4294967296d"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
