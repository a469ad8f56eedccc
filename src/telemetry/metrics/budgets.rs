//! The metric families of budgets: their limits, what they hold, and what they refused.

use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::budget::Budget;
use crate::base::sync::lock;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    budget: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    budget: &'static str,
    reason: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct BudgetMetrics {
    limits: Family<BudgetLabels, Gauge>,
    held: Family<BudgetLabels, Gauge>,
    refused: Family<RejectionLabels, Counter>,
    /// Read when metrics are collected: a gauge updated with every request would slow down every
    /// request.
    watched: Mutex<Vec<(&'static str, Arc<Budget>)>>,
}

impl BudgetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let limit = "The limit of a budget, in bytes";
        registry.register("tenantd_budget_limit_bytes", limit, self.limits.clone());
        let held = "How much of a budget is in use, in bytes";
        registry.register("tenantd_budget_held_bytes", held, self.held.clone());
        let refused = "Refusals of a budget, by the limit that was reached";
        registry.register("tenantd_budget_refused", refused, self.refused.clone());
    }

    pub(super) fn add(&self, name: &'static str, budget: Arc<Budget>) {
        lock(&self.watched).push((name, budget));
    }

    pub(super) fn record_rejection(&self, budget: &'static str, reason: &'static str) {
        self.refused.get_or_create(&RejectionLabels { budget, reason }).inc();
    }

    /// Updates the gauges of what budgets hold and may hold.
    pub(super) fn update(&self) {
        for (name, budget) in lock(&self.watched).iter() {
            self.limits.get_or_create(&BudgetLabels { budget: name }).set(gauge(budget.limit()));
            self.held.get_or_create(&BudgetLabels { budget: name }).set(gauge(budget.held()));
        }
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
