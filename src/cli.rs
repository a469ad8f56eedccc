//! Floor 7: one file per verb. Prints and asks, decides nothing.

pub mod check;
pub mod render;
