//! What one tenant may use of the machine, and how much its callers may use the tenant.

use std::sync::Arc;

/// The limits of one tenant. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsSpec {
    /// Concurrent backend calls; calls beyond them wait a moment, then get 503.
    pub concurrent_calls: usize,
    /// Requests per minute of each caller (by key label, or else by address); `None` means no
    /// limit.
    pub requests_per_minute: Option<u32>,
    /// The largest request body.
    pub max_request_bytes: usize,
    /// The largest response accepted from the backend.
    pub max_response_bytes: usize,
    /// The largest tool result sent to a client; a larger one is cut, with a notice.
    pub max_result_bytes: usize,
    /// How much callers may use the tenant.
    pub usage: UsageLimits,
}

/// How much callers may use a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageLimits {
    /// All callers together. The calls at once are not among them: these are
    /// [`LimitsSpec::concurrent_calls`].
    pub tenant: CallLimits,
    /// Each caller.
    pub per_caller: CallLimits,
    /// All callers of one tool together, by the tool's listed name.
    pub tools: Vec<(Arc<str>, CallLimits)>,
}

/// Limits of calls and of the bytes of their results. Days and months are those of UTC. `None`
/// means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallLimits {
    /// Calls under way at once.
    pub concurrent_calls: Option<u32>,
    /// Calls a minute.
    pub calls_per_minute: Option<u32>,
    /// Calls a day.
    pub calls_per_day: Option<u64>,
    /// Calls a month.
    pub calls_per_month: Option<u64>,
    /// Bytes of results a day.
    pub bytes_per_day: Option<u64>,
    /// Bytes of results a month.
    pub bytes_per_month: Option<u64>,
}

impl CallLimits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a day or a month is limited.
    pub fn has_quotas(&self) -> bool {
        let quotas = [self.calls_per_day, self.calls_per_month, self.bytes_per_day, self.bytes_per_month];
        quotas.iter().any(Option::is_some)
    }
}

impl UsageLimits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.tenant.is_empty() && self.per_caller.is_empty() && self.tools.is_empty()
    }

    /// Returns the limits of a tool by its listed name.
    pub fn tool(&self, name: &str) -> Option<&CallLimits> {
        self.tools.iter().find(|(tool, _)| **tool == *name).map(|(_, limits)| limits)
    }
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            concurrent_calls: 64,
            requests_per_minute: None,
            max_request_bytes: 256 << 10,
            max_response_bytes: 16 << 20,
            max_result_bytes: 256 << 10,
            usage: UsageLimits::default(),
        }
    }
}
