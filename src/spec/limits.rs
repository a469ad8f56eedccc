//! What one tenant may use of the machine.

/// Bounds of one tenant. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsSpec {
    /// Backend calls under way at once; more wait a moment, then get 503.
    pub concurrent_calls: usize,
    /// Requests a caller (key label, else address) may make a minute; `None` is no bound.
    pub requests_per_minute: Option<u32>,
    /// The largest request body.
    pub max_request_bytes: usize,
    /// The largest answer taken from the backend.
    pub max_response_bytes: usize,
    /// The largest tool result handed to a client; more is cut with a notice.
    pub max_result_bytes: usize,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            concurrent_calls: 64,
            requests_per_minute: None,
            max_request_bytes: 256 << 10,
            max_response_bytes: 16 << 20,
            max_result_bytes: 256 << 10,
        }
    }
}
