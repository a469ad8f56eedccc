//! Starts the alerts of a gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use crate::alerts::{Alerts, AlertsConfig, Observed, Teller};
use crate::tenants::TenantsSource;

/// Starts to look for trouble, and to tell the targets of `notify` of it.
pub(super) fn start(gateway: &Gateway, teller: Teller) -> Arc<Alerts> {
    let settings = &gateway.settings;
    let state = gateway.store.as_ref().map(|_| settings.state.clone());
    let config = AlertsConfig {
        observed: Observed {
            registry: gateway.registry.clone(),
            certificates: Arc::clone(&gateway.certificates),
            tls: settings.tls,
            store: gateway.store.clone(),
            folders: state.iter().cloned().chain(tenants_folder(&gateway.source)).collect(),
            metrics: Arc::clone(&gateway.tenant_deps.metrics),
            audit: gateway.tenant_deps.audit.clone(),
            cluster: gateway.cluster_view.clone(),
            clock: Arc::clone(&gateway.tenant_deps.clock),
        },
        targets: settings.notify.clone(),
        hold: Duration::from_secs(settings.limits.notify_hold_seconds),
        gateway: gateway.addresses.public_base.clone(),
        state,
        node: settings.shown_node_name(),
        teller,
    };
    Alerts::start(config, &gateway.tasks)
}

/// Returns the folder in which status files are written, if there is one.
fn tenants_folder(source: &TenantsSource) -> Option<PathBuf> {
    match source {
        TenantsSource::Folder(folder) => Some(folder.clone()),
        TenantsSource::Single(_) | TenantsSource::Kubernetes(_) => None,
    }
}
