//! How much tenants are used: the traffic of the last 24 hours.

use http::{Response, StatusCode};

use super::Admin;
use super::response::{self, no_tenant};
use crate::base::body::Body;

/// Answers `/api/traffic`.
pub(super) fn traffic(admin: &Admin) -> Response<Body> {
    response::json(StatusCode::OK, &admin.usage.traffic())
}

/// Answers `/api/tenants/NAME/traffic`.
pub(super) fn tenant_traffic(admin: &Admin, tenant: &str) -> Response<Body> {
    match admin.registry.load().find_entry(tenant) {
        Some(entry) => {
            let live = entry.tenant.as_ref().map(|tenant| tenant.usage.traffic());
            let report = live.unwrap_or_else(|| admin.usage.tenant_traffic(entry.name()));
            response::json(StatusCode::OK, &report)
        }
        None => no_tenant(),
    }
}
