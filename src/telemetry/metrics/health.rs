//! The current values of single metrics, for the pages that people read.

use super::Metrics;

/// What the metrics say of the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatewayHealth {
    /// Whether the last pass over the tenants folder completed.
    pub is_last_pass_complete: bool,
    /// When a pass last completed, in seconds since 1970; 0 if none did.
    pub last_completed_at: f64,
    /// Whether the system reports changes in the tenants folder.
    pub is_folder_notified: bool,
    /// Entries that will be checked again.
    pub unsettled: i64,
    /// Whether the last write to the store succeeded.
    pub is_store_writable: bool,
    /// Audit lines that could not be written.
    pub lost_audit_lines: u64,
    /// Log lines that standard error did not take.
    pub lost_log_lines: u64,
    /// Open connections of the public listeners.
    pub connections: i64,
}

impl Metrics {
    /// Returns what the metrics say of the gateway itself.
    pub fn health(&self) -> GatewayHealth {
        GatewayHealth {
            is_last_pass_complete: self.last_pass_completed.get() == 1,
            last_completed_at: self.last_completed_at.get(),
            is_folder_notified: self.notified.get() == 1,
            unsettled: self.unsettled.get(),
            is_store_writable: self.store_writable.get() == 1,
            lost_audit_lines: self.audit_lost.get(),
            lost_log_lines: crate::telemetry::log::lost_counter().get(),
            connections: self.connections.get(),
        }
    }
}
