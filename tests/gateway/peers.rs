//! Real MCP clients, frameworks for agents, the conformance suite and a scanner of TLS against the real gateway.
//!
//! Their versions are in `tests/peers/package.json`, `tests/peers/frameworks/` and `scripts/install-peers.sh`. Where they
//! are not installed these tests fail and say how to install them; `scripts/test.sh quick` leaves all of them out.

mod access;
mod authorization;
mod balanced;
mod browser;
mod cache;
mod calls;
mod changes;
mod conformance;
mod console;
mod doctor_traefik;
mod entra;
mod frameworks;
mod inspector;
mod library;
mod login;
mod mcp_remote;
mod otlp;
mod prometheus;
mod proxies;
mod refusals;
mod rsyslog;
mod scanner;
mod script;
mod stage;
mod waiting;
