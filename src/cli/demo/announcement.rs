//! The text that the demo prints once it serves: everything to paste.

use std::path::Path;

use serde_json::{Map, json};

use super::folder::DemoFolder;
use crate::base::shell;
use crate::certs::LOCAL_CA_FILE;
use crate::cli::tenants::list;
use crate::gateway::Addresses;
use crate::tenants::status::TenantStatus;

/// Returns the whole text.
pub(super) fn text(
    tenants: &[TenantStatus],
    addresses: &Addresses,
    folder: &DemoFolder,
    program: &str,
) -> String {
    let first = tenants.iter().find_map(|tenant| tenant.connector_url.clone());
    let first = first.unwrap_or_else(|| format!("{}/sales/mcp", addresses.public_base));
    let ca = addresses.ca.clone().unwrap_or_else(|| folder.certs().join(LOCAL_CA_FILE));
    let (ca, tenants_folder, program) = (quote(&ca), quote(&folder.tenants()), quote(Path::new(program)));
    let admin = addresses.admin.map(|admin| format!(" --admin {admin}")).unwrap_or_default();
    format!(
        "\nThe gateway serves on {base}. Two sample tenants:\n\n{table}\n\
         Call one (any MCP client does the same):\n\n{curl}\n\n\
         Configure a client. It must trust the demo's own CA, so start it with this variable:\n\n\
         export NODE_EXTRA_CA_CERTS={ca}\n\n{snippet}\n\n\
         Add a tenant while the gateway runs: copy an export into the folder, for instance this one:\n\n\
         cp {third} {tenants_folder}/\n\
         {program} tenants list{admin}\n\n\
         Stop with Ctrl-C. All files are in {root}.\n",
        base = addresses.public_base,
        table = list(tenants),
        curl = curl(&first, &ca),
        snippet = snippet(tenants),
        third = quote(&folder.third_export()),
        root = quote(&folder.root),
    )
}

/// Returns a `curl` call of the `search` tool, in the form that every server accepts without a
/// handshake.
fn curl(url: &str, ca: &str) -> String {
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "search", "arguments": {"query": "Total revenue per region"}},
    });
    format!(
        "curl --cacert {ca} {url} \\\n  \
         -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\\n  \
         -H 'MCP-Protocol-Version: 2025-06-18' \\\n  -d '{call}'"
    )
}

/// Returns the configuration that most clients read (`mcpServers`).
fn snippet(tenants: &[TenantStatus]) -> String {
    let server = |tenant: &TenantStatus| {
        Some((tenant.name.clone(), json!({"type": "http", "url": tenant.connector_url.as_ref()?})))
    };
    let servers: Map<_, _> = tenants.iter().filter_map(server).collect();
    format!("{:#}", json!({ "mcpServers": servers }))
}

fn quote(path: &Path) -> String {
    shell::quote(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str) -> TenantStatus {
        serde_json::from_value(json!({
            "name": name, "stem": name, "state": "serving", "since": "2026-11-24T08:00:00Z",
            "connector_url": format!("https://localhost:8443/{name}/mcp"), "access": "open (private networks)",
        }))
        .expect("a status")
    }

    #[test]
    fn everything_to_paste_is_there() {
        let addresses = Addresses {
            listen: vec!["127.0.0.1:8443".parse().expect("an address")],
            listen_http: Vec::new(),
            admin: Some("127.0.0.1:40000".parse().expect("an address")),
            public_base: "https://localhost:8443".into(),
            ca: Some("/tmp/tenantd-demo/certs/local-ca.pem".into()),
        };
        let folder = DemoFolder { root: "/tmp/tenantd-demo".into() };
        insta::assert_snapshot!(text(
            &[status("sales"), status("support")],
            &addresses,
            &folder,
            "target/release/tenantd"
        ));
    }
}
