//! The metric families of budgets: their limits, what they hold, and what they refused.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    budget: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    budget: &'static str,
    reason: &'static str,
}

/// Returns what a budget holds now, in bytes. A function, since budgets belong to a higher floor.
pub type HeldBytes = Box<dyn Fn() -> u64 + Send + Sync>;

#[derive(Default)]
pub(super) struct BudgetMetrics {
    limits: Family<BudgetLabels, Gauge>,
    held: Family<BudgetLabels, Gauge>,
    refused: Family<RejectionLabels, Counter>,
    /// Read when metrics are collected: a gauge updated with every request would slow down every
    /// request.
    watched: Mutex<Vec<(&'static str, HeldBytes)>>,
}

impl BudgetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let limit = "What a budget may hold, in bytes";
        registry.register("tenantd_budget_limit_bytes", limit, self.limits.clone());
        let held = "What a budget holds, in bytes";
        registry.register("tenantd_budget_held_bytes", held, self.held.clone());
        let refused = "What a budget refused, by the bound that was in the way";
        registry.register("tenantd_budget_refused", refused, self.refused.clone());
    }

    pub(super) fn add(&self, budget: &'static str, limit: u64, held: HeldBytes) {
        self.limits.get_or_create(&BudgetLabels { budget }).set(gauge(limit));
        self.watched().push((budget, held));
    }

    pub(super) fn record_rejection(&self, budget: &'static str, reason: &'static str) {
        self.refused.get_or_create(&RejectionLabels { budget, reason }).inc();
    }

    /// Updates the gauges of what budgets hold.
    pub(super) fn update(&self) {
        for (budget, held) in self.watched().iter() {
            self.held.get_or_create(&BudgetLabels { budget }).set(gauge(held()));
        }
    }

    fn watched(&self) -> MutexGuard<'_, Vec<(&'static str, HeldBytes)>> {
        // No holder of this lock panics.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl fmt::Debug for BudgetMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgets").finish_non_exhaustive()
    }
}
