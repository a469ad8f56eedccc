//! The audit, read by operators: newest lines first, with filters.

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};

use super::call::Call;
use super::response::{self, problem};
use crate::base::body::Body;
use crate::telemetry::audit::{AuditCursor, AuditFilter};

/// How many lines an answer has if the request does not say.
const DEFAULT_LINES: usize = 100;

/// Answers `/api/audit`.
pub(super) async fn list(call: Call<'_>) -> Response<Body> {
    let filter = match read_filter(&call) {
        Ok(filter) => filter,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
    };
    let Some(file) = call.admin.audit.file().map(ToOwned::to_owned) else {
        let detail =
            "this gateway writes no audit (`audit: off`, or a state folder that is missing or read-only)";
        return problem(StatusCode::CONFLICT, detail);
    };
    match tokio::task::spawn_blocking(move || filter.read(&file)).await {
        Ok(Ok(page)) => response::json(StatusCode::OK, &page),
        Ok(Err(error)) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("the audit cannot be read: {error}"))
        }
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down"),
    }
}

fn read_filter(call: &Call<'_>) -> Result<AuditFilter, String> {
    let text = |name: &str| call.parameter(name).filter(|text| !text.is_empty());
    let time = |name: &str| {
        match text(name) {
        None => Ok(None),
        Some(given) => parse_time(&given, call.admin.clock.now()).map(Some).ok_or_else(|| {
            format!("`{name}` is {given:?}: write a time (2026-11-25T09:00:00Z), a date, or how long ago (30m, 6h, 7d)")
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
