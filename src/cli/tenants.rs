//! `tenantd tenants`: shows and changes the tenants of a running gateway.

mod commands;

use std::fmt::Write;

use super::admin_request::client;
use super::args::{TenantsAction, TenantsArgs};
use super::{Exit, admin_client, output, render};
use crate::base::similarity;
use crate::telemetry::printable::printable;
use crate::tenants::cluster_view::{NodeState, TenantOnNode};
use crate::tenants::status::{TenantState, TenantStatus};

const CLOSED: &str = "answers 503 until repaired: the refused change may affect who may call";

/// Lists all tenants, shows one, or sends a command.
pub(super) fn run(args: &TenantsArgs) -> anyhow::Result<Exit> {
    match &args.action {
        TenantsAction::List { query } => {
            let tenants = client(&query.admin)?.tenants()?;
            output::print(&output::rendered(query.format, tenants.as_slice(), list))?;
            Ok(Exit::Fine)
        }
        TenantsAction::Show { name, query } => {
            let tenant = match client(&query.admin)?.tenant(name) {
                Err(error @ admin_client::Error::NotFound(_)) => {
                    output::print_error(error);
                    let tenants = client(&query.admin)?.tenants().unwrap_or_default();
                    meant(name, &tenants).into_iter().for_each(output::print_error);
                    return Ok(Exit::Findings);
                }
                other => other?,
            };
            output::print(&output::rendered(query.format, &tenant, show))?;
            Ok(Exit::Fine)
        }
        other => commands::run(other),
    }
}

/// Suggests the tenant whose name is closest to an unknown one.
fn meant(name: &str, tenants: &[TenantStatus]) -> Option<String> {
    let known =
        tenants.iter().flat_map(|tenant| [(&*tenant.name, &*tenant.name), (&*tenant.stem, &*tenant.name)]);
    similarity::closest(name, known).map(|name| format!("did you mean {}?", printable(name)))
}

/// The table of all tenants.
pub(super) fn list(tenants: &[TenantStatus]) -> String {
    if tenants.is_empty() {
        return "No tenants yet. Copy an export (<name>.zip) into the tenants folder.\n".into();
    }
    let row = |tenant: &TenantStatus| {
        let url = tenant.connector_url.clone().unwrap_or_else(|| "-".into());
        let access = tenant.access.clone().unwrap_or_else(|| "-".into());
        let closed = if tenant.closed { ", closed" } else { "" };
        vec![tenant.name.clone(), format!("{}{closed}", word(tenant)), access, url]
    };
    let rows: Vec<Vec<String>> = tenants.iter().map(row).collect();
    let mut text = output::table(&["NAME", "STATE", "ACCESS", "CONNECTOR URL"], &rows);
    let needs_attention = |tenant: &&TenantStatus| {
        use TenantState::{Degraded, Held, Rejected, Stale};
        matches!(tenant.state, Rejected | Stale | Held | Degraded)
    };
    for tenant in tenants.iter().filter(needs_attention) {
        let name = printable(&tenant.name);
        writeln!(text, "\n{name} is {}: `tenantd tenants show {name}` says why.", word(tenant))
            .expect("writing to a String cannot fail");
    }
    for tenant in tenants.iter().filter(|tenant| tenant.disagreement.is_some()) {
        let name = printable(&tenant.name);
        writeln!(
            text,
            "\n{name} is not the same on all gateways: `tenantd tenants show {name}` says what is where."
        )
        .expect("writing to a String cannot fail");
    }
    text
}

fn show(tenant: &TenantStatus) -> String {
    let files = tenant.files.join(", ");
    let since = format!("{} since {}", word(tenant), tenant.since.strftime("%Y-%m-%dT%H:%M:%SZ"));
    let revision = tenant.revision.map(|number| match (tenant.rolled_back, tenant.paused) {
        (true, _) => format!("{number}, rolled back until the files change"),
        (false, true) => {
            format!("{number}, paused: `tenantd tenants resume {}` serves it again", tenant.name)
        }
        (false, false) => number.to_string(),
    });
    let facts = [
        ("name", Some(tenant.name.as_str())),
        ("title", tenant.title.as_deref()),
        ("state", Some(since.as_str())),
        ("closed", tenant.closed.then_some(CLOSED)),
        ("revision", revision.as_deref()),
        ("trouble", tenant.trouble.as_deref()),
        ("connector", tenant.connector_url.as_deref()),
        ("redirect", tenant.redirect_uri.as_deref()),
        ("access", tenant.access.as_deref()),
        ("files", Some(files.as_str()).filter(|files| !files.is_empty())),
        ("on disk", tenant.digest_on_disk.as_deref()),
        ("in force", tenant.digest_in_force.as_deref()),
        ("differs", tenant.disagreement.as_deref()),
    ];
    let known =
        facts.iter().filter_map(|(name, value)| Some(format!("{name:<10} {}\n", printable((*value)?))));
    let findings = tenant.findings.as_array().into_iter().flatten();
    let nodes =
        tenant.nodes.iter().map(|node| format!("{:<10} {}\n", "node", printable(&describe_node(node))));
    known.chain(nodes).chain(findings.map(render::finding_of_gateway)).collect()
}

