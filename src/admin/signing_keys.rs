//! The signing keys of tenants with a login: listed and rotated.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::call::Call;
use super::response::{self, no_tenant, problem};
use crate::base::body::Body;
use crate::oauth::issuer::Issuer;
use crate::oauth::tokens::signing_keys::KeyRotation;

/// Lists the keys that a tenant publishes.
pub(super) async fn list(call: Call<'_>) -> Response<Body> {
    match find_issuer(&call) {
        Ok(issuer) => response::from_result(issuer.published_keys().await),
        Err(refusal) => *refusal,
    }
}

/// Rotates to a new key.
pub(super) async fn rotate(call: Call<'_>) -> Response<Body> {
    let is_emergency = call.parameter("emergency").is_some();
    let rotation = if is_emergency { KeyRotation::Emergency } else { KeyRotation::Gentle };
    match find_issuer(&call) {
        Ok(issuer) => response::from_result(issuer.rotate_keys(rotation).await),
        Err(refusal) => *refusal,
    }
}

fn find_issuer(call: &Call<'_>) -> Result<Arc<Issuer>, Box<Response<Body>>> {
    let table = call.admin.registry.load();
    let entry = table.find_entry(call.segment(0)).ok_or_else(|| Box::new(no_tenant()))?;
    let login = entry.tenant.as_ref().and_then(|tenant| tenant.login.as_ref());
    login.map(|login| Arc::clone(login.issuer())).ok_or_else(|| {
        let detail = "this tenant is not served with login, so it has no signing keys";
        Box::new(problem(StatusCode::NOT_FOUND, detail))
    })
}
