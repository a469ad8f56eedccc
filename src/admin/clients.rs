//! OAuth clients of tenants with a login: registered, listed and removed by operators.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::json;

use super::call::Call;
use super::response::{self, Refusal, problem};
use crate::base::body::Body;
use crate::oauth::authorization_server::AuthServer;
use crate::oauth::client::preregistered::{ClientAdminError, CreatedClient, NewClient};
use crate::oauth::scope::MCP_SCOPE;
use crate::tenants::tenant::Tenant;

/// The largest registration.
const MAX_BYTES: usize = 16 << 10;

impl Refusal for ClientAdminError {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownClient => StatusCode::NOT_FOUND,
            Self::Store(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

/// Lists the clients that operators registered.
pub(super) async fn list(call: Call<'_>) -> Response<Body> {
    let tenant = find_tenant(&call);
    let Some(auth_server) = auth_server(tenant.as_ref()) else { return without_login(tenant.as_ref()) };
    response::from_result(auth_server.clients().list().await)
}

/// Registers a client. Its secret is in this response and never shown again.
pub(super) async fn add(mut call: Call<'_>) -> Response<Body> {
    let tenant = find_tenant(&call);
    let Some(auth_server) = auth_server(tenant.as_ref()) else { return without_login(tenant.as_ref()) };
    let body = call.read_body(MAX_BYTES).await;
    let client: Option<NewClient> = body.and_then(|body| serde_json::from_slice(&body).ok());
    let Some(client) = client else {
        let detail = "send {\"name\": …, \"redirect_uris\": […], \"public\": false} as JSON";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    let shown = |created: CreatedClient| {
        let secret = created.secret.as_ref().map(|secret| secret.expose());
        let url = auth_server.issuer().public_url();
        json!({
            "client_id": created.id,
            "client_secret": secret,
            "authorization_url": url.join_path("/authorize"),
            "token_url": url.join_path("/token"),
            "scope": MCP_SCOPE,
        })
    };
    response::from_result(auth_server.clients().create(client, call.admin.clock.now()).await.map(shown))
}

/// Removes an operator's client, or blocks one that registered itself. Its grants end at once.
pub(super) async fn remove(call: Call<'_>) -> Response<Body> {
    let (tenant, client_id) = (find_tenant(&call), call.segment(1));
    let Some(auth_server) = auth_server(tenant.as_ref()) else { return without_login(tenant.as_ref()) };
    if let Err(refusal) = auth_server.clients().remove(client_id, call.admin.clock.now()).await {
        return response::from_result(Err::<(), _>(refusal));
    }
    let revoked = auth_server.grants().revoke_client(client_id).await;
    response::from_result(revoked.map(|ended| json!({ "removed": client_id, "grants_ended": ended })))
}

fn find_tenant(call: &Call<'_>) -> Option<Arc<Tenant>> {
    call.admin.registry.load().find_entry(call.segment(0))?.tenant.clone()
}

fn auth_server(tenant: Option<&Arc<Tenant>>) -> Option<&AuthServer> {
    tenant?.login.as_ref()
}

fn without_login(tenant: Option<&Arc<Tenant>>) -> Response<Body> {
    let detail = match tenant {
        Some(_) => "this tenant is not served with login, so it has no clients of its own",
        None => "no tenant with this name is served; /api/tenants lists all tenants",
    };
    problem(StatusCode::NOT_FOUND, detail)
}
