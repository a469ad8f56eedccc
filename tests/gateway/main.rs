//! The gateway from outside: the real binary with real folders, backends and connections.
//!
//! Each test starts a gateway of its own on free ports of loopback and ends it. Every gateway's output is searched for
//! the secrets that its tenants were given, see [`harness::secret`].

mod harness;

mod access;
mod acme;
mod admin;
mod check;
mod command_line;
mod demo;
mod entra;
mod hot_life;
mod hot_load;
mod limits;
mod log;
mod login;
mod neighbours;
mod overlays;
mod paths;
mod peers;
mod samples;
mod serving;
mod shutdown;
mod state;
mod streams;
mod tls;
mod tokens;
