//! What one tenant may use of the machine.

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
