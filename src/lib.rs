//! `tenantd` serves the MCP servers of many tenants from one machine and one public IP.
//!
//! The floors, from the ground up. A module uses floors below its own, never above
//! (`tests/architecture.rs` enforces it):
//!
//! | floor | modules |
//! |---|---|
//! | 7 | [`cli`] |
//! | 6 | [`gateway`]; `fuzzing`, in builds with that feature |
//! | 5 | [`server`], [`admin`], [`alerts`] |
//! | 4 | [`tenants`] |
//! | 3 | [`mcp`], [`oauth`] |
//! | 2 | [`backend`], [`certs`], [`identity`], [`store`] |
//! | 1 | [`bundle`], [`settings`], [`routing`] |
//! | ½ | [`spec`] |
//! | 0 | [`base`], [`telemetry`] |
//!
//! Three paths lead through the code, each readable from top to bottom: a request starts in
//! [`server`], a dropped file in [`tenants`], a certificate in [`certs`]. `ARCHITECTURE.md`
//! describes them.

pub mod admin;
pub mod alerts;
pub mod backend;
pub mod base;
pub mod bundle;
pub mod certs;
pub mod cli;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gateway;
pub mod identity;
pub mod mcp;
pub mod oauth;
pub mod routing;
pub mod server;
pub mod settings;
pub mod spec;
pub mod store;
pub mod telemetry;
pub mod tenants;
pub mod usage;
