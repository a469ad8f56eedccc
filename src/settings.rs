//! Floor 1: our own configuration. As written (flags, environment, file) → [`Settings`] as run.
//!
//! A setting has one name in three spellings: `--backend-allow`, `TENANTD_BACKEND_ALLOW` and `backend_allow:` in
//! `tenantd.yaml`. A flag wins over the environment, the environment over the file, the file over the default; a list
//! replaces the list below it as a whole. All findings are made in one go, each naming the spelling that the operator
//! used. Nothing here opens a socket or makes a folder, and no setting is a secret.

mod acme;
mod consistency;
mod environment;
mod file;
mod key;
mod limits;
mod parse;
mod reader;
mod source;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::diagnostic::Report;
use crate::routing::GatewayHosts;
use crate::spec::{BackendOnly, HostName};
use crate::telemetry::log::LogFormat;

pub use acme::{Acme, Ca, Eab};
pub use environment::{Environment, config_path};
pub use key::Key;
pub use limits::{Limits, REQUEST_FACTOR};
pub use source::Flags;

/// Where certificates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// An authority issues them, by itself; the default where there is a public name and its terms are agreed to.
    Acme,
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
    /// Loopback, private networks and `private_networks` only.
    #[default]
    Private,
    /// Everybody.
    Public,
    /// Nobody: they are rejected (`--require-auth`).
    Refused,
}

/// What a vendor's export may say about its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZipHosts {
    /// Only the gateway's: others come from operators' files.
    #[default]
    Refuse,
    /// Any host of its own.
    Allow,
}

/// The configuration as run; immutable for the life of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tenants: PathBuf,
    pub state: PathBuf,
    pub certs: PathBuf,
    /// The public listeners, at least one. Port 0 is allowed.
    pub listen: Vec<SocketAddr>,
    /// Plain HTTP listeners that answer a CA's challenges and send everybody else to https.
    pub listen_http: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
    /// The gateway's host names, at least one (default `localhost`).
    pub hosts: Vec<HostName>,
    /// `https://host[:port]`; `None` means: derive from the first host and the port bound first.
    pub public_base: Option<String>,
    pub tls: TlsMode,
    pub acme: Acme,
    pub watch: WatchMode,
    pub log: LogFormat,
    pub open_tenants: OpenTenants,
    /// Networks that count as private besides those that are.
    pub private_networks: Vec<IpNet>,
    pub zip_hosts: ZipHosts,
    /// Networks that backends may be in although they are loopback or link-local.
    pub backend_allow: Vec<IpNet>,
    /// Where backends may be at all.
    pub backend_only: BackendOnly,
    pub secret_roots: Vec<PathBuf>,
    /// A tenant may use only those secrets outside of its files that have its name.
    pub confine_tenants: bool,
    pub ready_file: Option<PathBuf>,
    /// The master key, if it is not the one in the state folder.
    pub master_key_file: Option<PathBuf>,
    /// Scheme and host of Microsoft's login: another in sovereign clouds and tests.
    pub entra_authority: Url,
    pub limits: Limits,
    /// Host headers accepted besides our own names and addresses; `any` accepts all (plain-HTTP clusters).
    pub extra_hosts: ExtraHosts,
    /// Browser origins besides our own that may call MCP endpoints.
    pub allowed_origins: Vec<String>,
    /// How long browsers are told to use HTTPS only (RFC 6797).
    pub hsts: Option<Duration>,
    /// From which size on the audit file is rotated; `None`: there is none.
    pub audit: Option<u64>,
    /// How many audit files are kept, the one that is written included.
    pub audit_files: u32,
}

/// Which further Host headers are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraHosts {
    These(Vec<HostName>),
    Any,
}

/// Settings that can be run, and what is odd about them.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Report,
    /// Something says what the gateway is called or what its URLs begin with; else both are defaults.
    pub is_host_given: bool,
}

/// The settings cannot be run; the report says why, all at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the settings have errors")]
pub struct Error {
    pub report: Report,
}

impl Default for Settings {
    /// What runs when nothing is written anywhere.
    fn default() -> Self {
        Self {
            tenants: "tenants.d".into(),
            state: "state".into(),
            certs: "certs".into(),
            listen: vec![default_listen(TlsMode::default())],
            listen_http: Vec::new(),
            admin: Some((Ipv4Addr::LOCALHOST, 9900).into()),
            hosts: vec![localhost()],
            public_base: None,
            tls: TlsMode::default(),
            acme: Acme::default(),
            watch: WatchMode::default(),
            log: LogFormat::default(),
            open_tenants: OpenTenants::default(),
            private_networks: Vec::new(),
            zip_hosts: ZipHosts::default(),
            backend_allow: Vec::new(),
            backend_only: BackendOnly::default(),
            secret_roots: Vec::new(),
            confine_tenants: false,
            ready_file: None,
            master_key_file: None,
            entra_authority: microsoft(),
            limits: Limits::default(),
            extra_hosts: ExtraHosts::These(Vec::new()),
            allowed_origins: Vec::new(),
            hsts: None,
            audit: Some(64 << 20),
            audit_files: 8,
        }
    }
}

impl Settings {
    /// Reads and judges all three places. `file` is read when given, and must then exist; see [`config_path`].
    pub fn load(flags: &Flags, environment: &Environment, file: Option<&Path>) -> Result<Loaded, Error> {
        let mut report = environment.misspelt();
        let written = file.map(|path| file::read(path, &mut report)).unwrap_or_default();
        let limits = written.limits.clone();
        let mut reader = reader::Reader::new(flags, environment, &written, report);
        let mut settings = reader.settings();
        let is_host_given = reader.has(Key::HOST) || reader.has(Key::PUBLIC_BASE);
        let mut report = reader.finish();
        settings.limits = limits.checked(&mut report);
        consistency::check(&mut settings, &mut report);
        match report.has_errors() {
            true => Err(Error { report }),
            false => Ok(Loaded { settings, warnings: report, is_host_given }),
        }
    }

    /// The hosts that the gateway answers to itself.
    pub fn gateway_hosts(&self) -> GatewayHosts {
        match &self.extra_hosts {
            ExtraHosts::Any => GatewayHosts::named(self.hosts.iter().cloned()).or_any(),
            ExtraHosts::These(extra) => GatewayHosts::named(self.hosts.iter().chain(extra).cloned()),
        }
    }

    /// The base of every tenant's public URL: as configured, else the first host with the port of `bound` (the first
    /// listener as it was bound) unless that is the scheme's own. No slash at its end.
    pub fn public_base(&self, bound: SocketAddr) -> String {
        if let Some(base) = &self.public_base {
            return base.clone();
        }
        let (scheme, own_port) = match self.tls {
            TlsMode::Off => ("http", 80),
            TlsMode::Acme | TlsMode::SelfSigned | TlsMode::Manual => ("https", 443),
        };
        let host = self.hosts.first().map_or("localhost", HostName::as_str);
        match bound.port() {
            port if port == own_port => format!("{scheme}://{host}"),
            port => format!("{scheme}://{host}:{port}"),
        }
    }
}

/// Every IPv4 address, on the scheme's port. IPv6 is asked for (`--listen [::]:443`), since a kernel may lack it.
fn default_listen(tls: TlsMode) -> SocketAddr {
    let port = if tls == TlsMode::Off { 80 } else { 443 };
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn microsoft() -> Url {
    Url::parse("https://login.microsoftonline.com").expect("it is a URL")
}

fn localhost() -> HostName {
    HostName::parse("localhost").expect("localhost is a host name")
}
