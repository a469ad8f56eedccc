//! The audit: who did what, newest first, with filters and in pages; and the last calls of one
//! tenant.

use askama::Template;
use jiff::Timestamp;
use serde::Deserialize;

use super::frame::{Frame, Section, Visit};
use super::link;
use crate::admin::Admin;
use crate::admin::audit::{AuditUnreadable, parse_filter, read};
use crate::telemetry::audit::{AuditCursor, AuditFilter, AuditPage};
use crate::telemetry::printable::printable;

/// Lines on one page.
const ROWS: usize = 50;
/// Calls on a tenant's page.
const LAST_CALLS: usize = 10;
/// How much of the audit a tenant's page looks at: some ten thousand lines.
const LAST_CALLS_BYTES: u64 = 4 << 20;
/// The longest filter, in bytes.
const MAX_FILTER: usize = 300;
/// The filters of the form, and the parameters of `/api/audit`.
const FILTERS: [&str; 8] = ["tenant", "person", "tool", "client", "outcome", "event", "since", "until"];
/// What happens, as the audit names it.
const EVENTS: [&str; 7] = ["call", "read", "login", "token", "refusal", "revocation", "order"];

#[derive(Template)]
#[template(path = "admin/audit.html")]
struct AuditLinesPage {
    frame: Frame,
    fields: Vec<FilterField>,
    /// What happens, and whether only that is wanted.
    events: [(&'static str, bool); EVENTS.len()],
    is_filtered: bool,
    rows: Vec<AuditRow>,
    /// Why there are no lines.
    refusal: Option<String>,
    /// Where the newest lines are, if these are older ones.
    newest: Option<String>,
    older: Option<String>,
    /// Nothing was found in the part that one request looks at.
    goes_on: bool,
}

/// A text field of the form.
struct FilterField {
    name: &'static str,
    label: &'static str,
    value: String,
    hint: &'static str,
}

/// A line, as pages show it.
pub(super) struct AuditRow {
    pub(super) at: String,
    pub(super) class: &'static str,
    pub(super) outcome: String,
    pub(super) event: String,
    /// The tool, resource or order.
    pub(super) subject: Option<String>,
    pub(super) tenant: Option<(String, String)>,
    pub(super) who: Option<String>,
    /// Where other lines of this person are.
    pub(super) who_path: Option<String>,
    /// Client and address.
    pub(super) origin: String,
    /// Duration, size, number and request id.
    pub(super) details: String,
}

/// The last calls of a tenant.
pub(super) struct LastCalls {
    pub(super) rows: Vec<AuditRow>,
    /// Why there are none.
    pub(super) without: Option<String>,
    pub(super) more_path: String,
}

/// What a page shows of a line.
#[derive(Deserialize)]
struct AuditEntry {
    at: Timestamp,
    event: Option<String>,
    tenant: Option<String>,
    outcome: Option<String>,
    user: Option<String>,
    label: Option<String>,
    operator: Option<String>,
    oid: Option<String>,
    uid: Option<u32>,
    client: Option<String>,
    client_id: Option<String>,
    client_addr: Option<String>,
    tool: Option<String>,
    resource: Option<String>,
    order: Option<String>,
    certificate: Option<String>,
    grant_type: Option<String>,
    elapsed_ms: Option<u64>,
    bytes: Option<u64>,
    request_id: Option<String>,
    left_out: Option<u64>,
}

/// Renders the page.
pub(super) async fn render(admin: &Admin, visit: &Visit<'_>) -> String {
    let parameter = |name: &str| {
        let mut text = visit.parameter(name).unwrap_or_default().trim().to_owned();
        text.truncate(text.floor_char_boundary(MAX_FILTER));
        text
    };
    let read = match parse_filter(|name| Some(parameter(name)), visit.now) {
        Ok(filter) => find_page(admin, filter).await.map_err(|error| error.to_string()),
        Err(wrong) => Err(wrong),
    };
    let (rows, next, refusal) = match read {
        Ok((rows, next)) => (rows, next, None),
        Err(refusal) => (Vec::new(), None, Some(printable(&refusal).into_owned())),
    };
    let given = FILTERS.map(|name| (name, parameter(name)));
    let path = |before: &str| {
        let mut parameters: Vec<(&str, &str)> =
            given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        parameters.push(("before", before));
        link::with_query("/audit", &parameters)
    };
    let page = AuditLinesPage {
        frame: Frame::new("Audit", Section::Audit, visit),
        fields: fields(&parameter),
        events: EVENTS.map(|event| (event, event == parameter("event"))),
        is_filtered: given.iter().any(|(_, value)| !value.is_empty()),
        goes_on: rows.is_empty() && next.is_some(),
        rows,
        refusal,
        newest: (!parameter("before").is_empty()).then(|| path("")),
        older: next.map(|next| path(&next.to_string())),
    };
    page.render().expect("the page is written to a String")
}

async fn find_page(
    admin: &Admin,
    filter: AuditFilter,
) -> Result<(Vec<AuditRow>, Option<AuditCursor>), AuditUnreadable> {
    let AuditPage { lines, next } = read(admin, AuditFilter { limit: ROWS, ..filter }).await?;
    Ok((lines.iter().filter_map(|line| AuditRow::parse(line.get())).collect(), next))
}

/// Returns the last calls of a tenant, as far as they are not long ago.
pub(super) async fn find_last_calls(admin: &Admin, tenant: &str) -> LastCalls {
    let more_path = link::with_query("/audit", &[("tenant", tenant)]);
    let filter = AuditFilter {
        tenant: Some(tenant.to_owned()),
        event: Some("call".to_owned()),
        limit: LAST_CALLS,
        max_bytes: Some(LAST_CALLS_BYTES),
        ..AuditFilter::default()
    };
    let (rows, without) = match read(admin, filter).await {
        Ok(page) => {
            let rows: Vec<_> = page.lines.iter().filter_map(|line| AuditRow::parse(line.get())).collect();
            let without = match (rows.is_empty(), page.next.is_some()) {
                (false, _) => None,
                (true, false) => Some("There are no calls in the audit.".to_owned()),
                (true, true) => Some("There are no calls in the newest part of the audit.".to_owned()),
            };
            (rows, without)
        }
        Err(error) => (Vec::new(), Some(format!("{error}."))),
    };
    LastCalls { rows, without, more_path }
}

fn fields(parameter: &impl Fn(&str) -> String) -> Vec<FilterField> {
    let field = |name, label, hint| FilterField { name, label, value: parameter(name), hint };
    vec![
        field("tenant", "Tenant", ""),
        field("person", "Person, key or operator", ""),
        field("tool", "Tool", ""),
        field("client", "Client", ""),
        field("outcome", "Outcome", "ok, backend_error …"),
        field("since", "Since", "30m, 6h, 7d or a date"),
        field("until", "Until", "a date or time"),
    ]
}

impl AuditRow {
    /// Parses a line; `None` if it has no time.
    fn parse(line: &str) -> Option<Self> {
        serde_json::from_str::<AuditEntry>(line).ok().map(Self::from)
    }
}

impl From<AuditEntry> for AuditRow {
    fn from(entry: AuditEntry) -> Self {
        let who = entry.who();
        let text = |text: &str| printable(text).into_owned();
        let outcome = entry.outcome.as_deref().unwrap_or_default();
        let subject = [&entry.tool, &entry.resource, &entry.order, &entry.grant_type];
        let tenant = entry.tenant.as_deref().filter(|tenant| !tenant.is_empty());
        Self {
            at: entry.at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
            class: if outcome == "ok" { "ok" } else { "warning" },
            outcome: text(outcome),
            event: text(entry.event.as_deref().unwrap_or_default()),
            subject: subject.into_iter().flatten().next().map(|subject| text(subject)),
            tenant: tenant
                .map(|tenant| (text(tenant), link::tenant(tenant)))
                .or_else(|| entry.certificate.as_deref().map(|name| (text(name), "/certificates".into()))),
            who_path: who.as_deref().map(|who| link::with_query("/audit", &[("person", who)])),
            origin: join([entry.client.as_ref().or(entry.client_id.as_ref()), entry.client_addr.as_ref()]),
            details: entry.details(),
            who: match (who, entry.uid) {
                (Some(who), _) => Some(text(&who)),
                (None, Some(uid)) => Some(format!("account {uid} of this machine")),
                (None, None) => None,
            },
        }
    }
}

impl AuditEntry {
    /// Returns the name by which lines of the same person, key or operator are found.
    fn who(&self) -> Option<String> {
        [&self.user, &self.label, &self.operator, &self.oid].into_iter().flatten().next().cloned()
    }

    fn details(&self) -> String {
        let duration = self.elapsed_ms.map(|elapsed| format!("{elapsed} ms"));
        let size = self.bytes.map(|bytes| format!("{bytes} bytes"));
        let count = self.left_out.map(|lines| format!("stands for {lines} lines"));
        let request = self.request_id.as_ref().map(|id| format!("request {id}"));
        join([duration.as_ref(), size.as_ref(), count.as_ref(), request.as_ref()])
    }
}

/// Joins what is there.
fn join<const COUNT: usize>(parts: [Option<&String>; COUNT]) -> String {
    let parts: Vec<_> = parts.into_iter().flatten().map(|part| printable(part).into_owned()).collect();
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_did_what_from_where() {
        let line = r#"{"at":"2026-11-25T09:12:44.120Z","event":"call","tenant":"acme","outcome":"ok",
            "user":"ann@example.com","client_id":"c-1","client_addr":"192.0.2.1","tool":"search",
            "elapsed_ms":812,"bytes":2154,"request_id":"9f2c"}"#;
        let row = AuditRow::parse(line).expect("a line");
        assert_eq!((row.class, row.subject.as_deref()), ("ok", Some("search")));
        assert_eq!(row.at, "2026-11-25 09:12:44.120");
        assert_eq!(row.who_path.as_deref(), Some("/audit?person=ann%40example%2Ecom"));
        assert_eq!(row.origin, "c-1 · 192.0.2.1");
        assert_eq!(row.details, "812 ms · 2154 bytes · request 9f2c");
        let order = r#"{"at":"2026-11-25T09:12:44Z","event":"order","outcome":"refused","order":"renew",
            "uid":1000,"certificate":"mcp.example.com"}"#;
        let row = AuditRow::parse(order).expect("a line");
        assert_eq!((row.class, row.who.as_deref()), ("warning", Some("account 1000 of this machine")));
        assert_eq!(row.tenant, Some(("mcp.example.com".into(), "/certificates".into())));
        assert!(AuditRow::parse("{}").is_none());
    }
}
