//! What metrics read from the gateway's parts when they are collected.

use std::sync::Arc;

use jiff::Timestamp;

use crate::backend::CircuitState;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::certs::Certificates;
use crate::telemetry::metrics::{CertificateGauges, CollectedState, Metrics, QuotaGauges, SecretExpiry};
use crate::telemetry::otlp::Exporter;
use crate::tenants::cluster_view::ClusterView;
use crate::tenants::registry::{Registry, RoutingTable};
use crate::tenants::tenant::Tenant;
use crate::tenants::{ExpiringCredential, Expiry, expiries};

/// The parts that are read.
pub(super) struct StateSources {
    pub(super) registry: Registry,
    pub(super) certificates: Arc<Certificates>,
    pub(super) tasks: Tasks,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) exporter: Option<Arc<Exporter>>,
    pub(super) cluster: Option<Arc<ClusterView>>,
}

/// Disconnects metrics from the parts when it is dropped. The parts hold the metrics, so without
/// that neither would ever be dropped, and the store never closed.
#[must_use]
pub(super) struct ConnectedState(Arc<Metrics>);

impl Drop for ConnectedState {
    fn drop(&mut self) {
        self.0.remove_state_reader();
    }
}

impl StateSources {
    /// Has the metrics read these parts with every collection, as long as the guard lives.
    pub(super) fn connect(self, metrics: &Arc<Metrics>) -> ConnectedState {
        metrics.set_state_reader(Arc::new(move || self.read()));
        ConnectedState(Arc::clone(metrics))
    }

    /// Visits every tenant, so it is meant for monitoring and not for requests.
    fn read(&self) -> CollectedState {
        let table = self.registry.load();
        let certificates = self.certificates.statuses().into_iter().map(|status| CertificateGauges {
            not_after: status.not_after.map_or(0, Timestamp::as_second),
            failures: status.failures,
            name: status.name,
        });
        CollectedState {
            tenants: table.count_current_states().to_vec(),
            generation: table.generation,
            breakers: self.breakers(&table),
            certificates: certificates.collect(),
            secrets: expiries(&table).map(to_metric).collect(),
            quotas: tenants(&table).flat_map(|tenant| quotas(tenant)).collect(),
            disagreeing: self.cluster.as_ref().map(|cluster| cluster.state().disagreements.len()),
            exported: self.exporter.as_ref().map(|exporter| exporter.counts()).unwrap_or_default(),
            panics: self
                .tasks
                .panics()
                .by_task()
                .into_iter()
                .map(|(task, health)| (task, health.panics))
                .collect(),
        }
    }

    fn breakers(&self, table: &RoutingTable) -> Vec<(Box<str>, &'static str)> {
        let now = self.clock.monotonic();
        let paused = |tenant: &Arc<Tenant>| {
            let state = match tenant.slot.backend.circuit_state(now) {
                CircuitState::Closed { .. } => return None,
                CircuitState::Open { .. } => "open",
                CircuitState::HalfOpen => "half_open",
            };
            Some((tenant.spec.name.as_str().into(), state))
        };
        tenants(table).filter_map(paused).collect()
    }
}

fn tenants(table: &RoutingTable) -> impl Iterator<Item = &Arc<Tenant>> {
    table.entries.values().filter_map(|entry| entry.tenant.as_ref())
}

/// Returns the quotas of a tenant and of its tools.
fn quotas(tenant: &Tenant) -> impl Iterator<Item = QuotaGauges> + '_ {
    tenant.usage.quotas().into_iter().map(|quota| QuotaGauges {
        tenant: tenant.spec.name.as_str().into(),
        scope: quota.scope.into(),
        limit: quota.limit.as_str(),
        used: quota.used,
        of: quota.of,
    })
}

fn to_metric(expiry: Expiry) -> SecretExpiry {
    let (kind, label) = match expiry.credential {
        ExpiringCredential::ApiKey(label) => ("api_key", label),
        ExpiringCredential::ClientSecret => ("client_secret", String::new()),
    };
    SecretExpiry { tenant: expiry.tenant.into(), kind, label: label.into(), expires: expiry.at.as_second() }
}
