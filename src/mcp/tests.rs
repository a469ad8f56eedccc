//! One tenant's server, message by message, in front of a real backend on loopback.

mod bed;
mod calls;
mod eras;
#[cfg(feature = "conformance")]
mod fixture;
mod lifecycle;
mod refusals;
mod rights;
mod streams;
