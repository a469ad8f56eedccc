//! Floor 0: what every other floor stands on. Time, chance, secrets, diagnostics, causes, tasks, accepting, files, headers, bodies,
//! budgets, lingering, JSON, places, names and reach.

pub mod accept;
pub mod body;
pub mod budget;
pub mod causes;
pub mod clock;
pub mod diagnostic;
pub mod digest;
pub mod file;
pub mod headers;
pub mod hex;
pub mod intern;
pub mod json;
pub mod likeness;
pub mod linger;
pub mod panic;
pub mod places;
pub mod random;
pub mod reach;
pub mod resolve;
pub mod secret;
pub mod seldom;
pub mod task;
