//! How a gateway ends: it drains, and writes what the last calls left.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use super::{Error, cluster, service_manager};
use crate::base::task::Tasks;
use crate::settings::SettingsInForce;
use crate::store::ClusterStore;
use crate::telemetry::audit::Audit;
use crate::telemetry::otlp::Exporter;
use crate::tenants::registry::Registry;
use crate::usage::Usage;

/// The time for writing the usage of the last calls.
const USAGE_FLUSH_TIMEOUT: Duration = Duration::from_secs(4);
/// The time for flushing the audit records of the last calls.
pub(super) const AUDIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for sending them to the sinks; what is left is sent after the next start.
const SINKS_FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for sending the spans of the last calls.
const SPANS_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All requests in progress finished.
    Completely,
    /// The drain period expired, or a second signal arrived.
    Cut,
}

/// What ends in order.
pub(super) struct Ending {
    pub(super) tasks: Tasks,
    pub(super) registry: Registry,
    pub(super) in_force: Arc<ArcSwap<SettingsInForce>>,
    pub(super) usage: Arc<Usage>,
    pub(super) audit: Audit,
    pub(super) exporter: Option<Arc<Exporter>>,
    pub(super) cluster: Option<ClusterStore>,
    /// Fires if another gateway has this one's node id.
    pub(super) replaced: CancellationToken,
}

impl Ending {
    /// Drains and flushes, and tells the service manager meanwhile, unless it looks after a successor.
    ///
    /// # Errors
    /// [`Error::Replaced`] if another gateway has this one's node id.
    pub(super) async fn end(&self, signals: &mut Signals, is_succeeded: bool) -> Result<Drained, Error> {
        let drain_seconds = self.in_force.load().settings.limits.drain_seconds;
        let ending = async {
            let drained = drain(&self.tasks, &self.registry, signals, drain_seconds, is_succeeded).await;
            self.flush(is_succeeded).await;
            drained
        };
        if is_succeeded {
            return Ok(ending.await);
        }
        tokio::select! {
            drained = ending => match self.replaced.is_cancelled() {
                true => Err(Error::Replaced),
                false => Ok(drained),
            },
            never = service_manager::tell_of_drain(drain_seconds) => match never {},
        }
    }

    /// Writes and sends what the last calls left.
    async fn flush(&self, is_succeeded: bool) {
        let _written = tokio::time::timeout(USAGE_FLUSH_TIMEOUT, self.usage.flush()).await;
        if let Some(cluster) = self.cluster.as_ref().filter(|_| !is_succeeded) {
            cluster::leave(cluster).await;
        }
        if let Some(exporter) = &self.exporter {
            exporter.flush(SPANS_FLUSH_TIMEOUT).await;
        }
        // Flushing the last audit records takes moments.
        let file = self.audit.clone();
        let flushing = tokio::task::spawn_blocking(move || file.flush(AUDIT_FLUSH_TIMEOUT));
        // If all blocking threads hang, the flush never starts.
        let _written = tokio::time::timeout(2 * AUDIT_FLUSH_TIMEOUT, flushing).await;
        self.audit.finish_sinks(SINKS_FINISH_TIMEOUT).await;
    }
}

/// Drains: refuses new connections, ends streams after a third of the drain period, or at once if
/// there is a successor to open them at, and lets calls finish. Whatever remains at its end, or at
/// a second signal, is cut off.
async fn drain(
    tasks: &Tasks,
    registry: &Registry,
    signals: &mut Signals,
    seconds: u64,
    is_succeeded: bool,
) -> Drained {
    let patience = Duration::from_secs(seconds);
    tracing::info!(
        patience_s = patience.as_secs(),
        "draining: no new connections; calls in progress can finish"
    );
    let end_streams = async {
        if !is_succeeded {
            tokio::time::sleep(patience / 3).await;
        }
        let tenants: Vec<_> =
            registry.load().entries.values().filter_map(|entry| entry.tenant.clone()).collect();
        tenants.iter().for_each(|tenant| tenant.mcp.end_streams());
        std::future::pending::<()>().await;
    };
    let finished = tokio::select! {
        finished = tasks.drain(patience) => finished,
        () = end_streams => false,
        _ = signals.next() => false,
    };
    tasks.abort_signal().cancel();
    match finished {
        true => Drained::Completely,
        false => Drained::Cut,
    }
}
