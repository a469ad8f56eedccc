//! `tenantd clients`: registers, lists and removes a tenant's OAuth clients.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::admin_client::{encode_segment, tenant_path};
use super::admin_request::{print_answer, send};
use super::args::{ClientsAction, ClientsArgs};
use super::{Exit, output};
use crate::oauth::client::{DocumentComparison, compare_with_vendors};
use crate::telemetry::printable::printable;

pub(super) fn run(args: &ClientsArgs) -> anyhow::Result<Exit> {
    match &args.action {
        ClientsAction::Add { tenant, name, redirect_uri, public, admin } => {
            let entry = json!({ "name": name, "redirect_uris": redirect_uri, "public": public });
            print_answer(send(admin, Method::POST, &path(tenant, ""), entry.to_string().into())?, added)
        }
        ClientsAction::List { tenant, query } => {
            let listed = send(&query.admin, Method::GET, &path(tenant, ""), Bytes::new())?;
            print_answer(listed, |listed| output::rendered(query.format, listed, table))
        }
        ClientsAction::Remove { tenant, client_id, admin } => {
            let removed = send(admin, Method::DELETE, &path(tenant, client_id), Bytes::new())?;
            print_answer(removed, |removed| {
                let ended = removed["grants_ended"].as_u64().unwrap_or_default();
                format!("{} is removed; {ended} of its logins ended\n", printable(client_id))
            })
        }
        ClientsAction::Refresh => refresh(),
    }
}

fn path(tenant: &str, id: &str) -> String {
    let rest = if id.is_empty() { "/clients".to_owned() } else { format!("/clients/{}", encode_segment(id)) };
    tenant_path(tenant, &rest)
}

fn added(added: &Value) -> String {
    let id = added["client_id"].as_str().unwrap_or_default();
    let secret = match added["client_secret"].as_str() {
        Some(secret) => format!("Client secret, which is shown only this once:\n\n  {secret}\n"),
        None => "It has no secret: the application uses PKCE only.\n".to_owned(),
    };
    let text = |name: &str| printable(added[name].as_str().unwrap_or_default()).to_string();
    format!(
        "Client id:\n\n  {id}\n\n{secret}\n\
         What forms that ask for more (\"Manual\" in Copilot Studio) want:\n\n\
         \x20 Authorization URL:  {}\n  Token URL:          {token}\n  Refresh URL:        {token}\n  \
         Scope:              {}\n",
        text("authorization_url"),
        text("scope"),
        token = text("token_url"),
    )
}

fn table(listed: &Value) -> String {
    let row = |client: &Value| {
        let text = |name: &str| client[name].as_str().unwrap_or_default().to_owned();
        let uris = client["redirect_uris"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let kind = if client["public"] == true { "public" } else { "secret" };
        vec![text("client_id"), text("name"), kind.to_owned(), uris.collect::<Vec<_>>().join(" ")]
    };
    let rows: Vec<_> = listed.as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "No clients were added.\n".to_owned(),
        false => output::table(&["CLIENT ID", "NAME", "AUTHENTICATION", "RETURNS TO"], &rows),
    }
}

/// Compares the built-in client metadata with what the vendors publish. Needs the internet but no
/// gateway.
fn refresh() -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compared = runtime.block_on(compare_with_vendors());
    let all_same = compared.iter().all(|(_, comparison)| matches!(comparison, DocumentComparison::Same));
    for (id, comparison) in compared {
        output::print(&match comparison {
            DocumentComparison::Same => format!("{id}: the same as in this program\n"),
            DocumentComparison::Unreadable(why) => format!("{id}: cannot be read: {}\n", printable(&why)),
            DocumentComparison::Differs { shipped, published } => {
                format!("{id}: differs\n- {}\n+ {}\n", printable(&shipped), printable(&published))
            }
        })?;
    }
    Ok(if all_same { Exit::Fine } else { Exit::Findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_a_table_and_a_secret_is_shown_once() {
        let listed = json!([
            { "client_id": "op_1", "name": "Copilot", "public": false, "redirect_uris": ["https://a.example/cb", "https://b.example/cb"] },
        ]);
        insta::assert_snapshot!(table(&listed), @r"
        CLIENT ID  NAME     AUTHENTICATION  RETURNS TO
        op_1       Copilot  secret          https://a.example/cb https://b.example/cb
        ");
        assert!(added(&json!({ "client_id": "op_1", "client_secret": "cs_x" })).contains("  cs_x\n"));
        assert!(added(&json!({ "client_id": "op_1", "client_secret": null })).contains("no secret"));
    }
}
