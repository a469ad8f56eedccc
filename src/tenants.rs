//! Floor 4: the life of tenants: watch → scan → plan → reconcile → registry. Sees no socket.

pub mod rate;
pub mod registry;
pub mod status;
pub mod tenant;
