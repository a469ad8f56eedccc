//! What tenants need and that expires: API keys, and the secrets of their apps at the identity
//! provider.

use std::sync::Arc;

use jiff::Timestamp;

use super::registry::RoutingTable;
use super::tenant::Tenant;

/// Something that expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The tenant's name.
    pub tenant: String,
    /// The id of its entry.
    pub entry_id: Arc<str>,
    /// What expires.
    pub credential: ExpiringCredential,
    /// From this time on it is refused.
    pub at: Timestamp,
}

/// A credential that expires.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpiringCredential {
    /// A caller's API key, by its label.
    ApiKey(String),
    /// The secret of the tenant's app at the identity provider.
    ClientSecret,
}

/// Returns everything that expires, of all enabled tenants. Visits every tenant, so it is meant for
/// monitoring and not for requests.
pub fn expiries(table: &RoutingTable) -> impl Iterator<Item = Expiry> {
    table.entries.iter().flat_map(|(entry_id, entry)| {
        let tenant = entry.tenant.as_ref().filter(|tenant| tenant.spec.enabled);
        tenant.into_iter().flat_map(|tenant| {
            credentials(tenant).map(|(credential, at)| Expiry {
                tenant: tenant.spec.name.to_string(),
                entry_id: Arc::clone(entry_id),
                credential,
                at,
            })
        })
    })
}

fn credentials(tenant: &Tenant) -> impl Iterator<Item = (ExpiringCredential, Timestamp)> {
    let access = &tenant.spec.access;
    let keys = access.api_keys.iter();
    let keys = keys.filter_map(|key| Some((ExpiringCredential::ApiKey(key.label.clone()), key.expires?)));
    let secret = access.login.as_ref().and_then(|login| login.provider.client_secret_expires());
    keys.chain(secret.map(|at| (ExpiringCredential::ClientSecret, at)))
}
