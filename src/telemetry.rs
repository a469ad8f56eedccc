//! Floor 0: logs, the audit, metric families, and the removal of harmful characters from untrusted
//! text. This floor does not know what it counts.

pub mod audit;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod printable;
