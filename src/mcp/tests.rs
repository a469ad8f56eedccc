//! One tenant's server, message by message, in front of a real backend on loopback.

mod calls;
#[cfg(feature = "conformance")]
mod fixture;
mod lifecycle;
mod permissions;
mod protocol_versions;
mod rejections;
mod streams;
mod testkit;
