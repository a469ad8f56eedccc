//! Floor 0: logs, what of others' text may stand in them or on a terminal, and metric families. Nothing here knows what it counts.

pub mod audit;
pub mod log;
pub mod metrics;
pub mod printable;
