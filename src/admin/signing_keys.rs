//! The signing keys of tenants with a login: listed and rotated.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Admin;
use super::response::{self, no_tenant, problem};
use crate::base::body::Body;
use crate::oauth::issuer::Issuer;
use crate::oauth::tokens::signing_keys::KeyRotation;

/// Lists the keys that a tenant publishes.
pub(super) async fn list(admin: &Admin, tenant: &str) -> Response<Body> {
    match find_issuer(admin, tenant) {
        Ok(issuer) => response::from_result(issuer.published_keys().await),
        Err(refusal) => *refusal,
    }
}

/// Rotates to a new key.
pub(super) async fn rotate(admin: &Admin, tenant: &str, rotation: KeyRotation) -> Response<Body> {
    match find_issuer(admin, tenant) {
        Ok(issuer) => response::from_result(issuer.rotate_keys(rotation).await),
        Err(refusal) => *refusal,
    }
}

fn find_issuer(admin: &Admin, tenant: &str) -> Result<Arc<Issuer>, Box<Response<Body>>> {
    let table = admin.registry.load();
    let entry = table.find_entry(tenant).ok_or_else(|| Box::new(no_tenant()))?;
    let login = entry.tenant.as_ref().and_then(|tenant| tenant.login.as_ref());
    login.map(|login| Arc::clone(login.issuer())).ok_or_else(|| {
        let detail = "this tenant is not served with login, so it has no signing keys";
        Box::new(problem(StatusCode::NOT_FOUND, detail))
    })
}
