//! Why an event did not arrive, whatever the channel.

use std::time::Duration;

/// Why an event did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeliveryFailure {
    /// In words for people, without a secret.
    pub(super) why: String,
    /// How long the target asks to wait.
    pub(super) retry_after: Option<Duration>,
}

impl DeliveryFailure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), retry_after: None }
    }
}
