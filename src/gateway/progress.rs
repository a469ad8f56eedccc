//! How far the start of a gateway with one tenant is.

use std::time::Duration;

use tokio::sync::watch;

use crate::tenants::registry::Registry;

/// What shows how far the start is.
pub struct StartProgress {
    pub(super) registry: Registry,
    /// The number of contexts that were fetched, or could not be.
    pub(super) fetches: watch::Receiver<u64>,
}

/// What became of the first fetch of the semantic context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmUp {
    /// The context is there.
    Completed,
    /// The tenant serves, but its backend does not answer.
    Failed(String),
    /// The backend has not answered yet.
    Pending,
    /// There is nothing to fetch: the tenant is disabled or paused.
    Unneeded,
}

impl StartProgress {
    /// Waits for the first fetch of the tenant's context, but no longer than `patience`.
    pub async fn warmed_up(mut self, patience: Duration) -> WarmUp {
        if !self.serves() {
            return WarmUp::Unneeded;
        }
        let fetched = self.fetches.wait_for(|&fetches| fetches > 0);
        if tokio::time::timeout(patience, fetched).await.is_err() {
            return WarmUp::Pending;
        }
        self.failure().map_or(WarmUp::Completed, WarmUp::Failed)
    }

    /// Whether the tenant answers callers.
    pub fn serves(&self) -> bool {
        let table = self.registry.load();
        table.entries.values().any(|entry| entry.tenant.as_ref().is_some_and(|tenant| tenant.spec.enabled))
    }

    /// Returns why the tenant is degraded, if it is.
    fn failure(&self) -> Option<String> {
        let table = self.registry.load();
        let reason = table.entries.values().find_map(|entry| entry.tenant.as_ref()?.degradation());
        reason.map(|degradation| degradation.reason)
    }
}
