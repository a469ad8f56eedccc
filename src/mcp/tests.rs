//! One tenant's server, message by message, in front of a real backend on loopback.

mod calls;
mod eras;
#[cfg(feature = "conformance")]
mod fixture;
mod lifecycle;
mod permissions;
mod rejections;
mod streams;
mod testkit;