/// Says how one gateway of the cluster has a tenant.
fn describe_node(tenant: &TenantOnNode) -> String {
    let gone = match tenant.node_state {
        NodeState::Live => String::new(),
        gone => format!(", gateway {}", gone.as_str()),
    };
    let Some(state) = &tenant.state else { return format!("{}: missing{gone}", tenant.node) };
    let revision = tenant.in_force.as_ref().map(|digest| format!(", {digest} in force")).unwrap_or_default();
    let since = tenant.since.map(|since| format!(" since {}", since.strftime("%Y-%m-%dT%H:%M:%SZ")));
    format!("{}: {state}{}{revision}{gone}", tenant.node, since.unwrap_or_default())
}

/// Returns the tenant's state as a word: `paused` if an operator paused it, since "disabled" would
/// point to `enabled: false` in its files.
fn word(tenant: &TenantStatus) -> &'static str {
    match tenant.state {
        TenantState::Disabled if tenant.paused => "paused",
        state => state.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn status(value: Value) -> TenantStatus {
        serde_json::from_value(value).expect("a status")
    }

    fn acme() -> TenantStatus {
        status(serde_json::json!({
            "name": "acme", "stem": "Acme", "state": "serving", "since": "2026-11-24T08:00:00Z", "title": "Acme sales",
            "connector_url": "https://localhost:8443/acme/mcp", "access": "open (private networks)",
            "on_disk": "0123456789ab", "in_force": "0123456789ab", "files": ["Acme.zip", "Acme.env"],
        }))
    }

    fn broken() -> TenantStatus {
        status(serde_json::json!({
            "name": "broken", "stem": "broken", "state": "rejected", "since": "2026-11-24T08:00:00Z",
            "files": ["broken.yaml"],
            "findings": [{
                "code": "api-key-placeholder", "severity": "error", "message": "api_key is still a placeholder",
                "help": "paste the key from the portal",
                "location": {"file": "broken.yaml", "line": 3, "column": 10, "excerpt": "api_key: <…>"},
            }],
        }))
    }

    #[test]
    fn a_login_is_shown_with_what_to_register() {
        let uri = "https://localhost:8443/acme/auth/ms-callback";
        let shown = show(&TenantStatus { redirect_uri: Some(uri.to_owned()), ..acme() });
        assert!(shown.contains(&format!("redirect   {uri}\n")), "{shown}");
        assert!(!show(&acme()).contains("redirect"));
    }

    #[test]
    fn the_list_is_a_table_and_says_where_to_look_further() {
        insta::assert_snapshot!(list(&[acme(), broken()]));
        assert!(list(&[]).starts_with("No tenants yet."));
    }

    #[test]
    fn a_paused_tenant_is_told_from_a_disabled_one() {
        let disabled = TenantStatus { state: TenantState::Disabled, ..acme() };
        let paused = TenantStatus { paused: true, ..disabled.clone() };
        assert!(
            list(std::slice::from_ref(&paused)).contains(" paused ")
                && show(&paused).contains("paused since")
        );
        assert!(
            list(std::slice::from_ref(&disabled)).contains(" disabled ")
                && show(&disabled).contains("disabled since")
        );
    }

    #[test]
    fn a_slip_in_a_name_is_told_which_one_was_meant() {
        assert_eq!(meant("Acmee", &[broken(), acme()]).as_deref(), Some("did you mean acme?"));
        assert_eq!(meant("Acme", &[acme()]).as_deref(), Some("did you mean acme?"));
        assert_eq!(meant("zzz", &[acme()]), None);
    }

    #[test]
    fn one_tenant_is_shown_with_its_findings() {
        insta::assert_snapshot!(show(&acme()));
        insta::assert_snapshot!(show(&broken()));
    }
}
