//! Floor 7: one file per verb. Prints and asks, decides nothing.
