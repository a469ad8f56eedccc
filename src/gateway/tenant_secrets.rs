//! Tenants from Kubernetes, in programs that were built for it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::base::task::Tasks;
use crate::telemetry::metrics::Metrics;
use crate::tenants::TenantsSource;
#[cfg(feature = "kube")]
use crate::tenants::kubernetes;

/// The Secrets that are tenants, if the settings say so.
pub(super) struct TenantSecrets {
    #[cfg(feature = "kube")]
    secrets: Option<kubernetes::TenantSecrets>,
}

impl TenantSecrets {
    /// Prepares their copies, if the source is Kubernetes.
    #[cfg(feature = "kube")]
    pub(super) async fn connect(source: &TenantsSource) -> Result<Self, Error> {
        let TenantsSource::Kubernetes(folder) = source else { return Ok(Self { secrets: None }) };
        let secrets = kubernetes::TenantSecrets::connect(folder).await?;
        Ok(Self { secrets: Some(secrets) })
    }

    /// Nothing to prepare: the settings refuse the source Kubernetes.
    #[cfg(not(feature = "kube"))]
    pub(super) async fn connect(_source: &TenantsSource) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// Starts to follow the Secrets. Returns what fires once the entries may be read.
    pub(super) fn start(self, metrics: &Arc<Metrics>, tasks: &Tasks) -> CancellationToken {
        #[cfg(feature = "kube")]
        if let Some(secrets) = self.secrets {
            return secrets.start(Arc::clone(metrics), tasks);
        }
        let _unused = (metrics, tasks);
        let filled = CancellationToken::new();
        filled.cancel();
        filled
    }
}
