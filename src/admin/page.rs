//! The status page, which shows operators the state of each tenant.

use askama::Template;
use http::{HeaderValue, Response, StatusCode};

use super::{Admin, response};
use crate::base::body::Body;
use crate::tenants::registry::RoutingTable;
use crate::tenants::status::TenantStatus;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    version: &'static str,
    generation: u64,
    is_initial_scan_done: bool,
    tenants: Vec<TenantRow>,
}

struct TenantRow {
    status: TenantStatus,
    state: &'static str,
    findings: Vec<String>,
}

/// Shows the page.
pub(super) fn show(admin: &Admin) -> Response<Body> {
    response::with_content(StatusCode::OK, HTML, render(&admin.registry.load()))
}

fn render(table: &RoutingTable) -> String {
    let page = StatusPage {
        version: env!("CARGO_PKG_VERSION"),
        generation: table.generation,
        is_initial_scan_done: table.is_initial_scan_done,
        tenants: table.entries.values().map(|entry| TenantRow::new(entry.status())).collect(),
    };
    page.render().expect("the template writes into a String")
}

impl TenantRow {
    fn new(status: TenantStatus) -> Self {
        let findings = status.findings.as_array().into_iter().flatten();
        let sentence = |finding: &serde_json::Value| {
            let part = |name: &str| finding.get(name).and_then(serde_json::Value::as_str);
            let help = part("help").map(|help| format!(" ({help})")).unwrap_or_default();
            Some(format!("{}: {}{help}", part("severity")?, part("message")?))
        };
        Self { findings: findings.filter_map(sentence).collect(), state: status.state.as_str(), status }
    }
}
