//! Floor 1: our own configuration. As written (file, environment, flags) → [`Settings`] as run.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::spec::HostName;
use crate::telemetry::log::LogFormat;

/// Where certificates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// A local CA of our own, made at first start.
    #[default]
    SelfSigned,
    /// Certificate files in the certs folder, hot reloaded.
    Manual,
    /// Plain HTTP.
    Off,
}

/// How the tenants folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchMode {
    /// The system's notifications; polling where they cannot be had.
    #[default]
    Auto,
    Poll,
}

/// What an open tenant answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenTenants {
    /// Loopback and private networks only.
    #[default]
    Private,
    /// Everybody.
    Public,
    /// Nobody: they are rejected (`--require-auth`).
    Refused,
}

/// The configuration as run; immutable for the life of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tenants: PathBuf,
    pub state: PathBuf,
    pub certs: PathBuf,
    /// The public listeners, at least one. Port 0 is allowed.
    pub listen: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
    /// The gateway's host names, at least one (default `localhost`).
    pub hosts: Vec<HostName>,
    /// `https://host[:port]`; `None` means: derive from the first host and the port bound first.
    pub public_base: Option<String>,
    pub tls: TlsMode,
    pub watch: WatchMode,
    pub log: LogFormat,
    pub open_tenants: OpenTenants,
    pub backend_allow: Vec<IpNet>,
    pub secret_roots: Vec<PathBuf>,
    pub ready_file: Option<PathBuf>,
    pub limits: Limits,
    /// Host headers accepted besides our own names and addresses; `any` accepts all (plain-HTTP clusters).
    pub extra_hosts: ExtraHosts,
    /// Browser origins besides our own that may call MCP endpoints.
    pub allowed_origins: Vec<String>,
}

/// Which further Host headers are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraHosts {
    These(Vec<HostName>),
    Any,
}

/// Caps of the public edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_ip: usize,
    pub handshake_seconds: u64,
    pub header_seconds: u64,
    pub body_seconds: u64,
    pub idle_seconds: u64,
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_ip: 1_000,
            handshake_seconds: 10,
            header_seconds: 10,
            body_seconds: 30,
            idle_seconds: 60,
            drain_seconds: 30,
        }
    }
}
