//! Why a tenant is degraded.

use jiff::Timestamp;

/// Why a tenant is degraded, and since when: its backend fails, or nobody can log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degradation {
    /// One sentence for people, without a full stop.
    pub reason: String,
    /// When the first of the consecutive failures happened.
    pub since: Timestamp,
}
