//! Metric families (names: OpenTelemetry's MCP conventions, Prometheus form).
//!
//! No tenant label on histograms; the series of a removed tenant go away.

use std::time::Duration;

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Ok,
    /// Arguments that the schema refuses.
    BadArguments,
    /// The backend's fault.
    BackendError,
    /// The tenant's bulkhead was full.
    Busy,
    Cancelled,
    /// Ours.
    Internal,
}

/// All metric families of one gateway. Cheap to share behind an `Arc`; an explicit registry, so tests can have many.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }
    /// The exposition text (OpenMetrics).
    pub fn encode(&self) -> String {
        String::new()
    }
    /// A connection was taken in; `-1` when it ends.
    pub fn connections(&self, _change: i64) {}
    /// A connection was refused: `cap`, `per_ip`, `handshake`, `header_timeout`.
    pub fn connection_refused(&self, _reason: &'static str) {}
    /// An answer left. `route` is a small fixed set: `mcp`, `page`, `discovery`, `none`, `refused`.
    pub fn answered(&self, _route: &'static str, _status: u16, _elapsed: Duration) {}
    pub fn tool_call(&self, _tenant: &str, _outcome: Outcome, _elapsed: Duration) {}
    /// A backend call ended; `outcome` is `ok` or the error's class.
    pub fn backend_call(&self, _outcome: &'static str, _elapsed: Duration) {}
    /// A pass over the tenants folder ended.
    pub fn pass(&self, _completed: bool, _changed: usize, _elapsed: Duration) {}
    /// How many tenants are in each state, and the generation in force.
    pub fn tenants(&self, _by_state: &[(&'static str, i64)], _generation: u64) {}
    /// Drops the series of a removed tenant.
    pub fn forget(&self, _tenant: &str) {}
}
