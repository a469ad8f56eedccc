//! The signing keys of tenants with a login: listed and rotated.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Admin;
use super::reply::{json_answer, problem};
use super::request::decoded;
use crate::base::body::Body;
use crate::oauth::error::Unavailable;
use crate::oauth::issuer::Issuer;
use crate::oauth::signing_keys::{KeyRotation, PublishedKey};

impl Admin {
    /// Lists the keys that a tenant publishes.
    pub(super) async fn keys(&self, name: &str) -> Response<Body> {
        match self.issuer(name) {
            Ok(issuer) => to_response(issuer.published_keys().await),
            Err(refusal) => *refusal,
        }
    }

    /// Rotates to a new key.
    pub(super) async fn rotate_keys(&self, name: &str, how: KeyRotation) -> Response<Body> {
        match self.issuer(name) {
            Ok(issuer) => to_response(issuer.rotate_keys(how).await),
            Err(refusal) => *refusal,
        }
    }

    fn issuer(&self, name: &str) -> Result<Arc<Issuer>, Box<Response<Body>>> {
        let table = self.registry.load();
        let refused = |detail| Box::new(problem(StatusCode::NOT_FOUND, detail));
        let entry = table.find_entry(&decoded(name));
        let entry = entry.ok_or_else(|| refused("no tenant of this name; /api/tenants lists them"))?;
        let login = entry.tenant.as_ref().and_then(|tenant| tenant.login.as_ref());
        let login =
            login.ok_or_else(|| refused("this tenant is not served with a login, so it signs nothing"))?;
        Ok(Arc::clone(login.issuer()))
    }
}

fn to_response(outcome: Result<Vec<PublishedKey>, Unavailable>) -> Response<Body> {
    match outcome {
        Ok(published) => json_answer(StatusCode::OK, &published),
        Err(fault) => problem(StatusCode::SERVICE_UNAVAILABLE, &fault.to_string()),
    }
}
