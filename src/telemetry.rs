//! Floor 0: logs and metric families. Nothing here knows what it counts.

pub mod audit;
pub mod log;
pub mod metrics;
pub mod printable;
