//! OAuth clients of tenants with a login: registered, listed and removed by operators.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::json;

use super::Admin;
use super::reply::{json_answer, problem};
use super::request::{decoded, whole};
use crate::base::body::Body;
use crate::oauth::client::preregistered::{ClientAdminError, CreatedClient, NewClient};
use crate::tenants::tenant::Tenant;

const LARGEST: usize = 16 << 10;

impl Admin {
    /// Lists the clients that operators registered.
    pub(super) async fn clients(&self, name: &str) -> Response<Body> {
        let Some(tenant) = self.with_login(name) else { return without_login() };
        let Some(server) = &tenant.login else { return without_login() };
        to_response(server.clients().list().await.map(|listed| json!(listed)))
    }

    /// Registers a client. Its secret is in this response and never shown again.
    pub(super) async fn enter_client<B>(&self, name: &str, body: B) -> Response<Body>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(tenant) = self.with_login(name) else { return without_login() };
        let Some(server) = &tenant.login else { return without_login() };
        let body = whole(body, LARGEST).await;
        let entry: Option<NewClient> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let Some(entry) = entry else {
            let detail = "send {\"name\": …, \"redirect_uris\": […], \"public\": false} as JSON";
            return problem(StatusCode::BAD_REQUEST, detail);
        };
        let told = |added: CreatedClient| json!({ "client_id": added.id, "client_secret": added.secret.as_ref().map(|secret| secret.expose()) });
        to_response(server.clients().create(entry, self.clock.now()).await.map(told))
    }

    /// Removes an operator's client, or blocks one that registered itself. Its grants end at once.
    pub(super) async fn remove_client(&self, name: &str, id: &str) -> Response<Body> {
        let Some(tenant) = self.with_login(name) else { return without_login() };
        let Some(server) = &tenant.login else { return without_login() };
        let id = decoded(id);
        if let Err(refused) = server.clients().remove(&id, self.clock.now()).await {
            return to_response(Err(refused));
        }
        match server.grants().revoke_client(&id).await {
            Ok(ended) => json_answer(StatusCode::OK, &json!({ "removed": id, "grants_ended": ended })),
            Err(fault) => problem(StatusCode::SERVICE_UNAVAILABLE, &fault.to_string()),
        }
    }

    fn with_login(&self, name: &str) -> Option<Arc<Tenant>> {
        let table = self.registry.load();
        table.find_entry(&decoded(name))?.tenant.clone()
    }
}

fn without_login() -> Response<Body> {
    problem(
        StatusCode::NOT_FOUND,
        "no tenant with a login of this name is served; /api/tenants lists them all",
    )
}

fn to_response(outcome: Result<serde_json::Value, ClientAdminError>) -> Response<Body> {
    match outcome {
        Ok(answer) => json_answer(StatusCode::OK, &answer),
        Err(refused) => {
            let status = match refused {
                ClientAdminError::UnknownClient => StatusCode::NOT_FOUND,
                ClientAdminError::Store(_) => StatusCode::INSUFFICIENT_STORAGE,
                ClientAdminError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            problem(status, &refused.to_string())
        }
    }
}
